"""A training task on packed rows: all that the entropy model's and the BLT's have in common."""

import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from torch import Tensor

from bltdata.nn.loss import PredictionSums, negative_log_likelihood_sum
from bltdata.training.config import TrainingConfig
from bltdata.training.packing import Cursor, PackedRow, Packer, StoreT

BatchT = TypeVar("BatchT")


class SavedModel(Protocol):
    """A module that writes itself."""

    def parameters(self) -> Iterator[Any]:
        """Its weights."""

    def save(self, folder: Path, extra: dict[str, Any]) -> None:
        """Write it, and `extra` into its `config.json`."""


ModelT = TypeVar("ModelT", bound=SavedModel)


class PackedTask(ABC, Generic[ModelT, StoreT, BatchT]):
    """A model that learns from packed rows; see `bltdata.training.loop.TrainingTask`.

    Args:
        model: stands on the device where it trains.
        train: rows to learn from.
        validation: rows to judge on; each evaluation reads all of them.
        config: how it is trained.
        folder: where the best model goes.
        extra: what else its `config.json` says.
    """

    def __init__(
        self, model: ModelT, train: Packer[StoreT], validation: Packer[StoreT], config: TrainingConfig, folder: Path, extra: dict[str, Any]
    ) -> None:
        self.model = model
        self.device = next(model.parameters()).device
        self._folder = folder
        self._extra = extra
        self._train = train
        self._validation = validation
        self._rows_at_once = config.rows_at_once

    @abstractmethod
    def collate(self, rows: Sequence[PackedRow[StoreT]]) -> BatchT:
        """Rows as tensors on the model's device."""

    @abstractmethod
    def predict(self, batch: BatchT) -> tuple[Tensor, Tensor]:
        """Logits `[B, T, 260]` and targets `[B, T]` of a batch."""

    def save_best(self, metrics: dict[str, Any]) -> None:
        """Write the model to the run's folder: it is the best so far."""
        self.model.save(self._folder, {**self._extra, "validation": metrics})

    @property
    def tokens_per_epoch(self) -> int:
        """Tokens of all training documents."""
        return self._train.tokens_per_epoch

    def batches(self, cursor: Cursor) -> Iterator[tuple[BatchT, Cursor]]:
        """Batches of `rows_at_once` rows from `cursor` on, without end, each with the cursor of what follows it."""
        rows = self._train.endless_rows(cursor)
        while True:
            taken = list(itertools.islice(rows, self._rows_at_once))
            yield self.collate([row for row, _ in taken]), taken[-1][1]

    def loss(self, batch: BatchT) -> tuple[Tensor, int]:
        """Summed nats of a batch of full rows, differentiable, and how many predictions they are of."""
        logits, targets = self.predict(batch)
        return negative_log_likelihood_sum(logits, targets), targets.numel()

    def evaluate(self) -> PredictionSums:
        """Totals over the validation documents, packed as in training."""
        totals = PredictionSums()
        rows = self._validation.one_pass()
        while taken := list(itertools.islice(rows, self._rows_at_once)):
            totals = totals + PredictionSums.of(*self.predict(self.collate(taken)))
        return totals
