"""Where a run stands, and who is told."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

Place = tuple[int, ...]
"""A place in the data, as whoever reads it counts; empty where it begins."""


@dataclass
class Progress:
    """Where a run stands. All of it is in the state on disk."""

    step: int = 0
    cursor: Place = ()
    best_loss: float = math.inf
    evaluations_without_best: int = 0
    finished: bool = False
    seconds: float = 0.0
    metrics: list[dict[str, Any]] = field(default_factory=list)
    rows_at_once: int | None = None
    """Rows of a micro-batch that turned out to fit into the memory of each process; None while those of the settings do, and once these
    are others."""
    counted: dict[str, int] = field(default_factory=dict)
    """What the batches counted so far, in all processes; see `Step`."""
    went_back_to: int | None = None
    """The step whose state was the last that was asked for, and that the run went on from since."""


@dataclass(frozen=True)
class Reporter:
    """Who is told how the run goes. The default tells nobody."""

    said: Callable[[str], None] = lambda text: None
    """A sentence for the user."""

    evaluated: Callable[[dict[str, Any]], None] = lambda metrics: None
    """The metrics of an evaluation."""

    stepped: Callable[[int], None] = lambda steps: None
    """Steps taken since the last call."""
