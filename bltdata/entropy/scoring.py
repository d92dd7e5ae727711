"""Entropies of documents, as one stream through the model.

Documents run end to end through chunks of one fixed shape. Each layer's keys and values of the last window are carried
from chunk to chunk, so every score is what one pass over its whole document would give, at no cost in overlap and in
memory that doesn't grow with the document. A token sees its own document only; what stands beside it changes nothing
beyond rounding, and the same stream gives the same bits.

Source: arXiv:2412.09871, section 2.3 (entropy, equation 1).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from bltdata.errors import CheckpointError
from bltdata.nn import KeysValues, autocast, moved
from bltdata.training.packing import inputs_and_targets
from bltdata.vocab import BOE_ID, BYTE_OFFSET, MAX_ENTROPY_NATS

if TYPE_CHECKING:
    from bltdata.entropy.model import EntropyModel

CHUNK_TOKENS = 1024
"""Tokens that go through the model at once on a CPU, few enough for its caches. Part of what fixes the bits of a score."""

GPU_CHUNK_TOKENS = 32_768
"""Tokens that go through the model at once on a GPU, enough to keep it busy."""

NEWLINE_ID = ord("\n") + BYTE_OFFSET
"""The token that plays the part of BOS where the context is reset at newlines."""


def chunk_tokens(device_type: str) -> int:
    """Tokens that go through the model at once on a device of this type: `cpu`, `cuda` ..."""
    return CHUNK_TOKENS if device_type == "cpu" else GPU_CHUNK_TOKENS


class Score(NamedTuple):
    """What the entropy model says of a document of `n` bytes.

    Attributes:
        entropy_nats: float32 `[n + 1]`, in `[0, ln 260]`.
        nll_nats: `-ln p` of the document's bytes and of its end, summed in float64.
    """

    entropy_nats: np.ndarray
    nll_nats: float


class PositionScores(NamedTuple):
    """What the entropy model says of each position of a document of `n` bytes.

    Attributes:
        entropy_nats: float32 `[n + 1]`, in `[0, ln 260]`.
        nll_nats: float32 `[n + 1]`, `-ln p` of the byte at each position, and of the end at the last.
    """

    entropy_nats: np.ndarray
    nll_nats: np.ndarray


@dataclass
class _Pending:
    """A document whose scores aren't complete yet."""

    missing: int
    entropies: list[np.ndarray] = field(default_factory=list)
    nlls: list[np.ndarray] = field(default_factory=list)

    def scores(self) -> PositionScores:
        scores = PositionScores(np.concatenate(self.entropies), np.concatenate(self.nlls))
        # Here, where all pass. Which document it is about would say nothing: NaN reaches neighbours through the mask, where it is times 0.
        if not all(np.isfinite(values).all() for values in scores):
            raise CheckpointError("What the entropy model predicts are no numbers; it is damaged, train it again.")
        return scores


class _Segment(NamedTuple):
    """Tokens `begin ... end - 1` of a chunk that belong to one document."""

    document: _Pending
    begin: int
    end: int


class _Launched(NamedTuple):
    """A chunk that its device has been told to compute.

    Attributes:
        values: float32 `[2, T]`, entropies and negative log-likelihoods, on the CPU or on their way there.
        arrival: what to wait for before they are read; None where they are there.
        segments: whose they are.
    """

    values: Tensor
    arrival: torch.Event | None
    segments: list[_Segment]


def score_positions(
    model: EntropyModel, documents: Iterable[bytes], precision: torch.dtype = torch.float32, *, reset_at_newline: bool = False
) -> Iterator[PositionScores]:
    """Score the positions of documents in their order; see `EntropyModel.score`.

    Args:
        model: is put into eval mode.
        documents: any bytes; read as the results are taken, about a chunk ahead, on a GPU two. Where reading fails, those before have
            their scores first.
        precision: type of matrix products, or float32 for the model's own; entropies are computed in float32 from the logits either way.
        reset_at_newline: see `EntropyModel.score`.

    Raises:
        CheckpointError: the model's predictions are no numbers.
    """
    model.eval()
    stream = _Stream(model, precision, reset_at_newline)
    pending: deque[_Pending] = deque()
    iterator = iter(documents)
    failure: Exception | None = None
    while True:
        try:
            data = next(iterator)
        except StopIteration:
            break
        except Exception as error:
            failure = error
            break
        pending.append(_Pending(missing=len(data) + 1))
        stream.feed(data, pending[-1])
        while pending and pending[0].missing == 0:
            yield pending.popleft().scores()
    stream.flush()
    yield from (document.scores() for document in pending)
    if failure is not None:
        raise failure


class _Stream:
    """The chunk that is being filled, and what the chunks before it left behind."""

    def __init__(self, model: EntropyModel, precision: torch.dtype, reset_at_newline: bool) -> None:
        config = model.config
        self._model = model
        self._precision = precision
        self._reset_at_newline = reset_at_newline
        weight = model.head.weight
        self._device = weight.device
        self._size = chunk_tokens(self._device.type)
        # What nobody sees stands before the first chunk, as much as before the others where the window fits into a chunk: all of them then
        # have one shape. A longer window fills up.
        self._num_past = min(config.window, self._size)
        # What comes out of products: autocast changes the model's own type, unless it is off.
        dtype = weight.dtype if precision == torch.float32 else precision
        empty = torch.zeros(1, config.num_heads, self._num_past, config.dim // config.num_heads, dtype=dtype, device=self._device)
        self._past = [KeysValues(empty, empty)] * config.num_layers
        self._tokens = np.zeros((3, self._size), dtype=np.int64)
        self._ids, self._targets, self._visible_from = self._tokens
        self._filled = 0
        self._segments: list[_Segment] = []
        self._launched: deque[_Launched] = deque()

    def feed(self, data: bytes, document: _Pending) -> None:
        """Append BOS and `data` to the stream, and run every chunk that this fills."""
        array = np.frombuffer(data, dtype=np.uint8)
        num_tokens = len(array) + 1
        # Where the document, or its last line, begins, counted from the first past key of the chunk at hand.
        visible_from = self._num_past + self._filled
        done = 0
        while done < num_tokens:
            begin = self._filled
            end = min(begin + num_tokens - done, self._size)
            self._ids[begin:end], self._targets[begin:end] = inputs_and_targets(array, done, done + end - begin)
            self._visible_from[begin:end] = max(visible_from, 0)
            if self._reset_at_newline:
                visible_from = self._reset(begin, end, visible_from)
            self._segments.append(_Segment(document, begin, end))
            self._filled = end
            done += end - begin
            if end == self._size:
                visible_from -= self._run()

    def _reset(self, begin: int, end: int, visible_from: int) -> int:
        """Let tokens `begin ... end - 1` see nothing before their line's newline; returns where the last line begins."""
        newlines = self._ids[begin:end] == NEWLINE_ID
        keys = np.arange(begin, end) + self._num_past
        visible = self._visible_from[begin:end]
        visible[newlines] = keys[newlines]
        np.maximum.accumulate(visible, out=visible)
        return int(visible[-1]) if newlines.any() else visible_from

    def flush(self) -> None:
        """Run what is left, padded to a whole chunk so that its shape is that of all others."""
        if self._filled:
            self._ids[self._filled :] = BOE_ID
            self._visible_from[self._filled :] = np.arange(self._filled, self._size) + self._num_past
            self._run()
        while self._launched:
            self._collect()

    def _run(self) -> int:
        """Run the chunk; returns how many tokens the first past key of the next one stands behind that of this one."""
        # A copy, since the next chunk may be filled before a GPU has this one.
        (tokens,) = moved([torch.from_numpy(self._tokens.copy())], self._device)
        ids, targets, visible_from = tokens
        with torch.no_grad(), autocast(self._device, self._precision):
            logits, self._past = self._model.forward_chunk(ids[None], visible_from[None], self._past)
        values, arrival = _sent(torch.stack(entropy_and_nll(logits[0], targets)))
        self._launched.append(_Launched(values, arrival, self._segments))
        # Who waits for a GPU has told it what comes next: it then computes while documents are read, and scores handed out.
        if arrival is None or len(self._launched) > 1:
            self._collect()
        self._filled = 0
        self._segments = []
        total = self._num_past + self._size
        self._num_past = min(self._model.config.window, total)
        return total - self._num_past

    def _collect(self) -> None:
        """Give documents what the earliest chunk that was launched says of them."""
        launched = self._launched.popleft()
        entropy, nll = launched.values.numpy()
        if launched.arrival is not None:
            launched.arrival.synchronize()
            # What a GPU sends lies in memory that can't be paged out, and scores may be kept for long.
            entropy, nll = entropy.copy(), nll.copy()
        for document, begin, end in launched.segments:
            document.entropies.append(entropy[begin:end])
            document.nlls.append(nll[begin:end])
            document.missing -= end - begin


def _sent(values: Tensor) -> tuple[Tensor, torch.Event | None]:
    """Values on the CPU, or on their way there, and in that case what to wait for."""
    if values.device.type == "cpu":
        return values, None
    # The copy is queued here, and not when they are wanted: it would then come after the next chunk.
    return values.to("cpu", non_blocking=True), torch.accelerator.current_stream(values.device).record_event()


def entropy_and_nll(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Entropy of each distribution over the 260 ids, and the negative log-likelihood of what came.

    Args:
        logits: `[T, 260]`.
        targets: int64 `[T]`.

    Returns:
        Two float32 tensors `[T]`, in nats.

    >>> entropy, nll = entropy_and_nll(torch.zeros(1, 260), torch.tensor([7]))
    >>> round(float(entropy), 4), round(float(nll), 4)
    (5.5607, 5.5607)
    """
    log_probabilities = logits.float().log_softmax(-1)
    # In place: one tensor of the size of the logits less.
    entropy = -log_probabilities.exp().mul_(log_probabilities).sum(-1)
    nll = -log_probabilities.gather(-1, targets[:, None])[:, 0]
    return entropy.clamp(0.0, MAX_ENTROPY_NATS), nll


def bits_per_byte(nll_nats: float, num_bytes: int) -> float:
    """Nats as bits a raw byte; NaN where there are no bytes."""
    return nll_nats / math.log(2) / num_bytes if num_bytes else math.nan
