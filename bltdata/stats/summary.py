"""Mean, spread and quantiles of values that are given with how often they occur."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Summary:
    """A distribution, described exactly.

    Args:
        values: the distinct values, ascending, `[distinct]`.
        counts: int64 `[distinct]`, how often each occurs; none is 0.
    """

    values: np.ndarray
    counts: np.ndarray

    @property
    def total(self) -> int:
        """How many values there are."""
        return int(self.counts.sum())

    @property
    def mean(self) -> float | None:
        """Arithmetic mean; None of no values, as all that follow."""
        return float(self._floats @ self.counts / self.total) if self.total else None

    @property
    def std(self) -> float | None:
        """Standard deviation of the population (the sum of squares is divided by the number of values)."""
        if not self.total:
            return None
        # Around the mean, because a difference of two large sums of squares would lose what is small.
        return float(np.sqrt((self._floats - self.mean) ** 2 @ self.counts / self.total))

    @property
    def minimum(self) -> float | None:
        """Smallest value."""
        return float(self.values[0]) if self.total else None

    @property
    def maximum(self) -> float | None:
        """Largest value."""
        return float(self.values[-1]) if self.total else None

    @property
    def median(self) -> float | None:
        """Middle value, or the mean of the two in the middle."""
        return self.quantile(0.5)

    def quantile(self, fraction: float) -> float | None:
        """Value at `fraction` of the way through the sorted values, on a straight line between the two neighbours.

        >>> Summary(np.array([1, 5]), np.array([3, 1])).quantile(0.75)
        2.0
        """
        if not self.total:
            return None
        place = (self.total - 1) * fraction
        below = int(place)
        ends = np.cumsum(self.counts)
        first, second = self._floats[np.searchsorted(ends, [below, min(below + 1, self.total - 1)], side="right")]
        return float(first + (second - first) * (place - below))

    def share_of(self, value: float) -> float | None:
        """Part of the values that equal `value`."""
        return float(self.counts[self.values == value].sum() / self.total) if self.total else None

    @property
    def most_common(self) -> float | None:
        """The value that occurs most often, the smallest of them where there are several."""
        return float(self.values[np.argmax(self.counts)]) if self.total else None

    @property
    def _floats(self) -> np.ndarray:
        return self.values.astype(np.float64)
