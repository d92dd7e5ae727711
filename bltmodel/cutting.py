"""How the shards were cut that a BLT was trained on, and texts that are in no shard cut alike."""

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch

from bltdata.entropy import EntropyModel
from bltdata.errors import CheckpointError, ConfigError
from bltdata.nn import resolve_precision
from bltdata.patching import PatchRule
from bltdata.patching.sources import SourceRules, cut_alike
from bltdata.shards import EntropyContext, round_entropies
from bltdata.shards.precision import Precision as EntropyPrecision


def trained_on(metadata: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """What the `config.json` of a BLT says of its training data, as `TrainingData.describe` put it.

    Args:
        metadata: everything in `config.json`.
        folder: the model's, for the error.

    Raises:
        CheckpointError: it says nothing: neither training wrote it nor an import that knew its patches.
    """
    if not isinstance(metadata.get("data"), dict):
        raise CheckpointError(
            f"{folder} doesn't say what it was trained on, so nobody knows its patches; train one with bltmodel train, "
            "or import one together with its entropy model."
        )
    return dict(metadata["data"])


def what_differs(one: Mapping[str, Any], other: Mapping[str, Any]) -> Literal["entropy model", "newlines", "rule"] | None:
    """Why the patches of two datasets don't mean the same.

    How scores were rounded (precision, device, the grid) isn't among the reasons: it moves a patch in a thousand.

    Args:
        one: what a manifest, or a BLT's `config.json`, says under `entropy_model`, `patch_rule` and `source_rules`.
        other: the same of another.

    Returns:
        The entropy model is another; one was scored line by line and the other wasn't; a rule is another; or None.
    """
    scored, otherwise = (EntropyContext.of(each["entropy_model"]) for each in (one, other))
    if scored.fingerprint != otherwise.fingerprint:
        return "entropy model"
    if scored.reset_at_newline != otherwise.reset_at_newline:
        return "newlines"
    return None if cut_alike(one, other) else "rule"


@dataclass(frozen=True, kw_only=True)
class LearnedPatches:
    """What the patches are that a BLT was trained on."""

    rules: SourceRules
    """Those that cut the shards."""
    context: EntropyContext = field(default_factory=EntropyContext)
    """How the shards were scored."""
    entropy_precision: EntropyPrecision = "grid"
    """How the shards stored entropies."""
    blt: str = "the BLT"
    """What errors call it."""

    @classmethod
    def of(cls, metadata: Mapping[str, Any], folder: Path) -> Self:
        """What the `config.json` of a BLT, `metadata`, says.

        Raises:
            CheckpointError: it doesn't say what it was trained on.
            ConfigError: a rule in it makes no sense.
        """
        data = trained_on(metadata, folder)
        rules = SourceRules.from_mapping(data, f"What {folder} says of its data")
        context = EntropyContext.of(data["entropy_model"])
        return cls(rules=rules, context=context, entropy_precision=data["entropy_precision"], blt=str(folder))

    @property
    def all_rules(self) -> list[PatchRule]:
        """The default, and those of sources."""
        return [self.rules.default, *self.rules.by_source.values()]

    @property
    def needs_entropies(self) -> bool:
        """Whether any rule reads entropies."""
        return any(rule.needs_entropies for rule in self.all_rules)

    @property
    def looks_ahead(self) -> bool:
        """Whether any rule reads what follows: where a patch starts then tells of bytes that are to be predicted."""
        return not all(rule.is_incremental for rule in self.all_rules)

    @property
    def scoring_dtype(self) -> torch.dtype:
        """Type of matrix products that the shards were scored with."""
        return resolve_precision(self.context.precision, torch.device("cpu"))

    def rule_for(self, source: str | None) -> PatchRule:
        """The rule for a text that is to be cut as documents of a source are.

        Raises:
            ConfigError: there is more than one rule, and no source.
        """
        if self.rules.by_source and not source:
            raise ConfigError(
                f"Nothing says with which rule to cut the text: of the shards that {self.blt} was trained on, sources have rules of their "
                f"own; give --source, {', '.join(self.rules.by_source)} or any other."
            )
        return self.rules.rule_for(source or "")

    def entropy_model(self, folder: Path | None, device: torch.device) -> EntropyModel | None:
        """The model that scored the shards, from a folder; None where nothing is given and no rule needs it.

        Raises:
            ConfigError: it is needed, and nothing is given.
            CheckpointError: it is another, or nobody knows which it was.
        """
        named = self.context.fingerprint
        if named is None and self.needs_entropies:
            raise CheckpointError(
                f"Nobody knows which entropy model made the shards that {self.blt} was trained on, because they were converted from Arrow "
                "files, so a text can't be cut as they were; train on shards of build-shards."
            )
        if folder is None:
            if self.needs_entropies:
                raise ConfigError(
                    f"The rule of the shards that {self.blt} was trained on reads entropies; give the entropy model that scored them with "
                    "--entropy-model."
                )
            return None
        model = EntropyModel.load(folder).to(device)
        if named is not None and model.fingerprint != named:
            raise CheckpointError(f"{folder} isn't the entropy model of the shards that {self.blt} was trained on; give that one.")
        return model


class Cutter:
    """Cuts texts into patches as shards were cut.

    Args:
        patches: how.
        entropy_model: the one that scored the shards; None where no rule reads entropies.
    """

    def __init__(self, patches: LearnedPatches, entropy_model: EntropyModel | None) -> None:
        self.patches = patches
        self.entropy_model = entropy_model

    def starts(self, texts: Iterable[tuple[str, bytes]]) -> Iterator[np.ndarray]:
        """Whether a patch starts at each position of each text.

        Args:
            texts: source label and bytes of each; read as the results are taken, about a thousand tokens ahead.

        Yields:
            bool `[n + 1]` for a text of `n` bytes.
        """
        texts, read = itertools.tee(texts)
        for (source, data), entropy_nats in zip(texts, self._entropies(data for _, data in read), strict=True):
            starts = np.zeros(len(data) + 1, dtype=bool)
            starts[self.patches.rules.rule_for(source).starts(data, entropy_nats)] = True
            yield starts

    def _entropies(self, texts: Iterable[bytes]) -> Iterator[np.ndarray | None]:
        patches = self.patches
        if not patches.needs_entropies:
            yield from (None for _ in texts)
            return
        assert self.entropy_model is not None, "there is one where a rule reads entropies"
        scores = self.entropy_model.score_positions(texts, patches.scoring_dtype, reset_at_newline=patches.context.reset_at_newline)
        yield from (round_entropies(score.entropy_nats, patches.entropy_precision) for score in scores)
