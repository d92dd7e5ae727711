"""Documents as windows of the model's context, and windows as batches.

A document that fits into the context is read whole. A longer one is read in windows that overlap: each token is scored once, in
the first window that holds it with enough before it. Of a document that is scored from its beginning, a window begins where what stands
before it says, so how a byte is predicted doesn't tell how far the document's end is. Where only a document's last tokens are scored, the
window that holds them ends with the document.

Letters: B windows, T tokens.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from bltdata.nn.loss import IGNORED_TARGET
from bltdata.training.packing import inputs_and_targets
from bltdata.vocab import BOE_ID
from bltmodel.masks import PackedBatch

LOOKAHEAD_BATCHES = 16
"""Windows of about so many batches are sorted by length, so that those of a batch are about as long and little is padded."""


@dataclass(frozen=True, eq=False)
class PatchedDocument:
    """A document, its patches, and which of its positions are to be predicted.

    Attributes:
        data: uint8 `[n]`.
        starts: bool `[n + 1]`, whether a patch starts at a position, the document's end among them.
        first: the first position that is predicted.
        with_end: whether the end of the document is predicted as well.
        recalled_from: from which position on it is asked how far the document would be reproduced.
    """

    data: np.ndarray
    starts: np.ndarray
    first: int = 0
    with_end: bool = True
    recalled_from: int = 0

    @property
    def num_tokens(self) -> int:
        """Tokens that predict something, or stand before one that does; token `t` predicts position `t`."""
        return len(self.data) + self.with_end


class Window(NamedTuple):
    """Tokens `begin ... end - 1` of a document, of which those from `scored` on are scored.

    Attributes:
        number: the document's number.
        document: the document.
        begin: its first token here.
        end: behind its last token here.
        scored: the first token whose prediction counts.
    """

    number: int
    document: PatchedDocument
    begin: int
    end: int
    scored: int

    @property
    def num_tokens(self) -> int:
        """Tokens of the window."""
        return self.end - self.begin

    @property
    def num_bytes(self) -> int:
        """Bytes that are scored here."""
        return min(self.end, len(self.document.data)) - self.scored


def window_bounds(num_tokens: int, first: int, context_tokens: int, stride: int) -> Iterator[tuple[int, int, int]]:
    """Where windows begin, end, and what of them is scored, so that each token from `first` on is scored once.

    Args:
        num_tokens: tokens of the document.
        first: the first token to be scored.
        context_tokens: tokens of a window, `C`, at most.
        stride: how many tokens a further window scores, `S`, from 1 to `C`.

    Yields:
        Begin, end, and first scored token of each window. Before a scored token `t` the window has `min(t, C - S)` tokens at
        least. Where at most `S` tokens are to be scored, one window does, with as much before them as fits.

    >>> list(window_bounds(10, 0, 4, 2))
    [(0, 4, 0), (2, 6, 4), (4, 8, 6), (6, 10, 8)]
    >>> list(window_bounds(10, 9, 4, 2))
    [(6, 10, 9)]
    """
    begin = max(0, min(first - (context_tokens - stride), num_tokens - context_tokens))
    scored = first
    while scored < num_tokens:
        end = min(begin + context_tokens, num_tokens)
        yield begin, end, scored
        begin, scored = begin + stride, end


def batches(documents: Iterable[PatchedDocument], context_tokens: int, stride: int, rows_at_once: int) -> Iterator[list[Window]]:
    """The windows of documents, in batches of about the same length.

    Args:
        documents: numbered from 0 on as they come; read as batches are taken.
        context_tokens: tokens of a window at most.
        stride: see `window_bounds`.
        rows_at_once: windows of a batch if they are as long as the context; of shorter ones as many more as make up for it.
    """
    batch_tokens = rows_at_once * context_tokens
    waiting: list[Window] = []
    num_tokens = 0
    for number, document in enumerate(documents):
        for begin, end, scored in window_bounds(document.num_tokens, document.first, context_tokens, stride):
            waiting.append(Window(number, document, begin, end, scored))
            num_tokens += end - begin
            if num_tokens >= LOOKAHEAD_BATCHES * batch_tokens:
                yield from _of_equal_lengths(waiting, batch_tokens)
                waiting, num_tokens = [], 0
    yield from _of_equal_lengths(waiting, batch_tokens)


def collate(windows: Sequence[Window], device: torch.device) -> PackedBatch:
    """Windows as a batch, a row each; the targets are what is scored."""
    shape = (len(windows), max(window.num_tokens for window in windows))
    ids, targets = np.full(shape, BOE_ID, dtype=np.int64), np.full(shape, IGNORED_TARGET, dtype=np.int64)
    starts, next_starts = np.zeros(shape, dtype=bool), np.zeros(shape, dtype=bool)
    # A padding token sees itself.
    visible_from = np.tile(np.arange(shape[1]), (shape[0], 1))
    for row, (_, document, begin, end, scored) in enumerate(windows):
        length = end - begin
        ids[row, :length], next_ids = inputs_and_targets(document.data, begin, end)
        targets[row, scored - begin : length] = next_ids[scored - begin :]
        # Token t stands for byte t - 1 and predicts position t.
        next_starts[row, :length] = document.starts[begin:end]
        starts[row, 1:length] = document.starts[begin : end - 1]
        visible_from[row, :length] = 0
    return PackedBatch(*(torch.from_numpy(array) for array in (ids, targets, visible_from, starts, next_starts))).to(device)


def _of_equal_lengths(windows: list[Window], batch_tokens: int) -> Iterator[list[Window]]:
    ordered = sorted(windows, key=lambda window: -window.num_tokens)
    begin = 0
    while begin < len(ordered):
        end = begin + max(1, batch_tokens // ordered[begin].num_tokens)
        yield ordered[begin:end]
        begin = end
