"""The plan of a build: the corpus cut into fragments, each of which becomes one shard, and everything that fixes what becomes of them.

It is written to `plan.json` before the first shard. Whoever works on the build, now or later, here or on another machine, takes it
from there: the fragments with their sizes and fingerprints, and the patch rule, which may have taken a calibration to find.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from bltdata.config import ADDED_LATER, fingerprint, from_mapping, number_of, to_mapping
from bltdata.corpus import Corpus, Fragment
from bltdata.corpus.sample import sample_documents
from bltdata.engines.resume import BuildReporter, agreed_plan, damaged_plan, plan_fingerprint
from bltdata.entropy import EntropyModel
from bltdata.entropy.scoring import chunk_tokens
from bltdata.errors import ConfigError
from bltdata.nn import one_thread, resolve_device
from bltdata.patching import Calibration, PatchRule, calibrate
from bltdata.patching.calibration import check_target
from bltdata.remote import AnyPath
from bltdata.shards import round_entropies
from bltdata.shards.precision import Precision as EntropyPrecision


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
    """Raw bytes a shard should have at most, but for the rest of its last document."""

    reset_at_newline: bool = field(default=False, metadata=ADDED_LATER)
    """Score each line as if nothing stood before the newline that it follows. The rule's field of this name resets the rule."""

    device: Literal["cpu", "cuda"] = field(default="cpu", metadata=ADDED_LATER)
    """What the entropy model runs on; a GPU rounds otherwise than a CPU."""

    def __post_init__(self) -> None:
        check_target(self.rule, self.target_patch_length)
        for name in ("calibration_bytes", "fragment_bytes"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least 1.")

    @property
    def torch_type(self) -> torch.dtype:
        """`precision` as torch has it."""
        return torch.bfloat16 if self.precision == "bfloat16" else torch.float32


@dataclass(frozen=True)
class BuildPlan:
    """What a build does, as `plan.json` has it."""

    fragments: Sequence[Fragment]
    """Each becomes a shard."""
    rule: PatchRule
    """Where patches start, threshold included."""
    fingerprint: str
    """Names the plan; every shard says which one it belongs to."""


def agreed_build_plan(
    corpus: Corpus, model: EntropyModel, config: BuildConfig, folder: AnyPath, reporter: BuildReporter, *, is_alone: bool = True
) -> BuildPlan:
    """The plan of the build in `folder`; a new one is made, and written there, where it has none. For one process at a time.

    Args:
        corpus: what to read.
        model: the entropy model.
        config: how shards are made.
        folder: where they go.
        reporter: who is told how it goes.
        is_alone: whether no other job works in the folder; a plan that nothing was made by yet can then be replaced.

    Raises:
        BuildError: the folder was begun with another corpus, model or settings.
        BltError: the corpus can't be read, or the calibration can't reach its target.
    """
    wanted = {"corpus": corpus.describe(), "entropy_model": describe_model(model, config), "build": to_mapping(config)}
    files = corpus.files_fingerprint

    def decide() -> dict[str, Any]:
        fragments = corpus.fragments(config.fragment_bytes)
        corpus.check_readable(fragments)
        rule = _calibrated_rule(corpus, model, config, fragments, reporter)
        return {
            "identity": wanted | {"fragments": _name_of(fragments)},
            "files": files,
            "patch_rule": to_mapping(rule),
            "fragments": [_described(fragment) for fragment in fragments],
        }

    def read(found: Mapping[str, Any]) -> tuple[PatchRule, Mapping[str, Any]]:
        return PatchRule(**found["patch_rule"]), found

    differences = {"corpus": "another corpus", "entropy_model": "another entropy model", "build": "other settings"}

    def outdated(plan: Mapping[str, Any]) -> str | None:
        # Times of change are no part of what the shards are, but the plan holds only while the files are those that it was made from.
        return None if plan.get("files") == files else "another corpus (its files have changed)"

    replaced = reporter.said if is_alone else None
    rule, found = agreed_plan(folder, "identity", wanted, differences, decide=decide, read=read, outdated=outdated, replaced=replaced)
    try:
        fragments = [_fragment(mapping) for mapping in found["fragments"]]
        if _name_of(fragments) != found["identity"]["fragments"]:
            raise damaged_plan(folder)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise damaged_plan(folder) from error
    return BuildPlan(fragments, rule, plan_fingerprint(found))


def describe_model(model: EntropyModel, config: BuildConfig) -> dict[str, Any]:
    """What shards and manifest say of the entropy model and of the context that it was given."""
    context: dict[str, Any] = {
        "policy": "each document alone, in one stream, keys and values of the last window carried",
        "window": model.config.window,
        "chunk_tokens": chunk_tokens(config.device),
        "precision": config.precision,
    }
    if config.reset_at_newline:
        context["reset_at_newline"] = True
    if config.device != "cpu":
        context["device"] = config.device
    return {"fingerprint": model.fingerprint, "config": to_mapping(model.config), "context": context}


def calibrate_rule(model: EntropyModel, documents: list[bytes], config: BuildConfig) -> Calibration:
    """Find the threshold that gives `documents` the target patch length, from entropies as a shard would store them."""
    assert config.target_patch_length is not None, "there is something to calibrate to"
    scores = model.score_with_nll(documents, config.torch_type, reset_at_newline=config.reset_at_newline)
    pairs = ((data, round_entropies(score.entropy_nats, config.entropy_precision)) for data, score in zip(documents, scores, strict=True))
    with one_thread():
        return calibrate(pairs, config.rule, config.target_patch_length)


def _calibrated_rule(
    corpus: Corpus, model: EntropyModel, config: BuildConfig, fragments: Sequence[Fragment], reporter: BuildReporter
) -> PatchRule:
    if config.target_patch_length is None:
        return config.rule
    left_out: Counter[str] = Counter()
    documents = list(sample_documents(corpus, fragments, config.calibration_bytes, left_out))
    corpus.check_not_empty(len(documents), left_out)
    found = calibrate_rule(model.to(resolve_device(config.device)), [document.data for document in documents], config)
    reporter.said(
        f"Calibrated on {number_of(found.num_documents, 'document')} ({number_of(found.num_bytes, 'byte')}): "
        f"{found.field} {found.threshold:.4f} nats gives patches of {found.mean_patch_length:.3f} bytes."
    )
    return found.rule


def _name_of(fragments: Sequence[Fragment]) -> str:
    return fingerprint([fragment.fingerprint for fragment in fragments])


def _described(fragment: Fragment) -> dict[str, Any]:
    mapping = to_mapping(fragment)
    items = mapping.pop("items")
    return {**mapping, "size_bytes": fragment.size_bytes, "fingerprint": fragment.fingerprint, "items": items}


def _fragment(mapping: Mapping[str, Any]) -> Fragment:
    told = {key: value for key, value in mapping.items() if key not in ("size_bytes", "fingerprint")}
    return from_mapping(Fragment, told, "The plan")
