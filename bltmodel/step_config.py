"""How the training steps of a BLT are computed."""

from dataclasses import dataclass
from typing import Literal

from bltdata.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class StepConfig:
    """What a training step costs in time and memory, beside the settings of training."""

    patch_margin: float | None = None
    """Give every row as many patches as the shards have on average, or with weights the source that has most, times this (1.25, say), so
    that all steps have the same shapes; none for as many as the fullest row of a batch has. In rows with more, or nearly as many, patches
    are joined, and counted in the metrics."""

    checkpoint_activations: bool = False
    """Keep only what goes into each layer, and compute the rest again in the backward pass: less memory, a third more time."""

    sharding: Literal["none", "full"] = "none"
    """With `full` each of the processes that torchrun starts keeps its part of every weight, gradient and optimiser state, and gathers a
    layer's weights when they are needed (FSDP2): less memory, more messages. N-gram tables stay whole in each, unless --table-optimiser is
    adamw. States are written in parts, to a disk that all share; a run may go on with any number of processes, with sharding or without."""

    def __post_init__(self) -> None:
        if self.patch_margin is not None and not 1 <= self.patch_margin < float("inf"):
            raise ConfigError(f"The patch margin is {self.patch_margin}; it must be at least 1: as many patches as rows have on average.")
