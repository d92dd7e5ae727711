"""Training a BLT on shards."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from bltdata.config import to_mapping
from bltdata.errors import CheckpointError, ShardError
from bltdata.lock import exclusive
from bltdata.nn import resolve_device
from bltdata.shards import Manifest, open_shards
from bltdata.shards.schema import MANIFEST_NAME
from bltdata.training.config import TrainingConfig
from bltdata.training.loop import Reporter, TrainingRun
from bltdata.training.packing import PackedRow, Packer, first_documents, in_order
from bltdata.training.task import PackedTask
from bltmodel.config import BLTConfig
from bltmodel.data import ShardStore, collate
from bltmodel.masks import PackedBatch
from bltmodel.model import BLT

TRAIN_FOLDER = "train"
VALIDATION_FOLDER = "validation"
HELD_OUT_SHARE = 0.05
"""Share of the documents that is kept for validation where no validation shards are given."""


class BLTTask(PackedTask[BLT, ShardStore, PackedBatch]):
    """The BLT as what is trained; see `PackedTask`."""

    def collate(self, rows: Sequence[PackedRow[ShardStore]]) -> PackedBatch:
        """Rows as tensors on the model's device."""
        return collate(rows, self.device)

    def predict(self, batch: PackedBatch) -> tuple[Tensor, Tensor]:
        """Logits and targets of a batch."""
        return self.model(batch), batch.targets_BT


@dataclass(frozen=True)
class TrainingData:
    """What a BLT learns from and what it is judged on."""

    train: ShardStore
    validation: ShardStore
    held_out: np.ndarray | None
    """bool `[documents of train]`, the validation documents, where both are of one dataset."""

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
        return described


def open_training_data(shards: Path, validation_shards: Path | None = None) -> TrainingData:
    """Open the shards to train on.

    Args:
        shards: a dataset, or a folder with two, `train` and `validation`.
        validation_shards: the validation documents; None to look into `shards` for them, and where it is one dataset, to
            hold out a twentieth of its documents, chosen by their content.

    Raises:
        ShardError: a dataset is missing, damaged or empty, or the two were patched differently or are one and the same.
    """
    if validation_shards is None and not (shards / MANIFEST_NAME).exists() and (shards / TRAIN_FOLDER).is_dir():
        shards, validation_shards = shards / TRAIN_FOLDER, shards / VALIDATION_FOLDER
    train = open_shards(shards)
    if validation_shards is None:
        store = ShardStore(train)
        return TrainingData(store, store, _held_out(store))
    validation = open_shards(validation_shards)
    check_same_patches(train.manifest, validation.manifest, f"{shards} and {validation_shards}")
    if train.manifest.fingerprint == validation.manifest.fingerprint:
        raise ShardError(
            f"{shards} and {validation_shards} are the same documents, so a model would be judged on what it learned; give others, or "
            "leave --validation-shards out to have some held out."
        )
    return TrainingData(ShardStore(train), ShardStore(validation), None)


def trained_on(metadata: dict[str, Any], folder: Path) -> dict[str, Any]:
    """What the `config.json` of a BLT says of its training data, as `TrainingData.describe` put it.

    Args:
        metadata: everything in `config.json`.
        folder: the model's, for the error.

    Raises:
        CheckpointError: it says nothing, because training didn't write it.
    """
    if not isinstance(metadata.get("data"), dict):
        raise CheckpointError(f"{folder} doesn't say what it was trained on, so nobody knows its patches; train it with bltmodel train.")
    return dict(metadata["data"])


def check_same_patches(one: Manifest, other: Manifest, names: str) -> None:
    """Refuse two datasets whose patches don't mean the same.

    Raises:
        ShardError: they were made with different entropy models or rules.
    """
    if one.entropy_model["fingerprint"] != other.entropy_model["fingerprint"]:
        raise ShardError(f"{names} were made with different entropy models; build one of them again with the other's model.")
    if one.patch_rule != other.patch_rule or one.source_rules != other.source_rules:
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
) -> dict[str, Any]:
    """Train a BLT into `folder`.

    Args:
        architecture: what is trained.
        config: how.
        data: what it learns from.
        folder: gets `config.json` and `model.safetensors` (the best model), `metrics.jsonl` and the run's state.
        device: where to train.
        reporter: who is told how it goes.
        resume: go on from the folder's state where it has one.

    Returns:
        The metrics of the best evaluation.
    """
    with exclusive(folder):
        model = BLT(architecture, config.seed).to(resolve_device(device))
        kept = ~data.held_out if data.held_out is not None else np.ones(len(data.train.lengths), dtype=bool)
        train_rows = Packer(data.train, data.train.shuffled_order(config.seed, kept), config.row_tokens)
        judged = np.flatnonzero(data.held_out) if data.held_out is not None else np.arange(len(data.validation.lengths))
        judged = judged[first_documents(data.validation.lengths[judged], config.validation_bytes)]
        validation_rows = Packer(data.validation, in_order(judged), config.row_tokens)
        extra = {"training": to_mapping(config), "data": data.describe()}
        task = BLTTask(model, train_rows, validation_rows, config, folder, extra)
        identity = {"model": to_mapping(architecture), "data": data.describe()}
        return TrainingRun(task, config, folder, identity, reporter).run(resume)


def _held_out(store: ShardStore) -> np.ndarray:
    """The documents to keep for validation: those with the lowest hashes of their content."""
    hashes = np.array([_hash(store.document(index)) for index in range(len(store.lengths))], dtype=np.uint64)
    # Of the documents with anything to judge on there is one at least.
    filled = store.lengths > 0
    held_out = hashes <= max(np.uint64(HELD_OUT_SHARE * 2**64), hashes[filled].min(initial=np.iinfo(np.uint64).max))
    if held_out[filled].all():
        raise ShardError(
            f"{store.dataset.folder} has a single document, apart from copies and empty ones, so none is left to judge on; "
            "give --validation-shards."
        )
    return held_out


def _hash(data: np.ndarray) -> int:
    return int.from_bytes(hashlib.blake2b(data.tobytes(), digest_size=8, person=b"held out").digest(), "big")
