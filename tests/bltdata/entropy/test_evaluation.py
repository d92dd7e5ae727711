import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from bltdata.compressors import CompressedSizes, bits_per_raw_byte
from bltdata.corpus import open_corpus
from bltdata.entropy import EntropyModel, evaluation
from bltdata.entropy.evaluation import Replicates, evaluate_entropy_model
from bltdata.errors import CheckpointError, CorpusError
from bltdata.vocab import BOS_ID, BYTE_OFFSET, EOS_ID, encode
from tests.bltdata.small import line_corpus, opinionated_model, random_documents, write_lines

MODEL = opinionated_model()


@pytest.fixture(scope="module")
def corpus_of_two(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Specs of two sources; empty documents in both."""
    folder = tmp_path_factory.mktemp("corpus")
    specs = []
    for number, (name, longest) in enumerate([("news", 90), ("code", 30)]):
        for index, data in enumerate([b"", *random_documents(12, longest, seed=number, num_symbols=90)]):
            path = folder / name / f"{index:02}.txt"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(data)
        specs.append(f"files:{folder / name}#source={name}")
    return specs


def alone(documents: list[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """Entropies and negative log-likelihoods, float64, of all positions, each document in a pass of its own."""
    entropies, costs = [], []
    for data in documents:
        ids = torch.from_numpy(encode(data, bos=True))[None]
        with torch.no_grad():
            logs = MODEL(ids, torch.zeros_like(ids))[0].double().log_softmax(-1)
        targets = [*encode(data).tolist(), EOS_ID]
        entropies.append(-(logs.exp() * logs).sum(-1).numpy())
        costs.append(-logs[range(len(targets)), targets].numpy())
    return np.concatenate(entropies), np.concatenate(costs)


def test_figures_are_those_of_each_document_alone(corpus_of_two):
    corpus, done = open_corpus(corpus_of_two), []
    report = evaluate_entropy_model(MODEL, corpus, compressors=[], advance=done.append).report()
    documents = list(corpus)
    assert list(report["sources"]) == ["news", "code"]
    for name, found in [("overall", report["overall"]), *report["sources"].items()]:
        texts = [document.data for document in documents if name in ("overall", document.source)]
        entropies, costs = alone(texts)
        num_bytes = sum(map(len, texts))
        assert (found["documents"], found["bytes"]) == (len(texts), num_bytes)
        assert found["bits_per_byte"] == pytest.approx(costs.sum() / math.log(2) / num_bytes, rel=1e-5)
        low, high = found["bits_per_byte_interval"]
        assert low < found["bits_per_byte"] < high
        reliability = found["reliability"]
        assert reliability["positions"] == num_bytes + len(texts) == len(costs)
        assert reliability["mean_entropy_nats"] == pytest.approx(entropies.mean(), rel=1e-5)
        assert reliability["mean_nll_nats"] == pytest.approx(costs.mean(), rel=1e-5)
        inside = (entropies // 0.25).astype(int)
        expected = [(int((inside == i).sum()), costs[inside == i].mean()) for i in np.unique(inside)]
        assert [(each["count"], each["mean_nll_nats"]) for each in reliability["bins"]] == [
            (count, pytest.approx(cost, rel=1e-5)) for count, cost in expected
        ]
    assert sum(done) == report["overall"]["bytes"]
    assert json.loads(json.dumps(report, allow_nan=False)) == report


def test_compressors_get_the_documents_of_a_source_end_to_end(corpus_of_two):
    corpus = open_corpus(corpus_of_two)
    report = evaluate_entropy_model(MODEL, corpus, compressors=["bzip2", "xz"]).report()
    total: dict[str, int] = {"bzip2": 0, "xz": 0}
    for name, found in report["sources"].items():
        sizes = CompressedSizes(["bzip2", "xz"])
        for document in corpus:
            if document.source == name:
                sizes.add(document.data)
        needed = sizes.finish()
        assert found["compressors_bits_per_byte"] == bits_per_raw_byte(needed, found["bytes"])
        total = {each: total[each] + needed[each] for each in total}
    assert report["overall"]["compressors_bits_per_byte"] == bits_per_raw_byte(total, report["overall"]["bytes"])


def test_a_sample_is_from_all_sources(corpus_of_two):
    corpus = open_corpus(corpus_of_two)
    whole = evaluate_entropy_model(MODEL, corpus, compressors=[]).report()["overall"]["bytes"]
    sample = evaluate_entropy_model(MODEL, corpus, sample_bytes=whole // 2, compressors=[]).report()
    assert list(sample["sources"]) == ["news", "code"]
    assert whole / 4 < sample["overall"]["bytes"] < whole * 3 / 4


def test_empty_documents(tmp_path):
    for index in range(3):
        (tmp_path / f"{index}.txt").write_bytes(b"")
    report = evaluate_entropy_model(MODEL, open_corpus(str(tmp_path))).report()
    json.dumps(report, allow_nan=False)
    overall = report["overall"]
    assert (overall["documents"], overall["bytes"], overall["bits_per_byte"], overall["bits_per_byte_interval"]) == (3, 0, None, None)
    # Each has an end, which is predicted.
    assert overall["reliability"]["mean_nll_nats"] == pytest.approx(alone([b""])[1][0], rel=1e-5)
    assert overall["reliability"]["positions"] == 3


def test_no_documents(tmp_path):
    lines = write_lines(tmp_path / "lines.txt", random_documents(5, 20))
    for sample_bytes in (None, 10):
        with pytest.raises(CorpusError, match=r"has no documents; all there is was left out: 5 \(too short\)"):
            evaluate_entropy_model(MODEL, line_corpus(lines, min_bytes=1000), sample_bytes=sample_bytes, compressors=[])


def test_what_is_left_out_is_counted(tmp_path):
    lines = write_lines(tmp_path / "lines.txt", [b"short", b"long enough", b"long enough as well"])
    report = evaluate_entropy_model(MODEL, line_corpus(lines, min_bytes=10), compressors=[]).report()
    assert (report["overall"]["documents"], report["left_out"]) == (2, {"too short": 1})


def test_the_options_arrive(tmp_path):
    (tmp_path / "text.txt").write_bytes(b"one line\nanother line\n" * 20)
    corpus = open_corpus(str(tmp_path))
    plain, reset, rounded = (
        evaluate_entropy_model(MODEL, corpus, compressors=[], **options).report()["overall"]["bits_per_byte"]
        for options in ({}, {"reset_at_newline": True}, {"precision": torch.bfloat16})
    )
    assert abs(reset - plain) > 1e-3
    assert 0 < abs(rounded - plain) < 0.1


def test_a_damaged_model_is_refused(tmp_path):
    lines = write_lines(tmp_path / "lines.txt", [b"some text"])
    model = opinionated_model()
    with torch.no_grad():
        model.head.weight[7] = math.nan
    with pytest.raises(CheckpointError, match="What the entropy model predicts are no numbers; it is damaged"):
        evaluate_entropy_model(model, line_corpus(lines), compressors=[])


def written_by(model: EntropyModel, count: int, longest: int) -> list[bytes]:
    """Documents drawn from the model's own distribution."""
    generator = torch.Generator().manual_seed(1)
    # What two layers with a window of 8 can see.
    seen = 2 * (model.config.window - 1) + 1
    ids = torch.full((count, 1), BOS_ID)
    possible = torch.full((260,), -math.inf)
    possible[BYTE_OFFSET:] = possible[EOS_ID] = 0.0
    with torch.no_grad():
        for _ in range(longest):
            context = ids[:, -seen:]
            logits = model(context, torch.zeros_like(context))[:, -1] + possible
            ids = torch.cat([ids, logits.softmax(-1).multinomial(1, generator=generator)], dim=1)
    rows = [row[1:].tolist() for row in ids]
    ended = [row[: row.index(EOS_ID)] if EOS_ID in row else row for row in rows]
    return [bytes(token - BYTE_OFFSET for token in row) for row in ended]


def test_a_model_believes_what_it_wrote_and_is_too_sure_with_larger_logits(tmp_path: Path):
    model = opinionated_model()
    for index, data in enumerate(written_by(model, count=30, longest=400)):
        (tmp_path / f"{index:02}.txt").write_bytes(data)
    corpus = open_corpus(str(tmp_path))
    gaps = {}
    for scale in (1.0, 2.0, 0.4):
        scaled = opinionated_model()
        with torch.no_grad():
            scaled.head.weight *= scale
        gaps[scale] = evaluate_entropy_model(scaled, corpus, compressors=[]).report()["overall"]["reliability"]
    assert abs(gaps[1.0]["gap_nats"]) < 0.05
    assert gaps[1.0]["mean_absolute_gap_nats"] < 0.1
    assert gaps[2.0]["gap_nats"] > 0.5
    assert gaps[0.4]["gap_nats"] < -0.1
    assert gaps[2.0]["mean_absolute_gap_nats"] > 0.5


def test_the_interval_is_that_of_drawing_documents_again():
    rng = np.random.default_rng(3)
    lengths = rng.integers(1, 400, 150)
    nats = lengths * rng.normal(1.5, 0.3, 150)
    replicates = Replicates(np.random.default_rng(0))
    for cost, length in zip(nats.tolist(), lengths.tolist(), strict=True):
        replicates.add(cost, length)
    drawn = rng.integers(0, 150, (4000, 150))
    expected = np.percentile(nats[drawn].sum(1) / lengths[drawn].sum(1) / math.log(2), [2.5, 97.5])
    found = replicates.interval()
    width = expected[1] - expected[0]
    assert found == pytest.approx(tuple(expected), abs=width / 8)


def test_sources_are_drawn_independently():
    generator = np.random.default_rng(0)
    parts = [Replicates(generator) for _ in range(2)]
    for part in parts:
        for cost in (100.0, 300.0) * 50:
            part.add(cost, 100)
    alone_low, alone_high = parts[0].interval()
    both = Replicates(generator)
    for part in parts:
        both += part
    low, high = both.interval()
    # Twice the documents: an interval narrower by the root of 2.
    assert (high - low) / (alone_high - alone_low) == pytest.approx(0.5**0.5, abs=0.12)


def test_one_document_has_no_interval():
    replicates = Replicates(np.random.default_rng(0))
    replicates.add(10.0, 10)
    assert replicates.interval() is None
    replicates.add(0.0, 0)
    assert replicates.interval() is not None
    nothing = Replicates(np.random.default_rng(0))
    nothing.add(1.0, 0)
    nothing.add(1.0, 0)
    assert nothing.interval() is None


def test_memory_does_not_grow_with_the_documents():
    replicates = Replicates(np.random.default_rng(0))
    for _ in range(50):
        replicates.add(1.0, 1)
    assert {len(sums) for sums in (replicates._nats, replicates._bytes)} == {evaluation.NUM_REPLICATES}
