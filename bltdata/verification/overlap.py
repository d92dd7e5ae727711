"""How many documents of a dataset are in another one: what a report on one of them says, without looking for other faults."""

import numpy as np

from bltdata.shards import ShardDataset, schema
from bltdata.stats.overlap import Overlap
from bltdata.verification.documents import EMPTY_DOCUMENT, digests, repeats


def find_overlap(dataset: ShardDataset, other: ShardDataset) -> Overlap:
    """Count the documents of a dataset whose bytes are those of a document of another, the empty document aside.

    Takes 16 bytes of memory for each document of both, and about as much again.

    Raises:
        ShardError: a shard is damaged.
    """
    theirs, mine = content_digests(other), content_digests(dataset)
    both = np.concatenate([theirs, mine])
    positions, firsts = repeats(both)
    is_shared = (positions >= len(theirs)) & (firsts < len(theirs)) & ~(both[positions] == EMPTY_DOCUMENT).all(axis=1)
    return Overlap(other=str(other.folder), num_shared=int(is_shared.sum()), num_documents=len(mine))


def content_digests(dataset: ShardDataset) -> np.ndarray:
    """Digest of each document: uint64 `[documents, 2]`."""
    found = [digests(table[schema.DATA]) for table in dataset.iter_row_groups([schema.DATA])]
    return np.concatenate([np.empty((0, 2), dtype=np.uint64), *found])
