import itertools

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bltdata.shards.columns import bytes_column, list_array, list_column

HALF_LISTS = pa.list_(pa.float16())


@given(st.lists(st.binary(max_size=9)), st.data())
def test_bytes_of_any_slice(values: list[bytes], data: st.DataObject) -> None:
    start, stop = (data.draw(st.integers(0, len(values))) for _ in range(2))
    flat, offsets = bytes_column(pa.array(values, pa.binary())[start:stop])
    assert flat.dtype == np.uint8
    assert offsets.dtype == np.int64
    assert [flat[a:b].tobytes() for a, b in itertools.pairwise(offsets)] == values[start:stop]


@given(st.lists(st.lists(st.integers(0, 2048), max_size=5)), st.data())
def test_lists_of_any_slice(values: list[list[int]], data: st.DataObject) -> None:
    start, stop = (data.draw(st.integers(0, len(values))) for _ in range(2))
    column = list_array([np.array(value, dtype=np.float16) for value in values], HALF_LISTS)
    flat, offsets = list_column(column[start:stop])
    assert flat.dtype == np.float16
    assert offsets[0] == 0
    assert [flat[a:b].tolist() for a, b in itertools.pairwise(offsets)] == values[start:stop]


@pytest.mark.parametrize("chunks", [[], [["ab", "c"]], [["ab"], [], ["", "c"]]])
def test_columns_of_several_chunks(chunks: list[list[str]]) -> None:
    expected = [text.encode() for chunk in chunks for text in chunk]
    flat, offsets = bytes_column(pa.chunked_array(chunks, pa.string()))
    assert [flat[a:b].tobytes() for a, b in itertools.pairwise(offsets)] == expected
    lists = [list_array([np.array([len(text)]) for text in chunk], pa.list_(pa.uint32())) for chunk in chunks]
    values, offsets = list_column(pa.chunked_array(lists, pa.list_(pa.uint32())))
    assert values.tolist() == [len(text) for text in expected]
    assert offsets.tolist() == list(range(len(expected) + 1))


def test_one_chunk_is_not_copied() -> None:
    column = list_array([np.arange(5), np.arange(3)], pa.list_(pa.uint32()))
    flat, _ = list_column(column)
    assert np.shares_memory(flat, column.values.to_numpy())
