"""From a corpus and an entropy model to a dataset of shards.

A plan comes first: the corpus cut into fragments, each of which becomes one shard. What a shard holds depends on its
fragment, the model and the settings alone, so it has the same bytes whichever process writes it, and when. A shard that
was made by this plan, was listed, and is still what was listed is finished; so running the same build again goes on where
it stopped.
"""

import functools
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from bltdata.atomic import remove_leftovers
from bltdata.config import ADDED_LATER, fingerprint, to_mapping
from bltdata.corpus import Corpus, Document, Fragment
from bltdata.corpus.sample import expected_bytes, sample_documents
from bltdata.engines.resume import PLAN_FILE, BuildReporter, agreed_plan, finish_shards
from bltdata.entropy import EntropyModel, Score
from bltdata.entropy.scoring import CHUNK_TOKENS
from bltdata.errors import BuildError, ConfigError
from bltdata.lock import exclusive
from bltdata.nn import one_thread, prepare_allocator
from bltdata.patching import Calibration, PatchRule, calibrate
from bltdata.patching.calibration import check_target
from bltdata.shards import Manifest, ShardRecord, ShardWriter, round_entropies
from bltdata.shards.ledger import LEDGER_NAME
from bltdata.shards.precision import Precision as EntropyPrecision
from bltdata.shards.schema import shard_name


@dataclass(frozen=True, kw_only=True)
class BuildConfig:
    """How shards are made. Every field changes their bytes."""

    rule: PatchRule
    """Where patches start; an `entropy` rule without a threshold is calibrated to `target_patch_length`."""

    target_patch_length: float | None = None
    """Mean patch length to calibrate the rule's threshold to; None to take the rule as it is."""

    calibration_bytes: int = 1 << 20
    """Bytes of documents, from all over the corpus, that the calibration scores."""

    entropy_precision: EntropyPrecision = "grid"
    """How entropies are stored: on a `grid` of 1/256 nat, or as computed, in `float16`."""

    precision: Literal["float32", "bfloat16"] = "float32"
    """Type of the entropy model's matrix products: `float32`, or `bfloat16`, which is faster where the hardware has it."""

    fragment_bytes: int = 32 << 20
    """Raw bytes a shard should have, about."""

    reset_at_newline: bool = field(default=False, metadata=ADDED_LATER)
    """Score each line as if nothing stood before the newline that it follows. The rule's field of this name resets the rule."""

    def __post_init__(self) -> None:
        check_target(self.rule, self.target_patch_length)
        for name in ("calibration_bytes", "fragment_bytes"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least 1.")


@dataclass(frozen=True)
class ShardJob:
    """Makes the shard of a fragment. It pickles: a worker gets a copy and opens the model itself."""

    corpus: Corpus
    model_folder: Path
    model_fingerprint: str
    rule: PatchRule
    config: BuildConfig
    folder: Path
    plan_fingerprint: str

    def __call__(self, fragment: Fragment) -> ShardRecord:
        """Read, score and cut the documents of `fragment`, and write their shard."""
        model = _load_model(self.model_folder, self.model_fingerprint)
        metadata = self.metadata(fragment, model)
        with one_thread(), ShardWriter(self.folder / shard_name(fragment.index), metadata) as writer:
            for document, score in _scored(model, self.corpus.read(fragment, writer.left_out), self.config):
                entropies = round_entropies(score.entropy_nats, self.config.entropy_precision)
                lengths = self.rule.lengths(document.data, entropies, document=document.doc_id)
                writer.add(
                    doc_id=document.doc_id,
                    source=document.source,
                    data=document.data,
                    entropy_nats=entropies,
                    patch_lengths=lengths,
                    nll_nats=score.nll_nats,
                )
        return writer.record

    def metadata(self, fragment: Fragment, model: EntropyModel) -> dict[str, Any]:
        """What the shard's own footer says of how it was made."""
        return {
            "plan": self.plan_fingerprint,
            "fragment": fragment.index,
            "entropy_model": describe_model(model, self.config),
            "patch_rule": to_mapping(self.rule),
            "entropy_precision": self.config.entropy_precision,
            "corpus": {"fingerprint": self.corpus.fingerprint, "split": self.corpus.split},
        }


def build_shards(
    corpus: Corpus, model_folder: Path, config: BuildConfig, folder: Path, *, workers: int = 1, reporter: BuildReporter | None = None
) -> Manifest:
    """Build the dataset `folder`, or finish one that was begun.

    Args:
        corpus: what to read.
        model_folder: the trained entropy model.
        config: how shards are made.
        folder: gets `plan.json`, the shards, and last of all `manifest.json`.
        workers: processes; they change nothing but the time it takes.
        reporter: who is told how it goes.

    Returns:
        The manifest.

    Raises:
        BuildError: the folder holds another build, or another process is at it.
        BltError: the corpus can't be read, or the calibration can't reach its target.
    """
    if workers < 1:
        raise ConfigError(f"The number of workers is {workers}; it must be at least 1.")
    reporter = reporter or BuildReporter()
    prepare_allocator()
    model = EntropyModel.load(model_folder)
    with exclusive(folder):
        remove_leftovers(folder)
        plan = _plan(corpus, model, config)
        rule = _agreed_rule(plan, folder, lambda: _calibrated(corpus, model, config, plan, reporter))
        job = ShardJob(corpus, model_folder, model.fingerprint, rule, config, folder, fingerprint([plan.identity, to_mapping(rule)]))
        return finish_shards(
            folder,
            job,
            {shard_name(fragment.index): fragment for fragment in plan.fragments},
            job.plan_fingerprint,
            workers=workers,
            reporter=reporter,
            num_bytes=lambda missing: expected_bytes(corpus, missing),
            publish=lambda records: _publish(job, plan, model, records),
        )


@dataclass(frozen=True)
class _Plan:
    """The fragments of a build, and everything that fixes what becomes of them."""

    fragments: list[Fragment]
    identity: dict[str, Any]


def describe_model(model: EntropyModel, config: BuildConfig) -> dict[str, Any]:
    """What shards and manifest say of the entropy model and of the context that it was given."""
    context: dict[str, Any] = {
        "policy": "each document alone, in one stream, keys and values of the last window carried",
        "window": model.config.window,
        "chunk_tokens": CHUNK_TOKENS,
        "precision": config.precision,
    }
    if config.reset_at_newline:
        context["reset_at_newline"] = True
    return {"fingerprint": model.fingerprint, "config": to_mapping(model.config), "context": context}


def _plan(corpus: Corpus, model: EntropyModel, config: BuildConfig) -> _Plan:
    fragments = corpus.fragments(config.fragment_bytes)
    identity = {
        "corpus": corpus.describe(),
        "entropy_model": describe_model(model, config),
        "build": to_mapping(config),
        "fragments": fingerprint([fragment.fingerprint for fragment in fragments]),
    }
    return _Plan(fragments, identity)


def _agreed_rule(plan: _Plan, folder: Path, calibrated: Callable[[], PatchRule]) -> PatchRule:
    """The rule of the build in `folder`: the one in its plan, or a new one, which is written there."""
    differences = {
        "corpus": "another corpus",
        "entropy_model": "another entropy model",
        "build": "other settings",
        "fragments": "another corpus (its files have changed)",
    }

    def read(found: Mapping[str, Any]) -> PatchRule:
        dict(found["identity"])
        return PatchRule(**found["patch_rule"])

    def decide() -> dict[str, Any]:
        return {"patch_rule": to_mapping(calibrated()), "fragments": [to_mapping(fragment) for fragment in plan.fragments]}

    return agreed_plan(folder, "identity", plan.identity, differences, decide=decide, read=read)


def _calibrated(corpus: Corpus, model: EntropyModel, config: BuildConfig, plan: _Plan, reporter: BuildReporter) -> PatchRule:
    if config.target_patch_length is None:
        return config.rule
    left_out: Counter[str] = Counter()
    documents = list(sample_documents(corpus, plan.fragments, config.calibration_bytes, left_out))
    corpus.check_not_empty(len(documents), left_out)
    found = calibrate_rule(model, [document.data for document in documents], config)
    reporter.said(
        f"Calibrated on {found.num_documents:,} documents ({found.num_bytes:,} bytes): {found.field} {found.threshold:.4f} nats "
        f"gives patches of {found.mean_patch_length:.3f} bytes."
    )
    return found.rule


def calibrate_rule(model: EntropyModel, documents: list[bytes], config: BuildConfig) -> Calibration:
    """Find the threshold that gives `documents` the target patch length, from entropies as a shard would store them."""
    assert config.target_patch_length is not None, "there is something to calibrate to"
    scores = model.score_with_nll(documents, _torch_type(config), reset_at_newline=config.reset_at_newline)
    pairs = ((data, round_entropies(score.entropy_nats, config.entropy_precision)) for data, score in zip(documents, scores, strict=True))
    with one_thread():
        return calibrate(pairs, config.rule, config.target_patch_length)


def _scored(model: EntropyModel, documents: Iterable[Document], config: BuildConfig) -> Iterator[tuple[Document, Score]]:
    """Documents with their scores; the model reads a little ahead of what it has given back."""
    ahead: deque[Document] = deque()

    def texts() -> Iterator[bytes]:
        for document in documents:
            ahead.append(document)
            yield document.data

    for score in model.score_with_nll(texts(), _torch_type(config), reset_at_newline=config.reset_at_newline):
        yield ahead.popleft(), score


def _torch_type(config: BuildConfig) -> torch.dtype:
    return torch.bfloat16 if config.precision == "bfloat16" else torch.float32


def _publish(job: ShardJob, plan: _Plan, model: EntropyModel, records: list[ShardRecord]) -> Manifest:
    manifest = Manifest.create(
        entropy_model=describe_model(model, job.config),
        patch_rule=to_mapping(job.rule),
        entropy_precision=job.config.entropy_precision,
        corpus=job.corpus.describe(),
        shards=records,
    )
    if manifest.totals.num_documents == 0:
        for name in (PLAN_FILE, LEDGER_NAME, *(record.file for record in records)):
            (job.folder / name).unlink()
    job.corpus.check_not_empty(manifest.totals.num_documents, manifest.totals.left_out)
    manifest.write(job.folder)
    return manifest


@functools.lru_cache(maxsize=1)
def _load_model(folder: Path, expected: str) -> EntropyModel:
    prepare_allocator()
    model = EntropyModel.load(folder)
    if model.fingerprint != expected:
        raise BuildError(f"The entropy model in {folder} was replaced while shards were built with it; run the same command again.")
    return model
