"""What a BLT learns from and is judged on: shards, and which of their documents are held out."""

import hashlib
import itertools
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from bltdata.atomic import atomic_path
from bltdata.errors import ShardError
from bltdata.patching.sources import SourceRules
from bltdata.remote import AnyPath
from bltdata.shards import Manifest, ShardDataset, open_shards, schema
from bltdata.shards.columns import bytes_column
from bltdata.shards.schema import MANIFEST_NAME
from bltdata.training.world import World
from bltmodel.cutting import what_differs
from bltmodel.data import ShardStore

TRAIN_FOLDER = "train"
VALIDATION_FOLDER = "validation"
HELD_OUT_SHARE = 0.05
"""Share of the documents that is kept for validation where no validation shards are given."""

HELD_OUT_FILE = "held_out.npz"
"""Which documents those are: to know it takes reading all of them."""


@dataclass(frozen=True)
class TrainingData:
    """What a BLT learns from and what it is judged on."""

    train: ShardStore
    validation: ShardStore
    held_out: np.ndarray | None
    """bool `[documents of train]`, the validation documents, where both are of one dataset."""
    weights: Mapping[str, float] = field(default_factory=dict)
    """Source -> its share of the raw bytes that are learned from, in any unit; empty to take every document once an epoch."""

    @property
    def patches_look_ahead(self) -> bool:
        """Whether where patches start tells of bytes that are to be predicted, as it does where a tokenizer cuts."""
        rules = SourceRules.from_mapping(vars(self.train.dataset.manifest))
        return not all(rule.is_incremental for rule in (rules.default, *rules.by_source.values()))

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
