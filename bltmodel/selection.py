"""Which documents of a dataset are learned: all, or those of a source.

Where a source's documents are follows from the footers, for a row group of one source; nothing is kept of a document.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from bltdata.config import nearest
from bltdata.errors import ConfigError
from bltdata.shards import ShardDataset, schema
from bltdata.shards.footer import read_footer


@dataclass(frozen=True)
class Selection:
    """The documents of a source, or of all, that are learned.

    Attributes:
        groups: int64, the dataset's row groups that have any of them.
        num_documents: how many there are.
        num_bytes: raw bytes in them.
        num_patches: patches in them.
        source: their source; None where it is all the same.
        mixed: the row groups that hold other sources too.
    """

    groups: np.ndarray
    num_documents: int
    num_bytes: int
    num_patches: int
    source: str | None = None
    mixed: frozenset[int] = frozenset()

    @property
    def num_tokens(self) -> int:
        """Tokens of an epoch."""
        return self.num_bytes + self.num_documents


def select_all(dataset: ShardDataset, keep: np.ndarray | None = None) -> Selection:
    """Every document, or those of `keep`, bool `[num_documents]`."""
    groups = np.arange(len(dataset.row_groups))
    if keep is None:
        totals = dataset.manifest.totals
        return Selection(groups, totals.num_documents, totals.num_bytes, totals.num_patches)
    num_bytes = num_patches = first = 0
    for table in dataset.iter_row_groups([schema.NUM_BYTES, schema.NUM_PATCHES]):
        kept = keep[first : first + len(table)]
        num_bytes += int(table[schema.NUM_BYTES].to_numpy()[kept].sum())
        num_patches += int(table[schema.NUM_PATCHES].to_numpy()[kept].sum())
        first += len(table)
    return Selection(groups, int(keep.sum()), num_bytes, num_patches)


def select_sources(dataset: ShardDataset, keep: np.ndarray | None = None) -> dict[str, Selection]:
    """The documents of each source, sources by name, also of one of which none is taken.

    A row group of one source says so in its footer; only the others are looked into, or all where some documents are left out.
    """
    groups: dict[str, list[int]] = {}
    mixed: dict[str, set[int]] = {}
    counts: dict[str, Counter[str]] = {}
    first = 0
    for number, (group, only) in enumerate(zip(dataset.row_groups, _only_sources(dataset), strict=True)):
        if only is not None and keep is None:
            found = {only: Counter(num_documents=group.num_documents, num_bytes=group.num_bytes, num_patches=group.num_patches)}
        else:
            found = _count(dataset, number, None if keep is None else keep[first : first + group.num_documents])
        first += group.num_documents
        for name, numbers in found.items():
            groups.setdefault(name, [])
            counts.setdefault(name, Counter()).update(numbers)
            if not numbers["num_documents"]:
                continue
            groups[name].append(number)
            if only is None:
                mixed.setdefault(name, set()).add(number)
    return {
        name: Selection(np.array(groups[name], dtype=np.int64), **counts[name], source=name, mixed=frozenset(mixed.get(name, ())))
        for name in sorted(groups)
    }  # fmt: skip


def check_weights(weights: Mapping[str, float], sources: Mapping[str, Selection], folder: object) -> None:
    """Refuse weights that don't fit a dataset's sources.

    Raises:
        ConfigError: an unknown source, one without a weight or without a byte, or a weight that is none.
    """
    for name, weight in weights.items():
        if name not in sources:
            raise ConfigError(f"{folder} has no source {name!r} to give a weight{nearest(name, sources)}.")
        if not 0 <= weight < float("inf"):
            raise ConfigError(f"The weight of source {name!r} is {weight}; it must be a finite number, 0 or more.")
        if weight > 0 and not sources[name].num_bytes:
            raise ConfigError(f"The source {name!r} of {folder} has no bytes to learn from, beside what is held out; give it the weight 0.")
    for name, source in sources.items():
        if name not in weights and source.num_documents:
            raise ConfigError(f"The source {name!r} of {folder} has no weight; give it one, 0 to leave it out.")
    if not any(weights.values()):
        raise ConfigError("All weights of sources are 0, so nothing is left to learn from; give one of them more.")


def _only_sources(dataset: ShardDataset) -> list[str | None]:
    """The one source of each row group; None where there are several, or the footer doesn't say."""
    sources: list[str | None] = []
    for path in dataset.paths:
        _, metadata = read_footer(path)
        column = metadata.schema.names.index(schema.SOURCE)
        for number in range(metadata.num_row_groups):
            statistics = metadata.row_group(number).column(column).statistics
            told = statistics is not None and statistics.has_min_max and statistics.min == statistics.max
            sources.append(str(statistics.min) if told else None)
    return sources


def _count(dataset: ShardDataset, number: int, keep: np.ndarray | None) -> dict[str, Counter[str]]:
    """Documents, bytes and patches of each source in a row group."""
    group = dataset.row_groups[number]
    table = dataset.read_row_group(group.shard, group.row_group, [schema.SOURCE, schema.NUM_BYTES, schema.NUM_PATCHES])
    nothing = {name: Counter(num_documents=0, num_bytes=0, num_patches=0) for name in table[schema.SOURCE].unique().to_pylist()}
    if keep is not None:
        table = table.filter(keep)
    counted = table.group_by(schema.SOURCE).aggregate([(schema.NUM_BYTES, "count"), (schema.NUM_BYTES, "sum"), (schema.NUM_PATCHES, "sum")])
    return nothing | {
        row[schema.SOURCE]: Counter(
            num_documents=row[f"{schema.NUM_BYTES}_count"],
            num_bytes=row[f"{schema.NUM_BYTES}_sum"],
            num_patches=row[f"{schema.NUM_PATCHES}_sum"],
        )
        for row in counted.to_pylist()
    }
