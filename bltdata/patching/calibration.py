"""Choosing a threshold so that patches have a wanted mean length.

Thresholds are tried at float16 values, the precision in which entropies are stored: finer ones can't tell stored entropies apart.
For a rule of one threshold and nothing else, a histogram of the documents says exactly how many patches every threshold makes, in
one pass and in memory that doesn't grow. Any other rule is run on the documents, which are kept, for each threshold of a bisection.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from bltdata.errors import PatchingError
from bltdata.patching import inputs
from bltdata.patching.rule import PatchRule
from bltdata.patching.schemes import float16_floor_code
from bltdata.vocab import MAX_ENTROPY_NATS

Field = Literal["threshold", "relative_threshold"]

_TOP_CODE = int(np.float16(MAX_ENTROPY_NATS).view(np.uint16))
"""Of the largest value that occurs; a *code* is that of a float16, negative for a negative value, so codes have the values' order."""

_TOP_THRESHOLD_CODE = float16_floor_code(MAX_ENTROPY_NATS)

_TOLERANCE = 0.005
"""How far beyond the reachable means a target may lie, as a part of it, before it is an error."""

_BATCH = 1 << 20
"""Positions that are counted at a time: a histogram has tens of thousands of bins, so short documents share a count."""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What `calibrate` found."""

    rule: PatchRule
    """The rule with the threshold set."""
    field: Field
    """Which threshold was set."""
    threshold: float
    """Its value, nats."""
    target_patch_length: float
    """The mean that was wanted."""
    mean_patch_length: float
    """The mean that the rule has on the documents: positions per patch, the end of each document being a position."""
    num_documents: int
    """Documents it was calibrated on."""
    num_bytes: int
    """Their bytes."""
    num_patches: int
    """The patches that the rule makes of them."""


def calibrate(
    documents: Iterable[tuple[Any, Any]], rule: PatchRule, target_patch_length: float, *, field: Field | None = None
) -> Calibration:
    """Find the threshold whose mean patch length over the documents is nearest to the target.

    Where a range of thresholds makes the same patches, the middle of it is taken, which holds best for documents not seen. With both
    a minimum and a maximum length the mean needn't rise strictly with the threshold; the result is then near the best, not proven to
    be it.

    Args:
        documents: pairs of data (n bytes) and entropy_nats (float16 or float32 [n + 1]), at the precision that will be patched. Read
            once; kept in memory only if the rule has lengths, resets, or a second threshold.
        rule: an `entropy` rule; what its field `field` holds is replaced, all else is kept.
        target_patch_length: wanted mean of positions per patch.
        field: which threshold to set; by default `relative_threshold` if the rule has that one only, else `threshold`.

    Raises:
        PatchingError: the rule has no threshold; there are no documents; entropies are invalid; or the target can't be reached,
            with the nearest mean that can.

    >>> entropies = np.array([3, 0.5, 0.25, 2, 0.5, 1, 0.25, 3], dtype=np.float16)
    >>> found = calibrate([(b"abcdefg", entropies)], PatchRule(), 2.0)
    >>> found.rule.threshold, found.mean_patch_length
    (0.75, 2.0)
    """
    field = _field(rule, field)
    if not math.isfinite(target_patch_length):
        raise PatchingError(f"The target patch length is {target_patch_length!r}; give a number of bytes, such as 4.5.")
    is_alone = _with(rule, field, 0.0) == _with(PatchRule(), field, 0.0)
    sample = _Sample(field, keeps=not is_alone, keeps_bytes=rule.needs_bytes)
    for index, (data, entropy_nats) in enumerate(documents):
        sample.add(data, entropy_nats, f"document {index}")
    if sample.num_documents == 0:
        raise PatchingError("There are no documents to calibrate on; give some.")

    codes = sample.threshold_codes()
    count = sample.count_patches if is_alone else _counter(sample, rule, field)
    code, num_patches = _nearest(codes, count, sample.num_positions, target_patch_length, field)
    threshold = _value(code)
    return Calibration(
        rule=_with(rule, field, threshold),
        field=field,
        threshold=threshold,
        target_patch_length=float(target_patch_length),
        mean_patch_length=sample.num_positions / num_patches,
        num_documents=sample.num_documents,
        num_bytes=sample.num_positions - sample.num_documents,
        num_patches=num_patches,
    )


class _Sample:
    """The documents seen: a histogram of what the threshold is compared with, and the documents themselves if they are needed."""

    def __init__(self, field: Field, *, keeps: bool, keeps_bytes: bool) -> None:
        self.num_documents = 0
        self.num_positions = 0
        self._field = field
        self._keeps = keeps
        self._keeps_bytes = keeps_bytes
        self._counts = np.zeros(2 * _TOP_CODE + 1, dtype=np.int64)
        self._above = np.empty(0, dtype=np.int64)
        self._waiting: list[np.ndarray] = []
        self._num_waiting = 0
        self._data: list[np.ndarray] = []
        self._sizes: list[int] = []
        self._entropies: list[np.ndarray] = []

    def add(self, data: Any, entropy_nats: Any, document: str) -> None:
        """Take in a document."""
        array, entropies = inputs.as_bytes(data), inputs.as_entropies(entropy_nats)
        inputs.check_entropies(entropies, array.size, document)
        self.num_documents += 1
        self.num_positions += entropies.size
        # Copies: a caller may fill the same buffer again, and a slice would keep a whole row group in memory.
        compared = entropies[1:].copy() if self._field == "threshold" else np.diff(entropies.astype(np.float32))
        self._waiting.append(compared)
        self._num_waiting += compared.size
        if self._num_waiting >= _BATCH:
            self._count_waiting()
        if self._keeps:
            self._sizes.append(array.size)
            self._entropies.append(entropies.copy())
            if self._keeps_bytes:
                self._data.append(array.copy())

    def threshold_codes(self) -> np.ndarray:
        """Codes of all thresholds that differ in what they let through on these documents, ascending."""
        self._count_waiting()
        # above[i]: how many of the compared values are above the threshold with code i - _TOP_CODE
        self._above = self._counts[::-1].cumsum()[::-1] - self._counts
        seen = np.flatnonzero(self._counts) - _TOP_CODE
        lowest, highest = (0, _TOP_THRESHOLD_CODE) if self._field == "threshold" else (-_TOP_CODE, _TOP_CODE)
        seen = seen[(seen > lowest) & (seen <= highest)]
        # From one edge up to the next, every threshold makes the same patches.
        edges = np.concatenate([[lowest], seen, [highest + 1]])
        values = _values(edges)
        middles: np.ndarray = np.clip(_ceil_codes((values[:-1] + values[1:]) / 2), edges[:-1], edges[1:] - 1)
        return middles

    def count_patches(self, code: int) -> int:
        """Patches of all documents under a rule that has the threshold with this code and nothing else."""
        return self.num_documents + int(self._above[code + _TOP_CODE])

    def joined(self) -> tuple[np.ndarray | None, np.ndarray, np.ndarray]:
        """Bytes (None if not kept), offsets and entropies of the documents, end to end."""
        offsets = np.concatenate([[0], np.cumsum(self._sizes)])
        data = np.concatenate(self._data) if self._keeps_bytes else None
        return data, offsets, np.concatenate(self._entropies)

    def _count_waiting(self) -> None:
        if self._waiting:
            codes = _ceil_codes(np.concatenate(self._waiting))
            self._counts += np.bincount(codes + _TOP_CODE, minlength=self._counts.size)
            self._waiting = []
            self._num_waiting = 0


def _counter(sample: _Sample, rule: PatchRule, field: Field) -> Callable[[int], int]:
    """Counts the patches of the sample under a threshold by cutting it."""
    data, offsets, entropies = sample.joined()

    def count(code: int) -> int:
        tried = _with(rule, field, _value(code))
        return len(tried.lengths_of_documents(data, offsets, entropies)[0])

    return count


def _nearest(codes: np.ndarray, count: Callable[[int], int], num_positions: int, target: float, field: Field) -> tuple[int, int]:
    """The code whose mean is nearest to the target, and its number of patches, which falls as codes rise."""
    low, high = 0, len(codes) - 1
    counts = {index: count(int(codes[index])) for index in (low, high)}
    if not num_positions / counts[low] * (1 - _TOLERANCE) <= target <= num_positions / counts[high] * (1 + _TOLERANCE):
        nearest = low if target < num_positions / counts[low] else high
        raise PatchingError(
            f"No {field} makes patches of {target:g} bytes on average of these documents; the nearest mean that can be reached is "
            f"{num_positions / counts[nearest]:.4g}, with {field} = {_value(int(codes[nearest])):.6g}."
        )
    while high - low > 1:
        middle = (low + high) // 2
        counts[middle] = count(int(codes[middle]))
        if num_positions / counts[middle] < target:
            low = middle
        else:
            high = middle
    best = min(counts, key=lambda index: (abs(num_positions / counts[index] - target), index))
    return int(codes[best]), counts[best]


def _field(rule: PatchRule, field: Field | None) -> Field:
    if not rule.needs_entropies:
        raise PatchingError(f"The rule {rule.scheme!r} has no threshold to calibrate; calibrate an 'entropy' rule.")
    if field is None:
        return "relative_threshold" if rule.threshold is None and rule.relative_threshold is not None else "threshold"
    if field not in ("threshold", "relative_threshold"):
        raise PatchingError(f"There is no threshold {field!r}; calibrate 'threshold' or 'relative_threshold'.")
    return field


def _with(rule: PatchRule, field: Field, value: float) -> PatchRule:
    return replace(rule, threshold=value) if field == "threshold" else replace(rule, relative_threshold=value)


def _values(codes: np.ndarray) -> np.ndarray:
    """The values of codes, float32.

    >>> _values(np.array([0x3C00, -0x3C00])).tolist()
    [1.0, -1.0]
    """
    values: np.ndarray = np.abs(codes).astype(np.uint16).view(np.float16).astype(np.float32)
    return np.where(codes < 0, -values, values)


def _value(code: int) -> float:
    return float(_values(np.array([code]))[0])


def _ceil_codes(values: np.ndarray) -> np.ndarray:
    """Codes of the smallest float16 that isn't below each value: it is above a float16 threshold exactly if the value is.

    >>> _ceil_codes(np.array([1.0, 1.0001, -1.0001], dtype=np.float32)).tolist() == [0x3C00, 0x3C01, -0x3C00]
    True
    """
    rounded = values.astype(np.float16)
    if values.dtype != np.float16:
        below = rounded.astype(np.float32) < values
        rounded[below] = np.nextafter(rounded[below], np.float16(np.inf))
    bits = rounded.view(np.uint16).astype(np.int32)
    magnitudes = bits & 0x7FFF
    return np.where(bits & 0x8000, -magnitudes, magnitudes)
