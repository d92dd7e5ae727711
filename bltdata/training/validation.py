"""What a model is judged on while it trains: excerpts from all over the validation documents, packed into rows.

A figure is worth the bytes that it rests on, so these must be as many as were asked for, and from everywhere, whatever the documents'
lengths. Whole documents can't give that: of a few long ones one alone may be more than all that is judged. So what is chosen among are
excerpts, which are whole documents, and of longer ones their parts of equal length. Each has the same chance, and so has each byte.
"""

from collections.abc import Iterator
from typing import Generic

import numpy as np

from bltdata.training.packing import PackedRow, Piece, StoreT, check_not_empty

NUM_EXCERPTS = 32
"""Excerpts there are at least, however long documents are: a longer one than this part of the bytes is divided."""

WHOLE_BYTES = 1024
"""No document up to this is divided, however little is judged: what a part begins with is predicted without what stands before it."""

_GOLDEN_SECTION = 0x9E3779B97F4A7C15
"""2**64 / 1.618..., the step whose multiples lie most evenly on a circle of 2**64."""


def spread_excerpts(lengths: np.ndarray, num_bytes: int, among: np.ndarray | None = None) -> np.ndarray:
    """Excerpts from all over a dataset with `num_bytes` bytes together, or with all there are, in order.

    Each excerpt has a place on a circle, a golden section on from the one before, and those on the circle's first part are
    taken: wherever the dataset is cut, both sides give their share to within an excerpt or two (Steinhaus' three gaps). So
    a dataset of several sources, one after the other, is judged on all of them, and the same one always on the same excerpts.

    Args:
        lengths: bytes of each document, int64 `[num_documents]`.
        num_bytes: bytes to judge on. The last excerpt that is chosen is cut to what is left of them.
        among: bool `[num_documents]`, the documents to choose from; None for all.

    Returns:
        int64 `[m, 3]`: a document, and the first and one past the last of its tokens. What adjoins in a document is one excerpt.

    Raises:
        CorpusError: all documents are empty, so there is nothing to judge on.

    >>> spread_excerpts(np.full(1000, 10), 75)[:, 0].tolist()
    [0, 89, 233, 322, 466, 610, 699, 843]
    >>> spread_excerpts(np.array([3, 5000]), 2048).tolist()
    [[0, 0, 4], [1, 1000, 2000], [1, 3000, 3045], [1, 4000, 5001]]
    """
    documents = np.arange(len(lengths)) if among is None else np.flatnonzero(among)
    check_not_empty(lengths[documents])
    longest = max(num_bytes // NUM_EXCERPTS, WHOLE_BYTES)
    num_parts = np.maximum(-(-lengths[documents] // longest), 1)
    document = np.repeat(documents, num_parts)
    part = np.arange(len(document)) - np.repeat(np.cumsum(num_parts) - num_parts, num_parts)
    begin, end = (lengths[document] * number // np.repeat(num_parts, num_parts) for number in (part, part + 1))
    # Numbers without a sign wrap around, as places on the circle do.
    order = np.argsort(np.arange(len(document), dtype=np.uint64) * np.uint64(_GOLDEN_SECTION), kind="stable")
    sizes = (end - begin)[order]
    so_far = np.cumsum(sizes)
    taken = order[(so_far <= num_bytes) | (so_far - sizes < num_bytes)]
    end[taken[-1]] -= max(int(so_far[len(taken) - 1]) - num_bytes, 0)
    taken = np.sort(taken)
    document, begin, end = document[taken], begin[taken], end[taken]
    # The last token of a document predicts its end.
    end += end == lengths[document]
    is_new = np.append(True, (np.diff(document) != 0) | (begin[1:] != end[:-1]))
    return np.stack((document[is_new], begin[is_new], end[np.append(is_new[1:], True)]), axis=1)


class ValidationRows(Generic[StoreT]):
    """Rows of excerpts end to end, as in training; the last one is padded.

    Args:
        documents: what is chosen from.
        num_bytes: bytes to judge on; see `spread_excerpts`.
        row_tokens: tokens a row, `T`.
        among: bool `[num_documents]`, the documents to choose from; None for all.

    Raises:
        CorpusError: all documents are empty, so there is nothing to judge on.
    """

    def __init__(self, documents: StoreT, num_bytes: int, row_tokens: int, among: np.ndarray | None = None) -> None:
        self.documents = documents
        self.row_tokens = row_tokens
        self.excerpts = spread_excerpts(documents.lengths, num_bytes, among)

    def __iter__(self) -> Iterator[PackedRow[StoreT]]:
        pieces: list[Piece] = []
        filled = 0
        for document, begin, end in self.excerpts.tolist():
            while begin < end:
                taken = min(end - begin, self.row_tokens - filled)
                pieces.append(Piece(document, begin, begin + taken, filled))
                begin, filled = begin + taken, filled + taken
                if filled == self.row_tokens:
                    yield self._row(pieces)
                    pieces, filled = [], 0
        if pieces:
            yield self._row(pieces)

    def _row(self, pieces: list[Piece]) -> PackedRow[StoreT]:
        num_bytes = sum(min(end, int(self.documents.lengths[document])) - begin for document, begin, end, _ in pieces)
        return PackedRow(self.documents, tuple(pieces), self.row_tokens, num_bytes)
