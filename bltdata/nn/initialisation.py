"""Initial weights: normal, cut off at three standard deviations, as the released models were started."""

import torch
from torch import Tensor, nn

SLICE = 1 << 20
"""Weights that are drawn at a time."""


@torch.no_grad()
def truncated_normal_(weight: Tensor, std: float, generator: torch.Generator | None = None) -> Tensor:
    """Fill `weight` in place from a normal distribution of deviation `std` that is cut off at `3 * std`.

    Weights beyond that, 0.3 %, are drawn again. (torch's own function draws all of them again, several times, which for a table takes four
    times its memory.)

    Args:
        weight: contiguous; one without memory (`meta`) stays as it is.
        std: of the whole normal distribution.
        generator: what draws; None for the global one.
    """
    if weight.is_meta:
        return weight
    for part in weight.view(-1).split(SLICE):
        part.normal_(0.0, std, generator=generator)
        while len(beyond := torch.nonzero(part.abs() > 3 * std)[:, 0]):
            part[beyond] = part.new_empty(len(beyond)).normal_(0.0, std, generator=generator)
    return weight


def initialise_linear(module: nn.Module, generator: torch.Generator | None = None) -> None:
    """Give every linear layer of `module` weights of deviation `in_features ** -0.5`, in place."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            truncated_normal_(layer.weight, layer.in_features**-0.5, generator)
