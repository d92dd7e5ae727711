"""The settings of sampling; without torch, so that the command's help is instant."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Literal

from bltdata.errors import ConfigError

OF_DRAWING = ("temperature", "top_k", "top_p", "min_p", "adaptive_temperature", "adaptive_low", "adaptive_high")
"""Fields that say how a byte is drawn; a beam search takes no chances."""


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """How the next byte is chosen."""

    temperature: float = 1.0
    """Divides the logits; 0 takes the most probable byte always."""

    top_k: int | None = None
    """Choose among this many most probable ids; none for all."""

    top_p: float = 1.0
    """Choose among the most probable ids that together reach this probability."""

    min_p: float = 0.0
    """Choose among the ids that are at least this share as probable as the most probable one."""

    repetition_penalty: float = 1.0
    """Make bytes that have come lately less probable: a positive logit is divided by this, a negative one multiplied; 1 changes nothing."""

    repetition_window: int = 64
    """How many of the last bytes, of the prompt too, have come lately."""

    adaptive_temperature: Literal["off", "entropy-model", "blt"] = "off"
    """Whose entropy at a position scales the temperature there, from --adaptive-low where it is 0 to --adaptive-high where it
    is ln 260."""

    adaptive_low: float = 0.5
    """Of the adaptive temperature: its factor where nothing is uncertain."""

    adaptive_high: float = 1.5
    """Of the adaptive temperature: its factor where every id is as probable as the next."""

    num_beams: int = 1
    """Above 1, search for a probable continuation with so many beams instead of drawing bytes."""

    length_penalty: float = 1.0
    """Of the beam search: a continuation's log-probability is divided by its length to this power."""

    stop_at_eos: bool = True
    """Whether the end of the document may be chosen, which ends the continuation."""

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < math.inf:
            raise ConfigError(f"The temperature is {self.temperature}; it must be a finite number, 0 or more.")
        for name in ("top_k", "repetition_window", "num_beams"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} is {value}; it must be at least 1.")
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"top_p is {self.top_p}; it must be above 0 and at most 1.")
        if not 0 <= self.min_p <= 1:
            raise ConfigError(f"min_p is {self.min_p}; it must be from 0 to 1.")
        if not 0 < self.repetition_penalty < math.inf:
            raise ConfigError(f"repetition_penalty is {self.repetition_penalty}; it must be a finite number above 0.")
        if not 0 <= self.length_penalty < math.inf:
            raise ConfigError(f"length_penalty is {self.length_penalty}; it must be a finite number, 0 or more.")
        if not 0 <= self.adaptive_low <= self.adaptive_high < math.inf:
            raise ConfigError(
                f"adaptive_low is {self.adaptive_low} and adaptive_high {self.adaptive_high}; they must be finite numbers, 0 or more, "
                "in this order."
            )
        self._check_that_all_is_read()

    def _check_that_all_is_read(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            why = None if value == field.default else self._why_unread(field.name)
            if why is not None:
                raise ConfigError(f"{field.name} is {value!r}, but {why}.")

    def _why_unread(self, name: str) -> str | None:
        """Why nothing would read a field, and what to do about it; None where something does."""
        if name in OF_DRAWING and self.num_beams > 1:
            return "a beam search draws nothing; leave it out, or num_beams"
        if name in OF_DRAWING and name != "temperature" and self.temperature == 0:
            return "the temperature is 0, which takes the most probable byte always; leave it out, or set another temperature"
        if name == "length_penalty" and self.num_beams == 1:
            return "there is no beam search; leave it out, or set num_beams"
        if name in ("adaptive_low", "adaptive_high") and self.adaptive_temperature == "off":
            return "adaptive_temperature is off; leave it out, or turn that on"
        if name == "repetition_window" and self.repetition_penalty == 1:
            return "repetition_penalty is 1, which changes nothing; leave it out, or set that"
        return None
