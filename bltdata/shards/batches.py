"""Row groups as documents that lie end to end, for cutting many at a time without a Python loop over them."""

from collections.abc import Callable, Iterator, Sequence
from typing import overload

import numpy as np
import pyarrow as pa

from bltdata.errors import ShardError
from bltdata.patching.batch import DocumentBatch
from bltdata.patching.sources import SourceRules
from bltdata.shards import schema
from bltdata.shards.columns import bytes_column, list_column
from bltdata.shards.reader import ShardDataset


def document_batches(
    dataset: ShardDataset, *, needs_bytes: bool, progress: Callable[[int], object] | None = None
) -> Iterator[DocumentBatch]:
    """The documents of a dataset, by row group and source; a row group is in memory at a time.

    Args:
        dataset: what `open_shards` gives.
        needs_bytes: whether a rule will read the bytes of the documents.
        progress: is called after each row group with its raw bytes.

    Raises:
        ShardError: a shard is damaged.
    """
    columns = [schema.DOC_ID, schema.SOURCE, *([schema.DATA] if needs_bytes else []), schema.ENTROPY_NATS, schema.NUM_BYTES]
    for table in dataset.iter_row_groups(columns):
        source = table[schema.SOURCE].combine_chunks()
        source_of_row = source.indices.to_numpy()
        for index, name in enumerate(source.dictionary.to_pylist()):
            rows = source_of_row == index
            if rows.any():
                yield _batch(table, name, rows)
        if progress:
            progress(int(table[schema.NUM_BYTES].to_numpy().sum()))


def cut_again(table: pa.Table, rules: SourceRules) -> pa.Table:
    """A row group with the patches that `rules` make of its stored entropies; every other column stays as it is.

    Args:
        table: all columns of a row group, as `ShardDataset.read_row_group` gives it.
        rules: the rule of each source.

    Raises:
        ShardError: the columns of a document contradict each other.
        PatchingError: an entropy is not valid; the message names the document.
    """
    source = table[schema.SOURCE].combine_chunks()
    names, source_of_row = source.dictionary.to_pylist(), source.indices.to_numpy()
    needed = [rules.rule_for(name) for name in names]
    distinct = list(dict.fromkeys(needed))
    if len(distinct) <= 1:
        rule = distinct[0] if distinct else rules.default
        lengths, offsets = _batch(table, "", np.ones(table.num_rows, dtype=bool)).lengths(rule)
        return _with_patches(table, lengths, offsets)
    rule_of_row = np.array([distinct.index(rule) for rule in needed])[source_of_row]
    cuts = []
    num_patches = np.empty(table.num_rows, dtype=np.int64)
    for index, rule in enumerate(distinct):
        rows = rule_of_row == index
        lengths, offsets = _batch(table, "", rows).lengths(rule)
        num_patches[rows] = np.diff(offsets)
        cuts.append((rows, lengths))
    offsets = np.concatenate([[0], np.cumsum(num_patches)])
    joined = np.empty(int(offsets[-1]), dtype=np.uint32)
    for rows, lengths in cuts:
        joined[np.repeat(rows, num_patches)] = lengths
    return _with_patches(table, joined, offsets)


def _with_patches(table: pa.Table, lengths: np.ndarray, offsets: np.ndarray) -> pa.Table:
    kind = schema.SCHEMA.field(schema.PATCH_LENGTHS).type
    # The lists of a row group have fewer than 2**31 numbers: it is as large as one of its documents at most, or a few megabytes.
    lists = pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), pa.array(lengths, type=kind.value_type), type=kind)
    columns = {schema.PATCH_LENGTHS: lists, schema.NUM_PATCHES: pa.array(np.diff(offsets))}
    return pa.Table.from_arrays([columns.get(name, table[name]) for name in schema.COLUMNS], schema=schema.SCHEMA)


def _batch(table: pa.Table, source: str, rows: np.ndarray) -> DocumentBatch:
    """The documents of some rows, end to end."""
    num_bytes = table[schema.NUM_BYTES].to_numpy()
    offsets = np.concatenate([[0], np.cumsum(num_bytes)])
    entropies, entropy_offsets = list_column(table[schema.ENTROPY_NATS])
    if not np.array_equal(entropy_offsets, offsets + np.arange(len(offsets))):
        raise ShardError("A row group has another number of entropies than its documents have positions; make its shard anew.")
    data = None
    if schema.DATA in table.column_names:
        data, data_offsets = bytes_column(table[schema.DATA])
        if not np.array_equal(data_offsets, offsets):
            raise ShardError("A row group has documents of another length than it says; make its shard anew.")
    names: Sequence[str] = _Names(table[schema.DOC_ID], np.flatnonzero(rows))
    if not rows.all():
        # Usually a row group has one source, and nothing needs to be copied.
        entropies = entropies[np.repeat(rows, num_bytes + 1)]
        data = None if data is None else data[np.repeat(rows, num_bytes)]
        offsets = np.concatenate([[0], np.cumsum(num_bytes[rows])])
    return DocumentBatch(source=source, data=data, data_offsets=offsets, entropy_nats=entropies, names=names)


class _Names(Sequence[str]):
    """Names of documents, made when one is asked for: that is for an error, and there are many documents."""

    def __init__(self, column: pa.ChunkedArray, rows: np.ndarray) -> None:
        self._column, self._rows = column, rows

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...

    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        if isinstance(index, slice):
            return _Names(self._column, self._rows[index])
        return f"document {self._column[int(self._rows[index])].as_py()!r}"
