import bz2
import gzip
import json
import lzma
import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
import zstandard
from torch import Tensor

import bltmodel.evaluation
from bltdata.errors import CheckpointError, ConfigError, CorpusError, ShardError
from bltdata.patching import PatchRule
from bltdata.shards import Row, open_shards
from bltdata.vocab import BYTE_OFFSET, encode
from bltmodel.evaluation import COMPRESSORS, evaluate
from bltmodel.masks import PackedBatch
from bltmodel.model import BLT
from tests.bltmodel.datasets import entropy_model, opinionated_blt, texts, write_dataset

SLOW = 1e-5
"""Relative difference to the slow computation, which rounds elsewhere."""


@pytest.fixture(scope="module")
def blt(trained, tmp_path_factory) -> Path:
    """The trained BLT with other weights: predictions that differ more from place to place."""
    about = json.loads((trained.blt / "config.json").read_text(encoding="utf-8"))
    folder = tmp_path_factory.mktemp("evaluation") / "blt"
    opinionated_blt().save(folder, {name: about[name] for name in ("training", "data")})
    return folder


def figures(logits: Iterable[tuple[Tensor, np.ndarray]]) -> dict[str, float]:
    """Of logits and of what came, one after the other."""
    nats, num_bytes, correct, confidences = 0.0, 0, 0, []
    for of_piece, truth in logits:
        for row, target in zip(of_piece.double().softmax(-1), truth.tolist(), strict=True):
            nats -= math.log(row[target])
            num_bytes += target >= BYTE_OFFSET
            correct += int(row.argmax()) == target
            confidences.append(float(row.max()))
    return {
        "bytes": num_bytes,
        "loss": nats / len(confidences),
        "bits_per_byte": nats / math.log(2) / num_bytes,
        "accuracy": correct / len(confidences),
        "perplexity": math.exp(nats / len(confidences)),
        "confidence_mean": sum(confidences) / len(confidences),
        "confidence_min": min(confidences),
        "confidence_max": max(confidences),
    }


def alone(model: BLT, rows: Iterable[Row]) -> dict[str, float]:
    """Document by document."""
    return figures((model.logits(row.data, row.patch_lengths), encode(row.data, eos=True)) for row in rows)


def test_figures_are_those_of_each_document_alone(trained, blt):
    shards, model = trained.shards / "validation", BLT.load(blt)
    rows = list(open_shards(shards))
    done: list[int] = []
    report = evaluate(blt, shards, row_tokens=5000, device="cpu", advance=done.append).report()
    assert list(report["sources"]) == ["code", "prose"]
    for name, found in [("overall", report["overall"]), *report["sources"].items()]:
        of_source = [row for row in rows if name in ("overall", row.source)]
        assert found["documents"] == len(of_source)
        for figure, value in alone(model, of_source).items():
            assert found[figure] == pytest.approx(value, rel=SLOW), (name, figure)
    assert sum(done) == report["overall"]["bytes"] == sum(row.num_bytes for row in rows)
    assert json.loads(json.dumps(report, allow_nan=False)) == report


def test_documents_longer_than_a_row_count_once(tmp_path, blt):
    rng = np.random.default_rng(0)
    documents = [*texts(5), rng.bytes(500), b"", rng.bytes(333), *texts(5, seed=1)]
    shards = write_dataset(tmp_path / "shards", documents)
    model, row_tokens = BLT.load(blt), 40

    def pieces() -> Iterable[tuple[Tensor, np.ndarray]]:
        filled = 0
        for row in open_shards(shards):
            ids = encode(row.data, bos=True, eos=True)
            starts = np.zeros(row.num_bytes + 2, dtype=bool)
            starts[np.cumsum([0, 1, *row.patch_lengths[:-1].tolist()])] = True
            begin = 0
            while begin <= row.num_bytes:
                end = min(row.num_bytes + 1, begin + row_tokens - filled)
                columns = (ids[begin:end], ids[begin + 1 : end + 1], [0] * (end - begin), starts[begin:end], starts[begin + 1 : end + 1])
                with torch.no_grad():
                    yield model(PackedBatch(*(torch.tensor(np.array(column))[None] for column in columns)))[0], ids[begin + 1 : end + 1]
                filled, begin = (filled + end - begin) % row_tokens, end

    report = evaluate(blt, shards, row_tokens=row_tokens, device="cpu").report()
    assert report["context_tokens"] == row_tokens
    for figure, value in figures(pieces()).items():
        assert report["overall"][figure] == pytest.approx(value, rel=SLOW), figure
    assert report["overall"]["bytes"] == sum(map(len, documents))


def test_rows_are_as_long_as_in_training(trained):
    assert evaluate(trained.blt, trained.shards / "validation", device="cpu").report()["context_tokens"] == 32


def test_how_many_rows_go_through_at_once_changes_nothing(trained, blt, monkeypatch):
    reports = []
    for rows in (1, 3, 100):
        monkeypatch.setattr(bltmodel.evaluation, "ROWS_AT_ONCE", rows)
        reports.append(evaluate(blt, trained.shards / "validation", device="cpu", compressors=[]).report()["overall"])
    for report in reports[1:]:
        report.pop("compressors_bits_per_byte")
        assert report == pytest.approx({name: reports[0][name] for name in report}, rel=SLOW)


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
    report = evaluate(blt, shards, max_bytes=num_bytes + rows[11].num_bytes - 1, row_tokens=5000, device="cpu").report()
    assert (report["overall"]["documents"], report["overall"]["bytes"]) == (11, num_bytes)
    assert report["overall"]["loss"] == pytest.approx(alone(BLT.load(blt), rows[:11])["loss"], rel=SLOW)


def test_empty_documents(tmp_path, blt):
    shards = write_dataset(tmp_path / "shards", [b"", ("nothing", b""), b"something", b""], [("nothing", b"")])
    report = evaluate(blt, shards, device="cpu").report()
    json.dumps(report, allow_nan=False)
    nothing, text = report["sources"]["nothing"], report["sources"]["text"]
    assert (nothing["documents"], nothing["bytes"], nothing["bits_per_byte"]) == (2, 0, None)
    assert set(nothing["compressors_bits_per_byte"].values()) == {None}
    # Each has an end, which is predicted.
    end = -BLT.load(blt).logits(b"", [1]).double().log_softmax(-1)[0, 2].item()
    assert nothing["loss"] == pytest.approx(end, rel=SLOW)
    assert (text["documents"], text["bytes"]) == (3, 9)
    assert report["overall"]["bits_per_byte"] * 9 == pytest.approx(text["bits_per_byte"] * 9 + 2 * end / math.log(2), rel=SLOW)


def test_bfloat16_is_close(trained, blt):
    reports = [evaluate(blt, trained.shards / "validation", device="cpu", precision=p).report() for p in ("float32", "bfloat16")]
    exact, rounded = (report["overall"]["bits_per_byte"] for report in reports)
    assert exact != rounded
    assert exact == pytest.approx(rounded, rel=0.02)


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
    with pytest.raises(ConfigError, match="The number of tokens a row is 0; it must be at least 2"):
        evaluate(trained.blt, shards, row_tokens=0)
    with pytest.raises(ConfigError, match="The device 'gpu' can't be used here"):
        evaluate(trained.blt, shards, device="gpu")
    opinionated_blt().save(tmp_path / "untrained")
    with pytest.raises(CheckpointError, match="untrained doesn't say what it was trained on"):
        evaluate(tmp_path / "untrained", shards)
    with pytest.raises(CorpusError, match="no bytes"):
        evaluate(trained.blt, write_dataset(tmp_path / "empty", [b""]), max_bytes=10)
