"""One pass over a dataset, a row group in memory at a time."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa

from bltdata.errors import ShardError
from bltdata.shards import ShardDataset, schema
from bltdata.shards.columns import FlatColumn, list_column
from bltdata.stats.sources import DatasetStatistics, SourceStatistics

COLUMNS = (schema.SOURCE, schema.ENTROPY_NATS, schema.PATCH_LENGTHS, schema.NUM_BYTES, schema.NLL_NATS)


def collect_statistics(dataset: ShardDataset, progress: Callable[[int], object] | None = None) -> DatasetStatistics:
    """Count everything in a dataset.

    Args:
        dataset: what `open_shards` gives.
        progress: is called after each row group with its raw bytes.

    Returns:
        Statistics by source; add those of several datasets to merge them.

    Raises:
        ShardError: a shard is damaged.
    """
    statistics = DatasetStatistics()
    for table in dataset.iter_row_groups(COLUMNS):
        _add_row_group(statistics, table, dataset.folder)
        if progress:
            progress(int(table[schema.NUM_BYTES].to_numpy().sum()))
    return statistics


def _add_row_group(statistics: DatasetStatistics, table: pa.Table, folder: Path) -> None:
    source = table[schema.SOURCE].combine_chunks()
    nll_nats = table[schema.NLL_NATS].to_numpy()
    if not np.isfinite(nll_nats).all():
        raise ShardError(f"A shard in {folder} has a negative log-likelihood that is not finite; run build-shards again.")
    entropy_nats, patch_lengths = list_column(table[schema.ENTROPY_NATS]), list_column(table[schema.PATCH_LENGTHS])
    num_bytes, source_of_row = table[schema.NUM_BYTES].to_numpy(), source.indices.to_numpy()
    for index, name in enumerate(source.dictionary.to_pylist()):
        rows = source_of_row == index
        if not rows.any():
            continue
        _add_documents(
            statistics.source(name),
            entropy_nats=_values_of(entropy_nats, rows),
            patch_lengths=_values_of(patch_lengths, rows),
            num_patches=np.diff(patch_lengths[1])[rows],
            num_bytes=num_bytes[rows],
            nll_nats=nll_nats[rows],
        )


def _add_documents(
    statistics: SourceStatistics,
    *,
    entropy_nats: np.ndarray,
    patch_lengths: np.ndarray,
    num_patches: np.ndarray,
    num_bytes: np.ndarray,
    nll_nats: np.ndarray,
) -> None:
    statistics.entropy.add(entropy_nats)
    statistics.patch_lengths.add(patch_lengths)
    statistics.boundaries.add(num_patches - 1)
    statistics.document_bytes.add(num_bytes)
    statistics.nll.add(nll_nats)
    statistics.num_documents += len(num_bytes)
    statistics.num_bytes += int(num_bytes.sum())
    statistics.num_patches += len(patch_lengths)


def _values_of(column: FlatColumn, rows: np.ndarray) -> np.ndarray:
    """The flat values of the rows that a mask `[rows]` selects."""
    flat, offsets = column
    # Usually a row group has one source, and nothing needs to be copied.
    return flat if rows.all() else flat[np.repeat(rows, np.diff(offsets))]
