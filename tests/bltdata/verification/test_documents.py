import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bltdata.verification.documents import EMPTY_DOCUMENT, DocumentIndex, RowSpan, digests, repeats


def slow_repeats(words: list[tuple[int, int]]) -> tuple[list[int], list[int]]:
    found = [index for index, word in enumerate(words) if word in words[:index]]
    return found, [words.index(words[index]) for index in found]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), max_size=30))
def test_repeats_are_those_of_a_loop(words):
    array = np.array(words, dtype=np.uint64).reshape(-1, 2)
    assert tuple(found.tolist() for found in repeats(array)) == slow_repeats(words)


def test_digests_tell_values_apart():
    values = [b"", b"a", b"ab", b"a", bytes(1000)]
    found = digests(pa.chunked_array([values[:2], values[2:]], pa.binary()))
    assert (found.shape, found.dtype) == ((5, 2), np.uint64)
    assert (found[0] == EMPTY_DOCUMENT).all()
    assert len({tuple(row) for row in found.tolist()}) == 4
    assert (found[1] == found[3]).all()
    assert digests(pa.array([], pa.binary())).shape == (0, 2)


def test_places():
    index = DocumentIndex(3)
    assert (len(index), index.names.shape) == (0, (0, 2))
    words = np.arange(10, dtype=np.uint64).reshape(5, 2)
    # The second row group of the shard, which has rows 2 to 4, can't be read.
    index.set_shard(0, words[:2], words[:2], [RowSpan(0, 0, 2)])
    index.set_shard(2, words[2:], words[2:], [RowSpan(0, 0, 2), RowSpan(2, 5, 1)])
    assert [index.place(position) for position in range(5)] == [(0, 0, 0), (0, 0, 1), (2, 0, 0), (2, 0, 1), (2, 2, 5)]
    assert index.contents.tolist() == words.tolist()
    with pytest.raises(IndexError):
        index.place(5)
