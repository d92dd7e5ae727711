"""AdamW with decay on matrices only, and a learning rate that warms up and falls along a cosine."""

import math

import torch
from torch import nn

from bltdata.training.config import TrainingConfig


def build_optimiser(model: nn.Module, config: TrainingConfig) -> torch.optim.AdamW:
    """AdamW (arXiv:1711.05101, algorithm 2) over the parameters of `model`.

    The weights of linear layers decay; embeddings and norms don't: shrinking them changes scales that nothing restores.
    """
    decayed = {id(layer.weight) for layer in model.modules() if isinstance(layer, nn.Linear)}
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if id(p) in decayed], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if id(p) not in decayed], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=(config.beta1, config.beta2), eps=1e-8, fused=True)


def learning_rate_at(step: int, config: TrainingConfig) -> float:
    """Learning rate of step `step`, counted from 0: a linear rise over the warm-up, then half a cosine to the final rate.

    >>> config = TrainingConfig(steps=101, warmup_steps=0, learning_rate=1.0, final_learning_rate_ratio=0.0)
    >>> [round(learning_rate_at(step, config), 3) for step in (0, 50, 100)]
    [1.0, 0.5, 0.0]
    """
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    progress = min(1.0, (step - config.warmup_steps) / max(1, config.steps - 1 - config.warmup_steps))
    floor = config.final_learning_rate_ratio
    return config.learning_rate * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress)))


def set_learning_rate(optimiser: torch.optim.Optimizer, learning_rate: float) -> None:
    """Set the rate of every group of `optimiser`, in place."""
    for group in optimiser.param_groups:
        group["lr"] = learning_rate
