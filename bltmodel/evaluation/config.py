"""The settings of an evaluation."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from bltdata.config import nearest
from bltdata.errors import ConfigError
from bltmodel.evaluation.noise import NOISES

MIN_RESAMPLES = 100
"""With fewer, the ends of an interval are a matter of luck."""


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """What a BLT is judged on, and how."""

    max_bytes: int | None = None
    """Take the first documents, as many as fit into this, or the first alone; none for all."""

    context_tokens: int | None = None
    """Tokens that are read together, at most: the context of a prediction. none for as many as a row had in training."""

    stride: int | None = None
    """A document longer than the context is read in windows that begin this many tokens apart, so that each prediction has the
    context minus the stride before it, or else the document's beginning. none for half the context: a stride as long as the context
    costs least, and leaves the first bytes of each window without context."""

    precision: Literal["auto", "float32", "bfloat16"] = "float32"
    """Type of matrix products; auto is bfloat16 where the hardware multiplies it."""

    noise: tuple[str, ...] = ()
    """Measure documents with noise in their characters as well, of each of these kinds: drop, repeat, swap, case, upper, ant. A kind
    may have a rate of its own, such as repeat=0.2."""

    noise_rate: float = 0.1
    """Share of the characters that are hit by a kind of noise without a rate of its own."""

    level: float = 0.95
    """Share of the resamples that lie in the interval of the bits per byte."""

    resamples: int = 1000
    """How often documents are drawn anew for that interval."""

    seed: int = 0
    """Fixes what is drawn: documents and noise."""

    def __post_init__(self) -> None:
        """Check every field."""
        if self.max_bytes is not None and self.max_bytes < 1:
            raise ConfigError(f"max_bytes is {self.max_bytes}; it must be at least 1, or none for all.")
        if self.context_tokens is not None and self.context_tokens < 2:
            raise ConfigError(f"The context is {self.context_tokens} tokens; it must be at least 2.")
        if self.stride is not None and self.stride < 1:
            raise ConfigError(f"The stride is {self.stride} tokens; it must be at least 1.")
        if self.context_tokens is not None:
            self.stride_of(self.context_tokens)
        if not 0 < self.level < 1:
            raise ConfigError(f"The level of intervals is {self.level:g}; it must lie between 0 and 1, such as 0.95.")
        if self.resamples < MIN_RESAMPLES:
            raise ConfigError(f"The number of resamples is {self.resamples}; it must be at least {MIN_RESAMPLES}.")
        if self.seed < 0:
            raise ConfigError(f"The seed is {self.seed}; it must be 0 or more.")
        _check_rate("noise_rate", self.noise_rate)
        # Read here, so that a mistake is one before anything is computed.
        _ = self.noise_rates
        self._check_that_the_rate_is_read()

    def _check_that_the_rate_is_read(self) -> None:
        if self.noise_rate == type(self).noise_rate or any("=" not in given for given in self.noise):
            return
        why = "every kind of noise has a rate of its own" if self.noise else "no kind of noise is given"
        raise ConfigError(f"noise_rate is {self.noise_rate:g}, but {why}; leave it out, or give noise a kind without a rate.")

    def stride_of(self, context_tokens: int) -> int:
        """The stride for a context.

        Raises:
            ConfigError: the stride is longer, so that bytes between two windows would never be predicted.
        """
        if self.stride is None:
            return max(1, context_tokens // 2)
        if self.stride > context_tokens:
            raise ConfigError(f"The stride is {self.stride} tokens; it must be at most {context_tokens}, the context.")
        return self.stride

    @property
    def noise_rates(self) -> Mapping[str, float]:
        """Kind of noise -> its rate, in the order of `noise`.

        >>> dict(EvaluationConfig(noise=("drop", "repeat=0.2")).noise_rates)
        {'drop': 0.1, 'repeat': 0.2}
        """
        rates: dict[str, float] = {}
        for given in self.noise:
            kind, has_rate, text = given.partition("=")
            if kind not in NOISES:
                raise ConfigError(f"There is no noise {kind!r}{nearest(kind, NOISES)}.")
            if kind in rates:
                raise ConfigError(f"The noise {kind!r} is given twice; leave one of them out.")
            try:
                rates[kind] = float(text) if has_rate else self.noise_rate
            except ValueError as error:
                raise ConfigError(f"The rate of the noise {kind!r} is {text!r}; it must be a number, such as {kind}=0.2.") from error
            _check_rate(f"The rate of the noise {kind!r}", rates[kind])
        return rates


def _check_rate(name: str, rate: float) -> None:
    # Written so that a NaN fails it.
    if not 0 < rate <= 1:
        raise ConfigError(f"{name} is {rate:g}; it must be above 0 and at most 1.")
