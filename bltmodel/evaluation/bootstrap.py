"""How far a figure would move if other documents of the kind had been drawn: the bootstrap over documents.

Bytes of one document are alike, documents are not, so documents are what is drawn anew. A ratio such as bits per byte is the
ratio of sums in each resample, as it is in the figure itself, and never a mean of the documents' ratios.

Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13 (percentile intervals).
"""

import numpy as np

MIN_DOCUMENTS = 2
"""Of one document nobody knows how much the next would differ."""


def interval_of_ratio(
    numerators: np.ndarray, denominators: np.ndarray, *, level: float, resamples: int, seed: int
) -> tuple[float, float] | None:
    """Between which values the ratio of sums lies for most resamples of the documents.

    Each resample draws as many documents as there are, with replacement. Those that drew a sum of 0 below the line are left out.

    Args:
        numerators: `[documents]`, such as nats.
        denominators: `[documents]`, such as bytes; not negative.
        level: share of the resamples between the two values; as many lie below as above.
        resamples: how many there are.
        seed: fixes them.

    Returns:
        The two ends; None of fewer than `MIN_DOCUMENTS` documents, or where nothing is below the line.

    >>> interval_of_ratio(np.array([1.0, 3.0]), np.array([1, 1]), level=0.95, resamples=1000, seed=0)
    (1.0, 3.0)
    """
    num_documents = len(denominators)
    if num_documents < MIN_DOCUMENTS or not denominators.any():
        return None
    generator = np.random.default_rng(seed)
    columns = np.column_stack([numerators, denominators]).astype(np.float64)
    totals = np.empty((resamples, 2))
    for index in range(resamples):
        drawn = generator.integers(0, num_documents, size=num_documents, dtype=np.int32 if num_documents < 2**31 else np.int64)
        totals[index] = np.bincount(drawn, minlength=num_documents) @ columns
    some = totals[totals[:, 1] > 0]
    outside = (1 - level) / 2
    low, high = np.quantile(some[:, 0] / some[:, 1], [outside, 1 - outside])
    return float(low), float(high)
