"""Rotary position embedding over interleaved pairs, as in the released BLT weights.

Source: arXiv:2104.09864, section 3.2.2. Rotations make attention depend on distances only, so positions count from the
start of whatever is computed at once, and a document's scores don't depend on where in a stream it stands.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class RotaryTable(NamedTuple):
    """Cosine and sine of every position's angles, float32 `[T, head_dim / 2]` each."""

    cos: Tensor
    sin: Tensor


def rotary_table(num_positions: int, head_dim: int, theta: float, device: torch.device | None = None) -> RotaryTable:
    """Angles of positions `0 ... num_positions - 1`: position times `theta ** (-2 i / head_dim)` for pair `i`."""
    pairs = torch.arange(0, head_dim, 2, dtype=torch.float32, device=device)
    frequencies = theta ** (-pairs / head_dim)
    angles = torch.outer(torch.arange(num_positions, dtype=torch.float32, device=device), frequencies)
    return RotaryTable(angles.cos(), angles.sin())


def rotate(x: Tensor, table: RotaryTable) -> Tensor:
    """Rotate pair `(x[2i], x[2i + 1])` of every position by its angle.

    Args:
        x: queries or keys `[B, H, T, head_dim]`.
        table: the angles of the `T` positions.

    Returns:
        A tensor like `x`.
    """
    even, odd = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    rotated = torch.stack((even * table.cos - odd * table.sin, even * table.sin + odd * table.cos), dim=-1)
    return rotated.flatten(-2).to(x.dtype)
