import dataclasses
import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bltdata.config import from_mapping, to_mapping
from bltdata.corpus.fragments import Fragment, Piece, group, take

PIECE = Piece(name="a/\xe9.txt", start=3, stop=9, first_number=2, max_documents=7, size_bytes=6, file_bytes=20, modified_ns=10**18 + 1)
FRAGMENT = Fragment(index=4, source="web", items=(PIECE, Piece(name="b")))

sizes = st.lists(st.none() | st.integers(0, 20), max_size=20)


@given(sizes, st.integers(1, 15))
def test_group(sizes, target):
    pieces = [Piece(name=str(index), size_bytes=size) for index, size in enumerate(sizes)]
    groups = list(group(pieces, target))
    assert [piece for items in groups for piece in items] == pieces
    for items in groups:
        assert items
        assert len(items) == 1 or None not in [piece.size_bytes for piece in items]
        # What is too much is there only because one piece alone is.
        assert sum(piece.size_bytes or 0 for piece in items) <= max(target, *[piece.size_bytes or 0 for piece in items], 0)
    for one, other in itertools.pairwise(groups):
        full = sum(piece.size_bytes or 0 for piece in one) + (other[0].size_bytes or 0) > target
        assert full or None in (one[0].size_bytes, other[0].size_bytes)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=10), st.integers(1, 30))
def test_take(counts, limit):
    pieces = [Piece(name=str(count)) for count in counts]
    taken = list(take(pieces, limit, lambda piece, at_most: min(int(piece.name), at_most)))
    assert sum(int(piece.name) if piece.max_documents is None else piece.max_documents for piece in taken) == min(limit, sum(counts))
    assert [piece.name for piece in taken] == [piece.name for piece in pieces[: len(taken)]]


def test_take_draws_no_more_than_it_needs():
    def pieces():
        yield Piece(name="1")
        yield Piece(name="2")
        raise AssertionError("drawn in vain")

    assert list(take(pieces(), 2, lambda piece, at_most: 1)) == [Piece(name="1"), Piece(name="2", max_documents=1)]


def test_json_round_trip():
    assert from_mapping(Fragment, json.loads(json.dumps(to_mapping(FRAGMENT)))) == FRAGMENT


@pytest.mark.parametrize(
    ("field", "value"),
    [("name", "c"), ("start", 4), ("stop", None), ("max_documents", 8), ("file_bytes", 21), ("skip_rows", 1)],
)
def test_the_fingerprint_notices_a_change(field, value):
    changed = dataclasses.replace(FRAGMENT, items=(dataclasses.replace(PIECE, **{field: value}), FRAGMENT.items[1]))
    assert changed.fingerprint != FRAGMENT.fingerprint


def test_the_fingerprint_is_of_what_is_read():
    assert dataclasses.replace(FRAGMENT, index=5).fingerprint == FRAGMENT.fingerprint
    # A copy of the file is the same.
    copied = dataclasses.replace(FRAGMENT, items=(dataclasses.replace(PIECE, modified_ns=10**18 + 2), FRAGMENT.items[1]))
    assert copied.fingerprint == FRAGMENT.fingerprint
    assert dataclasses.replace(FRAGMENT, source="other").fingerprint != FRAGMENT.fingerprint


def test_size():
    assert FRAGMENT.size_bytes is None
    assert Fragment(index=0, source="web", items=(PIECE, PIECE)).size_bytes == 12
