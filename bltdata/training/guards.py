"""Watching the loss and the gradient of each step: what isn't finite never reaches the weights, and what leaps is reported.

All processes come to the same verdict, since the sums that they judge by have the same bits in all of them. What a guard
remembers is part of a run's state, so a run that goes on judges as one that never stopped.
"""

import math
import statistics
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

MAX_SKIPPED_IN_A_ROW = 10
"""Steps in a row whose loss or gradient isn't finite, after which a run stops: by then it isn't the data."""

WINDOW = 100
"""Steps that a value is compared with."""

MIN_HISTORY = 20
"""Steps before which nothing is called a spike."""

SPIKE_DEVIATIONS = 10.0
"""A spike is a value so many deviations above the median of the last steps. The deviation is robust: the median distance from the
median, times 1.4826, which makes it the standard deviation where values are normally distributed."""

LEAST_LOSS_DEVIATION = 0.02
"""The deviation of losses is this share of their median at least: a spike is a fifth above the median."""

LEAST_NORM_DEVIATION = 0.4
"""The same for gradients, whose norms vary more: a spike is five times the median. In 9,000 steps of three sound runs six were,
and 51 were above three times."""

MAX_SPIKES_SKIPPED_IN_A_ROW = 10
"""With more than so many spikes in a row it is the level that has changed, and nothing is left out any more."""


class Verdict(NamedTuple):
    """What becomes of a step."""

    is_taken: bool
    """Whether the weights are changed by it."""

    remark: str | None
    """What the user should know."""


@dataclass
class Guard:
    """What has been seen so far. All of it is in the state on disk, as plain numbers."""

    losses: list[float] = field(default_factory=list)
    """Nats a token of the last steps."""

    norms: list[float] = field(default_factory=list)
    """Norms of the gradient in the last steps, before clipping."""

    skipped_steps: int = 0
    """Steps that were left out, for whatever reason."""

    not_finite_in_a_row: int = 0
    spikes: int = 0
    spikes_in_a_row: int = 0

    taken_losses: list[float] = field(default_factory=list)
    """Nats a token of the last steps that changed the weights."""

    @classmethod
    def restored(cls, state: dict[str, Any]) -> Self:
        """The guard that a state has; of toolkits before there were guards it is empty, and of the first ones it tells no steps apart."""
        return cls(**{"taken_losses": list(state.get("losses", [])), **state})

    def judge(self, step: int, loss: float, norm: float, *, skip_spikes: bool) -> Verdict:
        """Decide on a step, and remember it.

        Args:
            step: its number, counted from 1.
            loss: mean nats a token.
            norm: that of the gradient, before clipping.
            skip_spikes: leave a spike out.
        """
        wrong = [f"its {name} is {value}" for name, value in (("loss", loss), ("gradient's norm", norm)) if not math.isfinite(value)]
        if wrong:
            self.skipped_steps += 1
            self.not_finite_in_a_row += 1
            return Verdict(False, f"Step {step} is left out: {' and '.join(wrong)}.")
        self.not_finite_in_a_row = 0
        leaps = [
            f"its {name} is {value:.4g}, with a median of {statistics.median(before):.4g} in the last {len(before)} steps"
            for name, value, before, least in (
                ("loss", loss, self.losses, LEAST_LOSS_DEVIATION),
                ("gradient's norm", norm, self.norms, LEAST_NORM_DEVIATION),
            )
            if is_spike(value, before, least)
        ]
        # Spikes that are left out count as well: otherwise a level that has changed for good would never be the usual one.
        self.losses = [*self.losses, loss][-WINDOW:]
        self.norms = [*self.norms, norm][-WINDOW:]
        self.spikes_in_a_row = self.spikes_in_a_row + 1 if leaps else 0
        self.spikes += bool(leaps)
        is_skipped = bool(leaps) and skip_spikes and self.spikes_in_a_row <= MAX_SPIKES_SKIPPED_IN_A_ROW
        self.skipped_steps += is_skipped
        if not is_skipped:
            self.taken_losses = [*self.taken_losses, loss][-WINDOW:]
        if not leaps:
            return Verdict(True, None)
        return Verdict(not is_skipped, f"Step {step} {'is left out as a spike' if is_skipped else 'is a spike'}: {' and '.join(leaps)}.")

    @property
    def is_lost(self) -> bool:
        """Whether nothing finite has come for so long that nothing will."""
        return self.not_finite_in_a_row >= MAX_SKIPPED_IN_A_ROW

    def metrics(self) -> dict[str, Any]:
        """What a line of metrics says: the mean loss of the last steps that were taken, the median gradient of all; None without any."""
        return {
            "training_loss": statistics.fmean(self.taken_losses) if self.taken_losses else None,
            "gradient_norm": statistics.median(self.norms) if self.norms else None,
            "skipped_steps": self.skipped_steps,
            "spikes": self.spikes,
        }


def is_spike(value: float, before: list[float], least_deviation: float) -> bool:
    """Whether a value is far above those before it; never where these are few.

    Args:
        value: the new one.
        before: the last ones.
        least_deviation: what their deviation is at least, as a share of their median.

    >>> is_spike(1.6, [0.9, 1.0, 1.1] * 10, 0.02), is_spike(2.6, [0.9, 1.0, 1.1] * 10, 0.02), is_spike(2.6, [1.0] * 5, 0.02)
    (False, True, False)
    """
    if len(before) < MIN_HISTORY:
        return False
    median = statistics.median(before)
    deviation = 1.4826 * statistics.median(abs(other - median) for other in before)
    return value > median + SPIKE_DEVIATIONS * max(deviation, least_deviation * median)
