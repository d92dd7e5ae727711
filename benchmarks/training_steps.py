"""A step of training, as benchmarks time it for every model alike, and rows of text to take it on."""

from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor, nn

from bltdata.nn import autocast
from bltdata.nn.loss import negative_log_likelihood_sum
from bltdata.training.optimiser import Optimiser

TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
RATE, CLIP_NORM = 1e-3, 1.0

Step = Callable[[], float]
"""A step of training, which returns the loss before it in nats a token."""


def training_step(
    logits: Callable[[], Tensor],
    targets: Tensor,
    dtype: torch.dtype,
    parameters: Iterable[nn.Parameter],
    optimiser: torch.optim.Optimizer | Optimiser,
    clip: Callable[[Iterable[nn.Parameter], float], Tensor],
) -> Step:
    """Forward pass, backward pass, clipping and optimiser.

    Args:
        logits: the forward pass, `[..., 260]`.
        targets: int64 `[...]`.
        dtype: type of matrix products.
        parameters: what is trained.
        optimiser: that of the parameters.
        clip: scales gradients down to a norm.
    """
    trained = list(parameters)

    def step() -> float:
        with autocast(targets.device, dtype):
            loss = negative_log_likelihood_sum(logits(), targets) / targets.numel()
        loss.backward()
        clip(trained, CLIP_NORM)
        optimiser.step()
        optimiser.zero_grad()
        return float(loss.detach())

    return step


def zipf_texts(num_texts: int, num_bytes: int) -> list[bytes]:
    """Texts of random words that are drawn from a few thousand, the frequent ones often."""
    rng = np.random.default_rng(0)
    words = [rng.integers(97, 123, int(rng.integers(2, 10)), dtype=np.uint8).tobytes() + b" " for _ in range(5000)]
    return [b"".join(words[word] for word in np.minimum(rng.zipf(1.3, num_bytes), len(words)) - 1)[:num_bytes] for _ in range(num_texts)]
