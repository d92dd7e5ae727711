"""Choosing a threshold so that patches have a wanted mean length, for all documents together or for each source.

For a rule of one threshold and nothing else, a histogram of the documents says exactly how many patches every threshold makes, in
one pass and in memory that doesn't grow. Any other rule is run on the documents once more for each step of a bisection; one pass
serves the bisections of all sources.
"""

import math
from collections.abc import Collection, Generator, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bltdata.errors import ConfigError, PatchingError
from bltdata.patching.batch import DocumentBatch, batches_of
from bltdata.patching.rule import PatchRule
from bltdata.patching.sources import PatchCounts, Read, SourceRules
from bltdata.patching.thresholds import Field, ThresholdHistogram, calibrated_field, code_value, has_nothing_else, with_threshold

_TOLERANCE = 0.005
"""How far beyond the reachable means a target may lie, as a part of it, before it is an error."""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """A threshold that was found."""

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


@dataclass(frozen=True, kw_only=True)
class CurvePoint:
    """What one threshold does."""

    threshold: float
    """Nats."""
    overall: PatchCounts
    """To all documents."""
    by_source: dict[str, PatchCounts]
    """To those of each source, sources by name."""


@dataclass(frozen=True, kw_only=True)
class CalibrationReport:
    """What `calibrate_sources` found."""

    overall: Calibration
    """The one threshold for all documents."""
    under_overall: dict[str, PatchCounts]
    """What it does to each source, sources by name."""
    by_source: dict[str, Calibration]
    """A threshold for each source; empty unless it was asked for."""
    curve: tuple[CurvePoint, ...]
    """Thresholds at even distances, ascending."""

    @property
    def rules(self) -> SourceRules:
        """The rule that was found, and those of the sources if they were asked for."""
        return SourceRules(default=self.overall.rule, by_source={name: found.rule for name, found in self.by_source.items()})


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

    >>> entropies = [3, 0.5, 0.25, 2, 0.5, 1, 0.25, 3]
    >>> found = calibrate([(b"abcdefg", entropies)], PatchRule(), 2.0)
    >>> found.rule.threshold, found.mean_patch_length
    (0.75, 2.0)
    """
    field = calibrated_field(rule, field)
    batches: Iterable[DocumentBatch] = batches_of(documents, keeps_bytes=rule.needs_bytes)
    if not has_nothing_else(rule, field):
        batches = list(batches)
    calibrator = _Calibrator(lambda: batches, rule, field, target_patch_length)
    return calibrator.calibration(None, calibrator.run([None])[None])


def calibrate_sources(
    read: Read, rule: PatchRule, target_patch_length: float, *, by_source: bool = False, field: Field | None = None
) -> CalibrationReport:
    """Find the threshold for documents that are too many to keep, and what it does to each source.

    Args:
        read: gives the documents, and is called once for a rule of one threshold and nothing else, some ten times for any other. The
            memory taken is that of one batch, and 0.3 MB a source.
        rule: as for `calibrate`.
        target_patch_length: wanted mean of positions per patch.
        by_source: also find a threshold for each source.
        field: as for `calibrate`.

    Raises:
        PatchingError: as `calibrate`; a target that a source can't reach is one of the reasons if `by_source` is set.
    """
    calibrator = _Calibrator(read, rule, calibrated_field(rule, field), target_patch_length)
    curve = calibrator.total.curve_codes()
    sources = calibrator.sources if by_source else []
    found = calibrator.run([None, *sources], also=curve)
    return CalibrationReport(
        overall=calibrator.calibration(None, found[None]),
        under_overall=calibrator.point(found[None]).by_source,
        by_source={source: calibrator.calibration(source, found[source]) for source in sources},
        curve=tuple(calibrator.point(code) for code in curve),
    )


def check_target(rule: PatchRule, target_patch_length: float | None) -> None:
    """Refuse settings that leave open what the threshold is: none and no target, or both.

    Raises:
        ConfigError: these settings, or a target for a rule without a threshold, or one that no documents can have.
    """
    if target_patch_length is None:
        if not rule.is_calibrated:
            raise ConfigError("The rule 'entropy' has no threshold: give --threshold, or --target-patch-length to calibrate one.")
        return
    if rule.scheme != "entropy":
        raise ConfigError(f"The rule {rule.scheme!r} has no threshold to calibrate; leave --target-patch-length out.")
    if not 1 <= target_patch_length < math.inf:
        raise ConfigError(f"target_patch_length is {target_patch_length:g}; it must be a number of bytes, at least 1.")
    # Beside a relative threshold, calibration replaces this one: then it is there to say which of the two is meant.
    if rule.threshold is not None and rule.relative_threshold is None:
        raise ConfigError(
            f"Both a threshold ({rule.threshold:g}) and a target patch length ({target_patch_length:g}) are given; leave one of them out."
        )


Search = Generator[Collection[int], None, int]
"""Yields codes that it needs the number of patches of, and returns the code that it found."""


class _Calibrator:
    """Counts patches by source and threshold, and searches. A search is for a source, or for None: all documents."""

    def __init__(self, read: Read, rule: PatchRule, field: Field, target: float) -> None:
        if isinstance(target, bool) or not isinstance(target, int | float | np.integer | np.floating) or not math.isfinite(target):
            raise PatchingError(f"The target patch length is {target!r}; give a number of bytes, such as 4.5.")
        self._read, self._rule, self._field, self._target = read, rule, field, float(target)
        self._histograms: dict[str, ThresholdHistogram] = {}
        for batch in read():
            batch.check_entropies()
            self._histograms.setdefault(batch.source, ThresholdHistogram(field)).add(batch)
        self.sources = sorted(self._histograms)
        self.total = ThresholdHistogram(field)
        for histogram in self._histograms.values():
            self.total += histogram
        if self.total.num_documents == 0:
            raise PatchingError("There are no documents to calibrate on; give some.")
        self._known: dict[str, dict[int, int]] = {source: {} for source in self.sources}

    def run(self, whose: Iterable[str | None], also: Collection[int] = ()) -> dict[str | None, int]:
        """Find the code of a threshold for each of `whose`; count what the codes `also` do on the way."""
        searches = {key: self._search(key) for key in whose}
        found: dict[str | None, int] = {}
        needed: dict[str | None, Collection[int]] = {}
        while searches:
            for key, search in list(searches.items()):
                try:
                    needed[key] = next(search)
                except StopIteration as end:
                    found[key] = end.value
                    del searches[key]
                    needed.pop(key, None)
            if None in needed or also:
                needed[None] = [*needed.get(None, ()), *also]
            self._learn(needed)
            also = ()
        return found

    def point(self, code: int) -> CurvePoint:
        """What a threshold does; it must have been counted for all documents."""
        by_source = {source: self._counts(source, code) for source in self.sources}
        return CurvePoint(threshold=code_value(code), overall=self._counts(None, code), by_source=by_source)

    def calibration(self, whose: str | None, code: int) -> Calibration:
        """What was found for `whose`."""
        counts, threshold = self._counts(whose, code), code_value(code)
        return Calibration(
            rule=with_threshold(self._rule, self._field, threshold),
            field=self._field,
            threshold=threshold,
            target_patch_length=self._target,
            mean_patch_length=counts.mean_patch_length,
            num_documents=counts.num_documents,
            num_bytes=counts.num_bytes,
            num_patches=counts.num_patches,
        )

    def _learn(self, needed: Mapping[str | None, Collection[int]]) -> None:
        """Count the patches that thresholds make, in one pass over the documents if it takes any."""
        new = {source: {*needed.get(source, ()), *needed.get(None, ())} - self._known[source].keys() for source in self.sources}
        if not any(new.values()):
            return
        if has_nothing_else(self._rule, self._field):
            for source, codes in new.items():
                self._known[source].update({code: self._histograms[source].count_patches(code) for code in codes})
            return
        for source, codes in new.items():
            self._known[source].update(dict.fromkeys(codes, 0))
        for batch in self._read():
            for code in new[batch.source]:
                rule = with_threshold(self._rule, self._field, code_value(code))
                self._known[batch.source][code] += len(batch.lengths(rule)[0])

    def _counts(self, whose: str | None, code: int) -> PatchCounts:
        histogram = self.total if whose is None else self._histograms[whose]
        sources = self.sources if whose is None else [whose]
        return PatchCounts(
            num_documents=histogram.num_documents,
            num_bytes=histogram.num_bytes,
            num_patches=sum(self._known[source][code] for source in sources),
        )

    def _search(self, whose: str | None) -> Search:
        """Bisection over the thresholds that differ; the number of patches falls as codes rise."""
        codes = (self.total if whose is None else self._histograms[whose]).threshold_codes()

        def mean(index: int) -> float:
            return self._counts(whose, int(codes[index])).mean_patch_length

        low, high = 0, len(codes) - 1
        yield [int(codes[low]), int(codes[high])]
        tried = {low: mean(low), high: mean(high)}
        if not tried[low] * (1 - _TOLERANCE) <= self._target <= tried[high] * (1 + _TOLERANCE):
            nearest = low if self._target < tried[low] else high
            documents = "these documents" if whose is None else f"the documents of source {whose!r}"
            raise PatchingError(
                f"No {self._field} makes patches of {self._target:g} bytes on average of {documents}; the nearest mean that can be "
                f"reached is {tried[nearest]:.4g}, with {self._field} = {code_value(int(codes[nearest])):.6g}."
            )
        while high - low > 1:
            middle = (low + high) // 2
            yield [int(codes[middle])]
            tried[middle] = mean(middle)
            low, high = (middle, high) if tried[middle] < self._target else (low, middle)
        return int(codes[min(tried, key=lambda index: (abs(tried[index] - self._target), index))])
