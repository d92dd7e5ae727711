"""Muon for matrices whose rows are shared out among processes."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor

MOMENTUM = "momentum_buffer"
"""The name that torch's Muon has for it, so that a state is the same with sharding and without."""


class ShardedMuon(torch.optim.Muon):
    """Muon whose momentum is shared out like its matrices.

    A step is orthogonalised as a whole: each process gathers the matrix, one at a time, and computes what a process alone would. In parts
    it would be several messages an iteration and, in bfloat16, other sums.

    Source: arXiv:2502.16982, section 2.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Change the matrices that have a gradient."""
        assert closure is None
        for group in self.param_groups:
            for matrix in group["params"]:
                if matrix.grad is not None:
                    self._update(matrix, matrix.grad, group)

    def _update(self, matrix: DTensor, gradient: DTensor, group: dict[str, Any]) -> None:
        state = self.state[matrix]
        if MOMENTUM not in state:
            state[MOMENTUM] = torch.zeros_like(gradient)
        momentum = state[MOMENTUM]
        momentum.lerp_(gradient, 1 - group["momentum"])
        update: DTensor = gradient.lerp(momentum, group["momentum"]) if group["nesterov"] else momentum  # type: ignore[assignment]
        change = _orthogonalised(update.full_tensor(), group)
        matrix.mul_(1 - group["lr"] * group["weight_decay"])
        matrix.add_(distribute_tensor(change, matrix.device_mesh, matrix.placements, src_data_rank=None))


def _orthogonalised(update: Tensor, group: dict[str, Any]) -> Tensor:
    """What torch's Muon adds to a matrix for an update: that of one without momentum and decay, from zero."""
    matrix = torch.zeros_like(update, requires_grad=True)
    matrix.grad = update
    names = ("lr", "ns_coefficients", "eps", "ns_steps", "adjust_lr_fn")
    torch.optim.Muon([matrix], weight_decay=0.0, momentum=0.0, nesterov=False, **{name: group[name] for name in names}).step()
    return matrix.detach()
