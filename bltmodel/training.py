"""Training a BLT on shards."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from bltdata.config import to_mapping
from bltdata.nn.recompute import checkpoint_activations
from bltdata.training.config import TrainingConfig
from bltdata.training.keeping import Keeping
from bltdata.training.loop import TrainingRun
from bltdata.training.packing import PackedRow
from bltdata.training.placement import Placement
from bltdata.training.progress import Reporter
from bltdata.training.task import PackedTask, TrainingRows
from bltdata.training.validation import ValidationRows
from bltdata.training.world import World, exclusive_to
from bltmodel.blocks import SHUFFLED_BYTES
from bltmodel.config import BLTConfig
from bltmodel.data import ShardStore, collate
from bltmodel.masks import PackedBatch
from bltmodel.model import BLT
from bltmodel.patch_budget import BudgetedRows, patches_a_row, remark
from bltmodel.rows import RowStream, row_order
from bltmodel.step_config import StepConfig
from bltmodel.training_data import TrainingData

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh


class BLTTask(PackedTask[BLT, ShardStore, PackedBatch]):
    """The BLT as what is trained; for the other arguments see `PackedTask`.

    Args:
        patches_per_row: patches that each row is filled up to; None for as many as the fullest row of a batch has.
    """

    def __init__(
        self,
        model: BLT,
        train: TrainingRows[PackedBatch],
        validation: ValidationRows[ShardStore],
        config: TrainingConfig,
        folder: Path,
        extra: dict[str, Any],
        world: World,
        patches_per_row: int | None = None,
    ) -> None:
        super().__init__(model, train, validation, config, folder, extra, world)
        self._patches_per_row = patches_per_row

    def collate(self, rows: Sequence[PackedRow[ShardStore]]) -> PackedBatch:
        """Rows as tensors."""
        return collate(rows, torch.device("cpu"))

    def predict(self, batch: PackedBatch) -> tuple[Tensor, Tensor]:
        """Logits and targets of a batch."""
        budget = self._patches_per_row
        # Rows of very short documents, and those that a model is judged on, may have more than the budget.
        return self.model(batch, None if budget is None else max(budget, batch.num_patches)), batch.targets_BT

    def to_device(self, batch: PackedBatch) -> PackedBatch:
        """The batch where the model stands, its patches counted."""
        return batch.to(self.device)


def train_blt(
    architecture: BLTConfig,
    config: TrainingConfig,
    data: TrainingData,
    folder: Path,
    *,
    device: str = "auto",
    reporter: Reporter | None = None,
    resume: bool = True,
    keeping: Keeping | None = None,
    step: StepConfig | None = None,
    world: World | None = None,
) -> dict[str, Any]:
    """Train a BLT into `folder`.

    Args:
        architecture: what is trained.
        config: how.
        data: what it learns from.
        folder: gets `config.json` and `model.safetensors` (the best model), `last` with the same of the last step, `metrics.jsonl` and
            the run's state.
        device: where to train.
        reporter: who is told how it goes.
        resume: go on from the folder's state where it has one.
        keeping: what else the folder keeps, and which state to go on from.
        step: how its steps are computed.
        world: the processes that train it together; None where there is one.

    Returns:
        The metrics of the best evaluation.
    """
    world, step = world or World(), step or StepConfig()
    where = world.device(device)
    mesh = world.mesh(where) if step.sharding == "full" else None
    with exclusive_to(world, folder):
        with world.together():
            model = BLT(architecture, config.seed)
            placement = _placed(model, config, world, mesh, where)
            checkpoint_activations(model, step.checkpoint_activations)
            kept = ~data.held_out if data.held_out is not None else None
            train_rows = RowStream(data.train.dataset, config.row_tokens, seed=config.seed, keep=kept, weights=data.weights)
            validation_rows = ValidationRows(data.validation, config.validation_bytes, config.row_tokens, data.held_out)
            budget = None
            if step.patch_margin is not None:
                # A row is of one source where they have weights.
                sources = train_rows.selections if data.weights else [data.train.dataset.manifest.totals]
                budget = patches_a_row(sources, config.row_tokens, step.patch_margin)
                reporter = _judging(budget, reporter, config)
            learned = train_rows if budget is None else BudgetedRows(train_rows, budget)
            # A budget changes the patches that are learned from, so it is part of what made a model.
            patches: dict[str, Any] = {} if budget is None else {"patches_per_row": budget}
            extra = {"training": to_mapping(config), "data": data.describe(), **patches}
            task = BLTTask(model, learned, validation_rows, config, folder, extra, world, budget)
            identity = {"model": to_mapping(architecture), "data": data.describe(), "row_order": row_order(SHUFFLED_BYTES), **patches}
            run = TrainingRun(task, config, folder, identity, reporter, world, keeping, placement)
        if reporter and world.is_first:
            if data.weights:
                reporter.said(_mixture_line(train_rows, config))
            if data.patches_look_ahead:
                reporter.said("Where these patches start tells of bytes that are predicted: figures on them compare with nothing.")
        return run.run(resume)


def _placed(model: BLT, config: TrainingConfig, world: World, mesh: "DeviceMesh | None", device: torch.device) -> Placement:
    """Bring a model to where it trains: into each process, or shared out among those of a mesh."""
    if mesh is None:
        return Placement(model.to(device), world)
    # Few runs need what this imports.
    from bltdata.training.sharding import Sharded

    return Sharded(model, config, world, mesh, device)


def _judging(budget: int, reporter: Reporter | None, config: TrainingConfig) -> Reporter:
    """A reporter that also says after the first evaluation whether the budget of patches is too small."""
    told = reporter or Reporter()

    def evaluated(metrics: dict[str, Any]) -> None:
        told.evaluated(metrics)
        if metrics["step"] == min(config.evaluate_every, config.steps) and (said := remark(metrics, budget)):
            told.said(said)

    return replace(told, evaluated=evaluated)


def _mixture_line(rows: RowStream, config: TrainingConfig) -> str:
    """What each source gives to a run."""
    epochs = rows.epochs(config.steps * config.batch_rows * config.row_tokens)
    shares = ", ".join(f"{name} {share:.1%} ({epochs[name]:.2g} epochs)" for name, share in rows.shares.items())
    return f"Of the bytes that {config.steps} steps learn from: {shares}."
