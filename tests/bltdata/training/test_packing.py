import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bltdata.errors import CorpusError
from bltdata.training.packing import (
    Cursor,
    Order,
    PackedRow,
    Packer,
    Piece,
    ShuffledRows,
    first_documents,
    inputs_and_targets,
    shuffled_order,
)
from bltdata.vocab import BOS_ID, BYTE_OFFSET, EOS_ID, encode
from tests.bltdata.small import Documents

DOCUMENTS = st.lists(st.binary(max_size=12), min_size=1, max_size=6)


def every(*documents: int) -> Order:
    """The same order in all epochs."""
    return lambda epoch: np.array(documents, dtype=np.int64)


def packer(documents: list[bytes], row_tokens: int, seed: int | None = None) -> Packer[Documents]:
    order = every(*range(len(documents))) if seed is None else shuffled_order(len(documents), seed)
    return Packer(Documents(documents), order, row_tokens)


def rows_from(packed: Packer[Documents], cursor: Cursor, count: int) -> list[tuple[PackedRow[Documents], Cursor]]:
    return list(itertools.islice(packed.endless_rows(cursor), count))


def as_lists(row: PackedRow[Documents]) -> tuple[list, ...]:
    return row.ids.tolist(), row.targets.tolist(), row.visible_from.tolist(), list(row.pieces)


def test_an_example_written_out():
    a, b, c = (value + 4 for value in b"abc")
    packed = packer([b"ab", b"", b"c"], row_tokens=4)
    first, second, third = rows_from(packed, Cursor(), 3)
    assert as_lists(first[0]) == ([BOS_ID, a, b, BOS_ID], [a, b, EOS_ID, EOS_ID], [0, 0, 0, 3], [Piece(0, 0, 3, 0), Piece(1, 0, 1, 3)])
    assert first[1] == Cursor(0, 2, 0)
    # The next epoch begins in the middle of a row.
    assert as_lists(second[0]) == ([BOS_ID, c, BOS_ID, a], [c, EOS_ID, a, b], [0, 0, 2, 2], [Piece(2, 0, 2, 0), Piece(0, 0, 2, 2)])
    assert second[1] == Cursor(1, 0, 2)
    # A document goes on where it was cut: its first token there is a byte, and what was cut off isn't seen any more.
    assert as_lists(third[0])[:3] == ([b, BOS_ID, BOS_ID, c], [EOS_ID, EOS_ID, c, EOS_ID], [0, 1, 2, 2])
    assert third[1] == Cursor(1, 3, 0)


@given(DOCUMENTS, st.integers(2, 20), st.integers(0, 3), st.integers(1, 3))
def test_every_token_of_an_epoch_is_predicted_once_and_in_order(documents, row_tokens, seed, num_epochs):
    packed = packer(documents, row_tokens, seed)
    expected = [
        (index, token)
        for epoch in range(num_epochs)
        for index in shuffled_order(len(documents), seed)(epoch).tolist()
        for token in range(len(documents[index]) + 1)
    ]
    assert packed.tokens_per_epoch == len(expected) // num_epochs
    rows = rows_from(packed, Cursor(), len(expected) // row_tokens)
    found = []
    for row, _ in rows:
        assert len(row.ids) == len(row.targets) == len(row.visible_from) == row_tokens
        for document, begin, end, row_start in row.pieces:
            ids, targets = encode(documents[document], bos=True), encode(documents[document], eos=True)
            for token in range(begin, end):
                place = row_start + token - begin
                found.append((document, token))
                assert (row.ids[place], row.targets[place]) == (ids[token], targets[token])
                assert row.visible_from[place] == row_start
        # Pieces lie end to end and fill the row.
        assert [piece.row_start for piece in row.pieces] == [0, *itertools.accumulate(p.end - p.begin for p in row.pieces)][:-1]
        assert sum(piece.end - piece.begin for piece in row.pieces) == row_tokens
    assert found == expected[: len(found)]
    assert len(expected) - len(found) < row_tokens


def test_a_row_counts_raw_bytes_and_reads_nothing_for_it(monkeypatch):
    packed = packer([b"ab", b"", b"cdefg"], row_tokens=4)
    monkeypatch.setattr(Documents, "document", None)
    # BOS a b | BOS || BOS c d e | f g BOS a || b ...: the ends don't count.
    rows = rows_from(packed, Cursor(), 4)
    assert [row.num_bytes for row, _ in rows] == [2, 4, 3, 2]


@given(DOCUMENTS, st.integers(2, 20), st.integers(0, 3))
def test_raw_bytes_of_a_row_are_its_targets_that_are_bytes(documents, row_tokens, seed):
    packed = packer(documents, row_tokens, seed)
    for row, _ in rows_from(packed, Cursor(), 5):
        assert row.num_bytes == (row.targets >= BYTE_OFFSET).sum()


@given(DOCUMENTS, st.integers(2, 20), st.integers(0, 3), st.integers(1, 12))
def test_any_cursor_leads_to_the_same_rows(documents, row_tokens, seed, steps):
    whole = rows_from(packer(documents, row_tokens, seed), Cursor(), steps + 4)
    # Another packer, as after a restart.
    resumed = rows_from(packer(documents, row_tokens, seed), whole[steps - 1][1], 4)
    assert [(as_lists(row), cursor) for row, cursor in resumed] == [(as_lists(row), cursor) for row, cursor in whole[steps:]]


def test_one_packer_serves_several_readers():
    packed = packer([b"abc", b"de", b"fghij"], 4, seed=1)
    alone = [as_lists(row) for row, _ in rows_from(packed, Cursor(), 9)]
    ahead, behind = packed.endless_rows(Cursor()), packed.endless_rows(Cursor())
    list(itertools.islice(ahead, 5))
    assert packed.tokens_per_epoch == 13
    # The other is in a later epoch by now.
    assert [as_lists(next(behind)[0]) for _ in range(9)] == alone
    assert [as_lists(next(ahead)[0]) for _ in range(4)] == alone[5:]


@given(st.binary(max_size=20), st.data())
def test_tokens_and_what_stands_after_them(data, draw):
    ids, targets = encode(data, bos=True), encode(data, eos=True)
    begin = draw.draw(st.integers(0, len(data)))
    end = draw.draw(st.integers(begin + 1, len(data) + 1))
    found = inputs_and_targets(np.frombuffer(data, dtype=np.uint8), begin, end)
    assert (found[0].tolist(), found[1].tolist()) == (ids[begin:end].tolist(), targets[begin:end].tolist())


def test_orders():
    orders = [shuffled_order(20, seed)(epoch).tolist() for seed in (0, 1) for epoch in (0, 1)]
    assert all(sorted(order) == list(range(20)) for order in orders)
    assert len({tuple(order) for order in orders}) == 4
    assert shuffled_order(20, 1)(1).tolist() == orders[3]


def test_an_order_may_leave_documents_out():
    packed = Packer(Documents([b"a", b"bb", b"ccc"]), every(2, 0), 6)
    assert packed.tokens_per_epoch == 6
    ((row, _),) = rows_from(packed, Cursor(), 1)
    assert [piece.document for piece in row.pieces] == [2, 0]


@pytest.mark.parametrize(
    ("lengths", "num_bytes", "expected"),
    [([3, 4, 5], 11, 2), ([3, 4, 5], 12, 3), ([3, 4, 5], 100, 3), ([30, 4], 7, 1), ([0, 0, 30, 4], 7, 3), ([0, 2, 0, 0, 9], 2, 4)],
)
def test_first_documents(lengths, num_bytes, expected):
    assert first_documents(np.array(lengths), num_bytes).tolist() == list(range(expected))


@pytest.mark.parametrize("lengths", [[], [0], [0, 0]])
def test_nothing_to_judge_on(lengths):
    with pytest.raises(CorpusError, match=r"^The validation documents have no bytes to judge a model on; choose others\.$"):
        first_documents(np.array(lengths, dtype=np.int64), 10)


@pytest.mark.parametrize("documents", [[], [b"a"]])
def test_nothing_to_train_on(documents):
    packed = Packer(Documents(documents), every(), 4)
    with pytest.raises(CorpusError, match=r"^There are no documents to train on; choose others\.$"):
        next(packed.endless_rows(Cursor()))


# ------------------------------------------------------------------------------------------------------------ shuffled rows


@given(DOCUMENTS.filter(any), st.integers(2, 9), st.integers(1, 6), st.integers(0, 40))
def test_shuffled_rows_are_the_rows_of_each_stretch(documents, row_tokens, num_rows, skipped):
    packed = packer(documents, row_tokens, seed=3)
    shuffled = ShuffledRows(packed, 5, num_rows)
    found = [(as_lists(row), place) for row, place in itertools.islice(shuffled.endless_rows(()), skipped + 20)]
    # Any place leads to what follows it.
    place = found[skipped - 1][1] if skipped else ()
    resumed = itertools.islice(ShuffledRows(packer(documents, row_tokens, seed=3), 5, num_rows).endless_rows(place), 20)
    assert [(as_lists(row), place) for row, place in resumed] == found[skipped:]
    # Stretch by stretch, they are those of the packer.
    cursor, taken = Cursor(), 0
    while taken < len(found):
        rows, after = packed.stretch(cursor, num_rows)
        assert 1 <= len(rows) <= num_rows
        if taken + len(rows) <= len(found):
            assert sorted(map(repr, map(as_lists, rows))) == sorted(repr(row) for row, _ in found[taken : taken + len(rows)])
        taken, cursor = taken + len(rows), after


def test_a_stretch_ends_with_the_epoch():
    packed = packer([b"abcdefgh", b"ijklm"], row_tokens=4)
    # 15 tokens: the fourth row begins the next epoch.
    rows, after = packed.stretch(Cursor(), 100)
    assert (len(rows), after) == (4, Cursor(1, 0, 1))
    rows, after = packed.stretch(after, 100)
    assert (len(rows), after) == (4, Cursor(2, 0, 2))
    rows, after = packed.stretch(Cursor(), 2)
    assert (len(rows), after) == (2, Cursor(0, 0, 8))


def test_neighbours_in_a_document_are_none_in_a_step():
    documents = [bytes([number]) * 400 for number in range(20)]
    rows = itertools.islice(ShuffledRows(packer(documents, 20, seed=0), 1).endless_rows(()), 400)
    of_rows = [{piece.document for piece in row.pieces} for row, _ in rows]
    together = sum(bool(one & other) for one, other in itertools.pairwise(of_rows))
    # In the packer's order nearly all are together; of twenty documents, two rows have one in common by chance once in ten.
    assert together < 80
    orders = [
        [row.pieces for row, _ in itertools.islice(ShuffledRows(packer(documents, 20, seed=0), seed).endless_rows(()), 30)]
        for seed in (1, 2)
    ]
    assert orders[0] != orders[1]
