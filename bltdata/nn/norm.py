"""Root-mean-square normalisation."""

import torch
from torch import Tensor, nn
from torch.nn import functional


class RMSNorm(nn.Module):
    """`x / sqrt(mean(x^2) + eps) * weight` over the last axis, computed in float32.

    Source: arXiv:1910.07467, equation 4.

    Args:
        dim: size of the last axis.
        eps: added to the mean of squares; 1e-5 in the released BLT weights.
    """

    def __init__(self, dim: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `x` `[..., dim]`; the result has the type of `x`."""
        normed = functional.rms_norm(x.float(), (x.shape[-1],), self.weight.float(), self.eps)
        return normed.to(x.dtype)
