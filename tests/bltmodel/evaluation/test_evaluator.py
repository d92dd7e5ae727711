import bz2
import gzip
import json
import lzma
import math
import shutil
from collections.abc import Iterable

import numpy as np
import pytest
import zstandard

from bltdata.compressors import COMPRESSORS
from bltdata.config import to_mapping
from bltdata.errors import CheckpointError, ConfigError, CorpusError, ShardError
from bltdata.patching import PatchRule
from bltdata.shards import Manifest, Row, open_shards, round_entropies
from bltdata.vocab import BYTE_OFFSET, encode
from bltmodel.evaluation import EvaluationConfig, add_noise, evaluate
from bltmodel.evaluation.report import Evaluation
from bltmodel.evaluation.sections import notes
from bltmodel.model import BLT
from bltmodel.training_data import open_training_data
from tests.bltmodel.datasets import RULE, entropy_model, opinionated_blt, texts, write_dataset

SLOW = 1e-5
"""Relative difference to the slow computation, which rounds elsewhere."""

WHOLE = EvaluationConfig(context_tokens=5000)


def slow_figures(model: BLT, documents: Iterable[tuple[bytes, np.ndarray]]) -> dict[str, float]:
    """Document by document, prediction by prediction."""
    nats, num_bytes, num_patches, correct, in_top, confidences, recalled, to_recall, whole = 0.0, 0, 0, 0, 0, [], 0, 0, 0
    for data, lengths in documents:
        fails = False
        num_patches += len(lengths)
        for position, (row, target) in enumerate(
            zip(model.logits(data, lengths).double().softmax(-1), encode(data, eos=True), strict=True)
        ):
            nats -= math.log(row[target])
            num_bytes += target >= BYTE_OFFSET
            correct += int(row.argmax()) == target
            in_top += target in row.topk(5).indices
            confidences.append(float(row.max()))
            if len(data) // 2 <= position < len(data):
                fails = fails or int(row.argmax()) != target
                recalled += not fails
        to_recall += len(data) - len(data) // 2
        whole += len(data) > 0 and not fails
    return {
        "bytes": num_bytes,
        "loss": nats / len(confidences),
        "bits_per_byte": nats / math.log(2) / num_bytes,
        "accuracy": correct / len(confidences),
        "top_5_accuracy": in_top / len(confidences),
        "perplexity": math.exp(nats / len(confidences)),
        "confidence_mean": sum(confidences) / len(confidences),
        "confidence_min": min(confidences),
        "confidence_max": max(confidences),
        "mean_patch_length": len(confidences) / num_patches,
        "reconstruction": {"bytes": to_recall, "recalled_bytes": recalled, "share": recalled / to_recall, "whole_documents": whole},
    }


def assert_figures(found: dict, expected: dict) -> None:
    for name, value in expected.items():
        if name == "reconstruction":
            assert {key: found[name][key] for key in value} == pytest.approx(value)
        else:
            assert found[name] == pytest.approx(value, rel=SLOW), name


def pairs(rows: Iterable[Row]) -> list[tuple[bytes, np.ndarray]]:
    return [(row.data, row.patch_lengths) for row in rows]


def test_figures_are_those_of_each_document_alone(trained, blt):
    shards, model = trained.shards / "validation", BLT.load(blt)
    rows = list(open_shards(shards))
    done: list[int] = []
    report = evaluate(blt, shards, WHOLE, device="cpu", advance=done.append).report()
    assert list(report["sources"]) == ["code", "prose"]
    for name, found in [("overall", report["overall"]), *report["sources"].items()]:
        of_source = [row for row in rows if name in ("overall", row.source)]
        assert found["documents"] == len(of_source)
        assert_figures(found, slow_figures(model, pairs(of_source)))
        low, high = found["bits_per_byte_interval"]
        assert low < found["bits_per_byte"] < high
        assert sum(each["predictions"] for each in found["bins"]) == found["bytes"] + found["documents"]
    assert sum(done) == report["overall"]["bytes"] == sum(row.num_bytes for row in rows)
    assert json.loads(json.dumps(report, allow_nan=False)) == report


def test_the_report_says_what_its_figures_are_of(trained):
    shards = trained.shards / "validation"
    report = evaluate(trained.blt, shards, device="cpu", compressors=[]).report()
    # Rows of 32 tokens, as in training.
    assert (report["context_tokens"], report["stride"], report["precision"]) == (32, 16, "float32")
    assert report["entropy_model"] == entropy_model().fingerprint
    assert (report["patch_rule"], report["source_rules"]) == (to_mapping(RULE), {})
    assert report["shards"] == open_shards(shards).manifest.fingerprint
    assert report["interval"] == {"over": "documents", "level": 0.95, "resamples": 1000, "seed": 0}
    assert report["noise"] == {}


@pytest.mark.parametrize("stride", [1, 13, 40])
def test_documents_longer_than_the_context_count_once(tmp_path, blt, stride):
    rng = np.random.default_rng(0)
    documents = [*texts(5), rng.bytes(150), b"", rng.bytes(101)]
    shards = write_dataset(tmp_path / "shards", documents)
    done: list[int] = []
    report = evaluate(blt, shards, EvaluationConfig(context_tokens=40, stride=stride), device="cpu", advance=done.append).report()
    assert (report["context_tokens"], report["stride"]) == (40, stride)
    assert report["overall"]["bytes"] == sum(done) == sum(map(len, documents))
    assert sum(each["predictions"] for each in report["overall"]["bins"]) == sum(map(len, documents)) + len(documents)


def test_more_context_changes_what_is_predicted(tmp_path, blt):
    shards = write_dataset(tmp_path / "shards", [np.random.default_rng(0).bytes(100)])
    bits = {
        stride: evaluate(blt, shards, EvaluationConfig(context_tokens=40, stride=stride), device="cpu").report()["overall"]["bits_per_byte"]
        for stride in (20, 40)
    }
    assert bits[20] != pytest.approx(bits[40], rel=1e-3)


def test_one_document_has_no_interval_and_the_report_says_so(tmp_path, blt):
    shards = write_dataset(tmp_path / "shards", [b"a single document", ("more", b"one"), ("more", b"two"), ("nothing", b"")])
    report = evaluate(blt, shards, device="cpu").report()
    assert report["sources"]["text"]["bits_per_byte_interval"] is None
    assert report["sources"]["text"]["no_interval_because"] == "there is one document only"
    assert report["sources"]["nothing"]["no_interval_because"] == "there is one document only"
    assert len(report["sources"]["more"]["bits_per_byte_interval"]) == 2
    assert "no_interval_because" not in report["sources"]["more"]


def test_intervals_follow_level_and_seed(trained, blt):
    found = {
        (level, seed): evaluate(
            blt, trained.shards / "validation", EvaluationConfig(level=level, seed=seed, resamples=200), device="cpu", compressors=[]
        ).report()["overall"]["bits_per_byte_interval"]
        for level, seed in ((0.5, 0), (0.99, 0), (0.99, 1))
    }
    assert found[0.99, 0][0] < found[0.5, 0][0] < found[0.5, 0][1] < found[0.99, 0][1]
    assert found[0.99, 0] != found[0.99, 1]


def test_noise_is_cut_anew_and_counted_by_what_it_left(trained, blt):
    shards, model = trained.shards / "validation", BLT.load(blt)
    config = EvaluationConfig(context_tokens=5000, noise=("drop", "repeat=0.5"), noise_rate=0.3, seed=3)
    done: list[int] = []
    evaluation = evaluate(blt, shards, config, entropy_model=trained.entropy_model, device="cpu", advance=done.append)
    report = evaluation.report()
    assert report["noise"]["repeat"] == {"rate": 0.5, "seed": 3, "what": "a character stands there 2 to 4 times, each as likely"}
    rows = list(open_shards(shards))
    sizes = []
    for kind, rate in (("drop", 0.3), ("repeat", 0.5)):
        for name, found in [("overall", report["overall"]), *report["sources"].items()]:
            of_source = [row.data for row in rows if name in ("overall", row.source)]
            noised = [add_noise(data, kind, rate, 3) for data in of_source]
            entropies = [round_entropies(entropy_nats) for entropy_nats in entropy_model().score(noised)]
            cut = [(data, RULE.lengths(data, entropy_nats)) for data, entropy_nats in zip(noised, entropies, strict=True)]
            expected = slow_figures(model, cut)
            expected.pop("reconstruction")
            assert_figures(found["noise"][kind], expected)
            nats = expected["loss"] * (expected["bytes"] + len(noised))
            per_clean_byte = nats / math.log(2) / sum(map(len, of_source))
            assert found["noise"][kind]["bits_per_clean_byte"] == pytest.approx(per_clean_byte, rel=SLOW)
            assert found["noise"][kind]["bits_per_byte_ratio"] == pytest.approx(
                expected["bits_per_byte"] / found["bits_per_byte"], rel=SLOW
            )
            low, high = found["noise"][kind]["bits_per_byte_interval"]
            assert low < expected["bits_per_byte"] < high
        sizes.append(expected["bytes"])
    clean = evaluate(blt, shards, WHOLE, device="cpu").report()["overall"]
    assert report["overall"] == {**clean, **{name: report["overall"][name] for name in ("noise", "bits_per_byte_interval")}}
    assert report["overall"]["noise"]["drop"]["bytes"] < clean["bytes"] < report["overall"]["noise"]["repeat"]["bytes"]
    assert sum(done) == clean["bytes"] + sum(figures["bytes"] for figures in report["overall"]["noise"].values())


def test_noise_that_leaves_nothing(tmp_path, blt, trained):
    shards = write_dataset(tmp_path / "shards", [b"a", b"b"])
    config = EvaluationConfig(noise=("drop=1",))
    report = evaluate(blt, shards, config, entropy_model=trained.entropy_model, device="cpu").report()
    noise = report["overall"]["noise"]["drop"]
    assert (noise["bytes"], noise["bits_per_byte"], noise["bits_per_byte_ratio"], noise["bits_per_byte_interval"]) == (0, None, None, None)
    assert noise["no_interval_because"] == "there are no bytes"
    assert noise["bits_per_clean_byte"] > 0
    json.dumps(report, allow_nan=False)


def test_patches_that_look_ahead_leave_nothing_to_reconstruct(trained):
    found = evaluate(trained.blt, trained.shards / "validation", device="cpu", compressors=[])
    assert not found.patches_look_ahead
    report = Evaluation(found.sources, found.config, found.about, patches_look_ahead=True).report()
    assert report["overall"]["reconstruction"] is None


def test_figures_on_patches_that_look_ahead_say_so(trained, tmp_path, monkeypatch):
    report = evaluate(trained.blt, trained.shards / "validation", device="cpu", compressors=[]).report()
    assert not report["patches_look_ahead"]
    assert not any("look ahead" in note for note in notes(report))
    monkeypatch.setattr(PatchRule, "is_incremental", False)
    report = evaluate(trained.blt, trained.shards / "validation", device="cpu", compressors=[]).report()
    assert report["patches_look_ahead"]
    assert sum("look ahead" in note for note in notes(report)) == 1
    assert report["overall"]["reconstruction"] is None


def test_shards_that_were_scored_line_by_line_are_others(trained, tmp_path):
    shards = shutil.copytree(trained.shards / "validation", tmp_path / "shards")
    manifest = Manifest.read(shards)
    described = {**manifest.entropy_model, "context": {**manifest.entropy_model["context"], "reset_at_newline": True}}
    parts = {name: getattr(manifest, name) for name in ("patch_rule", "entropy_precision", "corpus", "shards")}
    Manifest.create(entropy_model=described, **parts).write(shards)
    with pytest.raises(CheckpointError, match=r"scored line by line; build it again without --reset-scoring-at-newline\."):
        evaluate(trained.blt, shards, device="cpu")
    with pytest.raises(ShardError, match=r"Only one of .* was scored line by line; build one of them again"):
        open_training_data(trained.shards / "train", shards)


def test_compressors_get_the_documents_of_a_source_end_to_end(trained, blt):
    shards = trained.shards / "validation"
    report = evaluate(blt, shards, device="cpu").report()
    sizes = dict.fromkeys(COMPRESSORS, 0)
    for name, found in report["sources"].items():
        data = b"".join(row.data for row in open_shards(shards) if row.source == name)
        expected = {
            "gzip": len(gzip.compress(data, 9)),
            "bzip2": len(bz2.compress(data, 9)),
            "xz": len(lzma.compress(data, preset=9 | lzma.PRESET_EXTREME)),
            # In one go, it writes down how much there is.
            "zstd": len(zstandard.ZstdCompressor(level=19, write_content_size=False).compress(data)),
        }
        assert found["compressors_bits_per_byte"] == pytest.approx({each: 8 * size / len(data) for each, size in expected.items()})
        sizes = {each: sizes[each] + size for each, size in expected.items()}
    overall = report["overall"]
    assert overall["compressors_bits_per_byte"] == pytest.approx({each: 8 * size / overall["bytes"] for each, size in sizes.items()})
    some = evaluate(blt, shards, device="cpu", compressors=["xz"]).report()["overall"]["compressors_bits_per_byte"]
    assert list(some) == ["xz"]


def test_the_first_bytes_only(trained, blt):
    shards = trained.shards / "validation"
    rows = list(open_shards(shards))
    num_bytes = sum(row.num_bytes for row in rows[:11])
    assert rows[11].num_bytes > 0
    config = EvaluationConfig(max_bytes=num_bytes + rows[11].num_bytes - 1, context_tokens=5000)
    report = evaluate(blt, shards, config, device="cpu").report()
    assert (report["overall"]["documents"], report["overall"]["bytes"]) == (11, num_bytes)
    (said,) = (note for note in notes(report) if note.startswith("Read were"))
    assert said.startswith(
        f"Read were the first 11 of {len(rows)} documents, {num_bytes:,} of {sum(row.num_bytes for row in rows):,} bytes: "
    )
    assert not any(note.startswith("Read were") for note in notes(evaluate(blt, shards, device="cpu", compressors=[]).report()))
    assert report["overall"]["loss"] == pytest.approx(slow_figures(BLT.load(blt), pairs(rows[:11]))["loss"], rel=SLOW)


def test_empty_documents(tmp_path, blt):
    shards = write_dataset(tmp_path / "shards", [b"", ("nothing", b""), b"something", b""], [("nothing", b"")])
    report = evaluate(blt, shards, device="cpu").report()
    json.dumps(report, allow_nan=False)
    nothing, text = report["sources"]["nothing"], report["sources"]["text"]
    assert (nothing["documents"], nothing["bytes"], nothing["bits_per_byte"]) == (2, 0, None)
    assert (nothing["bits_per_byte_interval"], nothing["no_interval_because"]) == (None, "there are no bytes")
    assert nothing["reconstruction"] == {
        "documents": 0, "bytes": 0, "recalled_bytes": 0, "share": None, "mean_recalled_bytes": None, "whole_documents": 0,
    }  # fmt: skip
    assert set(nothing["compressors_bits_per_byte"].values()) == {None}
    # Each has an end, which is predicted.
    end = -BLT.load(blt).logits(b"", [1]).double().log_softmax(-1)[0, 2].item()
    assert nothing["loss"] == pytest.approx(end, rel=SLOW)
    assert (text["documents"], text["bytes"]) == (3, 9)
    assert report["overall"]["bits_per_byte"] * 9 == pytest.approx(text["bits_per_byte"] * 9 + 2 * end / math.log(2), rel=SLOW)


def test_bfloat16_is_close(trained, blt):
    reports = [
        evaluate(blt, trained.shards / "validation", EvaluationConfig(precision=precision), device="cpu").report()
        for precision in ("float32", "bfloat16")
    ]
    exact, rounded = (report["overall"]["bits_per_byte"] for report in reports)
    assert exact != rounded
    assert exact == pytest.approx(rounded, rel=0.02)
    assert [report["precision"] for report in reports] == ["float32", "bfloat16"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": entropy_model(1)}, r"other was made by another entropy model than the shards that .*blt was trained on; build it again"),
        ({"rule": PatchRule(threshold=4.5)}, r"other was cut by another patch rule than the shards .* --rule-from those"),
        ({"rule": PatchRule(scheme="space")}, r"other was cut by another patch rule"),
    ],
)
def test_shards_with_other_patches_are_refused(tmp_path, trained, options, message):
    with pytest.raises(CheckpointError, match=message):
        evaluate(trained.blt, write_dataset(tmp_path / "other", texts(3), **options), device="cpu")


def test_mistakes(tmp_path, trained):
    shards = trained.shards / "validation"
    with pytest.raises(CheckpointError, match="holds no model"):
        evaluate(tmp_path, shards)
    with pytest.raises(CheckpointError, match=r"holds bltdata.EntropyModel, but bltmodel.BLT is wanted here"):
        evaluate(trained.entropy_model, shards)
    with pytest.raises(ShardError, match="There is no folder"):
        evaluate(trained.blt, tmp_path / "nothing")
    with pytest.raises(ConfigError, match="The stride is 33 tokens; it must be at most 32, the context"):
        evaluate(trained.blt, shards, EvaluationConfig(stride=33))
    with pytest.raises(ConfigError, match="The device 'gpu' can't be used here"):
        evaluate(trained.blt, shards, device="gpu")
    with pytest.raises(ConfigError, match=r"The rule of the shards that .*blt was trained on reads entropies; give the entropy model"):
        evaluate(trained.blt, shards, EvaluationConfig(noise=("drop",)))
    entropy_model(1).save(tmp_path / "other")
    with pytest.raises(CheckpointError, match=r"other isn't the entropy model of the shards that .*blt was trained on; give that one"):
        evaluate(trained.blt, shards, EvaluationConfig(noise=("drop",)), entropy_model=tmp_path / "other")
    opinionated_blt().save(tmp_path / "untrained")
    with pytest.raises(CheckpointError, match="untrained doesn't say what it was trained on"):
        evaluate(tmp_path / "untrained", shards)
    data = json.loads((trained.blt / "config.json").read_text(encoding="utf-8"))["data"]
    opinionated_blt().save(tmp_path / "half", {"data": data})
    with pytest.raises(CheckpointError, match="half doesn't say how many tokens a row had in training; give context_tokens"):
        evaluate(tmp_path / "half", shards)
    with pytest.raises(CorpusError, match="no bytes"):
        evaluate(trained.blt, write_dataset(tmp_path / "empty", [b""]), EvaluationConfig(max_bytes=10))
