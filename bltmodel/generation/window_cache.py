"""Keys and values of the last `window` tokens, for documents that grow side by side.

All rows stand at the same position and take their next token together; a document that is shorter began later. So the
rows of a batch differ in one number only, their beginning, and share everything else: the rotation, the slot that is
written, the slots that are read. Keys are kept rotated to their position. Attention depends on distances only, so the
position where a row began doesn't matter.

Letters: B rows, T tokens, H heads, K head dimension, C slots.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from bltdata.nn import attend, banded_mask, rotate, rotations
from bltmodel.generation.buffers import Buffers
from bltmodel.generation.layers import Look

FIRST_SLOTS = 64
"""Slots that a cache begins with; they double as they are filled, up to the window."""

ROTATIONS_AHEAD = 64
"""Positions whose rotations are worked out together."""


class WindowCache:
    """What the layers of a local model remember.

    A slot belongs to the position `p` with `p % C` of its index, so that the newest token takes the place of the one that leaves the
    window.

    Args:
        num_layers: layers.
        head_dim: size of a head.
        rope_theta: base of the rotary frequencies.
        window: tokens that a position sees, itself among them.
        lengths: tokens of each row that `chunk` will bring.
        device: where the rows are.
    """

    def __init__(
        self, *, num_layers: int, head_dim: int, rope_theta: float, window: int, lengths: Sequence[int], device: torch.device
    ) -> None:
        self._head_dim = head_dim
        self._rope_theta = rope_theta
        self._window = window
        self._position = max(lengths)
        """Of the next token."""
        self._begins = [self._position - length for length in lengths]
        """Position of each row's first token, or of the one that it was restarted at."""
        self._device = device
        self._ahead_from = 0
        self._ahead = self.rotations(0, 0)
        """Rotations of the positions from that one on."""
        self.buffers = Buffers(num_layers, len(lengths), 0)
        self._reserve(self._position)

    def chunk(self, row: int, done: int, begins_T: Tensor) -> "Chunk":
        """The next tokens of one row, before the first `step`.

        Args:
            row: which.
            done: tokens of the row that chunks have brought so far.
            begins_T: int64, the first token of the row that each token may see, counted from the row's first.
        """
        return Chunk(self, row, self._begins[row], done, begins_T)

    def restart(self, row: int, num_tokens: int = 0) -> None:
        """Let a row see nothing before its last so many tokens from now on."""
        self._begins[row] = self._position - num_tokens

    def step(self) -> "Step":
        """The next token of each row."""
        self._reserve(self._position + 1)
        if self._position >= self._ahead_from + len(self._ahead):
            # Many at once cost as much as one.
            self._ahead_from, self._ahead = self._position, self.rotations(self._position, ROTATIONS_AHEAD)
        rope = self._ahead[self._position - self._ahead_from][None]
        step = Step(self, self._position, rope)
        self._position += 1
        return step

    def select(self, rows: Tensor) -> None:
        """Keep these rows, in this order; one may be kept several times."""
        self._begins = [self._begins[row] for row in rows.tolist()]
        self.buffers.select(rows)

    def rotations(self, first: int, num_tokens: int) -> Tensor:
        """Rotations of `num_tokens` positions."""
        return rotations(torch.arange(first, first + num_tokens, device=self._device), self._head_dim, self._rope_theta)

    def visible_at(self, position: int) -> Tensor | None:
        """Which slots each row sees when it stands at a position, bool `[B, 1, 1, C]`; None where each row sees all that were written."""
        if max(self._begins) <= max(position - self._window + 1, 0):
            return None
        begins_B1 = torch.tensor(self._begins, device=self._device)[:, None]
        slots = torch.arange(self.num_shown(position), device=self._device)
        return (position - (position - slots) % self.buffers.room >= begins_B1)[:, None, None]

    def num_shown(self, position: int) -> int:
        """Slots that have been written once a position has."""
        return min(position + 1, self.buffers.room)

    def slot(self, position: int) -> int:
        """Where a position is kept."""
        return position % self.buffers.room

    def slots(self, first: int, count: int) -> Tensor:
        """Where `count` positions are kept."""
        return torch.arange(first, first + count, device=self._device) % self.buffers.room

    @property
    def window(self) -> int:
        """Tokens that a position sees, itself among them."""
        return self._window

    def _reserve(self, num_positions: int) -> None:
        """Have slots for the positions before this one, as many as the window holds at most."""
        wanted = min(num_positions, self._window)
        if wanted > self.buffers.room:
            # While there are fewer slots than the window has, none has been written twice: all stay where they are.
            self.buffers.grow(min(max(wanted, 2 * self.buffers.room, FIRST_SLOTS), self._window))


class Step:
    """One token of each row, going through the layers."""

    def __init__(self, cache: WindowCache, position: int, rope: Tensor) -> None:
        self._cache = cache
        self._slot, self._num_shown = cache.slot(position), cache.num_shown(position)
        self._rope = rope
        self._visible = cache.visible_at(position)

    def look(self, layer: int) -> Look:
        """The attention of one layer, which also remembers the token."""

        def look(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            keys, values = self._cache.buffers.of(layer, k)
            keys[:, :, self._slot] = rotate(k, self._rope)[:, :, 0]
            values[:, :, self._slot] = v[:, :, 0]
            shown = slice(self._num_shown)
            return functional.scaled_dot_product_attention(
                rotate(q, self._rope), keys[:, :, shown], values[:, :, shown], attn_mask=self._visible
            )

        return look


class Chunk:
    """Several tokens of one row, going through the layers."""

    def __init__(self, cache: WindowCache, row: int, begin: int, done: int, begins_T: Tensor) -> None:
        num_tokens = len(begins_T)
        self._cache = cache
        self._row = row
        num_past = min(done, cache.window)
        self._past = cache.slots(begin + done - num_past, num_past)
        self._num_written = min(num_tokens, cache.window)
        self._written = cache.slots(begin + done + num_tokens - self._num_written, self._num_written)
        self._rope = cache.rotations(begin + done, num_tokens)
        visible_from = (begins_T - (done - num_past)).clamp(min=0)
        self._mask = banded_mask(visible_from[None], min(cache.window, num_past + num_tokens), num_past)

    def look(self, layer: int) -> Look:
        """The attention of one layer, which also remembers the tokens that are still in the window after them."""

        def look(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            buffers = [buffer[self._row] for buffer in self._cache.buffers.of(layer, k)]
            k = rotate(k, self._rope)
            keys, values = (torch.cat((buffer[:, self._past][None], new), dim=2) for buffer, new in zip(buffers, (k, v), strict=True))
            out = attend(rotate(q, self._rope), keys, values, self._mask)
            for buffer, new in zip(buffers, (k, v), strict=True):
                buffer[:, self._written] = new[0, :, -self._num_written :]
            return out

        return look
