"""Keys and values of all patches, for documents that complete patches at different times.

Letters: B rows, R rows that advance, T new patches, H heads, K head dimension, C patches that there is room for.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from bltdata.nn import rotate, rotations
from bltmodel.generation.buffers import Buffers
from bltmodel.generation.layers import Look

FIRST_PATCHES = 64
"""Patches that a cache has room for at first; the room doubles, so that a patch is copied less than twice on average."""


class LatentCache:
    """What the layers of the latent transformer remember; each row has as many patches as it has completed.

    All rows are in one buffer, so each has the room of the one with the most patches, and rows that complete a patch together look at as
    many places as the longest of them. Prompts of like lengths side by side take the least memory and time.

    Args:
        num_layers: layers.
        head_dim: size of a head.
        rope_theta: base of the rotary frequencies.
        num_rows: rows, all of them empty.
        device: where they are.
    """

    def __init__(self, *, num_layers: int, head_dim: int, rope_theta: float, num_rows: int, device: torch.device) -> None:
        self._head_dim = head_dim
        self._rope_theta = rope_theta
        self._device = device
        self._counts = [0] * num_rows
        self.buffers = Buffers(num_layers, num_rows, FIRST_PATCHES)

    def extend(self, rows: Sequence[int], num_new: int) -> "Extension":
        """So many patches more for some of the rows, which aren't named twice."""
        firsts = [self._counts[row] for row in rows]
        for row in rows:
            self._counts[row] += num_new
        wanted = max(firsts) + num_new
        if wanted > self.buffers.room:
            self.buffers.grow(max(wanted, 2 * self.buffers.room))
        positions_RT = torch.tensor(firsts, device=self._device)[:, None] + torch.arange(num_new, device=self._device)
        return Extension(self, list(rows), firsts, positions_RT, rotations(positions_RT, self._head_dim, self._rope_theta)[:, None])

    def select(self, rows: Tensor) -> None:
        """Keep these rows, in this order; one may be kept several times."""
        self._counts = [self._counts[row] for row in rows.tolist()]
        self.buffers.select(rows)


class Extension:
    """New patches of some rows, going through the layers."""

    def __init__(self, cache: LatentCache, rows: list[int], firsts: list[int], positions_RT: Tensor, rope: Tensor) -> None:
        self._cache = cache
        self._rows = rows
        self._firsts = firsts
        self._positions_RT = positions_RT
        self._rope = rope
        num_new = positions_RT.shape[1]
        self._num_keys = max(firsts) + num_new
        self._visible: Tensor | None = None
        if num_new > 1 or len(set(firsts)) > 1:
            keys = torch.arange(self._num_keys, device=positions_RT.device)
            self._visible = (keys <= positions_RT[..., None])[:, None]

    def look(self, layer: int) -> Look:
        """The attention of one layer, which also remembers the patches."""

        def look(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            buffers = self._cache.buffers.of(layer, k)
            keys, values = (self._remember(buffer, new) for buffer, new in zip(buffers, (rotate(k, self._rope), v), strict=True))
            return functional.scaled_dot_product_attention(rotate(q, self._rope), keys, values, attn_mask=self._visible)

        return look

    def _remember(self, buffer: Tensor, new_RHTK: Tensor) -> Tensor:
        """Write what is new of one kind; returns all that the rows have of it."""
        if len(self._rows) == 1:
            # The usual case of a single document or of a prompt: views instead of copies.
            row, first = self._rows[0], self._firsts[0]
            buffer[row, :, first : self._num_keys] = new_RHTK[0]
            return buffer[row : row + 1, :, : self._num_keys]
        rows = torch.tensor(self._rows, device=buffer.device)
        buffer[rows[:, None], :, self._positions_RT] = new_RHTK.transpose(1, 2)
        shown = buffer[:, :, : self._num_keys]
        return shown if self._rows == list(range(len(buffer))) else shown[rows]
