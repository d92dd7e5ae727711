"""What a diagnostic says, and what it may look at."""

import dataclasses
import enum
from typing import Any

from bltdata.shards import Manifest
from bltdata.stats.overlap import Overlap
from bltdata.stats.sample import Sample
from bltdata.stats.sources import DatasetStatistics, SourceStatistics


class Verdict(enum.StrEnum):
    """How bad it is, from best to worst."""

    OK = "ok"
    NOT_CHECKED = "not checked"
    """There is too little to tell, or the dataset doesn't have what is needed."""
    WARNING = "warning"
    ERROR = "error"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """The result of one diagnostic."""

    name: str
    verdict: Verdict
    evidence: str
    """The numbers, in a sentence."""
    numbers: dict[str, Any] = dataclasses.field(default_factory=dict)
    """The same for a program."""
    advice: str = ""
    """What to do; empty where there is nothing."""

    def to_mapping(self) -> dict[str, Any]:
        """Plain values."""
        return dataclasses.asdict(self) | {"verdict": str(self.verdict)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """A dataset, as the diagnostics see it."""

    statistics: DatasetStatistics
    overall: SourceStatistics
    manifest: Manifest
    sample: Sample
    overlaps: tuple[Overlap, ...] = ()
    """What it shares with each of the other datasets that it was compared with."""

    @property
    def rules(self) -> dict[str, dict[str, Any]]:
        """Source -> the rule that cut it, for the sources that are there."""
        return {name: self.manifest.source_rules.get(name, self.manifest.patch_rule) for name in sorted(self.statistics.by_source)}

    @property
    def cut_by_entropy(self) -> bool:
        """Whether the manifest says that patches start where entropies are high."""
        schemes = {rule.get("scheme", "entropy") for rule in (self.manifest.patch_rule, *self.rules.values())}
        return bool(schemes & {"entropy", "quantile"})


def worst(*verdicts: Verdict) -> Verdict:
    """The worst of some verdicts.

    >>> worst(Verdict.WARNING, Verdict.OK).value
    'warning'
    """
    order = list(Verdict)
    return max(verdicts, key=order.index)


def above(value: float, warning: float, error: float) -> Verdict:
    """A verdict about a value that should be small.

    >>> [above(value, 1.0, 2.0).value for value in (1.0, 1.5, 2.5)]
    ['ok', 'warning', 'error']
    """
    return Verdict.ERROR if value > error else Verdict.WARNING if value > warning else Verdict.OK
