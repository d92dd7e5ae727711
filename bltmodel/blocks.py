"""Blocks of a dataset: what a reader holds of it at a time, shuffled.

An epoch's order is made in two steps. The row groups of the whole dataset are put in a random order and cut into blocks of
`SHUFFLED_BYTES`; the documents of a block are put in a random order among themselves. Each block's order follows from seed,
epoch and the block's number alone, so an epoch can be entered anywhere, and nothing that grows with the documents is kept:
of each row group its counts, of the documents those of a block or two.

How good that is: the blocks of an epoch are as far from the order on the disk as a true permutation puts them. Inside an
epoch, the documents of one row group stand within one block, where a true permutation would spread them over everything.
So what stands side by side is a sample of the 8 row groups of a block, and which they are changes with every epoch. The rows
that a block's documents fill are shuffled once more (`bltmodel.rows`), so that neighbours in a document are none in a step.
"""

import os
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.compute as pc
from numba import njit

from bltdata.errors import CorpusError, ShardError
from bltdata.shards import ShardDataset, schema
from bltdata.shards.columns import bytes_column, list_column
from bltmodel.selection import Selection

SHUFFLED_BYTES = 8 * schema.ROW_GROUP_BYTES
"""Raw bytes, in whole row groups, that are shuffled together. A block takes twice that, its flags being a byte for each byte."""

KEPT_BLOCKS = 2
"""What is held at most, so 130 MB: a row may begin in one block and end in the next, and one may be read ahead."""


@dataclass(frozen=True)
class Block:
    """Documents in the order in which they are learned; the `k`-th has `token_ends[k + 1] - token_ends[k] - 1` bytes."""

    data: np.ndarray
    """uint8, the bytes of documents, in the order on the disk."""
    starts: np.ndarray
    """bool, whether a patch starts at a position; a document of n bytes has n + 1."""
    data_begins: np.ndarray
    """int64 `[m]`, where in `data` the `k`-th document begins."""
    starts_begins: np.ndarray
    """int64 `[m]`, where in `starts`."""
    token_ends: np.ndarray
    """int64 `[m + 1]`, tokens of the documents before the `k`-th, each with its BOS, and of all."""
    documents: np.ndarray
    """int64 `[m]`, the documents' places in the dataset."""

    @property
    def num_tokens(self) -> int:
        """Tokens of all documents."""
        return int(self.token_ends[-1])

    def num_ends(self, begins: np.ndarray, count: int) -> int:
        """How many documents end in so many tokens from each of some places on: the targets that are no bytes."""
        ends = self.token_ends[1:]
        return int((ends.searchsorted(begins + count, side="right") - ends.searchsorted(begins, side="right")).sum())


class ShuffledBlocks:
    """The blocks of each epoch.

    Args:
        dataset: what `open_shards` gave.
        selection: the documents to take.
        seed: fixes the order.
        keep: bool `[num_documents of the dataset]`, what to take of them; None for all.
        shuffled_bytes: raw bytes that are shuffled together; a block has at least one row group.
        prefetch: read the block that will be needed next in a thread beside.

    Raises:
        CorpusError: there is nothing to take.
    """

    def __init__(
        self,
        dataset: ShardDataset,
        selection: Selection,
        seed: int,
        keep: np.ndarray | None = None,
        *,
        shuffled_bytes: int = SHUFFLED_BYTES,
        prefetch: bool = True,
    ) -> None:
        if not selection.num_documents:
            raise CorpusError("There are no documents to train on; choose others.")
        self.dataset = dataset
        self.selection = selection
        self._seed = seed
        self._keep = keep
        self._shuffled_bytes = shuffled_bytes
        self._prefetch = prefetch
        self._first = np.concatenate(([0], np.cumsum([group.num_documents for group in dataset.row_groups], dtype=np.int64)))
        self._orders: OrderedDict[int, list[np.ndarray]] = OrderedDict()
        self._blocks: OrderedDict[tuple[int, int], Block] = OrderedDict()
        self._reading: dict[tuple[int, int], Future[Block]] = {}
        self._thread: tuple[int, ThreadPoolExecutor] | None = None

    def num_blocks(self, epoch: int) -> int:
        """Blocks of an epoch; it differs by one or two from epoch to epoch."""
        return len(self._order(epoch))

    def block(self, epoch: int, number: int) -> Block:
        """A block of an epoch.

        Raises:
            ShardError: a shard is damaged.
        """
        key = epoch, number
        if key not in self._blocks:
            self._drop_the_threads_of_a_parent()
            # Room first: beside the new one, only the one before it may be in use.
            while len(self._blocks) >= KEPT_BLOCKS:
                self._blocks.popitem(last=False)
            future = self._reading.pop(key, None)
            self._blocks[key] = future.result() if future else self._read(key)
        self._blocks.move_to_end(key)
        return self._blocks[key]

    def expect(self, epoch: int, number: int) -> None:
        """The block after this one will be asked for soon: begin to read it, unless that was done."""
        key = self.after(epoch, number)
        self._drop_the_threads_of_a_parent()
        if not self._prefetch or key in self._blocks or key in self._reading:
            return
        if self._thread is None:
            self._thread = os.getpid(), ThreadPoolExecutor(1, thread_name_prefix="blocks")
        # The one before this won't be needed any more, and its place is.
        for other in set(self._blocks) - {(epoch, number)}:
            del self._blocks[other]
        self._reading = {key: self._thread[1].submit(self._read, key)}

    def after(self, epoch: int, number: int) -> tuple[int, int]:
        """Epoch and number of the block after this one."""
        return (epoch, number + 1) if number + 1 < self.num_blocks(epoch) else (epoch + 1, 0)

    def order_of_rows(self, epoch: int, number: int, num_rows: int) -> np.ndarray:
        """In which order the rows of a block are taken: a permutation of `0 ... num_rows - 1`."""
        return np.random.default_rng([self._seed, epoch, number + 1, 1]).permutation(num_rows)

    def __getstate__(self) -> dict[str, Any]:
        """Everything but what was read and who reads."""
        return self.__dict__ | {"_blocks": OrderedDict(), "_reading": {}, "_thread": None}

    def _drop_the_threads_of_a_parent(self) -> None:
        # A process that was forked has the parent's objects but not its threads: nobody would finish what they began.
        if self._thread and self._thread[0] != os.getpid():
            self._thread, self._reading = None, {}

    def _order(self, epoch: int) -> list[np.ndarray]:
        """The row groups of each block."""
        order = self._orders.get(epoch)
        if order is None:
            groups = np.random.default_rng([self._seed, epoch, 0]).permutation(self.selection.groups)
            ends = np.cumsum([self.dataset.row_groups[group].num_bytes for group in groups], dtype=np.int64)
            borders = np.flatnonzero(np.diff((ends - 1) // self._shuffled_bytes)) + 1
            order = self._orders[epoch] = np.split(groups, borders)
            # The thread beside may be in the next epoch already.
            if len(self._orders) > 2:
                self._orders.popitem(last=False)
        return order

    def _read(self, key: tuple[int, int]) -> Block:
        epoch, number = key
        numbers = self._order(epoch)[number].tolist()
        groups = [self.dataset.row_groups[number] for number in numbers]
        data = np.empty(sum(group.num_bytes for group in groups), dtype=np.uint8)
        lengths = np.empty(sum(group.num_documents for group in groups), dtype=np.int64)
        documents = np.empty(len(lengths), dtype=np.int64)
        starts = np.empty(len(data) + len(lengths), dtype=bool)
        taken = np.ones(len(lengths), dtype=bool)
        at_byte = at = 0
        for place, group in zip(numbers, groups, strict=True):
            rows, end = slice(at, at + group.num_documents), at_byte + group.num_bytes
            data[at_byte:end], offsets = read_group(self.dataset, place, starts[at_byte + at : end + at + group.num_documents])
            lengths[rows] = np.diff(offsets)
            documents[rows] = np.arange(self._first[place], self._first[place + 1])
            if place in self.selection.mixed:
                taken[rows] = _is_of(self.dataset, place, self.selection.source)
            at_byte, at = end, at + group.num_documents
        if self._keep is not None:
            taken &= self._keep[documents]
        order = np.random.default_rng([self._seed, epoch, number + 1]).permutation(np.flatnonzero(taken))
        begins = np.cumsum(lengths) - lengths
        token_ends = np.concatenate(([0], np.cumsum(lengths[order] + 1)))
        return Block(data, starts, begins[order], begins[order] + order, token_ends, documents[order])


def _is_of(dataset: ShardDataset, number: int, source: str | None) -> np.ndarray:
    group = dataset.row_groups[number]
    column = dataset.read_row_group(group.shard, group.row_group, [schema.SOURCE])[schema.SOURCE]
    return np.asarray(pc.equal(pc.cast(column, "string"), source).to_numpy())


def read_group(dataset: ShardDataset, number: int, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The documents of a row group, end to end.

    Args:
        dataset: what `open_shards` gave.
        number: which of its row groups.
        starts: bool, as many as the row group's bytes and documents together. Written: whether a patch starts at a position; a document
            of n bytes has n + 1.

    Returns:
        Their bytes, uint8 and read-only, and where in these each document begins and the last one ends: int64 `[documents + 1]`.

    Raises:
        ShardError: the shard is damaged.
    """
    group = dataset.row_groups[number]
    table = dataset.read_row_group(group.shard, group.row_group, [schema.DATA, schema.PATCH_LENGTHS])
    data, offsets = bytes_column(table[schema.DATA])
    patch_lengths, _ = list_column(table[schema.PATCH_LENGTHS])
    if len(data) != group.num_bytes or mark_starts(patch_lengths, starts) != len(starts):
        path = dataset.paths[group.shard]
        raise ShardError(f"{path} is damaged (bytes or patches of row group {group.row_group} are not as many as it says); build it again.")
    return data, offsets


@njit(cache=True, nogil=True)
def mark_starts(patch_lengths: np.ndarray, starts: np.ndarray) -> int:
    """Write whether a patch starts at each position, patches lying end to end; returns what the lengths sum to.

    Lengths that sum to something else than the positions are the caller's to refuse: nothing is written beyond `starts`.
    """
    for i in range(len(starts)):
        starts[i] = False
    at = 0
    for length in patch_lengths:
        if at < len(starts):
            starts[at] = True
        at += int(length)
    return at
