"""The documents of an explorer page: given ones, or a sample of a dataset."""

import bisect
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from bltdata.errors import ConfigError, ShardError
from bltdata.patching import Patches, SourceRules
from bltdata.patching.display import whole_characters
from bltdata.shards import Row, ShardDataset
from bltdata.shards.precision import check_stored

SAMPLE_SEED = 0
"""The sample of a dataset is always the same, so that a page can be made again."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ExplorerDocument:
    """A document with its entropies, and the patches to begin with."""

    name: str
    """Any text."""
    patches: Patches
    """Its bytes and entropies, and where a rule cut them."""
    source: str | None = None
    """Label of the source; None where there is none."""
    has_stored_patches: bool = False
    """Whether the patches are those of a dataset, which the page then shows beside those of its rules."""
    num_left_out: int = 0
    """Bytes of the document that come after those here."""

    def head(self, limit: int) -> "ExplorerDocument":
        """So much of the document that a limit, in bytes, is kept and no character is cut."""
        end = whole_characters(self.patches.data, limit)
        num_left_out = self.num_left_out + len(self.patches.data) - end
        return replace(self, patches=self.patches.head(end), num_left_out=num_left_out)


def sample_documents(dataset: ShardDataset, *, max_bytes: int, num_documents: int = 20) -> list[ExplorerDocument]:
    """Some documents of a dataset, always the same: each is as likely to be among them as any other.

    Of a long document the beginning is taken, so that all of them together keep the limit and short ones stay whole.

    Args:
        dataset: where they come from; a row group is read for each.
        max_bytes: of all of them together.
        num_documents: how many, where the dataset has as many.

    Returns:
        The documents in the order of the dataset.

    Raises:
        ConfigError: a limit is below 1.
        ShardError: the dataset has no documents, or is damaged.
    """
    for name, value in (("max_bytes", max_bytes), ("num_documents", num_documents)):
        if value < 1:
            raise ConfigError(f"{name} is {value}; it must be at least 1.")
    if len(dataset) == 0:
        raise ShardError(f"{dataset.folder} has no documents, so there is nothing to explore.")
    rng = np.random.default_rng(SAMPLE_SEED)
    chosen = rng.choice(len(dataset), size=min(num_documents, len(dataset), max_bytes), replace=False)
    documents = [_stored(dataset, _row(dataset, index)).head(max_bytes) for index in sorted(chosen.tolist())]
    limit = common_limit([len(document.patches.data) for document in documents], max_bytes)
    return [document.head(limit) for document in documents]


def stored_document(dataset: ShardDataset, doc_id: str, *, max_bytes: int) -> ExplorerDocument:
    """One document of a dataset, or its beginning.

    Raises:
        ShardError: there is none of that name.
    """
    return _stored(dataset, dataset.document(doc_id)).head(max_bytes)


def common_limit(lengths: Sequence[int], total: int) -> int:
    """The largest length to which all can be cut so that they sum to `total` at most.

    >>> common_limit([2, 50, 9], 30), common_limit([2, 50, 9], 12), common_limit([2, 3], 30)
    (19, 5, 3)
    """
    remaining = total
    for index, length in enumerate(sorted(lengths)):
        num_left = len(lengths) - index
        if length * num_left > remaining:
            return remaining // num_left
        remaining -= length
    return max(lengths, default=0)


def _row(dataset: ShardDataset, index: int) -> Row:
    """The document of that number; reads the footer of its shard and its row group."""
    ends = list(itertools.accumulate(shard.num_documents for shard in dataset.manifest.shards))
    shard = bisect.bisect_right(ends, index)
    index -= ends[shard] - dataset.manifest.shards[shard].num_documents
    for group in dataset.shard_row_groups(shard):
        if index < group.num_documents:
            return dataset.row(shard, group.row_group, index)
        index -= group.num_documents
    raise AssertionError("the reader has compared the counts of the footer with the manifest's")


def _stored(dataset: ShardDataset, row: Row) -> ExplorerDocument:
    manifest = dataset.manifest
    check_stored(row.entropy_nats, f"The document {row.doc_id!r} of {dataset.folder}")
    rules = SourceRules.from_mapping({"patch_rule": manifest.patch_rule, "source_rules": manifest.source_rules}, str(dataset.folder))
    rule = rules.rule_for(row.source)
    patches = Patches(data=row.data, entropy_nats=row.entropy_nats, rule=rule, lengths=row.patch_lengths)
    return ExplorerDocument(name=row.doc_id, patches=patches, source=row.source, has_stored_patches=True)
