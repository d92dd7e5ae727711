"""The statistics of one source, and of a dataset of several."""

import dataclasses
import math
from collections.abc import Iterable

from bltdata.stats.accumulators import EntropyHistogram, ExactSum, IntegerHistogram
from bltdata.stats.expectation import Expectation
from bltdata.stats.positions import PositionStatistics


@dataclasses.dataclass(kw_only=True)
class SourceStatistics:
    """What was counted in the documents of one source; `a + b` is what would have been counted in both."""

    entropy: EntropyHistogram = dataclasses.field(default_factory=EntropyHistogram)
    """Entropies in nats, one for each byte and each end of a document."""
    patch_lengths: IntegerHistogram = dataclasses.field(default_factory=IntegerHistogram)
    """Positions (bytes, and the end of the document) in each patch."""
    boundaries: IntegerHistogram = dataclasses.field(default_factory=IntegerHistogram)
    """Patch starts inside each document, that is its patches less one."""
    document_bytes: IntegerHistogram = dataclasses.field(default_factory=IntegerHistogram)
    """Raw bytes of each document."""
    nll: ExactSum = dataclasses.field(default_factory=ExactSum)
    """The entropy model's negative log-likelihood of the documents, ends included, in nats; of those that have one."""
    num_without_nll: int = 0
    """Documents whose likelihood nobody knows."""
    positions: PositionStatistics = dataclasses.field(default_factory=PositionStatistics)
    """What is counted at every position: by class, by distance from the start, after each byte."""
    expectation: Expectation = dataclasses.field(default_factory=Expectation)
    """What documents cost against what their entropies say."""
    num_documents: int = 0
    num_bytes: int = 0
    """Raw bytes, ends of documents not counted."""
    num_patches: int = 0

    def __iadd__(self, other: "SourceStatistics") -> "SourceStatistics":
        for field in dataclasses.fields(self):
            mine = getattr(self, field.name)
            mine += getattr(other, field.name)
            setattr(self, field.name, mine)
        return self

    def __add__(self, other: "SourceStatistics") -> "SourceStatistics":
        return SourceStatistics.total([self, other])

    @staticmethod
    def total(parts: Iterable["SourceStatistics"]) -> "SourceStatistics":
        """The sum of any number of them."""
        total = SourceStatistics()
        for part in parts:
            total += part
        return total

    @property
    def mean_patch_length(self) -> float | None:
        """Positions in a patch; None without any."""
        return (self.num_bytes + self.num_documents) / self.num_patches if self.num_patches else None

    @property
    def bits_per_byte(self) -> float | None:
        """The entropy model's: its log-likelihood in bits, ends included, over raw bytes; None without bytes, or if one is unknown."""
        return self.nll.value / math.log(2) / self.num_bytes if self.num_bytes and not self.num_without_nll else None


@dataclasses.dataclass(kw_only=True)
class DatasetStatistics:
    """Statistics by source; `a + b` merges two datasets."""

    by_source: dict[str, SourceStatistics] = dataclasses.field(default_factory=dict)
    """By the label in the `source` column."""

    def source(self, name: str) -> SourceStatistics:
        """The counters of a source, new ones for a name not seen before."""
        return self.by_source.setdefault(name, SourceStatistics())

    def overall(self) -> SourceStatistics:
        """All sources together."""
        return SourceStatistics.total(self.by_source.values())

    def __iadd__(self, other: "DatasetStatistics") -> "DatasetStatistics":
        for name, statistics in other.by_source.items():
            mine = self.source(name)
            mine += statistics
        return self

    def __add__(self, other: "DatasetStatistics") -> "DatasetStatistics":
        total = DatasetStatistics()
        for part in (self, other):
            total += part
        return total
