"""The settings of an entropy model, and the sizes that have names."""

import math
from dataclasses import dataclass
from typing import Any

from bltdata.config import nearest
from bltdata.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class EntropyModelConfig:
    """The architecture of an entropy model: a causal byte transformer with a sliding window.

    Source: arXiv:2412.09871, sections 2.3 and 4.2; the released weights for `base`.
    """

    dim: int
    """Model dimension."""

    num_layers: int
    """Transformer blocks."""

    num_heads: int
    """Attention heads, of `dim / num_heads` each."""

    ffn_dim: int
    """Hidden size of the feed-forward layers."""

    window: int
    """Tokens that a position sees, itself among them."""

    rope_theta: float = 10_000.0
    """Base of the rotary frequencies."""

    norm_eps: float = 1e-5
    """Epsilon of the norms."""

    def __post_init__(self) -> None:
        for name in ("dim", "num_layers", "num_heads", "ffn_dim", "window"):
            if getattr(self, name) < 1:
                raise ConfigError(f"The entropy model's {name} is {getattr(self, name)}; it must be at least 1.")
        for name in ("rope_theta", "norm_eps"):
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise ConfigError(f"The entropy model's {name} is {value:g}; it must be a finite number above 0.")
            # A whole number comes back from a file as a float, and would have another fingerprint.
            object.__setattr__(self, name, float(value))
        if self.dim % (2 * self.num_heads):
            raise ConfigError(
                f"The entropy model's dim is {self.dim} with {self.num_heads} heads; it must be a multiple of {2 * self.num_heads} "
                "(heads of an even size)."
            )


PRESETS: dict[str, EntropyModelConfig] = {
    "tiny": EntropyModelConfig(dim=128, num_layers=3, num_heads=4, ffn_dim=384, window=128),
    "small": EntropyModelConfig(dim=256, num_layers=4, num_heads=4, ffn_dim=768, window=256),
    "medium": EntropyModelConfig(dim=512, num_layers=8, num_heads=8, ffn_dim=1536, window=512),
    "base": EntropyModelConfig(dim=768, num_layers=14, num_heads=12, ffn_dim=2048, window=512),
}
"""`tiny` trains in minutes on two cores; `base` is the released 100 M model."""

TRAINING: dict[str, dict[str, Any]] = {
    "tiny": {"optimiser": "muon", "steps": 4000, "batch_rows": 2, "learning_rate": 4e-3, "evaluate_every": 500},
    "small": {"optimiser": "muon", "steps": 4000, "batch_rows": 2, "learning_rate": 2e-3, "evaluate_every": 500},
    "medium": {"optimiser": "muon", "steps": 4000, "batch_rows": 2, "learning_rate": 2e-3, "evaluate_every": 500},
}
"""How `train-entropy-model` trains a preset where nothing else is asked for, in fields of `TrainingConfig`. Measured on two cores with
the few megabytes that these see in minutes to hours, where many small steps of Muon win; `base` has the plain defaults."""


def preset(name: str) -> EntropyModelConfig:
    """The settings of a named size.

    Raises:
        ConfigError: there is no such name.
    """
    if name not in PRESETS:
        raise ConfigError(f"There is no entropy model preset {name!r}{nearest(name, PRESETS)}.")
    return PRESETS[name]
