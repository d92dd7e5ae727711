"""Root-mean-square normalisation."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
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
        """Normalise `x` `[..., dim]`.

        Returns:
            A tensor of the type of `x`; under autocast of that of matrix products, which is what comes next: so it is made and kept once,
            and not for each of them.
        """
        dtype, device = x.dtype, x.device.type
        if torch.is_autocast_enabled(device):
            dtype = torch.get_autocast_dtype(device)
        if device == "cpu" and torch.is_grad_enabled() and not torch.compiler.is_compiling():
            normed: Tensor = _Norm.apply(x.float(), self.weight.float(), self.eps)
        else:
            normed = functional.rms_norm(x.float(), (x.shape[-1],), self.weight.float(), self.eps)
        return normed.to(dtype)


class _Norm(torch.autograd.Function):
    """What `functional.rms_norm` does on a CPU, with the same bits. Its backward pass goes over the data half as often, and keeps half."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        scale = x.square().mean(-1, keepdim=True).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, scale)
        return (x * scale).mul_(weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight, scale = ctx.saved_tensors
        (gradient,) = gradients
        product, num_channels = gradient * x, x.shape[-1]
        of_weight = scale.flatten() @ product.reshape(-1, num_channels)
        along = (product @ weight)[..., None] * scale.pow(3) / num_channels
        return (gradient * weight).mul_(scale).addcmul_(x, along, value=-1), of_weight, None
