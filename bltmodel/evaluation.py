"""How well a BLT predicts a dataset: bits per byte by source, beside what general-purpose compressors need."""

import itertools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from bltdata.compressors import COMPRESSORS, CompressedSizes, bits_per_raw_byte
from bltdata.errors import CheckpointError, ConfigError
from bltdata.nn import autocast, prepare_allocator, resolve_device, resolve_precision
from bltdata.nn.loss import PredictionSums
from bltdata.nn.machine import Precision
from bltdata.remote import AnyPath
from bltdata.shards import open_shards, schema
from bltdata.training.checkpoint import load_model_metadata
from bltdata.training.packing import Packer, first_documents, in_order
from bltmodel.data import ShardStore, collate
from bltmodel.model import BLT, KIND
from bltmodel.training import trained_on

ROWS_AT_ONCE = 8


@dataclass(frozen=True)
class SourceEvaluation:
    """Figures of the documents of one source, or of all.

    Attributes:
        predictions: totals of the BLT's predictions.
        num_documents: documents evaluated.
        compressed_bytes: compressor -> bytes it needs for the same documents.
    """

    predictions: PredictionSums
    num_documents: int
    compressed_bytes: dict[str, int]

    def report(self) -> dict[str, Any]:
        """Plain values; bits per byte are those of raw bytes, None where there are none."""
        num_bytes = self.predictions.num_bytes
        metrics = {name: value if math.isfinite(value) else None for name, value in self.predictions.metrics().items()}
        return {
            "documents": self.num_documents,
            "bytes": num_bytes,
            **metrics,
            "compressors_bits_per_byte": bits_per_raw_byte(self.compressed_bytes, num_bytes),
        }


@dataclass(frozen=True)
class Evaluation:
    """Figures by source, and of all documents together."""

    sources: dict[str, SourceEvaluation]
    overall: SourceEvaluation
    row_tokens: int

    def report(self) -> dict[str, Any]:
        """Plain values, as JSON can hold them."""
        return {
            "overall": self.overall.report(),
            "sources": {name: source.report() for name, source in self.sources.items()},
            "context_tokens": self.row_tokens,
        }


def evaluate(
    model_folder: Path,
    shards: AnyPath,
    *,
    max_bytes: int | None = None,
    row_tokens: int | None = None,
    precision: Precision = "float32",
    device: str = "auto",
    compressors: Iterable[str] = tuple(COMPRESSORS),
    advance: Callable[[int], None] = lambda num_bytes: None,
) -> Evaluation:
    """Measure a BLT on the documents of a dataset.

    Documents are packed into rows as in training: a document that is longer than what is left of a row goes on in the next,
    where it is predicted without what stood before. Every byte, and every document's end, is predicted once.

    Args:
        model_folder: a trained BLT.
        shards: documents that it hasn't seen, cut with the rule that its training shards were cut with.
        max_bytes: take the first documents that fit into this; None for all.
        row_tokens: tokens a row; None for as many as in training.
        precision: type of matrix products.
        device: where to compute.
        compressors: which of `COMPRESSORS` to run on the same bytes.
        advance: told of bytes that were predicted.

    Raises:
        CheckpointError: there is no model, or it was trained on shards of another entropy model or rule.
        ShardError: the dataset is missing, damaged or empty.
    """
    prepare_allocator()
    metadata = load_model_metadata(model_folder, KIND)
    data = trained_on(metadata, model_folder)
    store = ShardStore(open_shards(shards))
    check_fits(data, store, model_folder)
    where = resolve_device(device)
    model = BLT.load(model_folder).to(where)
    if row_tokens is None:
        row_tokens = int(metadata["training"]["row_tokens"])
    if row_tokens < 2:
        raise ConfigError(f"The number of tokens a row is {row_tokens}; it must be at least 2.")
    dtype = resolve_precision(precision, where)
    sources = {}
    for name, documents in documents_by_source(store, max_bytes).items():
        predictions = PredictionSums()
        with torch.no_grad(), autocast(where, dtype):
            for sums in _predictions(model, Packer(store, in_order(documents), row_tokens), where):
                predictions = predictions + sums
                advance(sums.num_bytes)
        sources[name] = SourceEvaluation(predictions, len(documents), compressed_sizes(store, documents, compressors))
    return Evaluation(sources, _overall(sources), row_tokens)


def check_fits(data: dict[str, Any], store: ShardStore, model_folder: Path) -> None:
    """Refuse documents whose patches aren't those that the model learned.

    Args:
        data: what the model was trained on (`bltmodel.training.trained_on`).
        store: the documents.
        model_folder: the model's, for the error.

    Raises:
        CheckpointError: the entropy model or the patch rule is another.
    """
    manifest = store.dataset.manifest
    if data["entropy_model"]["fingerprint"] != manifest.entropy_model["fingerprint"]:
        raise CheckpointError(
            f"{store.dataset.folder} was made by another entropy model than the shards that {model_folder} was trained on; "
            "build it again with that one."
        )
    if data["patch_rule"] != manifest.patch_rule or data.get("source_rules", {}) != manifest.source_rules:
        raise CheckpointError(
            f"{store.dataset.folder} was cut by another patch rule than the shards that {model_folder} was trained on; "
            "build or repatch it with --rule-from those."
        )


def documents_by_source(store: ShardStore, max_bytes: int | None) -> dict[str, np.ndarray]:
    """Indices of the documents of each source, sources by name, of the first `max_bytes` of the dataset."""
    tables = store.dataset.iter_row_groups([schema.SOURCE])
    names = np.concatenate([pa.chunked_array(table[schema.SOURCE]).cast(pa.string()).to_numpy() for table in tables])
    if max_bytes is not None:
        names = names[: len(first_documents(store.lengths, max_bytes))]
    return {str(name): np.flatnonzero(names == name) for name in sorted(set(names))}


def compressed_sizes(store: ShardStore, documents: np.ndarray, names: Iterable[str]) -> dict[str, int]:
    """Bytes that compressors need for documents, end to end."""
    sizes = CompressedSizes(names)
    for index in documents:
        sizes.add(store.document(int(index)).tobytes())
    return sizes.finish()


def _predictions(model: BLT, packer: Packer[ShardStore], device: torch.device) -> Iterable[PredictionSums]:
    rows = packer.one_pass()
    while taken := list(itertools.islice(rows, ROWS_AT_ONCE)):
        batch = collate(taken, device)
        yield PredictionSums.of(model(batch), batch.targets_BT)


def _overall(sources: dict[str, SourceEvaluation]) -> SourceEvaluation:
    predictions = PredictionSums()
    compressed: dict[str, int] = {}
    for source in sources.values():
        predictions = predictions + source.predictions
        for name, size in source.compressed_bytes.items():
            compressed[name] = compressed.get(name, 0) + size
    return SourceEvaluation(predictions, sum(source.num_documents for source in sources.values()), compressed)
