"""Can probabilities be believed? Where a model gives its best guess a probability of 70 %, that guess should be right 7 times of 10.

Source: arXiv:1706.04599, section 2 (reliability diagrams, expected and maximum calibration error).
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

NUM_BINS = 15
"""Bins of equal width, as many as in the source."""


def _counts() -> np.ndarray:
    return np.zeros(NUM_BINS)


@dataclass
class Calibration:
    """Predictions by the probability of their best guess, in `NUM_BINS` bins `(i / 15, (i + 1) / 15]`; `a + b` has those of both.

    >>> calibration = Calibration()
    >>> calibration.add(np.array([0.5, 0.5, 0.75, 0.75]), np.array([True, False, True, True]))
    >>> calibration.expected_error, calibration.maximum_error
    (0.125, 0.25)
    """

    num_predictions: np.ndarray = field(default_factory=_counts)
    """Predictions in each bin."""
    confidence_sums: np.ndarray = field(default_factory=_counts)
    """Sum of the probabilities of their best guesses."""
    num_correct: np.ndarray = field(default_factory=_counts)
    """How many of these guesses were right."""

    def add(self, confidence: np.ndarray, is_correct: np.ndarray) -> None:
        """Add predictions.

        Args:
            confidence: float `[predictions]`, the probability of the best guess, in `(0, 1]`.
            is_correct: bool `[predictions]`, whether that is what came.
        """
        values = confidence.astype(np.float64)
        bins = np.clip(np.ceil(values * NUM_BINS).astype(np.int64) - 1, 0, NUM_BINS - 1)
        self.num_predictions += np.bincount(bins, minlength=NUM_BINS)
        self.confidence_sums += np.bincount(bins, values, NUM_BINS)
        self.num_correct += np.bincount(bins, is_correct, NUM_BINS)

    def __add__(self, other: "Calibration") -> "Calibration":
        return Calibration(
            self.num_predictions + other.num_predictions,
            self.confidence_sums + other.confidence_sums,
            self.num_correct + other.num_correct,
        )

    @property
    def expected_error(self) -> float | None:
        """Mean distance of accuracy and confidence, each bin weighted by its predictions (ECE); None of no predictions."""
        total = self.num_predictions.sum()
        return float(np.abs(self.num_correct - self.confidence_sums).sum() / total) if total else None

    @property
    def maximum_error(self) -> float | None:
        """The largest such distance among the bins that hold a prediction (MCE); None of no predictions."""
        return max((abs(each["gap"]) for each in self.table()), default=None)

    def table(self) -> list[dict[str, Any]]:
        """The bins that hold a prediction, ascending; `gap` is confidence less accuracy, so above 0 the model is too sure."""
        rows = []
        for index, count in enumerate(self.num_predictions.astype(np.int64).tolist()):
            if count:
                confidence, accuracy = float(self.confidence_sums[index] / count), float(self.num_correct[index] / count)
                edges = {"from": index / NUM_BINS, "to": (index + 1) / NUM_BINS}
                rows.append({**edges, "predictions": count, "confidence": confidence, "accuracy": accuracy, "gap": confidence - accuracy})
        return rows

    def report(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "expected_calibration_error": self.expected_error,
            "maximum_calibration_error": self.maximum_error,
            "bins": self.table(),
        }
