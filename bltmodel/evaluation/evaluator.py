"""Measuring a BLT on a dataset: bits per byte by source, beside what general-purpose compressors need, and more."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from bltdata.compressors import COMPRESSORS, CompressedSizes
from bltdata.errors import CheckpointError
from bltdata.nn import prepare_cpu, resolve_device, resolve_precision
from bltdata.remote import AnyPath
from bltdata.shards import EntropyContext, open_shards, schema
from bltdata.training.checkpoint import load_model_metadata
from bltdata.training.packing import first_documents
from bltmodel.cutting import Cutter, LearnedPatches, trained_on, what_differs
from bltmodel.data import ShardStore
from bltmodel.evaluation.config import EvaluationConfig
from bltmodel.evaluation.noise import add_noise
from bltmodel.evaluation.report import Evaluation, SourceEvaluation
from bltmodel.evaluation.scores import Scores, score
from bltmodel.evaluation.windows import PatchedDocument
from bltmodel.model import BLT, KIND


def evaluate(
    model_folder: Path | str,
    shards: AnyPath | str,
    config: EvaluationConfig | None = None,
    *,
    entropy_model: Path | str | None = None,
    device: str = "auto",
    compressors: Iterable[str] = tuple(COMPRESSORS),
    advance: Callable[[int], object] = lambda num_bytes: None,
) -> Evaluation:
    """Measure a BLT on the documents of a dataset.

    Every byte, and every document's end, is predicted once. A document that fits into the context is read whole and by itself; a
    longer one in windows that overlap, see `EvaluationConfig.stride`.

    Reconstruction asks how much of a document's second half greedy decoding would write, given the first half, before its first
    wrong byte. Until then what is decoded is the document, so this is where its predictions are first wrong, and nothing needs to be
    generated. That holds for patch rules that look at nothing ahead; for others there is no such figure.

    Args:
        model_folder: a trained BLT.
        shards: documents that it hasn't seen, cut with the rule that its training shards were cut with.
        config: what is measured, and how.
        entropy_model: the one that made the shards, needed where `config` has noise and their rule reads entropies: noised documents
            have patches of their own.
        device: where to compute.
        compressors: which of `COMPRESSORS` to run on the same bytes.
        advance: told of bytes that were predicted, with noise those of noised documents as well.

    Raises:
        CheckpointError: there is no model, or it was trained on shards of another entropy model or rule.
        ConfigError: a setting makes no sense, or the entropy model is missing.
        ShardError: the dataset is missing, damaged or empty.
    """
    config, model_folder = config or EvaluationConfig(), Path(model_folder)
    prepare_cpu()
    metadata = load_model_metadata(model_folder, KIND)
    data = trained_on(metadata, model_folder)
    store = ShardStore(open_shards(shards))
    check_fits(data, store, model_folder)
    where = resolve_device(device)
    context_tokens = config.context_tokens or trained_context(metadata, model_folder)
    stride, dtype = config.stride_of(context_tokens), resolve_precision(config.precision, where)
    patches, cutter = LearnedPatches.of(metadata, model_folder), None
    if config.noise:
        cutter = Cutter(patches, patches.entropy_model(Path(entropy_model) if entropy_model else None, where))
    model = BLT.load(model_folder).to(where)

    def scored(documents: Iterable[PatchedDocument]) -> Scores:
        return score(model, documents, context_tokens=context_tokens, stride=stride, dtype=dtype, advance=advance)

    sources = {}
    for name, indices in documents_by_source(store, config.max_bytes).items():
        documents = _Documents(store, name, indices)
        noised = {} if cutter is None else {
            kind: scored(documents.noised(kind, rate, config.seed, cutter)) for kind, rate in config.noise_rates.items()
        }  # fmt: skip
        sources[name] = SourceEvaluation(scored(documents.as_they_are()), compressed_sizes(store, indices, compressors), noised)
    about = {"context_tokens": context_tokens, "stride": stride, "precision": str(dtype).removeprefix("torch."), **_patches(data)}
    manifest = store.dataset.manifest
    whole = {"documents": manifest.totals.num_documents, "bytes": manifest.totals.num_bytes, "max_bytes": config.max_bytes}
    about |= {"shards": manifest.fingerprint, "dataset": whole}
    return Evaluation(sources, config, about, patches_look_ahead=patches.looks_ahead)


def check_fits(data: dict[str, Any], store: ShardStore, model_folder: Path) -> None:
    """Refuse documents whose patches aren't those that the model learned.

    Args:
        data: what the model was trained on (`bltmodel.cutting.trained_on`).
        store: the documents.
        model_folder: the model's, for the error.

    Raises:
        CheckpointError: the entropy model or the patch rule is another, or only one of both was scored line by line.
    """
    learned_from, folder = f"the shards that {model_folder} was trained on", store.dataset.folder
    differs = what_differs(data, vars(store.dataset.manifest))
    if differs == "entropy model":
        raise CheckpointError(f"{folder} was made by another entropy model than {learned_from}; build it again with that one.")
    if differs == "newlines":
        with_or_without = "with" if EntropyContext.of(data["entropy_model"]).reset_at_newline else "without"
        raise CheckpointError(
            f"Only one of {folder} and {learned_from} was scored line by line; build it again {with_or_without} --reset-scoring-at-newline."
        )
    if differs == "rule":
        raise CheckpointError(f"{folder} was cut by another patch rule than {learned_from}; build or repatch it with --rule-from those.")


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


def trained_context(metadata: dict[str, Any], model_folder: Path) -> int:
    """Tokens that a row had when a BLT was trained.

    Raises:
        CheckpointError: its `config.json`, `metadata`, doesn't say it.
    """
    training = metadata.get("training")
    if not isinstance(training, dict) or not isinstance(training.get("row_tokens"), int):
        raise CheckpointError(f"{model_folder} doesn't say how many tokens a row had in training; give context_tokens.")
    return int(training["row_tokens"])


@dataclass(frozen=True)
class _Documents:
    """The documents of a source."""

    store: ShardStore
    source: str
    indices: np.ndarray

    def as_they_are(self) -> Iterator[PatchedDocument]:
        """With the patches that the shards have."""
        for index in self.indices.tolist():
            # Copies, because what the store gives holds on to its whole row group.
            yield _judged(self.store.document(index).copy(), self.store.starts(index).copy())

    def noised(self, kind: str, rate: float, seed: int, cutter: Cutter) -> Iterator[PatchedDocument]:
        """With noise, and cut anew."""
        texts, read = itertools.tee(add_noise(self.store.document(index).tobytes(), kind, rate, seed) for index in self.indices.tolist())
        for data, starts in zip(texts, cutter.starts((self.source, data) for data in read), strict=True):
            yield _judged(np.frombuffer(data, dtype=np.uint8), starts)


def _judged(data: np.ndarray, starts: np.ndarray) -> PatchedDocument:
    return PatchedDocument(data, starts, recalled_from=len(data) // 2)


def _patches(data: dict[str, Any]) -> dict[str, Any]:
    """Which patches the model's figures are for."""
    fingerprint = data["entropy_model"]["fingerprint"]
    return {"entropy_model": fingerprint, "patch_rule": data["patch_rule"], "source_rules": data.get("source_rules", {})}
