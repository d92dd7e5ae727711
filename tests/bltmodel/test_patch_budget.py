from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bltmodel.masks import PackedBatch, own_patches, patch_layout
from bltmodel.patch_budget import HELD_BACK, JOINED, OVER_BUDGET, PATCHES, join_surplus, remark
from tests.bltmodel.documents import Patched, pack, packings, random_document, with_new_suffix


def slow(batch: PackedBatch, budget: int) -> tuple[list[list[bool]], list[list[bool]], Counter[str]]:
    """What remains of starts and next starts, position by position."""
    starts, next_starts, counts = batch.starts_BT.tolist(), batch.next_starts_BT.tolist(), Counter({PATCHES: 0, JOINED: 0, OVER_BUDGET: 0})
    free = budget - int(np.ceil(budget / HELD_BACK))
    for row, visible_from in enumerate(batch.visible_from_BT.tolist()):
        used, is_padding = 0, (batch.ids_BT[row] == 0).tolist()
        for place, begin in enumerate(visible_from):
            if is_padding[place]:
                used += not is_padding[place - 1]
                continue
            if place - begin >= 2 and starts[row][place] and used >= free:
                starts[row][place] = False
                counts[JOINED] += 1
            used += place - begin < 2 or starts[row][place]
            if place > begin and used >= free:
                next_starts[row][place] = False
        counts[OVER_BUDGET] += used > budget
        counts[PATCHES] += used
    counts[PATCHES] += counts[JOINED]
    return starts, next_starts, counts


@given(packings(), st.integers(1, 60))
def test_equals_a_loop(rows, budget):
    batch = pack(rows)
    before = [tensor.clone() for tensor in batch]
    fitted, counts = join_surplus(batch, budget)
    starts, next_starts, expected = slow(batch, budget)
    assert (fitted.starts_BT.tolist(), fitted.next_starts_BT.tolist(), counts) == (starts, next_starts, expected)
    # Nothing else changes, nor does what was given.
    assert all(torch.equal(one, other) for one, other in zip(batch, before, strict=True))
    assert all(torch.equal(*pair) for pair in zip(fitted[:3], batch[:3], strict=True))


@given(packings(), st.integers(1, 60))
def test_rows_keep_to_the_budget_where_they_can(rows, budget):
    fitted, counts = join_surplus(pack(rows), budget)
    num_patches = own_patches(fitted)[:, -1] + 1
    assert int((num_patches > budget).sum()) == counts[OVER_BUDGET]
    # Beyond the free part of the budget there are the starts that every document must have, and the padding.
    free = budget - int(np.ceil(budget / HELD_BACK))
    assert int(num_patches.max()) <= free + max(2 * len(row) + 1 for row in rows)
    if not counts[OVER_BUDGET]:
        assert patch_layout(fitted, budget).num_patches == budget


@given(packings())
def test_a_budget_for_all_changes_nothing(rows):
    batch = pack(rows)
    fitted, counts = join_surplus(batch, 2 * batch.ids_BT.shape[1] + 2)
    assert all(torch.equal(*pair) for pair in zip(fitted, batch, strict=True))
    assert counts == {PATCHES: int((own_patches(batch)[:, -1] + 1).sum()), JOINED: 0, OVER_BUDGET: 0}


def decisions(rows: list[list[Patched]], num_tokens: int, budget: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """For each row, the patch of each token and the patch that it may know."""
    layout = patch_layout(join_surplus(pack(rows, num_tokens), budget)[0])
    return list(zip(layout.own_BT, layout.complete_BT, strict=True))


@given(st.integers(0, 2**32), st.integers(4, 30))
def test_no_decision_knows_what_follows(seed, budget):
    # A row in which a document's bytes, all that follows, and where it ends are different: up to there the patches are the same.
    rng = np.random.default_rng(seed)
    before = [random_document(rng, int(rng.integers(0, 15)), rng.random()) for _ in range(int(rng.integers(0, 3)))]
    document = random_document(rng, 30, rng.random())
    first = int(rng.integers(0, 30))
    cut = Patched(document.data[:first], document.starts[: first + 1])
    rows = [
        [*before, document],
        [*before, with_new_suffix(document, first, rng), random_document(rng, 5, 0.5)],
        [*before, cut, *(random_document(rng, 0, 0.5) for _ in range(8))],
    ]
    # The token that predicts position `first`, which is a byte, another byte, or the document's end.
    end = sum(len(each.starts) for each in before) + first + 1
    expected, *others = decisions(rows, end + 60, budget)
    for other in others:
        assert torch.equal(expected[0][:end], other[0][:end])
        assert torch.equal(expected[1][:end], other[1][:end])


def test_by_hand():
    document = Patched(b"abcdefghij", np.ones(11, dtype=bool))
    fitted, counts = join_surplus(pack([[document]]), 6)
    # Of 6 patches 1 is held back. BOS, a, b, c, d: from e on all bytes are d's patch.
    assert own_patches(fitted).tolist() == [[0, 1, 2, 3, 4, 4, 4, 4, 4, 4, 4]]
    assert counts == {PATCHES: 11, JOINED: 6, OVER_BUDGET: 0}
    assert patch_layout(fitted, 6).complete_BT.tolist() == [[0, 1, 2, 3, 3, 3, 3, 3, 3, 3, 3]]


@pytest.mark.parametrize("budget", [1, 3])
def test_documents_that_are_too_many_for_the_budget(budget):
    empty = Patched(b"", np.ones(1, dtype=bool))
    fitted, counts = join_surplus(pack([[empty] * 5]), budget)
    assert own_patches(fitted)[0, -1] == 4
    assert counts == {PATCHES: 5, JOINED: 0, OVER_BUDGET: 1}


def test_rows_with_nearly_as_many_as_the_budget_lose_some():
    # Nobody knows yet that no more documents follow, for which the sixteenth is held back.
    document = Patched(bytes(31), np.ones(32, dtype=bool))
    joined = [join_surplus(pack([[document]]), budget)[1][JOINED] for budget in (32, 33, 34, 35)]
    assert joined == [2, 2, 1, 0]


def test_only_many_that_are_joined_are_worth_a_word():
    assert remark({PATCHES: 1000, JOINED: 50, OVER_BUDGET: 3}, 8) is None
    what = "5.1% of the patches so far were joined to keep rows to 8"
    said = remark({PATCHES: 1000, JOINED: 51, OVER_BUDGET: 0}, 8)
    assert said == f"{what}: start again with a higher patch margin to have fewer joined."
