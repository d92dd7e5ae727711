"""Documents packed end to end into rows of a fixed number of tokens.

A document's inputs are BOS and its bytes, its targets are its bytes and EOS: `n + 1` tokens, each predicting the next.
They fill rows in the order of an epoch, one epoch after the other; a document that doesn't fit goes on in the next row.
So every byte is predicted exactly once an epoch and no token is padding. What a row holds of one document is a *piece*;
tokens see their own piece only.

The place in this endless stream is a `Cursor` of three integers, and the stream from a cursor on is always the same:
that is all it takes to resume exactly.

Rows that follow each other are often of one document, and a step that learns from such rows learns from one document. So training takes
the rows of a stretch of the stream in a random order (`ShuffledRows`).
"""

import functools
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, NamedTuple, Protocol, TypeVar

import numpy as np

from bltdata.errors import CorpusError
from bltdata.nn.loss import IGNORED_TARGET
from bltdata.training.progress import Place
from bltdata.vocab import BOE_ID, BOS_ID, BYTE_OFFSET, EOS_ID


class DocumentStore(Protocol):
    """Documents that can be read in any order."""

    @property
    def lengths(self) -> np.ndarray:
        """Bytes of each document, int64 `[num_documents]`."""

    def document(self, index: int) -> np.ndarray:
        """Bytes of one document, uint8 `[n]`."""


StoreT = TypeVar("StoreT", bound=DocumentStore)

SHUFFLED_ROWS = 1 << 15
"""Rows that are shuffled together: with rows of 1024 tokens 32 MB, all of a small corpus. They are held as places, not as bytes."""

Order = Callable[[int], np.ndarray]
"""The documents of an epoch, in their order: int64 `[m]` for an epoch's number. It may leave documents out, the same in every epoch."""


class Cursor(NamedTuple):
    """A place in the stream: the epoch, the position in its order of documents, and the document's next token."""

    epoch: int = 0
    position: int = 0
    token: int = 0


class Piece(NamedTuple):
    """Tokens `begin ... end - 1` of a document, which stand in a row from `row_start` on. Token 0 is BOS."""

    document: int
    begin: int
    end: int
    row_start: int


@dataclass(frozen=True)
class PackedRow(Generic[StoreT]):
    """One row of `T` tokens. Its documents are read when its tokens are asked for, so passing it over costs next to nothing.

    Attributes:
        documents: where the pieces are from.
        pieces: what the row holds, in order.
        num_tokens: `T`.
        num_bytes: raw bytes that are predicted in the row; the ends of documents come on top.
    """

    documents: StoreT
    pieces: tuple[Piece, ...]
    num_tokens: int
    num_bytes: int

    @property
    def ids(self) -> np.ndarray:
        """int64 `[T]`, the inputs; BOE after the last piece."""
        return self._ids_and_targets[0]

    @property
    def targets(self) -> np.ndarray:
        """int64 `[T]`, what stands next: a byte or EOS; `IGNORED_TARGET` after the last piece."""
        return self._ids_and_targets[1]

    @functools.cached_property
    def visible_from(self) -> np.ndarray:
        """int64 `[T]`, where in the row the token's piece begins; a padding token's own place."""
        visible_from = np.arange(self.num_tokens)
        for _, begin, end, row_start in self.pieces:
            visible_from[row_start : row_start + end - begin] = row_start
        return visible_from

    @functools.cached_property
    def _ids_and_targets(self) -> tuple[np.ndarray, np.ndarray]:
        ids = np.full(self.num_tokens, BOE_ID, dtype=np.int64)
        targets = np.full(self.num_tokens, IGNORED_TARGET, dtype=np.int64)
        for document, begin, end, row_start in self.pieces:
            row_end = row_start + end - begin
            ids[row_start:row_end], targets[row_start:row_end] = inputs_and_targets(self.documents.document(document), begin, end)
        return ids, targets


def shuffled_order(num_documents: int, seed: int) -> Order:
    """All documents, in a permutation that seed and epoch fix."""

    def order(epoch: int) -> np.ndarray:
        return np.random.default_rng([seed, epoch]).permutation(num_documents)

    return order


def check_not_empty(lengths: np.ndarray) -> None:
    """Refuse documents without a byte to judge on.

    Raises:
        CorpusError: all are empty.
    """
    if not np.any(lengths):
        raise CorpusError("The validation documents have no bytes to judge a model on; choose others.")


def first_documents(lengths: np.ndarray, num_bytes: int) -> np.ndarray:
    """Indices of the first documents that fit into `num_bytes` together; up to the first that isn't empty at least.

    Where one doesn't fit, none that follows is taken either.

    Raises:
        CorpusError: all are empty, so there is nothing to judge on.

    >>> first_documents(np.array([3, 4, 5]), 10).tolist()
    [0, 1]
    """
    check_not_empty(lengths)
    return np.arange(max(int(np.argmax(lengths > 0)) + 1, int((np.cumsum(lengths) <= num_bytes).sum())))


def inputs_and_targets(data: np.ndarray, begin: int, end: int) -> tuple[np.ndarray, np.ndarray]:
    """Tokens `begin ... end - 1` of a document of `n` bytes, and what stands after each: int64 `[end - begin]` both.

    Token 0 is BOS and token `t` byte `t - 1`; after it stands byte `t`, and after token `n` EOS.

    >>> ids, targets = inputs_and_targets(np.frombuffer(b"Hi", dtype=np.uint8), 0, 3)
    >>> ids.tolist(), targets.tolist()
    ([1, 76, 109], [76, 109, 2])
    """
    ids = np.full(end - begin, BOS_ID, dtype=np.int64)
    targets = np.full(end - begin, EOS_ID, dtype=np.int64)
    read, predicted = data[max(begin - 1, 0) : end - 1], data[begin:end]
    ids[len(ids) - len(read) :] = read.astype(np.int64) + BYTE_OFFSET
    targets[: len(predicted)] = predicted.astype(np.int64) + BYTE_OFFSET
    return ids, targets


class Packer(Generic[StoreT]):
    """Rows of documents from any cursor on.

    Args:
        documents: where documents come from.
        order: which of them an epoch takes, and in what order.
        row_tokens: tokens a row, `T`.
    """

    def __init__(self, documents: StoreT, order: Order, row_tokens: int) -> None:
        self.documents = documents
        self.row_tokens = row_tokens
        self._order = order
        self._num_tokens = documents.lengths + 1
        self._cached_epoch = (-1, np.empty(0, dtype=np.int64))

    @functools.cached_property
    def tokens_per_epoch(self) -> int:
        """Tokens of an epoch's documents, each with its BOS."""
        return int(self._num_tokens[self._order_of(0)].sum())

    def endless_rows(self, cursor: Cursor) -> Iterator[tuple[PackedRow[StoreT], Cursor]]:
        """Full rows from `cursor` on, epoch after epoch, each with the cursor of what follows it.

        Raises:
            CorpusError: an epoch has no documents.
        """
        if self.tokens_per_epoch == 0:
            raise CorpusError("There are no documents to train on; choose others.")
        while True:
            row, cursor = self._next_row(cursor)
            yield row, cursor

    def stretch(self, cursor: Cursor, num_rows: int) -> tuple[list[PackedRow[StoreT]], Cursor]:
        """So many rows from `cursor` on, or fewer, if the epoch ends in the last of them; and the cursor of what follows."""
        rows, after = [], cursor
        for row, after in itertools.islice(self.endless_rows(cursor), num_rows):
            rows.append(row)
            if after.epoch > cursor.epoch:
                break
        return rows, after

    def _next_row(self, cursor: Cursor) -> tuple[PackedRow[StoreT], Cursor]:
        epoch, position, token = cursor
        pieces: list[Piece] = []
        filled = num_ends = 0
        while filled < self.row_tokens:
            order = self._order_of(epoch)
            if position == len(order):
                epoch, position, token = epoch + 1, 0, 0
                continue
            document = int(order[position])
            left = int(self._num_tokens[document]) - token
            taken = min(left, self.row_tokens - filled)
            pieces.append(Piece(document, token, token + taken, filled))
            filled += taken
            if taken == left:
                num_ends += 1
                position, token = position + 1, 0
            else:
                token += taken
        row = PackedRow(self.documents, tuple(pieces), self.row_tokens, filled - num_ends)
        return row, Cursor(epoch, position, token)

    def _order_of(self, epoch: int) -> np.ndarray:
        if self._cached_epoch[0] != epoch:
            self._cached_epoch = (epoch, self._order(epoch))
        return self._cached_epoch[1]


def row_order(num_rows: int) -> str:
    """What a place in `ShuffledRows` is worth: in another order it means another one."""
    return f"rows shuffled {num_rows} at a time"


class ShuffledRows(Generic[StoreT]):
    """The rows of a packer, in an order in which neighbours in a document are none.

    An epoch's rows are cut into stretches, the last one ending with the row in which the next epoch begins, and those of a stretch are put
    in a random order. Every byte still comes once an epoch.

    Args:
        packer: gives the rows.
        seed: fixes the order.
        num_rows: rows that are shuffled together.
    """

    def __init__(self, packer: Packer[StoreT], seed: int, num_rows: int = SHUFFLED_ROWS) -> None:
        self._packer = packer
        self._seed = seed
        self._num_rows = num_rows

    @property
    def tokens_per_epoch(self) -> int:
        """Tokens of an epoch's documents, each with its BOS."""
        return self._packer.tokens_per_epoch

    def endless_rows(self, place: Place) -> Iterator[tuple[PackedRow[StoreT], Place]]:
        """Rows from a place on, each with the place of what follows it.

        Args:
            place: the cursor of a stretch and how many of its rows have been taken; nothing for the beginning.

        Raises:
            CorpusError: an epoch has no documents.
        """
        cursor, taken = (Cursor(*place[:-1]), place[-1]) if place else (Cursor(), 0)
        while True:
            rows, after = self._packer.stretch(cursor, self._num_rows)
            order = np.random.default_rng([self._seed, *cursor]).permutation(len(rows)).tolist()
            for number in order[taken:]:
                taken += 1
                yield rows[number], (*cursor, taken) if taken < len(rows) else (*after, 0)
            cursor, taken = after, 0
