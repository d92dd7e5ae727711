"""What a continuation is made with, and what comes out of it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch

from bltdata.entropy import EntropyModel
from bltdata.errors import ConfigError
from bltdata.patching import PatchRule
from bltdata.shards.precision import Precision as EntropyPrecision
from bltmodel.sampling_config import SamplingConfig


@dataclass(frozen=True, kw_only=True)
class GenerationSettings:
    """How prompts are continued.

    Raises:
        ConfigError: a value is out of range or of another type, or there is no entropy model and one is needed.
        PatchingError: the rule needs the whole document before it can cut it, or has no threshold yet.
    """

    rule: PatchRule
    """The one that cut the shards that the BLT was trained on."""

    max_new_bytes: int
    """A continuation ends after so many, or before, at the end of the document or at a stop string."""

    entropy_model: EntropyModel | None = None
    """The one that made those shards; None is fine where neither the rule nor the temperature reads its entropies."""

    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    """How bytes are chosen; plain sampling by default."""

    seed: int | Sequence[int] = 0
    """Fixes the choices: each prompt's, whatever stands beside it. One for all, or one for each."""

    stop: Sequence[bytes] = ()
    """A continuation ends where one of these would, and before it begins. They are looked for in the new bytes only."""

    entropy_precision: EntropyPrecision = "grid"
    """How the shards stored entropies."""

    reset_at_newline: bool = False
    """Whether the shards were scored line by line."""

    scoring_dtype: torch.dtype = torch.float32
    """Type of the entropy model's matrix products: that in which the shards were scored."""

    precision: torch.dtype = torch.float32
    """Type of the BLT's matrix products."""

    use_cache: bool = True
    """Whether the BLT remembers what it has computed, with a copy of its weights (not the tables') that suits single bytes. Without, it
    reads the whole document at every step, which takes little memory and is plainly right."""

    def __post_init__(self) -> None:
        if self.max_new_bytes < 0:
            raise ConfigError(f"The number of new bytes is {self.max_new_bytes}; it must be 0 or more.")
        stop: object = self.stop
        if isinstance(stop, bytes | str):
            raise ConfigError(f"stop is {stop!r}; give a list of byte strings, like [{stop!r}].")
        strings: Sequence[object] = self.stop
        for string in strings:
            if not isinstance(string, bytes):
                kind = type(string).__name__
                raise ConfigError(f"The stop string {string!r} is of type {kind}; give bytes, for a text its text.encode().")
        if not all(self.stop):
            raise ConfigError("A stop string is empty, and would end every continuation before its first byte; leave it out.")
        if self.needs_entropies and self.entropy_model is None:
            what = f"rule {self.rule.scheme!r}" if self.rule.needs_entropies else "adaptive temperature"
            raise ConfigError(f"The {what} reads the entropy model's entropies, and no entropy model is given; give the one of the shards.")
        self.rule.stepper()

    @property
    def needs_entropies(self) -> bool:
        """Whether the entropy model has anything to say."""
        return self.rule.needs_entropies or self.sampling.adaptive_temperature == "entropy-model"

    def seeds(self, num_prompts: int) -> list[int]:
        """The seed of each prompt.

        Raises:
            ConfigError: there are as many seeds as there should not be, or one is no whole number that a generator takes.
        """
        given: object = self.seed
        if isinstance(given, str) or not isinstance(given, Sequence | np.ndarray):
            return [_checked_seed(given)] * num_prompts
        if len(given) != num_prompts:
            raise ConfigError(f"There are {len(given)} seeds for {num_prompts} prompts; give one for all, or one for each.")
        return [*map(_checked_seed, given)]


def _checked_seed(seed: object) -> int:
    # Others torch's generators don't take.
    if not isinstance(seed, int | np.integer) or not -(2**63) <= int(seed) < 2**64:
        raise ConfigError(f"The seed is {seed!r}; it must be a whole number from -2**63 to 2**64 - 1.")
    return int(seed)


class NewByte(NamedTuple):
    """A byte that was added to a prompt.

    Attributes:
        row: which prompt's continuation it belongs to.
        byte: its value.
        starts_patch: whether a patch starts with it.
        entropy_nats: what the entropy model was uncertain by before it; None where it wasn't asked.
    """

    row: int
    byte: int
    starts_patch: bool
    entropy_nats: float | None
