"""Can entropies be believed? Where a model says `H` nats, what comes should cost it `H` nats on average.

The entropy of a distribution is the negative log-likelihood that it expects of itself, so over the positions where a model's
entropies are alike, the mean of one should be the mean of the other. Where the cost is higher the model is too sure of itself, where
it is lower not sure enough. A patch rule that compares entropies with a threshold depends on their order more than on this; a
threshold that is carried from one model or corpus to another depends on it.

Source: the bins are those of arXiv:1706.04599, section 2, with entropy in the place of confidence.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bltdata.vocab import MAX_ENTROPY_NATS

FINE_BINS_PER_NAT = 256
NUM_FINE_BINS = int(MAX_ENTROPY_NATS * FINE_BINS_PER_NAT) + 1

BIN_NATS = 0.25
"""Width of the bins that are shown, a multiple of a fine one."""
NUM_EQUAL_BINS = 20


@dataclass(frozen=True, kw_only=True)
class Bin:
    """The positions whose entropy lies in a range."""

    from_nats: float
    """Where the range begins."""
    to_nats: float
    """Where it ends, which is not part of it."""
    count: int
    """Positions."""
    mean_entropy_nats: float
    """What the model expects to pay."""
    mean_nll_nats: float
    """What it paid: the mean negative log-likelihood of what came."""

    @property
    def gap_nats(self) -> float:
        """What it paid beyond what it expected: above 0 the model is too sure."""
        return self.mean_nll_nats - self.mean_entropy_nats

    def to_mapping(self) -> dict[str, Any]:
        """Plain values."""
        return {**vars(self), "gap_nats": self.gap_nats}


class Reliability:
    """Counts, entropies and negative log-likelihoods by entropy: 33 KiB however many positions are added; `a += b` adds those of both.

    >>> reliability = Reliability()
    >>> reliability.add(np.array([0.5, 0.5, 2.0]), np.array([0.25, 1.25, 1.0]))
    >>> [(found.from_nats, found.count, found.gap_nats) for found in reliability.bins()]
    [(0.5, 2, 0.25), (2.0, 1, -1.0)]
    >>> mean_gap_nats(reliability.bins())
    0.5
    """

    def __init__(self) -> None:
        self.counts = np.zeros(NUM_FINE_BINS, dtype=np.int64)
        self.entropy_nats = np.zeros(NUM_FINE_BINS)
        self.nll_nats = np.zeros(NUM_FINE_BINS)

    def add(self, entropy_nats: np.ndarray, nll_nats: np.ndarray) -> None:
        """Add positions.

        Args:
            entropy_nats: float `[positions]`, in `[0, ln 260]`.
            nll_nats: float `[positions]`, finite.
        """
        fine = (entropy_nats * FINE_BINS_PER_NAT).astype(np.int64)
        self.counts += np.bincount(fine, minlength=NUM_FINE_BINS)
        self.entropy_nats += np.bincount(fine, entropy_nats, NUM_FINE_BINS)
        self.nll_nats += np.bincount(fine, nll_nats, NUM_FINE_BINS)

    def __iadd__(self, other: "Reliability") -> "Reliability":
        self.counts += other.counts
        self.entropy_nats += other.entropy_nats
        self.nll_nats += other.nll_nats
        return self

    @property
    def num_positions(self) -> int:
        """Positions that were added."""
        return int(self.counts.sum())

    def overall(self) -> Bin | None:
        """All positions; None where there are none."""
        found = self._merged(np.array([0]))
        return found[0] if found else None

    def bins(self) -> list[Bin]:
        """Ranges of `BIN_NATS`, those that hold something, ascending."""
        return self._merged(np.arange(0, NUM_FINE_BINS, int(BIN_NATS * FINE_BINS_PER_NAT)))

    def equal_bins(self) -> list[Bin]:
        """At most `NUM_EQUAL_BINS` ranges with about as many positions in each, ascending."""
        before = np.cumsum(self.counts) - self.counts
        wanted = np.arange(NUM_EQUAL_BINS) * self.num_positions / NUM_EQUAL_BINS
        # A fine bin is never split, so values that many positions share leave fewer ranges.
        return self._merged(np.unique(np.concatenate([[0], np.searchsorted(before, wanted[1:])])))

    def _merged(self, begins: np.ndarray) -> list[Bin]:
        """Bins of the fine bins from each of `begins` to the next."""
        begins = begins[begins < NUM_FINE_BINS]
        ends = [*begins[1:].tolist(), NUM_FINE_BINS]
        counts, entropies, costs = (np.add.reduceat(sums, begins) for sums in (self.counts, self.entropy_nats, self.nll_nats))
        return [
            Bin(
                from_nats=begin / FINE_BINS_PER_NAT,
                to_nats=end / FINE_BINS_PER_NAT,
                count=int(count),
                mean_entropy_nats=float(entropy / count),
                mean_nll_nats=float(cost / count),
            )
            for begin, end, count, entropy, cost in zip(begins.tolist(), ends, counts, entropies, costs, strict=True)
            if count
        ]

    def report(self) -> dict[str, Any]:
        """Plain values: all positions, bins of both kinds, and how far the bins are off on average."""
        overall, bins, equal = self.overall(), self.bins(), self.equal_bins()
        return {
            "positions": self.num_positions,
            "mean_entropy_nats": overall.mean_entropy_nats if overall else None,
            "mean_nll_nats": overall.mean_nll_nats if overall else None,
            "gap_nats": overall.gap_nats if overall else None,
            "mean_absolute_gap_nats": mean_gap_nats(bins),
            "mean_absolute_gap_nats_equal_bins": mean_gap_nats(equal),
            "bins": [found.to_mapping() for found in bins],
            "equal_bins": [found.to_mapping() for found in equal],
        }


def mean_gap_nats(bins: Sequence[Bin]) -> float | None:
    """Mean absolute gap, each bin weighted by its positions; None where there are none."""
    total = sum(found.count for found in bins)
    return sum(found.count * abs(found.gap_nats) for found in bins) / total if total else None
