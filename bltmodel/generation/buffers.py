"""Memory for the keys and values of some layers, with room for more of them than there are.

Letters: B rows, H heads, K head dimension, C places.
"""

from torch import Tensor
from torch.nn import functional


class Buffers:
    """Keys and values of each layer, `[B, H, C, K]`; made when a layer first has some, in their type and where they are.

    Args:
        num_layers: layers.
        num_rows: rows, B.
        room: places, C.
    """

    def __init__(self, num_layers: int, num_rows: int, room: int) -> None:
        self._num_rows = num_rows
        self._room = room
        self._layers: list[tuple[Tensor, Tensor] | None] = [None] * num_layers

    @property
    def room(self) -> int:
        """Places of each row."""
        return self._room

    @property
    def size_bytes(self) -> int:
        """Memory of all keys and values."""
        return sum(buffer.nbytes for layer in self._layers if layer is not None for buffer in layer)

    def of(self, layer: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of a layer, to be written and read; `like` is any keys of it."""
        buffers = self._layers[layer]
        if buffers is None:
            shape = (self._num_rows, like.shape[1], self._room, like.shape[3])
            buffers = self._layers[layer] = (like.new_zeros(shape), like.new_zeros(shape))
        return buffers

    def grow(self, room: int) -> None:
        """Have more places, behind those there are."""
        added = (0, 0, 0, room - self._room)
        self._layers = [each and (functional.pad(each[0], added), functional.pad(each[1], added)) for each in self._layers]
        self._room = room

    def select(self, rows: Tensor) -> None:
        """Keep these rows, in this order; one may be kept several times."""
        self._layers = [each and (each[0][rows], each[1][rows]) for each in self._layers]
        self._num_rows = len(rows)
