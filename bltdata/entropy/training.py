"""Training the entropy model on packed rows of documents."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from bltdata.config import to_mapping
from bltdata.entropy.config import EntropyModelConfig
from bltdata.entropy.model import EntropyModel
from bltdata.errors import ConfigError
from bltdata.training.config import TrainingConfig
from bltdata.training.keeping import Keeping
from bltdata.training.loop import Reporter, TrainingRun
from bltdata.training.packing import SHUFFLED_ROWS, DocumentStore, PackedRow, Packer, ShuffledRows, row_order, shuffled_order
from bltdata.training.task import PackedTask
from bltdata.training.validation import ValidationRows
from bltdata.training.world import World


class Batch(NamedTuple):
    """Packed rows as tensors, int64 `[B, T]` each; see `PackedRow`."""

    ids: Tensor
    targets: Tensor
    visible_from: Tensor


class EntropyTask(PackedTask[EntropyModel, DocumentStore, Batch]):
    """The entropy model as what is trained; see `PackedTask`."""

    def collate(self, rows: Sequence[PackedRow[DocumentStore]]) -> Batch:
        """Rows as tensors."""
        arrays = ([row.ids for row in rows], [row.targets for row in rows], [row.visible_from for row in rows])
        return Batch(*(torch.from_numpy(np.stack(array)) for array in arrays))

    def predict(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Logits and targets of a batch."""
        return self.model(batch.ids, batch.visible_from), batch.targets


def train_entropy_model(
    architecture: EntropyModelConfig,
    config: TrainingConfig,
    train: DocumentStore,
    validation: DocumentStore,
    folder: Path,
    *,
    data: dict[str, Any],
    device: torch.device,
    reporter: Reporter | None = None,
    resume: bool = True,
    keeping: Keeping | None = None,
    world: World | None = None,
) -> dict[str, Any]:
    """Train an entropy model into `folder`.

    Args:
        architecture: what is trained.
        config: how.
        train: documents to learn from.
        validation: documents to judge on, `config.validation_bytes` of them.
        folder: gets `config.json` and `model.safetensors` (the best model), `last` with the same of the last step, `metrics.jsonl` and
            the run's state.
        data: what the documents are, as JSON can hold it: it goes into `config.json` and identifies the run.
        device: where to train.
        reporter: who is told how it goes.
        resume: go on from the folder's state where it has one.
        keeping: what else the folder keeps, and which state to go on from.
        world: the processes that train it together; None where there is one.

    Returns:
        The metrics of the best evaluation.

    Raises:
        ConfigError: `config` has an optimiser for n-gram tables, which an entropy model hasn't.
    """
    world = world or World()
    with world.together():
        if config.table_optimiser != TrainingConfig.table_optimiser:
            raise ConfigError(f"table_optimiser is {config.table_optimiser}, but an entropy model has no n-gram tables; leave it out.")
        model = EntropyModel(architecture, config.seed).to(device)
        train_rows = ShuffledRows(Packer(train, shuffled_order(len(train.lengths), config.seed), config.row_tokens), config.seed)
        validation_rows = ValidationRows(validation, config.validation_bytes, config.row_tokens)
        extra = {"training": to_mapping(config), "data": data}
        task = EntropyTask(model, train_rows, validation_rows, config, folder, extra, world)
        run = TrainingRun(task, config, folder, run_identity(architecture, data), reporter, world, keeping)
    return run.run(resume)


def run_identity(architecture: EntropyModelConfig, data: dict[str, Any]) -> dict[str, Any]:
    """What identifies a run besides its settings; see `TrainingRun`."""
    return {"model": to_mapping(architecture), "data": data, "row_order": row_order(SHUFFLED_ROWS)}
