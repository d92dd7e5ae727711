"""What is counted at every position: by class of byte, by distance from the start, after each byte, around the seams of windows."""

import math
from typing import Any

import numpy as np

from bltdata.shards.precision import GRID_STEPS_PER_NAT, MAX_STORED_CODE, MAX_STORED_NATS
from bltdata.stats import byte_classes
from bltdata.stats.accumulators import NUM_CODES, ExactSums
from bltdata.stats.summary import Summary

NUM_GRID = int(MAX_STORED_NATS * GRID_STEPS_PER_NAT) + 1
"""Steps of 1/256 nat from 0 to ln 260; what no entropy can be is counted one beyond."""

UNIT_BITS = 24
"""Every float16 is a multiple of 2**-24."""
LARGEST_SUMMED_NATS = 1000.0
"""What is beyond this counts as this, so that sums of nonsense stay finite."""

NUM_KINDS = 3
EDGES = byte_classes.position_edges()
NUM_BINS = len(EDGES) - 1
SEAM_SHAPE = (byte_classes.NUM_SEAM_STEPS, byte_classes.BEFORE_SEAM + byte_classes.AFTER_SEAM)


def grid_table() -> np.ndarray:
    """Grid step of each float16, by its bits: uint16 `[65536]`; `NUM_GRID` for what is no entropy."""
    values = _values_of_codes()[: MAX_STORED_CODE + 1]
    steps = np.full(NUM_CODES, NUM_GRID, dtype=np.uint16)
    steps[: MAX_STORED_CODE + 1] = np.rint(values * GRID_STEPS_PER_NAT).astype(np.uint16)
    return steps


def units_table() -> np.ndarray:
    """What each float16 is in units of 2**-24 nat, by its bits: int64 `[65536]`; NaN and the infinities are 0."""
    values = _values_of_codes()
    finite = np.clip(np.where(np.isfinite(values), values, 0.0), -LARGEST_SUMMED_NATS, LARGEST_SUMMED_NATS)
    return np.ldexp(finite, UNIT_BITS).astype(np.int64)


def _values_of_codes() -> np.ndarray:
    return np.arange(NUM_CODES, dtype=np.uint16).view(np.float16).astype(np.float64)


class PositionStatistics:
    """Counters of positions, 0.3 MB however many there are; `a += b` adds those of both."""

    def __init__(self) -> None:
        self.by_class = _zeros(byte_classes.NUM_CLASSES, NUM_KINDS, NUM_GRID + 1)
        """By class of what stands there; inside a patch, at a start, or first of a document; and entropy in steps of 1/256 nat."""
        self.byte_counts = _zeros(256)
        """How often each byte value occurs."""
        self.starts_after = _zeros(256)
        """How often a patch starts right after each."""
        self.bin_counts = _zeros(NUM_BINS)
        """Positions by distance from the start of the document."""
        self.bin_starts = _zeros(NUM_BINS)
        """Starts among them."""
        self.bin_units = ExactSums((NUM_BINS,))
        """Their entropies, in units."""
        self.part_counts = _zeros(byte_classes.NUM_PARTS)
        """Positions by tenth of their document, cold ones and short documents left out."""
        self.part_units = ExactSums((byte_classes.NUM_PARTS,))
        self.num_parted = 0
        """Documents that were long enough for it."""
        self.seam_counts = _zeros(*SEAM_SHAPE)
        """Positions just before and after each multiple of 256."""
        self.seam_units = ExactSums(SEAM_SHAPE)
        self.patch_positions = _zeros(byte_classes.NUM_CLASSES)
        """Positions in patches by the class of the patch's first byte."""
        self.num_words = 0
        """Runs of bytes that aren't ASCII white space."""

    def __iadd__(self, other: "PositionStatistics") -> "PositionStatistics":
        for name, mine in vars(self).items():
            mine += getattr(other, name)
            setattr(self, name, mine)
        return self

    # ------------------------------------------------------------------------------------------------------ what it says

    def class_entropy(self, index: int) -> Summary:
        """Entropies at the positions of a class, in nats on a grid of 1/256."""
        return grid_summary(self.by_class[index].sum(axis=0))

    def kind_entropy(self, kind: int) -> Summary:
        """Entropies inside patches, at starts, or at first positions (0, 1, 2), in nats on a grid of 1/256."""
        return grid_summary(self.by_class[:, kind].sum(axis=0))

    def bins(self) -> list[dict[str, Any]]:
        """Distance from the start: where each bin begins and ends, its positions, mean entropy and share of starts."""
        return [
            {"from": first, "to": last, "positions": count, "mean_entropy_nats": _mean(units, count), "start_rate": starts / count}
            for first, last, count, starts, units in zip(
                EDGES[:-1].tolist(),
                EDGES[1:].tolist(),
                self.bin_counts.tolist(),
                self.bin_starts.tolist(),
                self.bin_units.integers(),
                strict=True,
            )
            if count
        ]

    def parts(self) -> list[float | None]:
        """Mean entropy in each tenth of the documents."""
        return [_mean(units, count) for units, count in zip(self.part_units.integers(), self.part_counts.tolist(), strict=True)]

    def seams(self) -> list[dict[str, Any]]:
        """For each window: positions after its multiples, and the mean entropies before and after them."""
        units = np.array(self.seam_units.integers(), dtype=object).reshape(SEAM_SHAPE)
        found = []
        for window in byte_classes.seam_windows():
            at = np.arange(0, byte_classes.NUM_SEAM_STEPS, window // byte_classes.SEAM_STEP)
            before, after = np.s_[: byte_classes.BEFORE_SEAM], np.s_[byte_classes.BEFORE_SEAM :]
            num_before, num_after = int(self.seam_counts[at, before].sum()), int(self.seam_counts[at, after].sum())
            if num_after:
                found.append(
                    {
                        "window": window,
                        "positions": num_after,
                        "positions_before": num_before,
                        "before_nats": _mean(int(units[at, before].sum()), num_before),
                        "after_nats": _mean(int(units[at, after].sum()), num_after),
                    }
                )
        return found

    def start_rate_after(self) -> list[float | None]:
        """Share of each byte value's occurrences after which a patch starts; None of a value that doesn't occur."""
        pairs = zip(self.starts_after.tolist(), self.byte_counts.tolist(), strict=True)
        return [starts / count if count else None for starts, count in pairs]

    @property
    def start_separation(self) -> float | None:
        """How probable it is that a start has a higher entropy than a position inside a patch; a tie counts half.

        1/2 says that starts have nothing to do with entropies, 1 that a threshold alone decides. None without any of either.
        Positions that are first in a document start a patch in any case and are left out.
        """
        inside, starts = (self.by_class[:, kind, :NUM_GRID].sum(axis=0).astype(np.float64) for kind in (0, 1))
        if not inside.sum() or not starts.sum():
            return None
        below = np.cumsum(inside) - inside / 2
        return float(starts @ below / starts.sum() / inside.sum())


def grid_summary(counts: np.ndarray) -> Summary:
    """The distribution of entropies that are counted by grid step; impossible ones, at the end, are left out."""
    steps = np.flatnonzero(counts[:NUM_GRID])
    return Summary(steps / GRID_STEPS_PER_NAT, counts[steps])


def _mean(units: int, count: int) -> float | None:
    return math.ldexp(units / count, -UNIT_BITS) if count else None


def _zeros(*shape: int) -> np.ndarray:
    return np.zeros(shape, dtype=np.int64)
