"""Initial weights: normal, cut off at three standard deviations, as the released models were started."""

import torch
from torch import Tensor, nn


def truncated_normal_(weight: Tensor, std: float, generator: torch.Generator | None = None) -> Tensor:
    """Fill `weight` in place from a normal distribution of deviation `std` that is cut off at `3 * std`."""
    return nn.init.trunc_normal_(weight, mean=0.0, std=std, a=-3 * std, b=3 * std, generator=generator)


def initialise_linear(module: nn.Module, generator: torch.Generator | None = None) -> None:
    """Give every linear layer of `module` weights of deviation `in_features ** -0.5`, in place."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            truncated_normal_(layer.weight, layer.in_features**-0.5, generator)
