"""A training task on packed rows: all that the entropy model's and the BLT's have in common."""

import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from torch import Tensor

from bltdata.nn import moved
from bltdata.nn.loss import PredictionSums, negative_log_likelihood_sum
from bltdata.training.config import Share, TrainingConfig
from bltdata.training.interface import Step
from bltdata.training.packing import PackedRow, ShuffledRows, StoreT
from bltdata.training.progress import Place
from bltdata.training.states import LAST_FOLDER
from bltdata.training.validation import ValidationRows
from bltdata.training.world import World

BatchT = TypeVar("BatchT", bound=tuple[Tensor, ...])


class SavedModel(Protocol):
    """A module that writes itself."""

    def parameters(self) -> Iterator[Any]:
        """Its weights."""

    def save(self, folder: Path, extra: dict[str, Any]) -> None:
        """Write it, and `extra` into its `config.json`."""


ModelT = TypeVar("ModelT", bound=SavedModel)


class TrainingRows(Protocol[BatchT]):
    """An endless stream of packed rows that makes its batches itself."""

    @property
    def tokens_per_epoch(self) -> int:
        """Tokens of all documents."""

    def steps(self, place: Place, batch_rows: int, share: Share, rank: int) -> Iterator[Step[BatchT]]:
        """Steps of `batch_rows` rows from a place on, without end; each has the batches of the process `rank`, on the CPU."""


class PackedTask(ABC, Generic[ModelT, StoreT, BatchT]):
    """A model that learns from packed rows; see `bltdata.training.interface.TrainingTask`.

    Args:
        model: stands on the device where it trains.
        train: rows to learn from; a stream that makes its own batches, or one of rows that `collate` makes into some.
        validation: rows to judge on; each evaluation reads all of them.
        config: how it is trained.
        folder: where the best model goes.
        extra: what else its `config.json` says.
        world: the processes that share the work.
    """

    def __init__(
        self,
        model: ModelT,
        train: ShuffledRows[StoreT] | TrainingRows[BatchT],
        validation: ValidationRows[StoreT],
        config: TrainingConfig,
        folder: Path,
        extra: dict[str, Any],
        world: World,
    ) -> None:
        self.model = model
        self.device = next(model.parameters()).device
        self._folder = folder
        self._extra = extra
        self._train = train
        self._validation = validation
        self._batch_rows = config.batch_rows
        self._world = world

    @abstractmethod
    def collate(self, rows: Sequence[PackedRow[StoreT]]) -> BatchT:
        """Rows as a named tuple of tensors, on the CPU."""

    @abstractmethod
    def predict(self, batch: BatchT) -> tuple[Tensor, Tensor]:
        """Logits `[B, T, 260]` and targets `[B, T]` of a batch."""

    def to_device(self, batch: BatchT) -> BatchT:
        """The batch where the model stands."""
        return type(batch)(*moved(batch, self.device))

    def save_best(self, metrics: dict[str, Any]) -> None:
        """Write the model to the run's folder: it is the best so far."""
        self.model.save(self._folder, {**self._extra, "validation": metrics})

    def save_last(self, metrics: dict[str, Any]) -> None:
        """Write the model below the run's folder: it is the last."""
        self.model.save(self._folder / LAST_FOLDER, {**self._extra, "validation": metrics})

    @property
    def tokens_per_epoch(self) -> int:
        """Tokens of all training documents."""
        return self._train.tokens_per_epoch

    def steps(self, cursor: Place, share: Share) -> Iterator[Step[BatchT]]:
        """Optimiser steps from `cursor` on, without end, each with this process's share of its rows.

        All processes go through the same rows, and each reads the documents of its own.
        """
        if not isinstance(self._train, ShuffledRows):
            for step in self._train.steps(cursor, self._batch_rows, share, self._world.rank):
                yield Step(map(self.to_device, step.batches), step.num_bytes, step.cursor, step.counted)
            return
        rows = self._train.endless_rows(cursor)
        begin = self._world.rank * share.num_rows
        while True:
            taken = list(itertools.islice(rows, self._batch_rows))
            own = [row for row, _ in taken[begin : begin + share.num_rows]]
            yield Step(self._batches(iter(own), share.rows_at_once), sum(row.num_bytes for row, _ in taken), taken[-1][1])

    def loss(self, batch: BatchT) -> Tensor:
        """Summed nats of a batch of full rows, differentiable."""
        return negative_log_likelihood_sum(*self.predict(batch))

    def evaluate(self, rows_at_once: int) -> PredictionSums:
        """Totals over this process's share of the validation rows, so many rows at a time."""
        size, first, num_rows, num_batches = self._world.size, list[PackedRow[StoreT]](), 0, 0

        def own_rows() -> Iterator[PackedRow[StoreT]]:
            nonlocal num_rows
            for number, row in enumerate(self._validation):
                num_rows = number + 1
                if number < rows_at_once:
                    first.append(row)
                if number % size == self._world.rank:
                    yield row

        sums = PredictionSums()
        for batch in self._batches(own_rows(), rows_at_once):
            sums += PredictionSums.of(*self.predict(batch))
            num_batches += 1
        # Where a model is shared out, all go through it as often as the first process, which has the most rows.
        most = -(-num_rows // size)
        for _ in range(-(-most // rows_at_once) - num_batches):
            self.predict(self.to_device(self.collate(first)))
        return sums

    def _batches(self, rows: Iterator[PackedRow[StoreT]], rows_at_once: int) -> Iterator[BatchT]:
        while taken := list(itertools.islice(rows, rows_at_once)):
            yield self.to_device(self.collate(taken))
