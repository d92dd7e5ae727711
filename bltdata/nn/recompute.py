"""Activations that are computed again in the backward pass instead of being kept for it."""

from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


class Recomputable(nn.Module):
    """A module of which a step can keep the inputs alone.

    What it computes must follow from its inputs: nothing random, nothing remembered. Then loss and gradients have the same bits either
    way, for a second forward pass in time.

    Attributes:
        is_recomputed: whether a call that records gradients drops what it computed, and computes it again for its backward pass.
    """

    is_recomputed = False

    def __call__(self, *arguments: Any) -> Any:
        """Call the module."""
        if self.is_recomputed and torch.is_grad_enabled():
            return checkpoint(super().__call__, *arguments, use_reentrant=False, preserve_rng_state=False)
        return super().__call__(*arguments)


def checkpoint_activations(model: nn.Module, is_wanted: bool = True) -> None:
    """Keep, or don't, what the `Recomputable` modules of `model` compute between forward and backward pass."""
    for module in model.modules():
        if isinstance(module, Recomputable):
            module.is_recomputed = is_wanted
