"""Rotary position embedding over interleaved pairs, as in the released BLT weights.

Source: arXiv:2104.09864, section 3.2.2. Rotations make attention depend on distances only, so positions count from the
start of whatever is computed at once, and a document's scores don't depend on where in a stream it stands.
"""

import functools

import torch
from torch import Tensor

SMALLEST_TABLE = 256
"""Positions of the shortest table that is kept; others have twice as many, and so on."""


def rotary_table(num_positions: int, head_dim: int, theta: float, device: torch.device | None = None) -> Tensor:
    """Rotations of positions `0 ... num_positions - 1`, as `rotations` gives them.

    The beginning of a table that is kept: whoever gets it must not change it.

    Returns:
        complex64 `[num_positions, head_dim / 2]`.
    """
    # Lengths may differ with every batch, and a table for each would be made anew.
    length = max(SMALLEST_TABLE, 1 << (num_positions - 1).bit_length())
    return _kept_table(length, head_dim, theta, device)[:num_positions]


def rotations(positions: Tensor, head_dim: int, theta: float) -> Tensor:
    """Rotations of any positions, as complex numbers of length 1.

    Pair `i` of position `t` turns by `t * theta ** (-2 i / head_dim)`. Frequencies are float32, as in the released models'
    code; their multiples are float64, because at position 4000 a float32 is off by 1e-4, which a score would show.

    Args:
        positions: integers `[...]`.
        head_dim: size of a head.
        theta: base of the frequencies.

    Returns:
        complex64 `[..., head_dim / 2]`.
    """
    angles = positions.double()[..., None] * _frequencies(head_dim, theta, positions.device)
    return torch.polar(torch.ones_like(angles), angles).to(torch.complex64)


@functools.lru_cache(maxsize=16)
def _kept_table(length: int, head_dim: int, theta: float, device: torch.device | None) -> Tensor:
    # Kept, so it may come to be used in training, whoever asks first.
    with torch.inference_mode(False):
        return rotations(torch.arange(length, device=device), head_dim, theta)


@functools.lru_cache(maxsize=16)
def _frequencies(head_dim: int, theta: float, device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        # On the CPU, since a GPU's powers round otherwise, and a model is to see the same angles everywhere.
        pairs = torch.arange(0, head_dim, 2, dtype=torch.float32, device="cpu")
        return (1 / theta ** (pairs / head_dim)).double().to(device)


def rotate(x: Tensor, table: Tensor) -> Tensor:
    """Rotate every pair `(x[2i], x[2i + 1])` of every position.

    A complex product does it in one pass over the data, several times faster than the same sums written out.

    Args:
        x: queries or keys `[B, H, T, head_dim]`.
        table: the rotations of the `T` positions.

    Returns:
        A tensor like `x`.
    """
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * table).flatten(-2).to(x.dtype)
