"""The endless stream of packed rows that a BLT learns from, of one source or of several in fixed proportions.

Documents fill rows in the order of `ShuffledBlocks`, as in `bltdata.training.packing`: end to end, epoch after epoch, without padding, and
a document that doesn't fit goes on in another row. Rows that follow each other there are often of one document, and a step that learns
from such rows learns from one document. So those that lie in a block are taken in a random order, and then the one that goes on in the
next block. With weights, each source has such a stream of its own and each row is of one source: of the one that lags most behind its
share of the raw bytes so far. So after any number of rows a source has at most one row's bytes more than its share, and with `k` sources
at most `k - 1` rows' less. A source that is small is repeated, in its own epochs.

A place in the stream is a tuple of integers, five for each source and none for the beginning. The stream from a place on is
always the same, whoever reads which of its rows. To pass rows over costs next to nothing beside reading their blocks.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numba import njit

from bltdata.errors import CorpusError
from bltdata.shards import ShardDataset
from bltdata.training.config import Share
from bltdata.training.interface import Step
from bltdata.training.progress import Place
from bltdata.vocab import BOS_ID, BYTE_OFFSET, EOS_ID
from bltmodel.blocks import SHUFFLED_BYTES, Block, ShuffledBlocks
from bltmodel.masks import PackedBatch
from bltmodel.selection import Selection, check_weights, select_all, select_sources

PREFETCH_AT = 0.75
"""Share of a block after which the next one is read: the later, the less is held at a time."""

_WHOLE = 2**30
"""What all weights sum to, as integers, so that every machine compares the same numbers."""


def row_order(shuffled_bytes: int) -> str:
    """What a place in the stream is worth: in another order it means another one."""
    return f"rows shuffled in blocks of {shuffled_bytes} bytes"


Visit = Callable[[Block, np.ndarray, int], int]
"""Takes so many tokens of a block from each of some places on, and says how many documents end in them."""


class SourcePlace(NamedTuple):
    """A place in the stream of one source: an epoch, a block of it, where in the block's tokens its rows begin, and how many were taken."""

    epoch: int = 0
    block: int = 0
    first_token: int = 0
    row: int = 0
    num_bytes: int = 0
    """Raw bytes before this place, from the first epoch on."""


class SourceRows:
    """The stream of one source, or of all documents alike."""

    def __init__(self, blocks: ShuffledBlocks, row_tokens: int) -> None:
        self.blocks = blocks
        self.row_tokens = row_tokens
        self._block_of_begins = (-1, -1, -1)
        self._begins_of_block = np.empty(0, dtype=np.int64)

    def skip(self, place: SourcePlace, num_rows: int) -> SourcePlace:
        """The place after so many rows."""
        return self._walk(place, num_rows, Block.num_ends)

    def read(self, place: SourcePlace, num_rows: int, numbers: np.ndarray, flags: np.ndarray, at: int) -> SourcePlace:
        """Write rows from token `at` of `numbers` and `flags` on, see `fill_rows`; returns the place after them."""

        def write(block: Block, begins: np.ndarray, count: int) -> int:
            nonlocal at
            num_ends = fill_rows(block, begins, count, numbers, flags, at)
            at += len(begins) * count
            return num_ends

        return self._walk(place, num_rows, write)

    def _walk(self, place: SourcePlace, num_rows: int, visit: Visit) -> SourcePlace:
        """Visit what the next rows consist of."""
        num_empty = 0
        while num_rows:
            block = self.blocks.block(place.epoch, place.block)
            num_inside, num_behind = divmod(block.num_tokens - place.first_token, self.row_tokens)
            taken = min(num_rows, num_inside - place.row)
            if taken:
                epoch, number, first_token, row, num_bytes = place
                num_ends = visit(block, self._begins(epoch, number, first_token, num_inside)[row : row + taken], self.row_tokens)
                place = SourcePlace(epoch, number, first_token, row + taken, num_bytes + taken * self.row_tokens - num_ends)
                if row + taken > PREFETCH_AT * num_inside:
                    self.blocks.expect(epoch, number)
            elif num_behind:
                place, taken = self._cross(place, num_behind, visit), 1
            else:
                epoch, number = self.blocks.after(place.epoch, place.block)
                place = SourcePlace(epoch, number, 0, 0, place.num_bytes)
                num_empty = self._count_empty(block, num_empty, epoch)
            num_rows -= taken
        return place

    def _cross(self, place: SourcePlace, num_behind: int, visit: Visit) -> SourcePlace:
        """Visit the row that begins with the last tokens of a block, behind all other rows, and goes on in the next."""
        epoch, number, num_bytes = place.epoch, place.block, place.num_bytes
        missing, num_empty = self.row_tokens, 0
        while True:
            block = self.blocks.block(epoch, number)
            begin, count = (
                (block.num_tokens - num_behind, num_behind) if missing == self.row_tokens else (0, min(missing, block.num_tokens))
            )
            if count:
                num_bytes += count - visit(block, np.array([begin]), count)
                missing -= count
            if not missing:
                return SourcePlace(epoch, number, count, 0, num_bytes)
            num_empty = self._count_empty(block, num_empty, epoch)
            epoch, number = self.blocks.after(epoch, number)

    def _count_empty(self, block: Block, num_empty: int, epoch: int) -> int:
        """How many blocks in a row had nothing, `block` the last of them."""
        # The documents were counted, so a whole epoch without any means that somebody changed the shards.
        if num_empty > 2 * self.blocks.num_blocks(epoch) + 2:
            raise CorpusError(f"{self.blocks.dataset.folder} lost its documents while it was read; build the shards again.")
        return 0 if block.num_tokens else num_empty + 1

    def _begins(self, epoch: int, number: int, first_token: int, num_rows: int) -> np.ndarray:
        """Where the rows that lie in a block begin, in the order in which they are taken."""
        key = epoch, number, first_token
        if self._block_of_begins != key:
            self._block_of_begins = key
            self._begins_of_block = first_token + self.blocks.order_of_rows(epoch, number, num_rows) * self.row_tokens
        return self._begins_of_block


class RowStream:
    """Rows of a dataset.

    Args:
        dataset: what `open_shards` gave.
        row_tokens: tokens a row, `T`.
        seed: fixes the order.
        keep: bool `[num_documents]`, the documents to take; None for all.
        weights: source -> its share of the raw bytes, in any unit, for every source of the dataset, 0 to leave one out. None takes
            every document once an epoch, whatever its source.
        shuffled_bytes: raw bytes that are shuffled together, of each source.
        prefetch: read ahead in a thread.

    Raises:
        ConfigError: the weights don't fit the dataset.
        CorpusError: there are no documents to take.
    """

    def __init__(
        self,
        dataset: ShardDataset,
        row_tokens: int,
        *,
        seed: int = 0,
        keep: np.ndarray | None = None,
        weights: Mapping[str, float] | None = None,
        shuffled_bytes: int = SHUFFLED_BYTES,
        prefetch: bool = True,
    ) -> None:
        self.row_tokens = row_tokens
        self.shares = {}
        """Source -> its share of the raw bytes; empty without weights."""
        if weights:
            sources = select_sources(dataset, keep)
            check_weights(weights, sources, dataset.folder)
            self.shares = {name: weights[name] / sum(weights.values()) for name in sources if weights.get(name)}
            selections = [sources[name] for name in self.shares]
        else:
            selections = [select_all(dataset, keep)]
        self._weights = [max(round(share * _WHOLE), 1) for share in self.shares.values()]
        self._sources = [
            SourceRows(ShuffledBlocks(dataset, selection, seed, keep, shuffled_bytes=shuffled_bytes, prefetch=prefetch), row_tokens)
            for selection in selections
        ]

    @property
    def selections(self) -> list[Selection]:
        """The documents that are taken, of each source with weights."""
        return [source.blocks.selection for source in self._sources]

    @property
    def tokens_per_epoch(self) -> int:
        """Tokens of all documents that are taken, each with its BOS."""
        return sum(selection.num_tokens for selection in self.selections)

    def num_bytes(self, place: Place) -> int:
        """Raw bytes that are predicted before a place."""
        return sum(part.num_bytes for part in self._parts(place))

    def epochs(self, num_bytes: int) -> dict[str, float]:
        """How often each source is gone through in so many raw bytes of the stream; empty without weights."""
        sizes = [selection.num_bytes for selection in self.selections]
        return {name: num_bytes * share / size for (name, share), size in zip(self.shares.items(), sizes, strict=False)}

    def skip(self, place: Place, num_rows: int) -> Place:
        """The place after so many rows."""
        if place and not num_rows:
            return place
        parts = self._parts(place)
        if len(parts) == 1:
            return self._joined([self._sources[0].skip(parts[0], num_rows)])
        for _ in range(num_rows):
            chosen = self._lagging(parts)
            parts[chosen] = self._sources[chosen].skip(parts[chosen], 1)
        return self._joined(parts)

    def read(self, place: Place, num_rows: int) -> tuple[PackedBatch, Place]:
        """The next rows, and the place after them."""
        # One array for the fields of a type: fewer objects to make for each batch.
        numbers = np.empty((3, num_rows, self.row_tokens), dtype=np.int64)
        flags = np.empty((2, num_rows, self.row_tokens), dtype=bool)
        parts = self._parts(place)
        if len(parts) == 1:
            parts[0] = self._sources[0].read(parts[0], num_rows, numbers, flags, 0)
        else:
            for row in range(num_rows):
                chosen = self._lagging(parts)
                parts[chosen] = self._sources[chosen].read(parts[chosen], 1, numbers, flags, row * self.row_tokens)
        return packed_batch(numbers, flags), self._joined(parts)

    def steps(self, place: Place, batch_rows: int, share: Share, rank: int) -> Iterator[Step[PackedBatch]]:
        """Optimiser steps of `batch_rows` rows from a place on, without end, each with the share of one process."""
        while True:
            own, after = self.skip(place, rank * share.num_rows), self.skip(place, batch_rows)
            yield Step(self._batches(own, share), self.num_bytes(after) - self.num_bytes(place), after)
            place = after

    def _batches(self, place: Place, share: Share) -> Iterator[PackedBatch]:
        for _ in range(share.num_rows // share.rows_at_once):
            batch, place = self.read(place, share.rows_at_once)
            yield batch

    def _lagging(self, parts: Sequence[SourcePlace]) -> int:
        """The source that lags most behind its share of the bytes so far, the first of several."""
        total, whole = sum(part.num_bytes for part in parts), sum(self._weights)
        missing = [weight * total - whole * part.num_bytes for weight, part in zip(self._weights, parts, strict=True)]
        return missing.index(max(missing))

    def _parts(self, place: Place) -> list[SourcePlace]:
        if not place:
            return [SourcePlace() for _ in self._sources]
        size = len(SourcePlace._fields)
        return [SourcePlace(*place[at : at + size]) for at in range(0, len(place), size)]

    def _joined(self, parts: Sequence[SourcePlace]) -> Place:
        return tuple(number for part in parts for number in part)


def fill_rows(block: Block, begins: np.ndarray, count: int, numbers: np.ndarray, flags: np.ndarray, at: int) -> int:
    """Write so many tokens of a block's documents, from each of some places on.

    Args:
        block: holds them.
        begins: int64, the places.
        count: tokens from each.
        numbers: int64 `[3, B, T]`, ids, targets and `visible_from` of a `PackedBatch`. Written.
        flags: bool `[2, B, T]`, its starts and next starts. Written.
        at: where in `B * T` the first token goes; the others follow.

    Returns:
        How many documents end in them.
    """
    arrays = (block.data, block.starts, block.data_begins, block.starts_begins, block.token_ends)
    return int(_pack(*arrays, begins, count, at, numbers, flags))


def packed_batch(numbers: np.ndarray, flags: np.ndarray) -> PackedBatch:
    """What `fill_rows` wrote, as a batch."""
    return PackedBatch(*torch.from_numpy(numbers).unbind(0), *torch.from_numpy(flags).unbind(0))


# Loops of their own, counted from 0: the compiler then sees that it can take many at a time. Assigning a slice doesn't tell it.


@njit(cache=True, nogil=True)
def _copy_ids(data: np.ndarray, ids: np.ndarray) -> None:
    for i in range(len(ids)):
        ids[i] = np.int64(data[i]) + BYTE_OFFSET


@njit(cache=True, nogil=True)
def _copy_flags(starts: np.ndarray, flags: np.ndarray) -> None:
    for i in range(len(flags)):
        flags[i] = starts[i]


@njit(cache=True, nogil=True)
def _fill(numbers: np.ndarray, value: int) -> None:
    for i in range(len(numbers)):
        numbers[i] = value


@njit(cache=True, nogil=True)
def _pack(  # type: ignore[no-untyped-def]
    data, starts, data_begins, starts_begins, token_ends, begins, count, at, numbers, flags
):
    row_tokens, num_ends = numbers.shape[2], 0
    ids, targets, visible_from = numbers[0].reshape(-1), numbers[1].reshape(-1), numbers[2].reshape(-1)
    own, following = flags[0].reshape(-1), flags[1].reshape(-1)
    for begin in begins:
        end = begin + count
        document = np.searchsorted(token_ends, begin, side="right") - 1
        while begin < end:
            first, last = token_ends[document], token_ends[document + 1]
            taken = min(last, end, begin + row_tokens - at % row_tokens) - begin
            token, is_whole = begin - first, begin + taken == last
            byte, flag, row_start = data_begins[document] + token, starts_begins[document] + token, at % row_tokens
            # Token t stands for byte t - 1 and predicts position t. What a piece begins with starts a patch whatever stands here.
            ids[at] = BOS_ID if token == 0 else np.int64(data[byte - 1]) + BYTE_OFFSET
            own[at] = False
            _copy_ids(data[byte : byte + taken - 1], ids[at + 1 : at + taken])
            _copy_ids(data[byte : byte + taken - is_whole], targets[at : at + taken - is_whole])
            if is_whole:
                targets[at + taken - 1] = EOS_ID
            _copy_flags(starts[flag : flag + taken - 1], own[at + 1 : at + taken])
            _copy_flags(starts[flag : flag + taken], following[at : at + taken])
            _fill(visible_from[at : at + taken], row_start)
            begin += taken
            at += taken
            document += is_whole
            num_ends += is_whole
    return num_ends
