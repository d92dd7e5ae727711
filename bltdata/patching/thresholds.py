"""Thresholds as calibration sees them: float16 values, and how many positions each lets through.

Thresholds are tried at float16 values, the precision in which entropies are stored: finer ones can't tell stored entropies apart. The
*code* of a value is that of its float16, negative for a negative value, so codes have the values' order.
"""

import math
from dataclasses import replace
from typing import Literal

import numpy as np

from bltdata.errors import PatchingError
from bltdata.patching.batch import DocumentBatch
from bltdata.patching.rule import PatchRule
from bltdata.patching.schemes import float16_floor_code
from bltdata.vocab import MAX_ENTROPY_NATS

Field = Literal["threshold", "relative_threshold"]

_TOP_CODE = int(np.float16(MAX_ENTROPY_NATS).view(np.uint16))
"""Of the largest value that occurs."""

_TOP_THRESHOLD_CODE = float16_floor_code(MAX_ENTROPY_NATS)

_BLOCK = 1 << 20
"""Positions that are counted at a time: counting takes a few times the memory of what is counted."""


class ThresholdHistogram:
    """What a threshold is compared with, counted: 0.3 MB, however many documents are added.

    Args:
        field: which threshold.
    """

    def __init__(self, field: Field) -> None:
        self.field = field
        self.num_documents = 0
        self.num_bytes = 0
        self._counts = np.zeros(2 * _TOP_CODE + 1, dtype=np.int64)

    def add(self, batch: DocumentBatch) -> None:
        """Count documents, whose entropies must be valid."""
        self.num_documents += batch.num_documents
        self.num_bytes += batch.num_bytes
        entropies, bounds = batch.entropy_nats, batch.bounds
        # Everything is counted, block by block, and then what starts a document is taken off: it starts a patch in any case.
        if self.field == "threshold":
            for begin in range(0, entropies.size, _BLOCK):
                self._counts += _histogram(entropies[begin : begin + _BLOCK])
            self._counts -= _histogram(entropies[bounds[:-1]])
        else:
            for begin in range(0, entropies.size - 1, _BLOCK):
                self._counts += _histogram(np.diff(entropies[begin : begin + _BLOCK + 1].astype(np.float32)))
            firsts = bounds[1:-1]
            self._counts -= _histogram(entropies[firsts].astype(np.float32) - entropies[firsts - 1].astype(np.float32))

    def __iadd__(self, other: "ThresholdHistogram") -> "ThresholdHistogram":
        self.num_documents += other.num_documents
        self.num_bytes += other.num_bytes
        self._counts += other._counts
        return self

    def threshold_codes(self) -> np.ndarray:
        """Codes of all thresholds that differ in what they let through, ascending.

        Where a range of thresholds lets the same through, its middle stands for it.
        """
        seen = np.flatnonzero(self._counts) - _TOP_CODE
        lowest, highest = (0, _TOP_THRESHOLD_CODE) if self.field == "threshold" else (-_TOP_CODE, _TOP_CODE)
        seen = seen[(seen > lowest) & (seen <= highest)]
        # From one edge up to the next, every threshold makes the same patches.
        edges = np.concatenate([[lowest], seen, [highest + 1]])
        values = code_values(edges)
        middles: np.ndarray = np.clip(ceil_codes((values[:-1] + values[1:]) / 2), edges[:-1], edges[1:] - 1)
        return middles

    def count_patches(self, code: int) -> int:
        """Patches of all documents under a rule that has the threshold with this code and nothing else."""
        return self.num_documents + int(self._counts[code + _TOP_CODE + 1 :].sum())

    def curve_codes(self) -> list[int]:
        """Codes of 17 to 33 thresholds at even and round distances, over all that was seen; fewer where all of that lies close."""
        seen = np.flatnonzero(self._counts) - _TOP_CODE
        low, high = code_values(seen[[0, -1]]).tolist() if seen.size else (0.0, 0.0)
        low = 0.0 if self.field == "threshold" else low
        high = min(high, MAX_ENTROPY_NATS)
        step = 0.5
        while step > 1 / 256 and (high - low) / step < 16:
            step /= 2
        values = np.arange(math.floor(low / step), math.floor(high / step) + 1, dtype=np.float32) * np.float32(step)
        codes: list[int] = ceil_codes(values).tolist()
        return codes


def calibrated_field(rule: PatchRule, field: Field | None) -> Field:
    """Which threshold of `rule` to set: `field`, or by default `relative_threshold` if the rule has that one only, else `threshold`."""
    if field not in (None, "threshold", "relative_threshold"):
        raise PatchingError(f"There is no threshold {field!r}; calibrate 'threshold' or 'relative_threshold'.")
    if field is None:
        field = "relative_threshold" if rule.threshold is None and rule.relative_threshold is not None else "threshold"
    # `quantile` has a threshold too, but where it begins hardly moves its mean.
    if rule.scheme != "entropy":
        raise PatchingError(f"The rule {rule.scheme!r} has no {field} to calibrate; calibrate an 'entropy' rule.")
    return field


def with_threshold(rule: PatchRule, field: Field, value: float) -> PatchRule:
    """The rule with one of its thresholds replaced."""
    return replace(rule, threshold=value) if field == "threshold" else replace(rule, relative_threshold=value)


def has_nothing_else(rule: PatchRule, field: Field) -> bool:
    """Whether the rule is one threshold: then a histogram says how many patches any value of it makes."""
    return with_threshold(rule, field, 0.0) == with_threshold(PatchRule(), field, 0.0)


def code_values(codes: np.ndarray) -> np.ndarray:
    """The values of codes, float32.

    >>> code_values(np.array([0x3C00, -0x3C00])).tolist()
    [1.0, -1.0]
    """
    values: np.ndarray = np.abs(codes).astype(np.uint16).view(np.float16).astype(np.float32)
    return np.where(codes < 0, -values, values)


def code_value(code: int) -> float:
    """The value of one code."""
    return float(code_values(np.array([code]))[0])


def ceil_codes(values: np.ndarray) -> np.ndarray:
    """Codes of the smallest float16 that isn't below each value: it is above a float16 threshold exactly if the value is.

    >>> ceil_codes(np.array([1.0, 1.0001, -1.0001], dtype=np.float32)).tolist() == [0x3C00, 0x3C01, -0x3C00]
    True
    """
    rounded = values.astype(np.float16)
    if values.dtype != np.float16:
        below = rounded.astype(np.float32) < values
        rounded[below] = np.nextafter(rounded[below], np.float16(np.inf))
    bits = rounded.view(np.uint16).astype(np.int32)
    magnitudes = bits & 0x7FFF
    return np.where(bits & 0x8000, -magnitudes, magnitudes)


def _histogram(values: np.ndarray) -> np.ndarray:
    counts: np.ndarray = np.bincount(ceil_codes(values) + _TOP_CODE, minlength=2 * _TOP_CODE + 1)
    return counts
