"""The optimisers, with decay on matrices only, and a learning rate that warms up and falls along a cosine."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from bltdata.training.config import TrainingConfig
from bltdata.vocab import VOCAB_SIZE


class Optimiser:
    """One or several of torch's optimisers, each with parameters of its own, as if they were one.

    Args:
        parts: by the name that its state has.
    """

    def __init__(self, parts: Mapping[str, torch.optim.Optimizer]) -> None:
        self._parts = dict(parts)
        self.param_groups = [group for part in self._parts.values() for group in part.param_groups]

    def step(self) -> None:
        """Change the parameters along their gradients."""
        for part in self._parts.values():
            part.step()

    def zero_grad(self) -> None:
        """Drop the gradients."""
        for part in self._parts.values():
            part.zero_grad(set_to_none=True)

    def set_learning_rate(self, learning_rate: float) -> None:
        """Set the rate of every group."""
        # A part that loaded a state has other groups than it began with.
        for part in self._parts.values():
            for group in part.param_groups:
                group["lr"] = learning_rate

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` takes: of a single part its own state."""
        states = {name: part.state_dict() for name, part in self._parts.items()}
        return states if len(states) > 1 else next(iter(states.values()))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state of the same parts."""
        for name, part in self._parts.items():
            part.load_state_dict(state[name] if len(self._parts) > 1 else state)


def build_optimiser(model: nn.Module, config: TrainingConfig) -> Optimiser:
    """The optimiser of `config` over the parameters of `model`.

    The weights of linear layers decay; embeddings and norms don't: shrinking them changes scales that nothing restores. With
    `muon`, the same weights but for the head's, which is an embedding the other way round, take orthogonalised steps of the
    size that AdamW's have, so that one learning rate serves all.

    Source: AdamW arXiv:1711.05101, algorithm 2; Muon arXiv:2502.16982, section 2.
    """
    linear = [layer for layer in model.modules() if isinstance(layer, nn.Linear)]
    decayed = {id(layer.weight) for layer in linear}
    hidden = {id(layer.weight) for layer in linear if layer.out_features != VOCAB_SIZE} if config.optimiser == "muon" else set()
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if id(p) in decayed - hidden], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if id(p) not in decayed], "weight_decay": 0.0},
    ]
    rate, betas = config.learning_rate, (config.beta1, config.beta2)
    parts: dict[str, torch.optim.Optimizer] = {"adamw": torch.optim.AdamW(groups, lr=rate, betas=betas, eps=1e-8, fused=True)}
    orthogonalised = [p for p in parameters if id(p) in hidden]
    if orthogonalised:
        parts["muon"] = torch.optim.Muon(orthogonalised, lr=rate, weight_decay=config.weight_decay, adjust_lr_fn="match_rms_adamw")
    return Optimiser(parts)


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
