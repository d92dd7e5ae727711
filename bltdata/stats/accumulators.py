"""Counters that add up: exact, small, and indifferent to order.

Statistics of a billion values fit in a few thousand counters when the values are few: an entropy is one of the float16 numbers,
a length a small integer. Counts are integers, so sums of them are the same in any order, and mean, spread and quantiles come
from the counts at the end.
"""

import numpy as np

from bltdata.shards.precision import MAX_STORED_CODE
from bltdata.stats.summary import Summary

NUM_CODES = 1 << 16
FIXED_POINT_BITS = 64

BLOCK = 1 << 20
"""Values counted at a time: NumPy widens them to eight bytes each, which a document of 50 MB would feel."""


class EntropyHistogram:
    """How often each float16 occurs, 512 KiB however many values are added."""

    def __init__(self) -> None:
        self.counts = np.zeros(NUM_CODES, dtype=np.int64)
        """int64 `[65536]`, by the bits of the float16."""

    def add(self, entropy_nats: np.ndarray) -> None:
        """Count float16 values of any shape."""
        codes = np.ascontiguousarray(entropy_nats).view(np.uint16).ravel()
        for start in range(0, codes.size, BLOCK):
            self.counts += np.bincount(codes[start : start + BLOCK], minlength=NUM_CODES)

    def __iadd__(self, other: "EntropyHistogram") -> "EntropyHistogram":
        self.counts += other.counts
        return self

    @property
    def num_impossible(self) -> int:
        """Values that no entropy can have: negative, above ln 260, infinite, or no number. A shard's writer refuses them."""
        return int(self.counts[MAX_STORED_CODE + 1 :].sum())

    def summary(self) -> Summary:
        """The distribution in nats; infinities and NaN are left to `num_impossible`."""
        codes = np.flatnonzero(self.counts)
        values = codes.astype(np.uint16).view(np.float16).astype(np.float64)
        finite = np.isfinite(values)
        # Negative zero and zero are one value; what is left is sorted already, bar negative numbers.
        values, places = np.unique(values[finite], return_inverse=True)
        return Summary(values, np.bincount(places, self.counts[codes[finite]], minlength=len(values)).astype(np.int64))


class IntegerHistogram:
    """How often each non-negative integer occurs.

    Small ones have a counter each, larger ones an entry in a dictionary. `k` distinct values sum to at least `k * (k - 1) / 2`,
    so lengths that sum to a terabyte have at most 1.5 million entries, and real ones some hundreds.
    """

    NUM_DENSE = 4096

    def __init__(self) -> None:
        self.dense = np.zeros(self.NUM_DENSE, dtype=np.int64)
        self.sparse: dict[int, int] = {}

    def add(self, values: np.ndarray) -> None:
        """Count integers `[number]`, none negative."""
        for start in range(0, values.size, BLOCK):
            block = values[start : start + BLOCK]
            self.add_large(block)
            block = block[block < self.NUM_DENSE]
            self.dense += np.bincount(block.astype(np.int64, copy=False), minlength=self.NUM_DENSE)

    def add_large(self, values: np.ndarray) -> None:
        """Count only those integers that have no counter in `dense`."""
        large = values[values >= self.NUM_DENSE]
        if large.size:
            self._add_sparse(*np.unique(large, return_counts=True))

    def __iadd__(self, other: "IntegerHistogram") -> "IntegerHistogram":
        self.dense += other.dense
        self._add_sparse(np.fromiter(other.sparse.keys(), np.int64), np.fromiter(other.sparse.values(), np.int64))
        return self

    def summary(self) -> Summary:
        """The distribution, in whatever the integers count."""
        small = np.flatnonzero(self.dense)
        large = np.array(sorted(self.sparse), dtype=np.int64)
        large_counts = np.array([self.sparse[value] for value in large.tolist()], dtype=np.int64)
        return Summary(np.concatenate([small, large]), np.concatenate([self.dense[small], large_counts]))

    def _add_sparse(self, values: np.ndarray, counts: np.ndarray) -> None:
        for value, count in zip(values.tolist(), counts.tolist(), strict=True):
            self.sparse[value] = self.sparse.get(value, 0) + count


class ExactSum:
    """A sum of floats that is the same in any order: kept as an integer multiple of 2**-64."""

    def __init__(self) -> None:
        self.units = 0

    def add(self, values: np.ndarray) -> None:
        """Add finite float64 values `[number]`."""
        # Scaling by a power of two loses nothing, and Python's integers have no limit.
        self.units += sum(map(int, np.ldexp(values, FIXED_POINT_BITS).tolist()))

    def __iadd__(self, other: "ExactSum") -> "ExactSum":
        self.units += other.units
        return self

    @property
    def value(self) -> float:
        """The sum, rounded once."""
        return self.units / (1 << FIXED_POINT_BITS)


class ExactSums:
    """Sums of many integers, side by side, that never overflow and are the same in any order.

    Args:
        shape: of the sums.

    >>> sums = ExactSums((2,))
    >>> for _ in range(4):
    ...     sums.add(np.array([2**62, 1]))
    >>> sums.integers() == [2**64, 4]
    True
    """

    LOW_BITS = 32

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._low, self._high = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)

    def add(self, values: np.ndarray) -> None:
        """Add int64 values of the shape."""
        self._carry(values >> self.LOW_BITS, values & ((1 << self.LOW_BITS) - 1))

    def __iadd__(self, other: "ExactSums") -> "ExactSums":
        self._carry(other._high, other._low)
        return self

    def integers(self) -> list[int]:
        """The sums, flat, as Python's integers."""
        pairs = zip(self._high.ravel().tolist(), self._low.ravel().tolist(), strict=True)
        return [(high << self.LOW_BITS) + low for high, low in pairs]

    def _carry(self, high: np.ndarray, low: np.ndarray) -> None:
        self._low += low
        self._high += high + (self._low >> self.LOW_BITS)
        self._low &= (1 << self.LOW_BITS) - 1
