"""From a corpus and an entropy model to a dataset of shards.

A plan comes first: the corpus cut into fragments, each of which becomes one shard. What a shard holds depends on its
fragment, the model and the settings alone, so it has the same bytes whichever process writes it, and when. A shard that
is there and says that it was made by this plan is finished; so running the same build again goes on where it stopped.
"""

import contextlib
import functools
import json
import math
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow.parquet as pq
import torch

from bltdata.atomic import remove_leftovers, write_json
from bltdata.config import fingerprint, to_mapping
from bltdata.corpus import Corpus, Document, Fragment
from bltdata.corpus.sample import expected_bytes, sample_documents
from bltdata.engines import run_local
from bltdata.entropy import EntropyModel, Score
from bltdata.entropy.scoring import CHUNK_TOKENS
from bltdata.errors import BuildError, ConfigError, ShardError
from bltdata.lock import exclusive
from bltdata.nn import one_thread, prepare_allocator
from bltdata.patching import Calibration, PatchRule, calibrate
from bltdata.shards import Manifest, ShardRecord, ShardWriter, read_metadata, read_record, round_entropies
from bltdata.shards.footer import reading
from bltdata.shards.precision import Precision as EntropyPrecision
from bltdata.shards.schema import MANIFEST_NAME, shard_name

PLAN_FILE = "plan.json"


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

    def __post_init__(self) -> None:
        if self.target_patch_length is None and not self.rule.is_calibrated:
            raise ConfigError("The rule 'entropy' has no threshold: give --threshold, or --target-patch-length to calibrate one.")
        if self.target_patch_length is not None:
            self._check_target(self.target_patch_length)
        for name in ("calibration_bytes", "fragment_bytes"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least 1.")

    def _check_target(self, target: float) -> None:
        if not self.rule.needs_entropies:
            raise ConfigError(f"The rule {self.rule.scheme!r} has no threshold to calibrate; leave --target-patch-length out.")
        if not 1 <= target < math.inf:
            raise ConfigError(f"target_patch_length is {target:g}; it must be a number of bytes, at least 1.")
        # Beside a relative threshold, calibration replaces this one: then it is there to say which of the two is meant.
        if self.rule.threshold is not None and self.rule.relative_threshold is None:
            raise ConfigError(
                f"Both a threshold ({self.rule.threshold:g}) and a target patch length ({target:g}) are given; leave one of them out."
            )


@dataclass(frozen=True)
class BuildReporter:
    """Who is told how a build goes. The default tells nobody."""

    said: Callable[[str], None] = lambda text: None
    """A sentence for the user."""

    planned: Callable[[float | None], None] = lambda num_bytes: None
    """About how many raw bytes there are to do, before the first shard; None where nobody knows."""

    built: Callable[[ShardRecord], None] = lambda record: None
    """A shard was finished."""


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
        precision = _torch_type(self.config)
        with one_thread(), ShardWriter(self.folder / shard_name(fragment.index), metadata) as writer:
            for document, score in _scored(model, self.corpus.read(fragment, writer.left_out), precision):
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
        finished = dict(_finished(job, plan))
        missing = [fragment for fragment in plan.fragments if fragment.index not in finished]
        if finished:
            reporter.said(f"{folder} has {len(finished)} of {len(plan.fragments)} shards already; {len(missing)} to go.")
        reporter.planned(expected_bytes(corpus, missing))
        # Closed before the lock is given up: then no worker writes any more.
        with contextlib.closing(run_local(job, missing, workers)) as records:
            for record in records:
                finished[int(Path(record.file).stem.removeprefix("part-"))] = record
                reporter.built(record)
        return _publish(job, plan, model, [finished[fragment.index] for fragment in plan.fragments])


@dataclass(frozen=True)
class _Plan:
    """The fragments of a build, and everything that fixes what becomes of them."""

    fragments: list[Fragment]
    identity: dict[str, Any]


def describe_model(model: EntropyModel, config: BuildConfig) -> dict[str, Any]:
    """What shards and manifest say of the entropy model and of the context that it was given."""
    return {
        "fingerprint": model.fingerprint,
        "config": to_mapping(model.config),
        "context": {
            "policy": "each document alone, in one stream, keys and values of the last window carried",
            "window": model.config.window,
            "chunk_tokens": CHUNK_TOKENS,
            "precision": config.precision,
        },
    }


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
    path = folder / PLAN_FILE
    if path.exists():
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            rule = PatchRule(**found["patch_rule"])
            identity = dict(found["identity"])
        except (ValueError, KeyError, TypeError) as error:
            raise BuildError(f"{path} is damaged; choose another folder, or delete this one to build again.") from error
        _check_identity(identity, plan.identity, folder)
        return rule
    if (folder / MANIFEST_NAME).exists() or any(folder.glob("part-*.parquet")):
        raise BuildError(f"{folder} holds shards but no {PLAN_FILE}, so nobody can tell what made them; choose another folder.")
    rule = calibrated()
    write_json(path, {"identity": plan.identity, "patch_rule": to_mapping(rule), "fragments": [to_mapping(f) for f in plan.fragments]})
    return rule


def _check_identity(found: dict[str, Any], wanted: dict[str, Any], folder: Path) -> None:
    names = {"corpus": "corpus", "entropy_model": "entropy model", "build": "settings", "fragments": "corpus (its files have changed)"}
    for key, name in names.items():
        if fingerprint(found.get(key)) != fingerprint(wanted[key]):
            raise BuildError(f"{folder} was begun with another {name}; choose another folder, or delete this one to build it anew.")


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
    scores = model.score_with_nll(documents, _torch_type(config))
    pairs = ((data, round_entropies(score.entropy_nats, config.entropy_precision)) for data, score in zip(documents, scores, strict=True))
    with one_thread():
        return calibrate(pairs, config.rule, config.target_patch_length)


def _finished(job: ShardJob, plan: _Plan) -> Iterator[tuple[int, ShardRecord]]:
    """The shards of this plan that are in the folder and whole. Anything else under their names is built again."""
    for fragment in plan.fragments:
        path = job.folder / shard_name(fragment.index)
        if not path.exists():
            continue
        try:
            if read_metadata(path).get("plan") != job.plan_fingerprint:
                continue
            _read_pages(path)
            yield fragment.index, read_record(path)
        except ShardError:
            continue


def _read_pages(path: Path) -> None:
    """Read a whole shard, whose pages have checksums: a bit that flipped on the disk must not get into a manifest."""
    with reading(path), pq.ParquetFile(path, page_checksum_verification=True) as file:
        for row_group in range(file.num_row_groups):
            file.read_row_group(row_group)


def _scored(model: EntropyModel, documents: Iterable[Document], precision: torch.dtype) -> Iterator[tuple[Document, Score]]:
    """Documents with their scores; the model reads a little ahead of what it has given back."""
    ahead: deque[Document] = deque()

    def texts() -> Iterator[bytes]:
        for document in documents:
            ahead.append(document)
            yield document.data

    for score in model.score_with_nll(texts(), precision):
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
        for name in (PLAN_FILE, *(record.file for record in records)):
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
