"""What a training task has to offer to the loop; `task` has all of it that tasks on packed rows have in common."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from torch import Tensor, nn

from bltdata.nn.loss import PredictionSums
from bltdata.training.config import Share
from bltdata.training.progress import Place

BatchT = TypeVar("BatchT")


@dataclass(frozen=True)
class Step(Generic[BatchT]):
    """What an optimiser step learns from."""

    batches: Iterator[BatchT]
    """The micro-batches of this process."""

    num_bytes: int
    """Raw bytes that are predicted, in all processes together."""

    cursor: Place
    """Where the next step begins."""

    counted: Counter[str] = field(default_factory=Counter)
    """What was counted while the batches were made, for the metrics; whole once they have been gone through."""


class TrainingTask(Protocol[BatchT]):
    """What is trained: a model, the batches it learns from, and how it is judged and kept."""

    @property
    def model(self) -> nn.Module:
        """The model; the loop moves nothing, so it stands where it trains."""

    @property
    def tokens_per_epoch(self) -> int:
        """Tokens of an epoch, for reporting how far the run is."""

    def steps(self, cursor: Place, share: Share) -> Iterator[Step[BatchT]]:
        """Optimiser steps from `cursor` on, without end, of which each process has this share."""

    def loss(self, batch: BatchT) -> Tensor:
        """Summed nats of a batch, differentiable; every one of its tokens predicts."""

    def evaluate(self, rows_at_once: int) -> PredictionSums:
        """Totals over this process's share of the validation documents, so many rows at a time."""

    def save_best(self, metrics: dict[str, Any]) -> None:
        """Keep the model as it is now: it is the best so far."""

    def save_last(self, metrics: dict[str, Any]) -> None:
        """Keep the model as it is now, beside the best: it is the last."""
