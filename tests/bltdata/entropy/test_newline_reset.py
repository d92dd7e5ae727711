"""Scoring in which a newline plays the part of BOS."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bltdata.entropy import EntropyModel, scoring
from bltdata.vocab import EOS_ID, encode
from tests.bltdata.small import opinionated_model

MODEL = opinionated_model()
DOCUMENTS = [b"", b"\n", b"a", b"no newline", b"a line\nanother\n\n\nand the last", b"ends with one\n", b"a\nbc\n" * 30, bytes(range(256))]


def line_by_line(model: EntropyModel, data: bytes) -> tuple[np.ndarray, float]:
    """One pass per line: the tokens from BOS or a newline up to the next newline, alone in a row."""
    tokens, targets = encode(data, bos=True), np.array([*encode(data).tolist(), EOS_ID])
    begins = [0, *(index + 1 for index, byte in enumerate(data) if byte == ord("\n"))]
    entropies, nll = [], 0.0
    for begin, end in zip(begins, [*begins[1:], len(tokens)], strict=True):
        ids = torch.from_numpy(tokens[begin:end])[None]
        with torch.no_grad():
            log_p = model(ids, torch.zeros_like(ids))[0].double().log_softmax(-1)
        entropies.append(-(log_p.exp() * log_p).sum(-1).numpy())
        nll -= float(log_p[range(end - begin), targets[begin:end]].sum())
    return np.concatenate(entropies), nll


@pytest.mark.parametrize("chunk", [1, 3, 8, 16, 41, 1000])
def test_it_is_one_pass_per_line(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr(scoring, "CHUNK_TOKENS", chunk)
    for data, score in zip(DOCUMENTS, MODEL.score_with_nll(DOCUMENTS, reset_at_newline=True), strict=True):
        entropies, nll = line_by_line(MODEL, data)
        np.testing.assert_allclose(score.entropy_nats, entropies, atol=1e-5, rtol=0)
        assert score.nll_nats == pytest.approx(nll, rel=1e-6, abs=1e-6)


@given(st.lists(st.lists(st.sampled_from([10, 97, 98, 200]), max_size=40).map(bytes), min_size=1, max_size=6), st.integers(1, 40))
@settings(max_examples=25)
def test_any_lines_in_any_chunks(documents: list[bytes], chunk: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scoring, "CHUNK_TOKENS", chunk)
        for data, entropies in zip(documents, MODEL.score(documents, reset_at_newline=True), strict=True):
            np.testing.assert_allclose(entropies, line_by_line(MODEL, data)[0], atol=1e-5, rtol=0)


def test_what_stands_before_a_newline_makes_no_difference_after_it() -> None:
    first, second = MODEL.score([b"one thing\nafter", b"elsewhere\nafter"], reset_at_newline=True)
    np.testing.assert_allclose(first[10:], second[10:], atol=1e-5, rtol=0)
    assert abs(first[1:9] - second[1:9]).max() > 0.01
    plain, other = MODEL.score([b"one thing\nafter", b"elsewhere\nafter"])
    assert abs(plain[10:] - other[10:]).max() > 0.01


def test_without_newlines_it_is_the_same_to_the_bit() -> None:
    documents = [data for data in DOCUMENTS if b"\n" not in data]
    reset, plain = ([entropies.tobytes() for entropies in MODEL.score(documents, reset_at_newline=flag)] for flag in (True, False))
    assert reset == plain
