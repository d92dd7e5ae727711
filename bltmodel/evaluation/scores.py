"""What a BLT's predictions of documents come to, and of each document by itself.

Letters: B windows, T tokens.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from bltdata.errors import CheckpointError
from bltdata.nn import autocast
from bltdata.nn.loss import IGNORED_TARGET, PredictionSums
from bltdata.vocab import BYTE_OFFSET
from bltmodel.evaluation.calibration import Calibration
from bltmodel.evaluation.windows import PatchedDocument, Window, batches, collate
from bltmodel.model import BLT

ROWS_AT_ONCE = 8
"""Windows of the whole context that go through the model at once."""

TOP = 5
"""Among how many of the most probable bytes the right one is looked for."""


@dataclass(frozen=True, eq=False)
class Scores:
    """Totals over documents, and figures of each; `a + b` has both.

    Attributes:
        predictions: totals of the predictions.
        num_in_top: predictions that had what came among the `TOP` most probable.
        calibration: predictions by the probability of their best guess.
        nats: float64 `[documents]`, negative log-likelihood of each.
        num_bytes: int64 `[documents]`, bytes that were predicted.
        num_patches: int64 `[documents]`, patches of each.
        num_recalled: int64 `[documents]`, bytes from `recalled_from` on that are predicted right before the first that isn't.
        num_to_recall: int64 `[documents]`, bytes from there to the end.
    """

    predictions: PredictionSums
    num_in_top: int
    calibration: Calibration
    nats: np.ndarray
    num_bytes: np.ndarray
    num_patches: np.ndarray
    num_recalled: np.ndarray
    num_to_recall: np.ndarray

    @property
    def num_documents(self) -> int:
        """Documents."""
        return len(self.nats)

    def __add__(self, other: Self) -> Self:
        arrays = ("nats", "num_bytes", "num_patches", "num_recalled", "num_to_recall")
        return type(self)(
            self.predictions + other.predictions,
            self.num_in_top + other.num_in_top,
            self.calibration + other.calibration,
            *(np.concatenate([getattr(self, name), getattr(other, name)]) for name in arrays),
        )


def score(
    model: BLT,
    documents: Iterable[PatchedDocument],
    *,
    context_tokens: int,
    stride: int,
    dtype: torch.dtype = torch.float32,
    rows_at_once: int = ROWS_AT_ONCE,
    advance: Callable[[int], object] = lambda num_bytes: None,
) -> Scores:
    """Predict documents.

    Args:
        model: a BLT in eval mode, on the device where it is to compute.
        documents: read as they are needed.
        context_tokens: tokens that are read together at most.
        stride: see `bltmodel.evaluation.windows.window_bounds`.
        dtype: type of matrix products.
        rows_at_once: windows of the whole context that go through the model at once.
        advance: told of bytes that were predicted.

    Raises:
        CheckpointError: the model's predictions are no numbers.
    """
    device = model.head.weight.device
    tally = _Tally()
    for windows in batches(tally.enter(documents), context_tokens, stride, rows_at_once):
        batch = collate(windows, device)
        with torch.no_grad(), autocast(device, dtype):
            logits_BTV = model(batch)
        tally.add(windows, logits_BTV, batch.targets_BT)
        advance(sum(window.num_bytes for window in windows))
    return tally.scores()


class _Tally:
    """Adds up predictions as batches come, in whatever order."""

    def __init__(self) -> None:
        self._predictions = PredictionSums()
        self._num_in_top = 0
        self._calibration = Calibration()
        self._documents: list[tuple[int, int, int, int]] = []
        """Of each document its predicted bytes, patches, and from where to where it is to be recalled."""
        self._windows: list[tuple[int, float, int]] = []
        """Of each window its document's number, nats, and first mistake."""

    def enter(self, documents: Iterable[PatchedDocument]) -> Iterator[PatchedDocument]:
        """Take note of documents that pass."""
        for document in documents:
            end = len(document.data)
            self._documents.append((end - document.first, int(document.starts.sum()), document.recalled_from, end))
            yield document

    def add(self, windows: Sequence[Window], logits_BTV: Tensor, targets_BT: Tensor) -> None:
        """Add a batch."""
        is_scored_BT = targets_BT != IGNORED_TARGET
        log_probabilities_BTV = logits_BTV.log_softmax(-1)
        of_target_BT1 = log_probabilities_BTV.gather(-1, targets_BT.clamp(min=0)[..., None])
        nats_BT = -of_target_BT1[..., 0].double() * is_scored_BT
        best = log_probabilities_BTV.max(-1)
        is_correct_BT = (best.indices == targets_BT) & is_scored_BT
        is_in_top_BT = ((log_probabilities_BTV > of_target_BT1).sum(-1) < TOP) & is_scored_BT
        confidence = best.values[is_scored_BT].exp()
        nats_B = nats_BT.sum(1).tolist()
        self._check(windows, nats_B)
        self._num_in_top += int(is_in_top_BT.sum())
        self._calibration.add(confidence.cpu().numpy(), is_correct_BT[is_scored_BT].cpu().numpy())
        self._predictions += PredictionSums(
            nats=sum(nats_B),
            num_targets=int(is_scored_BT.sum()),
            num_bytes=int((targets_BT >= BYTE_OFFSET).sum()),
            num_correct=int(is_correct_BT.sum()),
            confidence_sum=float(confidence.sum(dtype=torch.float64)),
            confidence_min=float(confidence.min()),
            confidence_max=float(confidence.max()),
        )
        mistakes = _first_mistakes(windows, (is_scored_BT & ~is_correct_BT).cpu().numpy())
        self._windows += [(window.number, *rest) for window, *rest in zip(windows, nats_B, mistakes, strict=True)]

    def scores(self) -> Scores:
        """What was added."""
        num_bytes, num_patches, recalled_from, ends = np.array(self._documents, dtype=np.int64).reshape(-1, 4).T
        numbers = np.array([number for number, _, _ in self._windows], dtype=np.int64)
        first_mistakes = ends.copy()
        np.minimum.at(first_mistakes, numbers, np.array([mistake for _, _, mistake in self._windows], dtype=np.int64))
        return Scores(
            predictions=self._predictions,
            num_in_top=self._num_in_top,
            calibration=self._calibration,
            nats=np.bincount(numbers, [nats for _, nats, _ in self._windows], len(ends)),
            num_bytes=num_bytes,
            num_patches=num_patches,
            num_recalled=first_mistakes - recalled_from,
            num_to_recall=ends - recalled_from,
        )

    @staticmethod
    def _check(windows: Sequence[Window], nats_B: Sequence[float]) -> None:
        for window, nats in zip(windows, nats_B, strict=True):
            if not math.isfinite(nats):
                raise CheckpointError(f"What the BLT predicts of document {window.number} are no numbers; it is damaged, train it again.")


def _first_mistakes(windows: Sequence[Window], is_mistake_BT: np.ndarray) -> list[int]:
    """Where each window has its document's first mistake from `recalled_from` on; the document's length where it has none."""
    found = []
    for window, is_mistake_T in zip(windows, is_mistake_BT, strict=True):
        document = window.document
        begin = max(document.recalled_from, window.begin)
        mistakes = np.flatnonzero(is_mistake_T[begin - window.begin : len(document.data) - window.begin])
        found.append(begin + int(mistakes[0]) if len(mistakes) else len(document.data))
    return found
