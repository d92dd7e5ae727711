"""What documents cost against what their entropies promised.

The entropy of a distribution is the negative log-likelihood that it expects of itself. Shards keep that likelihood by document, so
documents are the finest that the two can be compared on.
"""

import math
from typing import Any

import numpy as np

from bltdata.stats.accumulators import ExactSum

BIN_NATS = 0.25
NUM_BINS = 24
"""Bins of 0.25 nat from 0 to 6; the last holds all that is above."""


class Expectation:
    """Sums by the mean entropy of documents, in the same few counters however many there are; `a += b` adds those of both."""

    def __init__(self) -> None:
        self.num_documents = np.zeros(NUM_BINS, dtype=np.int64)
        self.num_positions = np.zeros(NUM_BINS, dtype=np.int64)
        self._entropy = [ExactSum() for _ in range(NUM_BINS)]
        self._nll = [ExactSum() for _ in range(NUM_BINS)]

    def add(self, entropy_nats: np.ndarray, nll_nats: np.ndarray, num_positions: np.ndarray) -> None:
        """Count documents.

        Args:
            entropy_nats: float64 `[documents]`, the sum of each document's entropies.
            nll_nats: float64 `[documents]`; those that are NaN, which nobody knows, are left out.
            num_positions: int64 `[documents]`, bytes and the end.
        """
        known = np.flatnonzero(~np.isnan(nll_nats))
        bins = np.clip((entropy_nats[known] / num_positions[known] / BIN_NATS).astype(np.int64), 0, NUM_BINS - 1)
        for index in np.unique(bins).tolist():
            rows = known[bins == index]
            self.num_documents[index] += len(rows)
            self.num_positions[index] += int(num_positions[rows].sum())
            self._entropy[index].add(entropy_nats[rows])
            self._nll[index].add(nll_nats[rows])

    def __iadd__(self, other: "Expectation") -> "Expectation":
        self.num_documents += other.num_documents
        self.num_positions += other.num_positions
        for mine, theirs in ((self._entropy, other._entropy), (self._nll, other._nll)):
            for index in range(NUM_BINS):
                mine[index] += theirs[index]
        return self

    def bins(self) -> list[dict[str, Any]]:
        """Documents by their mean entropy: how many, their positions, and the mean of both over those, in nats.

        >>> expectation = Expectation()
        >>> expectation.add(np.array([6.0, 5.0]), np.array([8.0, math.nan]), np.array([4, 4]))
        >>> [(found["mean_entropy_nats"], found["mean_nll_nats"]) for found in expectation.bins()]
        [(1.5, 2.0)]
        """
        return [
            {
                "from_nats": index * BIN_NATS,
                "documents": int(self.num_documents[index]),
                "count": int(self.num_positions[index]),
                "mean_entropy_nats": self._entropy[index].value / int(self.num_positions[index]),
                "mean_nll_nats": self._nll[index].value / int(self.num_positions[index]),
            }
            for index in np.flatnonzero(self.num_documents).tolist()
        ]

    @property
    def ratio(self) -> float | None:
        """What documents cost over what their entropies said; None where nothing is known or nothing was expected."""
        expected, paid = (math.fsum(each.value for each in sums) for sums in (self._entropy, self._nll))
        return paid / expected if expected > 0 else None
