"""One pass over a dataset, a row group in memory at a time."""

import dataclasses
import functools
from collections.abc import Callable

import numpy as np
import pyarrow as pa

from bltdata.errors import ShardError
from bltdata.shards import ShardDataset, schema
from bltdata.shards.checks import has_nll
from bltdata.shards.columns import bytes_column, list_column
from bltdata.shards.folder import run_again
from bltdata.stats import kernels, positions
from bltdata.stats.byte_classes import class_table
from bltdata.stats.sources import DatasetStatistics, SourceStatistics

COLUMNS = (schema.SOURCE, schema.DATA, schema.ENTROPY_NATS, schema.PATCH_LENGTHS, schema.NUM_BYTES, schema.NLL_NATS)


def collect_statistics(dataset: ShardDataset, progress: Callable[[int], object] | None = None) -> DatasetStatistics:
    """Count everything in a dataset.

    Args:
        dataset: what `open_shards` gives.
        progress: is called after each row group with its raw bytes.

    Returns:
        Statistics by source; add those of several datasets, or of several shards, to merge them.

    Raises:
        ShardError: a shard is damaged.
    """
    statistics = DatasetStatistics()
    for shard in range(len(dataset.manifest.shards)):
        statistics += collect_shard(dataset, shard, progress)
    return statistics


def collect_shard(dataset: ShardDataset, shard: int, progress: Callable[[int], object] | None = None) -> DatasetStatistics:
    """Count everything in one shard, its index in the manifest's list. Arguments and errors as for `collect_statistics`."""
    statistics = DatasetStatistics()
    for table in dataset.iter_shard(shard, COLUMNS):
        _add_row_group(statistics, table, dataset)
        if progress:
            progress(int(table[schema.NUM_BYTES].to_numpy().sum()))
    return statistics


@dataclasses.dataclass(frozen=True)
class _RowGroup:
    """The columns of a row group as flat arrays, checked against each other."""

    data: np.ndarray
    codes: np.ndarray
    """uint16 `[positions]`, the bits of the entropies."""
    bounds: np.ndarray
    """int64 `[rows + 1]`, where each document's positions begin."""
    lengths: np.ndarray
    patch_offsets: np.ndarray
    kinds: np.ndarray
    nll_nats: np.ndarray


def _add_row_group(statistics: DatasetStatistics, table: pa.Table, dataset: ShardDataset) -> None:
    source = table[schema.SOURCE].combine_chunks()
    group = _flat(table, dataset)
    source_of_row = source.indices.to_numpy()
    for index, name in enumerate(source.dictionary.to_pylist()):
        rows = np.flatnonzero(source_of_row == index)
        if rows.size:
            _add_documents(statistics.source(name), group, rows)


def _flat(table: pa.Table, dataset: ShardDataset) -> _RowGroup:
    nll_nats = table[schema.NLL_NATS].to_numpy()
    unknown = np.isnan(nll_nats)
    if np.isinf(nll_nats).any() or (unknown.any() and has_nll(dataset.manifest.entropy_model)):
        raise ShardError(f"A shard in {dataset.folder} has a negative log-likelihood that is not finite; {run_again(dataset.folder)}.")
    entropy_nats, bounds = list_column(table[schema.ENTROPY_NATS])
    lengths, patch_offsets = list_column(table[schema.PATCH_LENGTHS])
    data, data_offsets = bytes_column(table[schema.DATA])
    # The compiled loops check no index again.
    if not np.array_equal(bounds, data_offsets + np.arange(len(data_offsets))):
        raise ShardError(f"A shard in {dataset.folder} has documents with more or fewer entropies than positions; run verify to see which.")
    kinds = np.zeros(entropy_nats.size, dtype=np.uint8)
    if kernels.mark_starts(lengths, patch_offsets, bounds, kinds) >= 0:
        raise ShardError(f"A shard in {dataset.folder} has patches that are not as long as their document; run verify to see which.")
    return _RowGroup(data, entropy_nats.view(np.uint16), bounds, lengths, patch_offsets, kinds, nll_nats)


def _add_documents(statistics: SourceStatistics, group: _RowGroup, rows: np.ndarray) -> None:
    class_of, grid_of, units_of = _tables()
    found = statistics.positions
    found.num_words += kernels.count_positions(
        rows,
        group.data,
        group.bounds,
        group.codes,
        group.kinds,
        class_of,
        grid_of,
        positions.EDGES,
        statistics.entropy.counts,
        found.by_class,
        found.byte_counts,
        found.starts_after,
        found.bin_starts,
        found.bin_counts,
    )
    row_units = np.empty(rows.size, dtype=np.int64)
    bin_units = np.zeros(positions.NUM_BINS, dtype=np.int64)
    part_units = np.zeros_like(found.part_counts)
    seam_units = np.zeros_like(found.seam_counts)
    found.num_parted += kernels.sum_entropies(
        rows,
        group.bounds,
        group.codes,
        units_of,
        positions.EDGES,
        bin_units,
        part_units,
        found.part_counts,
        seam_units,
        found.seam_counts,
        row_units,
    )
    for sums, units in ((found.bin_units, bin_units), (found.part_units, part_units), (found.seam_units, seam_units)):
        sums.add(units)
    dense = statistics.patch_lengths.dense
    num_large = kernels.count_patches(
        rows, group.lengths, group.patch_offsets, group.data, group.bounds, class_of, dense, found.patch_positions
    )
    num_patches = np.diff(group.patch_offsets)[rows]
    if num_large:
        for row in rows.tolist():
            statistics.patch_lengths.add_large(group.lengths[group.patch_offsets[row] : group.patch_offsets[row + 1]])
    num_positions, nll_nats = np.diff(group.bounds)[rows], group.nll_nats[rows]
    statistics.boundaries.add(num_patches - 1)
    statistics.document_bytes.add(num_positions - 1)
    statistics.expectation.add(np.ldexp(row_units.astype(np.float64), -positions.UNIT_BITS), nll_nats, num_positions)
    known = nll_nats[~np.isnan(nll_nats)]
    statistics.nll.add(known)
    statistics.num_without_nll += len(rows) - len(known)
    statistics.num_documents += len(rows)
    statistics.num_bytes += int(num_positions.sum()) - len(rows)
    statistics.num_patches += int(num_patches.sum())


@functools.cache
def _tables() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Class of each byte, and grid step and units of each float16."""
    return class_table(), positions.grid_table(), positions.units_table()
