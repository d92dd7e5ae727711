"""The settings of sampling; without torch, so that the command's help is instant."""

import math
from dataclasses import dataclass

from bltdata.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """How the next byte is chosen."""

    temperature: float = 1.0
    """Divides the logits; 0 takes the most probable byte always."""

    top_k: int | None = None
    """Choose among this many most probable ids; none for all."""

    top_p: float = 1.0
    """Choose among the most probable ids that together reach this probability."""

    stop_at_eos: bool = True
    """Whether the end of the document may be chosen, which ends the continuation."""

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < math.inf:
            raise ConfigError(f"The temperature is {self.temperature}; it must be a finite number, 0 or more.")
        if self.top_k is not None and self.top_k < 1:
            raise ConfigError(f"top_k is {self.top_k}; it must be at least 1.")
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"top_p is {self.top_p}; it must be above 0 and at most 1.")
