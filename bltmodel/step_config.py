"""How the training steps of a BLT are computed."""

from dataclasses import dataclass

from bltdata.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class StepConfig:
    """What a training step costs in time and memory, beside the settings of training."""

    patch_margin: float | None = None
    """Give every row as many patches as the shards have on average, times this (1.25, say), so that all steps have the same shapes;
    none for as many as the fullest row of a batch has. Patches of rows with more are joined, and counted in the metrics."""

    checkpoint_activations: bool = False
    """Keep only what goes into each layer, and compute the rest again in the backward pass: less memory, a third more time."""

    def __post_init__(self) -> None:
        if self.patch_margin is not None and not 1 <= self.patch_margin < float("inf"):
            raise ConfigError(f"The patch margin is {self.patch_margin}; it must be at least 1: as many patches as rows have on average.")
