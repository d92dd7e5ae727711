"""Training a BLT on shards."""

import hashlib
import itertools
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from bltdata.atomic import atomic_path
from bltdata.config import to_mapping
from bltdata.errors import ShardError
from bltdata.nn.recompute import checkpoint_activations
from bltdata.remote import AnyPath
from bltdata.shards import Manifest, ShardDataset, open_shards, schema
from bltdata.shards.columns import bytes_column
from bltdata.shards.schema import MANIFEST_NAME
from bltdata.training.config import TrainingConfig
from bltdata.training.keeping import Keeping
from bltdata.training.loop import TrainingRun
from bltdata.training.packing import PackedRow, Packer, in_order, spread_documents
from bltdata.training.placement import Placement
from bltdata.training.progress import Reporter
from bltdata.training.task import PackedTask
from bltdata.training.world import World, exclusive_to
from bltmodel.blocks import SHUFFLED_BYTES
from bltmodel.config import BLTConfig
from bltmodel.cutting import what_differs
from bltmodel.data import ShardStore, collate
from bltmodel.masks import PackedBatch
from bltmodel.model import BLT
from bltmodel.patch_budget import BudgetedRows, patches_a_row
from bltmodel.rows import RowStream, row_order
from bltmodel.step_config import StepConfig

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

TRAIN_FOLDER = "train"
VALIDATION_FOLDER = "validation"
HELD_OUT_SHARE = 0.05
"""Share of the documents that is kept for validation where no validation shards are given."""

HELD_OUT_FILE = "held_out.npz"
"""Which documents those are: to know it takes reading all of them."""


class BLTTask(PackedTask[BLT, ShardStore, PackedBatch]):
    """The BLT as what is trained; see `PackedTask`."""

    patches_per_row: int | None = None
    """Patches that each row is filled up to; None for as many as the fullest row of a batch has."""

    def collate(self, rows: Sequence[PackedRow[ShardStore]]) -> PackedBatch:
        """Rows as tensors."""
        return collate(rows, torch.device("cpu"))

    def predict(self, batch: PackedBatch) -> tuple[Tensor, Tensor]:
        """Logits and targets of a batch."""
        # Rows of very short documents, and those that a model is judged on, may have more than the budget.
        return self.model(batch, max(self.patches_per_row or 0, batch.num_patches)), batch.targets_BT

    def to_device(self, batch: PackedBatch) -> PackedBatch:
        """The batch where the model stands, its patches counted."""
        return batch.to(self.device)


@dataclass(frozen=True)
class TrainingData:
    """What a BLT learns from and what it is judged on."""

    train: ShardStore
    validation: ShardStore
    held_out: np.ndarray | None
    """bool `[documents of train]`, the validation documents, where both are of one dataset."""
    weights: Mapping[str, float] = field(default_factory=dict)
    """Source -> its share of the raw bytes that are learned from, in any unit; empty to take every document once an epoch."""

    def describe(self) -> dict[str, Any]:
        """What identifies the data, and what a model's user must know of it."""
        manifest = self.train.dataset.manifest
        described = {
            "train": manifest.fingerprint,
            "validation": self.validation.dataset.manifest.fingerprint,
            "validation_is_held_out": self.held_out is not None,
            "entropy_model": manifest.entropy_model,
            "patch_rule": manifest.patch_rule,
            "entropy_precision": manifest.entropy_precision,
        }
        if manifest.source_rules:
            # Only then, so that runs on one rule are what they were.
            described["source_rules"] = manifest.source_rules
        if self.weights:
            described["mixing"] = dict(sorted(self.weights.items()))
        return described


def open_training_data(
    shards: AnyPath,
    validation_shards: AnyPath | None = None,
    *,
    folder: Path | None = None,
    weights: Mapping[str, float] | None = None,
    world: World | None = None,
) -> TrainingData:
    """Open the shards to train on.

    Args:
        shards: a dataset, or a folder with two, `train` and `validation`.
        validation_shards: the validation documents; None to look into `shards` for them, and where it is one dataset, to
            hold out a twentieth of its documents, chosen by their content.
        folder: the run's, which keeps in mind what was held out, so that only its first start reads everything for it.
        weights: source -> its share of the raw bytes that are learned from, in any unit; see `RowStream`.
        world: the processes that train together; None where there is one.

    Raises:
        ShardError: a dataset is missing, damaged or empty, or the two were patched differently or are one and the same.
    """
    world = world or World()
    if validation_shards is None and not (shards / MANIFEST_NAME).exists() and (shards / TRAIN_FOLDER).is_dir():
        shards, validation_shards = shards / TRAIN_FOLDER, shards / VALIDATION_FOLDER
    # One after the other, so that the others find what the first has worked out.
    with world.together(takes_long=True):
        if world.is_first:
            data = _open(shards, validation_shards, folder)
    with world.together():
        if not world.is_first:
            data = _open(shards, validation_shards, folder)
    return replace(data, weights=dict(weights or {}))


def _open(shards: AnyPath, validation_shards: AnyPath | None, folder: Path | None) -> TrainingData:
    train = open_shards(shards)
    if validation_shards is None:
        store = ShardStore(train)
        return TrainingData(store, store, _held_out(store, folder))
    validation = open_shards(validation_shards)
    check_same_patches(train.manifest, validation.manifest, f"{shards} and {validation_shards}")
    if train.manifest.fingerprint == validation.manifest.fingerprint:
        raise ShardError(
            f"{shards} and {validation_shards} are the same documents, so a model would be judged on what it learned; give others, or "
            "leave --validation-shards out to have some held out."
        )
    return TrainingData(ShardStore(train), ShardStore(validation), None)


def check_same_patches(one: Manifest, other: Manifest, names: str) -> None:
    """Refuse two datasets whose patches don't mean the same.

    Raises:
        ShardError: they were made with different entropy models or rules, or only one of them was scored line by line.
    """
    differs = what_differs(vars(one), vars(other))
    if differs == "entropy model":
        raise ShardError(f"{names} were made with different entropy models; build one of them again with the other's model.")
    if differs == "newlines":
        raise ShardError(f"Only one of {names} was scored line by line; build one of them again, --reset-scoring-at-newline as the other.")
    if differs == "rule":
        raise ShardError(f"{names} were cut with different patch rules; build or repatch one of them with --rule-from the other.")


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
            judged = np.flatnonzero(data.held_out) if data.held_out is not None else np.arange(data.validation.num_documents)
            judged = judged[spread_documents(data.validation.lengths[judged], config.validation_bytes)]
            validation_rows = Packer(data.validation, in_order(judged), config.row_tokens)
            budget = None
            if step.patch_margin is not None:
                budget = patches_a_row(data.train.dataset.manifest.totals, config.row_tokens, step.patch_margin)
            learned = train_rows if budget is None else BudgetedRows(train_rows, budget)
            # A budget changes the patches that are learned from, so it is part of what made a model.
            patches: dict[str, Any] = {} if budget is None else {"patches_per_row": budget}
            extra = {"training": to_mapping(config), "data": data.describe(), **patches}
            task = BLTTask(model, learned, validation_rows, config, folder, extra, world)
            task.patches_per_row = budget
            identity = {"model": to_mapping(architecture), "data": data.describe(), "row_order": row_order(SHUFFLED_BYTES), **patches}
            run = TrainingRun(task, config, folder, identity, reporter, world, keeping, placement)
        if reporter and world.is_first and data.weights:
            reporter.said(_mixture_line(train_rows, config))
        return run.run(resume)


def _placed(model: BLT, config: TrainingConfig, world: World, mesh: "DeviceMesh | None", device: torch.device) -> Placement:
    """Bring a model to where it trains: into each process, or shared out among those of a mesh."""
    if mesh is None:
        return Placement(model.to(device), world)
    # Few runs need what this imports.
    from bltdata.training.sharding import Sharded

    return Sharded(model, config, world, mesh, device)


def _mixture_line(rows: RowStream, config: TrainingConfig) -> str:
    """What each source gives to a run."""
    epochs = rows.epochs(config.steps * config.batch_rows * config.row_tokens)
    shares = ", ".join(f"{name} {share:.1%} ({epochs[name]:.2g} epochs)" for name, share in rows.shares.items())
    return f"Of the bytes that {config.steps} steps learn from: {shares}."


def _held_out(store: ShardStore, folder: Path | None) -> np.ndarray:
    """The documents to keep for validation: those with the lowest hashes of their content."""
    if folder is None:
        return _choose_held_out(store)
    path, fingerprint = folder / HELD_OUT_FILE, store.dataset.manifest.fingerprint
    known = _remembered(path, fingerprint)
    if known is not None and known.shape == (store.num_documents,):
        return known
    held_out = _choose_held_out(store)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(file, fingerprint=np.array(fingerprint), held_out=held_out)
    return held_out


def _remembered(path: Path, fingerprint: str) -> np.ndarray | None:
    """What an earlier start wrote, if it was of the same dataset."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return np.asarray(arrays["held_out"]) if str(arrays["fingerprint"]) == fingerprint else None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        # There is none, or it is damaged: then it is worked out again.
        return None


def _choose_held_out(store: ShardStore) -> np.ndarray:
    hashes = _hashes(store.dataset)
    # Of the documents with anything to judge on there is one at least.
    filled = store.lengths > 0
    held_out = hashes <= max(np.uint64(HELD_OUT_SHARE * 2**64), hashes[filled].min(initial=np.iinfo(np.uint64).max))
    if held_out[filled].all():
        raise ShardError(
            f"{store.dataset.folder} has a single document, apart from copies and empty ones, so none is left to judge on; "
            "give --validation-shards."
        )
    return np.asarray(held_out)


def _hashes(dataset: ShardDataset) -> np.ndarray:
    """A hash of each document's content, uint64 `[num_documents]`."""
    hashes = []
    for table in dataset.iter_row_groups([schema.DATA]):
        data, offsets = bytes_column(table[schema.DATA])
        hashes += [_hash(data[begin:end].tobytes()) for begin, end in itertools.pairwise(offsets.tolist())]
    return np.array(hashes, dtype=np.uint64)


def _hash(data: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(data, digest_size=8, person=b"held out").digest(), "big")
