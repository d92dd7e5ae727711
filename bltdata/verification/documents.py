"""Which documents are the same: by name within a dataset, by content within it and across datasets.

A name and a content are 16 bytes of BLAKE2b each, so a dataset takes 32 bytes of memory for a document, whatever its length, and
while they are compared about as much again: 7 GB for a hundred million documents.
"""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from bltdata.shards.columns import bytes_column

_DIGEST_BYTES = 16


def digests(column: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Digest of each value of a binary or string column: uint64 `[rows, 2]`."""
    flat, offsets = bytes_column(column)
    joined = b"".join(
        hashlib.blake2b(flat[begin:end].data, digest_size=_DIGEST_BYTES).digest()
        for begin, end in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)
    )
    return np.frombuffer(joined, dtype=np.uint64).reshape(-1, 2)


EMPTY_DOCUMENT = digests(pa.array([b""], pa.binary()))[0]
"""Digest of no bytes at all."""


def repeats(words: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which digests stand more than once.

    Args:
        words: uint64 `[documents, 2]`.

    Returns:
        Positions of all but the first of each, ascending, and for each of them the position of that first one; int64.

    >>> words = np.array([[7, 1], [8, 1], [7, 1], [7, 2]], dtype=np.uint64)
    >>> [positions.tolist() for positions in repeats(words)]
    [[2], [0]]
    """
    order = np.argsort(words[:, 0], kind="stable")
    leading = words[order, 0]
    same = leading[1:] == leading[:-1]
    candidates = order[np.concatenate([same, [False]]) | np.concatenate([[False], same])] if len(words) else order
    # Few are left: those whose first halves agree. In the order of whole digests, then of positions.
    candidates = candidates[np.lexsort((candidates, words[candidates, 1], words[candidates, 0]))]
    is_first = np.ones(len(candidates), dtype=bool)
    is_first[1:] = (words[candidates[1:]] != words[candidates[:-1]]).any(axis=1)
    firsts = candidates[is_first][np.cumsum(is_first) - 1] if len(candidates) else candidates
    found, firsts = candidates[~is_first], firsts[~is_first]
    ascending = np.argsort(found)
    return found[ascending], firsts[ascending]


class RowSpan(NamedTuple):
    """The rows of a row group."""

    row_group: int
    """Its index in the file."""
    first_row: int
    """Index in the file of its first row."""
    num_rows: int


class DocumentIndex:
    """Digests of the documents of a dataset, and where each stands.

    Args:
        num_shards: how many there will be.
    """

    def __init__(self, num_shards: int) -> None:
        nothing = np.empty((0, 2), dtype=np.uint64)
        self._names, self._contents = [nothing] * num_shards, [nothing] * num_shards
        self._spans: list[Sequence[RowSpan]] = [()] * num_shards

    def set_shard(self, shard: int, names: np.ndarray, contents: np.ndarray, spans: Sequence[RowSpan]) -> None:
        """Take the documents of a shard.

        Args:
            shard: its index.
            names: uint64 `[documents, 2]`, digests of names.
            contents: uint64 `[documents, 2]`, digests of contents.
            spans: where they stand, in the same order.
        """
        self._names[shard], self._contents[shard], self._spans[shard] = names, contents, spans

    def __len__(self) -> int:
        """Documents."""
        return sum(map(len, self._contents))

    @property
    def names(self) -> np.ndarray:
        """uint64 `[documents, 2]`, shard after shard."""
        return np.concatenate([np.empty((0, 2), dtype=np.uint64), *self._names])

    @property
    def contents(self) -> np.ndarray:
        """uint64 `[documents, 2]`, shard after shard."""
        return np.concatenate([np.empty((0, 2), dtype=np.uint64), *self._contents])

    def place(self, position: int) -> tuple[int, int, int]:
        """Shard, row group in the shard and row in the shard of a document."""
        for shard, spans in enumerate(self._spans):
            for span in spans:
                if position < span.num_rows:
                    return shard, span.row_group, span.first_row + position
                position -= span.num_rows
        raise IndexError(f"there is no document at position {position} after the last one")
