import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bltdata.vocab import BOE_ID, encode
from bltmodel.evaluation.windows import PatchedDocument, batches, collate, window_bounds
from tests.bltmodel.documents import random_document


@st.composite
def contexts(draw) -> tuple[int, int]:
    context = draw(st.integers(2, 12))
    return context, draw(st.integers(1, context))


@given(st.integers(0, 40), st.integers(0, 40), contexts())
def test_each_token_is_scored_once_with_enough_before_it(num_tokens, first, context_and_stride):
    context, stride = context_and_stride
    scored, begins = [], []
    for begin, end, from_token in window_bounds(num_tokens, first, context, stride):
        begins.append(begin)
        assert 0 <= begin <= from_token < end <= num_tokens
        assert end - begin <= context
        scored += range(from_token, end)
        for token in range(from_token, end):
            assert token - begin >= min(token, context - stride)
    assert scored == list(range(first, num_tokens))
    assert set(np.diff(begins).tolist()) <= {stride}


@given(st.integers(1, 40), st.integers(0, 20), contexts())
def test_windows_of_a_beginning_are_a_beginning_of_the_windows(num_tokens, more, context_and_stride):
    """Of what stands behind it a token's window knows nothing."""
    short, long = (dict(before(n, *context_and_stride)) for n in (num_tokens, num_tokens + more))
    assert short.items() <= long.items()


def before(num_tokens: int, context: int, stride: int) -> list[tuple[int, int]]:
    windows = window_bounds(num_tokens, 0, context, stride)
    return [(token, begin) for begin, end, scored in windows for token in range(scored, end)]


@given(st.integers(1, 40), st.integers(1, 12), contexts())
def test_what_fits_is_one_window_with_as_much_before_it_as_there_is_room_for(num_tokens, last, context_and_stride):
    context, stride = context_and_stride
    last = min(last, stride, num_tokens)
    assert list(window_bounds(num_tokens, num_tokens - last, context, stride)) == [
        (max(0, num_tokens - context), num_tokens, num_tokens - last)
    ]


def document(rng: np.random.Generator, num_bytes: int, **settings) -> PatchedDocument:
    data, starts = random_document(rng, num_bytes)
    return PatchedDocument(np.frombuffer(data, dtype=np.uint8), starts, **settings)


@given(st.integers(0, 1000), st.lists(st.integers(0, 30), max_size=12), contexts(), st.integers(1, 3))
def test_a_batch_says_what_its_windows_hold(seed, lengths, context_and_stride, rows_at_once):
    context, stride = context_and_stride
    documents = [document(np.random.default_rng([seed, index]), length) for index, length in enumerate(lengths)]
    seen = np.zeros((len(documents), 40), dtype=int)
    for windows in batches(documents, context, stride, rows_at_once):
        batch = collate(windows, torch.device("cpu"))
        assert batch.ids_BT.numel() <= rows_at_once * context
        for row, window in enumerate(windows):
            whole = documents[window.number]
            ids = encode(whole.data.tobytes(), bos=True, eos=True)
            length = window.num_tokens
            assert batch.ids_BT[row].tolist() == [*ids[window.begin : window.end], *[BOE_ID] * (batch.ids_BT.shape[1] - length)]
            for place, target in enumerate(batch.targets_BT[row].tolist()):
                token = window.begin + place
                if place < length and token >= window.scored:
                    assert target == ids[token + 1]
                    seen[window.number, token] += 1
                else:
                    assert target == -1
            assert batch.next_starts_BT[row, :length].tolist() == whole.starts[window.begin : window.end].tolist()
            assert batch.starts_BT[row, 1:length].tolist() == whole.starts[window.begin : window.end - 1].tolist()
            assert not batch.starts_BT[row, length:].any()
            assert batch.visible_from_BT[row].tolist() == [0] * length + list(range(length, batch.ids_BT.shape[1]))
            assert window.num_bytes == sum(target >= 4 for target in batch.targets_BT[row].tolist())
    for number, length in enumerate(lengths):
        assert seen[number].tolist() == [1] * (length + 1) + [0] * (39 - length)


def test_few_windows_are_padded():
    rng = np.random.default_rng(0)
    documents = [document(rng, int(length)) for length in rng.integers(0, 200, size=300)]
    shapes = [
        (len(windows), max(w.num_tokens for w in windows), sum(w.num_tokens for w in windows)) for windows in batches(documents, 64, 32, 4)
    ]
    assert sum(tokens for *_, tokens in shapes) > 0.9 * sum(rows * longest for rows, longest, _ in shapes)
    # All but the last of a lookahead are as full as they may be.
    assert np.mean([rows * longest for rows, longest, _ in shapes]) > 0.8 * 4 * 64


def test_a_document_without_its_end():
    without = document(np.random.default_rng(0), 5, with_end=False, first=2)
    (window,) = next(iter(batches([without], 8, 4, 1)))
    assert (window.begin, window.end, window.scored, window.num_bytes) == (0, 5, 2, 3)
    assert list(batches([document(np.random.default_rng(0), 0, with_end=False)], 8, 4, 1)) == []
    with pytest.raises(StopIteration):
        next(batches([], 8, 4, 1))
