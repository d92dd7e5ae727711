"""Shards of a small entropy model, and BLTs that are trained on them in a moment."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bltdata.build import BuildConfig, describe_model
from bltdata.config import to_mapping
from bltdata.entropy import EntropyModel
from bltdata.patching import PatchRule
from bltdata.shards import Manifest, ShardWriter, round_entropies
from bltdata.shards.schema import shard_name
from bltdata.training.config import TrainingConfig
from bltmodel.model import BLT
from bltmodel.training import train_blt
from bltmodel.training_data import open_training_data
from tests.bltdata.small import opinionated_model
from tests.bltmodel.documents import tiny_config

RULE = PatchRule(threshold=4.55)

Text = bytes | tuple[str, bytes]
"""A document's bytes, with its source or of the source `text`."""


@functools.cache
def entropy_model(seed: int = 0) -> EntropyModel:
    return opinionated_model(seed)


def texts(count: int, longest: int = 60, seed: int = 0) -> list[bytes]:
    """Documents of 0 to `longest` bytes: words, spaces and lines of a small alphabet, and a few bytes that are no text."""
    rng = np.random.default_rng([count, longest, seed])
    alphabet = np.frombuffer(b"aaaabbccdeeef   \n\xff\x80", dtype=np.uint8)
    return [rng.choice(alphabet, int(rng.integers(0, longest + 1))).tobytes() for _ in range(count)]


def write_dataset(
    folder: Path,
    *shards: Sequence[Text],
    model: EntropyModel | None = None,
    rule: PatchRule = RULE,
    precision: str = "grid",
    row_group_bytes: int = 400,
) -> Path:
    """Shards as `build-shards` makes them, one for each list of documents."""
    model = model or entropy_model()
    config = BuildConfig(rule=rule, entropy_precision=precision)
    records = []
    for index, documents in enumerate(shards):
        pairs = [("text", document) if isinstance(document, bytes) else document for document in documents]
        with ShardWriter(folder / shard_name(index), {"fragment": index}, row_group_bytes=row_group_bytes) as writer:
            for number, ((source, data), score) in enumerate(zip(pairs, model.score_with_nll(data for _, data in pairs), strict=True)):
                entropies = round_entropies(score.entropy_nats, precision)
                writer.add(
                    doc_id=f"{index}-{number}",
                    source=source,
                    data=data,
                    entropy_nats=entropies,
                    patch_lengths=rule.lengths(data, entropies),
                    nll_nats=score.nll_nats,
                )
        records.append(writer.record)
    manifest = Manifest.create(
        entropy_model=describe_model(model, config),
        patch_rule=to_mapping(rule),
        entropy_precision=precision,
        corpus={"specs": ["a test"], "split": None},
        shards=records,
    )
    manifest.write(folder)
    return folder


def training(**changes: Any) -> TrainingConfig:
    fields = {
        "steps": 6, "row_tokens": 32, "batch_rows": 4, "warmup_steps": 2, "learning_rate": 1e-2, "evaluate_every": 2,
        "validation_bytes": 300, "precision": "float32",
    }  # fmt: skip
    return TrainingConfig(**{**fields, **changes})


def train(shards: Path, folder: Path, **changes: Any) -> Path:
    """Train a tiny BLT into `folder`."""
    train_blt(tiny_config(), training(**changes), open_training_data(shards), folder, device="cpu")
    return folder


def opinionated_blt(seed: int = 0, **changes: Any) -> BLT:
    """An untrained BLT whose predictions differ widely with what it reads, and with how that is cut."""
    model = BLT(tiny_config(**changes), seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.normal_(0, 1.5 * parameter.shape[1] ** -0.5, generator=generator)
    return model.eval()
