import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bltdata.errors import PatchingError
from bltmodel.masks import PackedBatch, own_patches, patch_layout
from tests.bltmodel.documents import Patched, pack, random_document


def patched(data: bytes, *lengths: int) -> Patched:
    starts = np.zeros(len(data) + 1, dtype=bool)
    starts[np.cumsum((0, *lengths[:-1]))] = True
    return Patched(data, starts)


def test_worked_example():
    # The reference's lengths [1, 2, 3, 1, 1] over 7 tokens: BOS, then patches of 2, 3, 1 and one that begins with the end.
    layout = patch_layout(PackedBatch.of_document(b"abcdef", [2, 3, 1, 1]))
    assert layout.own_BT.tolist() == [[0, 1, 1, 2, 2, 2, 3]]
    assert layout.complete_BT.tolist() == [[0, 0, 1, 1, 1, 2, 3]]
    assert layout.visible_from_BP.tolist() == [[0, 0, 0, 0]]


def test_packed_rows():
    batch = pack([[patched(b"abc", 2, 2), patched(b"", 1), patched(b"de", 1, 2)], [patched(b"abc", 4)]])
    layout = patch_layout(batch)
    assert layout.own_BT.tolist() == [[0, 1, 1, 2, 3, 4, 5, 6], [0, 1, 1, 1, 2, 2, 2, 2]]
    assert layout.complete_BT.tolist() == [[0, 0, 1, 1, 3, 4, 5, 5], [0, 0, 0, 0, 2, 2, 2, 2]]
    assert layout.visible_from_BP.tolist() == [[0, 0, 0, 3, 4, 4, 4], [0, 0, 2, 3, 4, 5, 6]]


def test_a_budget_adds_patches_that_see_themselves_only():
    batch = pack([[patched(b"abc", 2, 2)]])
    layout = patch_layout(batch, num_patches=5)
    assert layout.num_patches == 5
    assert layout.visible_from_BP.tolist() == [[0, 0, 0, 3, 4]]
    with pytest.raises(RuntimeError, match="a row has more than 2 patches"):
        patch_layout(batch, num_patches=2)


def test_a_piece_always_begins_with_a_patch_of_its_own():
    # The middle of a document, and nobody said that patches start there.
    nothing = torch.zeros(1, 4, dtype=torch.bool)
    batch = PackedBatch(torch.full((1, 4), 70), torch.full((1, 4), 70), torch.tensor([[0, 0, 2, 2]]), nothing, nothing)
    layout = patch_layout(batch)
    assert layout.own_BT.tolist() == [[0, 1, 2, 3]]
    assert layout.complete_BT.tolist() == [[0, 0, 2, 2]]


@given(st.lists(st.lists(st.integers(0, 12), min_size=1, max_size=4), min_size=1, max_size=3), st.integers(0, 5), st.integers(0, 2**32 - 1))
def test_the_patch_known_is_the_one_before_that_of_the_predicted_position(sizes, num_padding, seed):
    rng = np.random.default_rng(seed)
    rows = [[random_document(rng, size, 0.5) for size in row] for row in sizes]
    num_tokens = max(sum(size + 1 for size in row) for row in sizes) + num_padding
    batch = pack(rows, num_tokens)
    layout = patch_layout(batch)
    for own, complete, visible_from, row in zip(
        layout.own_BT.tolist(), layout.complete_BT.tolist(), batch.visible_from_BT, rows, strict=True
    ):
        at = 0
        for data, starts in row:
            end = at + len(data) + 1
            last = own[end - 1] + bool(starts[-1]) if data else own[end - 1] + 1
            assert complete[at:end] == [patch - 1 for patch in [*own[at + 1 : end], last]]
            assert min(complete[at:end]) == own[at] == (own[at - 1] + 1 if at else 0)
            assert {int(layout.visible_from_BP[rows.index(row)][patch]) for patch in own[at:end]} == {own[int(visible_from[at])]}
            at = end
        assert len(set(own[at:])) <= 1
        assert own[at:] == [own[at - 1] + 1] * (num_tokens - at)
    assert layout.num_patches == int(own_patches(batch).max()) + 1


@pytest.mark.parametrize(
    ("data", "lengths", "message"),
    [
        (b"abc", [3], "The patch lengths sum to 3, but a document of 3 bytes needs 4: its end counts as one."),
        (b"", [], "The patch lengths sum to 0, but a document of 0 bytes needs 1"),
        (b"abc", [2, 0, 2], "Patch 1 has length 0; the shortest patch is 1 byte."),
        (b"abc", [5, -1], "Patch 1 has length -1; the shortest patch is 1 byte."),
    ],
)
def test_lengths_that_do_not_fit_are_refused(data, lengths, message):
    with pytest.raises(PatchingError, match=message):
        PackedBatch.of_document(data, lengths)


@given(st.integers(0, 30), st.integers(0, 2**32 - 1))
def test_a_document_alone_equals_a_row_packed_by_hand(num_bytes, seed):
    document = random_document(np.random.default_rng(seed), num_bytes)
    for fast, slow in zip(PackedBatch.of_document(document.data, document.lengths), pack([[document]]), strict=True):
        assert torch.equal(fast, slow)
        assert fast.dtype == slow.dtype
