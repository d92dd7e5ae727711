"""Muon, with matrix products in a type that the machine multiplies."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

MOMENTUM = "momentum_buffer"
"""The name that torch's Muon has for it, too: states that it wrote are gone on from."""

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of `x`, `x^3` and `x^5`: five iterations bring singular values from 0.002 to 1 between 0.68 and 1.21."""

ITERATIONS = 5


class Muon(torch.optim.Optimizer):
    """Momentum whose steps are orthogonalised, for matrices.

    `torch.optim.Muon` multiplies in bfloat16 wherever it runs. A processor without such products imitates them, 15 to 70 times slower
    than its own in float32; and bfloat16 magnifies rounding: a change of a gradient's last bits can change a step by percents, so several
    processes follow one less closely. With bfloat16 the steps here have torch's bits.

    Args:
        params: matrices.
        dtype: type of the matrix products.
        lr: learning rate, of steps with the root mean square of AdamW's.
        weight_decay: decoupled.
        momentum: of the gradients' mean, and of the step ahead of it (Nesterov).

    Source: arXiv:2502.16982, section 2; https://kellerjordan.github.io/posts/muon/ for the coefficients.
    """

    def __init__(
        self, params: Iterable[Tensor], dtype: torch.dtype, lr: float = 1e-3, weight_decay: float = 0.1, momentum: float = 0.95
    ) -> None:
        matrices = list(params)
        assert all(matrix.dim() == 2 for matrix in matrices)
        super().__init__(matrices, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})
        # Not in the groups, which a state brings with it: it may go on on another machine.
        self.dtype = dtype

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Change the matrices that have a gradient."""
        assert closure is None
        for group in self.param_groups:
            for matrix in group["params"]:
                if matrix.grad is not None:
                    self._change(matrix, matrix.grad, group)

    def _change(self, matrix: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[matrix]
        if MOMENTUM not in state:
            state[MOMENTUM] = torch.zeros_like(gradient)
        momentum = state[MOMENTUM]
        momentum.lerp_(gradient, 1 - group["momentum"])
        direction = self.orthogonalised(gradient.lerp(momentum, group["momentum"]))
        matrix.mul_(1 - group["lr"] * group["weight_decay"])
        # The factor gives an orthogonal matrix the root mean square that AdamW's steps have, about 0.2.
        matrix.add_(direction, alpha=-group["lr"] * 0.2 * math.sqrt(max(matrix.shape)))

    def orthogonalised(self, update: Tensor) -> Tensor:
        """The orthogonal matrix that is next to an update, roughly, in its shape and in `dtype`."""
        return orthogonalised(update, self.dtype)


def orthogonalised(matrix: Tensor, dtype: torch.dtype) -> Tensor:
    """Bring all singular values of a matrix near 1, by iterations of a polynomial (Newton-Schulz).

    Args:
        matrix: of any type, `[n, m]`.
        dtype: type of the products, and of the result.
    """
    first, third, fifth = COEFFICIENTS
    is_tall = matrix.shape[0] > matrix.shape[1]
    # The smaller of both squares; of norm 1, so that no singular value is above it.
    wide = matrix.to(dtype).T if is_tall else matrix.to(dtype)
    wide = wide / wide.norm().clamp(min=1e-7)
    for _ in range(ITERATIONS):
        square = wide @ wide.T
        wide = torch.addmm(wide, torch.addmm(square, square, square, beta=third, alpha=fifth), wide, beta=first)
    return wide.T if is_tall else wide
