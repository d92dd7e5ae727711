"""Arrow columns to flat NumPy arrays and back, without a Python loop over rows.

A column of variable-length values is one flat array and `rows + 1` offsets: row `r` is `flat[offsets[r] : offsets[r + 1]]`.
"""

import numpy as np
import pyarrow as pa

FlatColumn = tuple[np.ndarray, np.ndarray]


def bytes_column(column: pa.Array | pa.ChunkedArray) -> FlatColumn:
    """Flat view of a binary or string column.

    Args:
        column: binary or string, without nulls; `rows` values.

    Returns:
        uint8 `[total bytes]` (read-only, no copy when the column is one chunk) and int64 offsets `[rows + 1]`, the first 0.
    """
    array = _one_chunk(column)
    _, offsets_buffer, data_buffer = array.buffers()
    if len(array) == 0 or data_buffer is None:
        return np.empty(0, dtype=np.uint8), np.zeros(len(array) + 1, dtype=np.int64)
    offsets = np.frombuffer(offsets_buffer, dtype=np.int32, count=array.offset + len(array) + 1)[array.offset :].astype(np.int64)
    flat = np.frombuffer(data_buffer, dtype=np.uint8)[offsets[0] : offsets[-1]]
    return flat, offsets - offsets[0]


def list_column(column: pa.Array | pa.ChunkedArray) -> FlatColumn:
    """Flat view of a column of lists of numbers.

    Args:
        column: list of a fixed-width number type, without nulls; `rows` values.

    Returns:
        The numbers `[total]` in their own dtype (read-only, no copy when the column is one chunk) and int64 offsets
        `[rows + 1]`, the first 0.
    """
    array = _one_chunk(column)
    offsets = array.offsets.to_numpy().astype(np.int64)
    flat = array.values.to_numpy(zero_copy_only=True)[offsets[0] : offsets[-1]]
    return flat, offsets - offsets[0]


def list_array(rows: list[np.ndarray], kind: pa.ListType) -> pa.ListArray:
    """The Arrow column of `kind` whose rows are `rows`; together they hold fewer than 2**31 numbers."""
    offsets = np.zeros(len(rows) + 1, dtype=np.int32)
    np.cumsum([len(row) for row in rows], out=offsets[1:])
    values = np.concatenate(rows) if rows else np.empty(0)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values, type=kind.value_type), type=kind)


def _one_chunk(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    if isinstance(column, pa.Array):
        return column
    if column.num_chunks == 1:
        return column.chunk(0)
    return pa.concat_arrays([pa.array([], column.type), *column.chunks])
