import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bltdata.errors import CheckpointError
from bltdata.vocab import BYTE_OFFSET, encode
from bltmodel.evaluation.scores import score
from bltmodel.evaluation.windows import PatchedDocument
from bltmodel.masks import PackedBatch
from bltmodel.model import BLT
from bltmodel.sampling_config import SamplingConfig
from tests.bltmodel.datasets import RULE, entropy_model, opinionated_blt
from tests.bltmodel.documents import random_document

SLOW = 1e-5
"""Relative difference to the slow computation, which rounds elsewhere."""


@pytest.fixture(scope="module")
def model() -> BLT:
    return opinionated_blt()


def probabilities(model: BLT, document: PatchedDocument, token: int, context: int, stride: int) -> np.ndarray:
    """What the model predicts after a token, from the first window that reaches it; nothing behind the token is there."""
    begin = 0
    while token >= begin + context:
        begin += stride
    ids = encode(document.data.tobytes(), bos=True)[begin : token + 1]
    starts = np.concatenate([[True], document.starts])[begin : token + 1]
    columns = (ids, ids, np.zeros(len(ids), dtype=np.int64), starts, document.starts[begin : token + 1])
    with torch.no_grad():
        logits = model(PackedBatch(*(torch.from_numpy(np.array(column))[None] for column in columns)))[0, -1]
    return logits.double().softmax(-1).numpy()


@settings(max_examples=12)
@given(st.integers(0, 1000), st.lists(st.integers(0, 24), min_size=1, max_size=5), st.data())
def test_scores_are_those_of_a_slow_loop(model, seed, lengths, draw):
    context = draw.draw(st.integers(2, 14))
    stride, rows = draw.draw(st.integers(1, context)), draw.draw(st.integers(1, 4))
    documents = []
    for index, length in enumerate(lengths):
        data, starts = random_document(np.random.default_rng([seed, index]), length)
        documents.append(PatchedDocument(np.frombuffer(data, dtype=np.uint8), starts, recalled_from=length // 2))
    told: list[int] = []
    found = score(model, documents, context_tokens=context, stride=stride, rows_at_once=rows, advance=told.append)
    confidences, hits, in_top, total = [], [], 0, 0.0
    for number, document in enumerate(documents):
        nats, recalled, fails = 0.0, 0, False
        for token, target in enumerate(encode(document.data.tobytes(), eos=True).tolist()):
            chances = probabilities(model, document, token, context, stride)
            nats -= math.log(chances[target])
            confidences.append(chances.max())
            hits.append(int(chances.argmax()) == target)
            in_top += target in np.argsort(-chances)[:5]
            if len(document.data) // 2 <= token < len(document.data):
                fails = fails or not hits[-1]
                recalled += not fails
        assert found.nats[number] == pytest.approx(nats, rel=SLOW)
        assert (found.num_recalled[number], found.num_to_recall[number]) == (recalled, len(document.data) - len(document.data) // 2)
        assert (found.num_bytes[number], found.num_patches[number]) == (len(document.data), document.starts.sum())
        total += nats
    sums = found.predictions
    assert (sums.num_bytes, sums.num_targets, sums.num_correct) == (sum(lengths), len(hits), sum(hits))
    assert sums.nats == pytest.approx(total, rel=SLOW)
    assert found.num_in_top == in_top
    assert (sums.confidence_sum, sums.confidence_min, sums.confidence_max) == pytest.approx(
        (sum(confidences), min(confidences), max(confidences)), rel=SLOW
    )
    assert found.calibration.confidence_sums.sum() == pytest.approx(sum(confidences), rel=SLOW)
    assert (found.calibration.num_predictions.sum(), found.calibration.num_correct.sum()) == (len(hits), sum(hits))
    assert sum(told) == sum(lengths)


def test_what_is_recalled_is_what_greedy_decoding_writes(model):
    """Documents that begin their second half as the model would, and go on otherwise."""
    rng = np.random.default_rng(0)
    settings = {"entropy_model": entropy_model(), "rule": RULE, "sampling": SamplingConfig(temperature=0.0, stop_at_eos=False)}
    halves = [rng.integers(97, 123, 8, dtype=np.uint8).tobytes() for _ in range(6)]
    documents = []
    for kept, (half, new) in enumerate(zip(halves, model.generate(halves, max_new_bytes=8, **settings), strict=True)):
        documents.append(half + new[:kept] + bytes(byte ^ 1 for byte in new[kept:]))
    documents.append(half + new)
    patched = []
    for data, entropy_nats in zip(documents, entropy_model().score(documents), strict=True):
        starts = np.zeros(len(data) + 1, dtype=bool)
        starts[RULE.starts(data, np.rint(entropy_nats * 256) / np.float32(256))] = True
        patched.append(PatchedDocument(np.frombuffer(data, dtype=np.uint8), starts, recalled_from=8))
    found = score(model, patched, context_tokens=100, stride=50)
    written = model.generate([data[:8] for data in documents], max_new_bytes=8, **settings)
    same = [next((i for i in range(8) if new[i] != data[8 + i]), 8) for new, data in zip(written, documents, strict=True)]
    assert same == [0, 1, 2, 3, 4, 5, 8]
    # Where decoding may end the document, it can't do better, and here it might.
    assert found.num_recalled.tolist() == [
        next((i for i in range(8) if new[i : i + 1] != data[8 + i : 9 + i]), 8)
        for new, data in zip(
            model.generate([data[:8] for data in documents], max_new_bytes=8, **{**settings, "sampling": SamplingConfig(temperature=0.0)}),
            documents,
            strict=True,
        )
    ]
    assert found.num_to_recall.tolist() == [8] * 7


def test_the_first_and_the_five_best(model):
    data, ranks = b"", []
    for wanted in [1, 2, 5, 6, 4, 7, 5, 6, 1, 6]:
        order = model.logits(data, [1] * (len(data) + 1))[-1].argsort(descending=True).tolist()
        rank = next(rank for rank in range(wanted, 260) if order[rank - 1] >= BYTE_OFFSET)
        ranks.append(rank)
        data += bytes([order[rank - 1] - BYTE_OFFSET])
    document = PatchedDocument(np.frombuffer(data, dtype=np.uint8), np.ones(len(data) + 1, dtype=bool), with_end=False)
    found = score(model, [document], context_tokens=100, stride=50)
    assert {5, 6} <= set(ranks)
    assert found.num_in_top == sum(rank <= 5 for rank in ranks)
    assert found.predictions.num_correct == ranks.count(1)


def test_parts_add_up(model):
    rng = np.random.default_rng(1)
    documents = []
    for length in (3, 0, 30, 12):
        data, starts = random_document(rng, length)
        documents.append(PatchedDocument(np.frombuffer(data, dtype=np.uint8), starts))
    whole = score(model, documents, context_tokens=16, stride=8)
    parts = score(model, documents[:1], context_tokens=16, stride=8) + score(model, documents[1:], context_tokens=16, stride=8)
    for name in ("nats", "num_bytes", "num_patches", "num_recalled", "num_to_recall"):
        np.testing.assert_allclose(getattr(parts, name), getattr(whole, name), rtol=SLOW)
    assert parts.predictions.nats == pytest.approx(whole.predictions.nats, rel=SLOW)
    assert (parts.num_in_top, parts.num_documents) == (whole.num_in_top, 4)
    assert parts.calibration.table() == [pytest.approx(row) for row in whole.calibration.table()]


def test_only_what_is_asked_for_is_scored(model):
    data, starts = random_document(np.random.default_rng(2), 20)
    asked = PatchedDocument(np.frombuffer(data, dtype=np.uint8), starts, first=15, with_end=False, recalled_from=15)
    found = score(model, [asked], context_tokens=100, stride=50)
    log_chances = model.logits(data, np.diff(np.flatnonzero([*starts, True]))).double().log_softmax(-1)
    assert found.nats[0] == pytest.approx(-sum(float(log_chances[i, data[i] + BYTE_OFFSET]) for i in range(15, 20)), rel=SLOW)
    assert (found.num_bytes[0], found.predictions.num_targets) == (5, 5)


def test_no_documents(model):
    found = score(model, [], context_tokens=8, stride=4)
    assert (found.num_documents, found.predictions.num_targets, found.nats.sum()) == (0, 0, 0)


def test_a_damaged_model():
    broken = opinionated_blt()
    with torch.no_grad():
        broken.head.weight[0, 0] = torch.nan
    with pytest.raises(CheckpointError, match="What the BLT predicts of document 0 are no numbers; it is damaged"):
        score(broken, [PatchedDocument(np.zeros(3, dtype=np.uint8), np.ones(4, dtype=bool))], context_tokens=8, stride=4)
