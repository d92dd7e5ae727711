"""Rules by source: one language or domain may need another threshold than the next to get patches of the same length."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bltdata.config import from_mapping, to_mapping
from bltdata.errors import ConfigError
from bltdata.patching.batch import DocumentBatch
from bltdata.patching.rule import PatchRule
from bltdata.patching.settings import decisions

Read = Callable[[], Iterable[DocumentBatch]]
"""Gives all documents, from the first on, each time that it is called."""


@dataclass(frozen=True, kw_only=True)
class SourceRules:
    """A rule for each source, and one for every other.

    Raises:
        ConfigError: a rule has no threshold yet.

    >>> rules = SourceRules(default=PatchRule(threshold=1.5), by_source={"thai": PatchRule(threshold=0.75)})
    >>> rules.rule_for("thai").threshold, rules.rule_for("english").threshold
    (0.75, 1.5)
    """

    default: PatchRule
    """The rule of sources that aren't in `by_source`."""
    by_source: Mapping[str, PatchRule] = field(default_factory=dict)
    """Source label -> its rule."""

    def __post_init__(self) -> None:
        """Check that every rule can be used; keep them in the order of their names."""
        object.__setattr__(self, "by_source", dict(sorted(self.by_source.items())))
        for name, rule in [("the default", self.default), *((f"source {name!r}", rule) for name, rule in self.by_source.items())]:
            if not rule.is_calibrated:
                raise ConfigError(f"The rule of {name} has no threshold; give one, or calibrate it to a mean patch length.")

    def rule_for(self, source: str) -> PatchRule:
        """The rule that cuts documents of `source`."""
        return self.by_source.get(source, self.default)

    @property
    def needs_bytes(self) -> bool:
        """Whether any of the rules reads bytes."""
        return any(rule.needs_bytes for rule in (self.default, *self.by_source.values()))

    def to_mapping(self) -> dict[str, Any]:
        """Plain values under the names that manifests give them: `patch_rule`, and `source_rules` if there are any."""
        mapping: dict[str, Any] = {"patch_rule": to_mapping(self.default)}
        if self.by_source:
            mapping["source_rules"] = {name: to_mapping(rule) for name, rule in self.by_source.items()}
        return mapping

    @staticmethod
    def from_mapping(mapping: Mapping[str, Any], where: str = "the manifest") -> "SourceRules":
        """Read `patch_rule` and `source_rules`, which may be missing, of a mapping; its other keys are somebody else's.

        Args:
            mapping: as `to_mapping` gives it.
            where: what errors call it.

        Raises:
            ConfigError: `patch_rule` is missing, or a rule makes no sense.
        """
        default = mapping.get("patch_rule")
        sources = mapping.get("source_rules", {})
        if not isinstance(default, Mapping) or not isinstance(sources, Mapping):
            raise ConfigError(f"{where} must have a table 'patch_rule', and 'source_rules' must be a table if it is there.")
        return SourceRules(
            default=from_mapping(PatchRule, default, f"{where}, key 'patch_rule'"),
            by_source={
                name: from_mapping(PatchRule, rule, f"{where}, key 'source_rules', source {name!r}") for name, rule in sources.items()
            },
        )


def cut_alike(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two datasets have the same rules, by what manifests say of them (see `SourceRules.to_mapping`)."""

    def decided(mapping: Mapping[str, Any]) -> dict[str, Any]:
        by_source = mapping.get("source_rules") or {}
        return {"default": decisions(mapping["patch_rule"]), "by_source": {name: decisions(rule) for name, rule in by_source.items()}}

    return decided(one) == decided(other)


@dataclass(frozen=True, kw_only=True)
class PatchCounts:
    """What a rule makes of documents."""

    num_documents: int = 0
    num_bytes: int = 0
    num_patches: int = 0

    @property
    def num_positions(self) -> int:
        """Bytes and ends of documents."""
        return self.num_bytes + self.num_documents

    @property
    def mean_patch_length(self) -> float:
        """Positions per patch; there must be a document."""
        return self.num_positions / self.num_patches

    def __add__(self, other: "PatchCounts") -> "PatchCounts":
        return PatchCounts(
            num_documents=self.num_documents + other.num_documents,
            num_bytes=self.num_bytes + other.num_bytes,
            num_patches=self.num_patches + other.num_patches,
        )


def count_patches(batches: Iterable[DocumentBatch], rules: SourceRules) -> dict[str, PatchCounts]:
    """Cut documents and count by source, sources by name."""
    counts: dict[str, PatchCounts] = {}
    for batch in batches:
        lengths, _ = batch.lengths(rules.rule_for(batch.source))
        found = PatchCounts(num_documents=batch.num_documents, num_bytes=batch.num_bytes, num_patches=len(lengths))
        counts[batch.source] = counts.get(batch.source, PatchCounts()) + found
    return dict(sorted(counts.items()))
