"""What a batch of packed documents says, and which patch each of its tokens may know.

Letters: B rows, T tokens, P patches.
"""

from collections.abc import Sequence
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from bltdata.errors import PatchingError
from bltdata.nn import moved
from bltdata.vocab import BOE_ID, encode


class PackedBatch(NamedTuple):
    """Rows of documents, packed end to end. Inputs are BOS and a document's bytes, targets its bytes and EOS.

    A *piece* is what a row holds of one document. Its first token is a patch of its own, so a patch starts at its second.

    Attributes:
        ids_BT: int64, the input tokens; BOE after the last piece.
        targets_BT: int64, what stands next: a byte or EOS; -1 where nothing is to be predicted.
        visible_from_BT: int64, where in the row the token's piece begins; a padding token's own place.
        starts_BT: bool, whether a patch starts at this token; taken for true at a piece's first two tokens.
        next_starts_BT: bool, whether a patch starts at what this token predicts: the document's next byte or its end, not
            whatever the row holds next. Taken for true at a piece's first token.
    """

    ids_BT: Tensor
    targets_BT: Tensor
    visible_from_BT: Tensor
    starts_BT: Tensor
    next_starts_BT: Tensor

    @classmethod
    def of_document(cls, data: bytes, patch_lengths: Sequence[int] | np.ndarray) -> Self:
        """One document as a row of `n + 1` tokens.

        Args:
            data: `n` bytes.
            patch_lengths: lengths of its patches, which sum to `n + 1`: the end of the document counts as one.

        Raises:
            PatchingError: the lengths don't sum to `n + 1`, or one is below 1.
        """
        starts = _starts(patch_lengths, len(data))
        ids = encode(data, bos=True, eos=True)
        # Token t stands for byte t - 1 and predicts byte t. BOS is a patch of its own.
        token_starts = np.concatenate(([True], starts[:-1]))
        rows = (ids[:-1], ids[1:], np.zeros(len(ids) - 1, dtype=np.int64), token_starts, starts)
        return cls(*(torch.from_numpy(row)[None] for row in rows))

    @property
    def num_patches(self) -> int:
        """Patches of the fullest row, that of its padding among them."""
        return int(own_patches(self)[:, -1].max()) + 1

    def to(self, device: torch.device | str) -> "PackedBatch":
        """The batch on another device. One that leaves the CPU is counted before: to ask a GPU is to wait for all that is queued there."""
        device = torch.device(device)
        if self.ids_BT.device.type != "cpu" or device.type == "cpu":
            return type(self)(*moved(self, device))
        counted = CountedBatch(*moved(self, device))
        counted.counted_patches = self.num_patches
        return counted


class CountedBatch(PackedBatch):
    """A batch whose patches have been counted.

    Attributes:
        counted_patches: those of the fullest row; None where that isn't known any more, as after `_replace`.
    """

    counted_patches: int | None = None

    @property
    def num_patches(self) -> int:
        """Patches of the fullest row, that of its padding among them."""
        return super().num_patches if self.counted_patches is None else self.counted_patches


class PatchLayout(NamedTuple):
    """Which patch is whose.

    Attributes:
        own_BT: int64, the patch that a token belongs to.
        complete_BT: int64, the last patch that is complete when a token predicts: the one before the patch of the predicted
            position. It is all that the decoder knows of patches there.
        visible_from_BP: int64, the first patch of a patch's document.
    """

    own_BT: Tensor
    complete_BT: Tensor
    visible_from_BP: Tensor

    @property
    def num_patches(self) -> int:
        """Patches a row, P."""
        return self.visible_from_BP.shape[1]


def patch_layout(batch: PackedBatch, num_patches: int | None = None) -> PatchLayout:
    """The patches of a batch.

    Padding tokens are a patch of their own at the end of their row, so that no document's patch holds them. Patches that
    a row doesn't have hold no token, and see themselves only.

    Args:
        batch: packed rows.
        num_patches: patches a row, at least as many as any row has, with the one of its padding; None takes just as many.
    """
    own_BT = own_patches(batch)
    if num_patches is None:
        counted = batch.counted_patches if isinstance(batch, CountedBatch) else None
        num_patches = int(own_BT[:, -1].max()) + 1 if counted is None else counted
    else:
        # Asynchronous on a GPU: asking for the number would wait for all that is queued there.
        torch._assert_async((own_BT[:, -1] < num_patches).all(), f"a row has more than {num_patches} patches")
    next_starts_BT = batch.next_starts_BT | (_place_in_piece(batch) == 0)
    patches_BP = torch.arange(num_patches, device=own_BT.device).expand(len(own_BT), -1)
    visible_from_BP = patches_BP.scatter(1, own_BT, own_BT.gather(1, batch.visible_from_BT))
    return PatchLayout(own_BT, own_BT + next_starts_BT - 1, visible_from_BP)


def own_patches(batch: PackedBatch) -> Tensor:
    """The patch that each token belongs to, int64 `[B, T]`; that of a row's last token, plus one, is how many it has."""
    padding_BT = batch.ids_BT == BOE_ID
    first_padding_BT = padding_BT & (padding_BT.cumsum(1) == 1)
    starts_BT = batch.starts_BT | (_place_in_piece(batch) < 2)
    return torch.where(padding_BT, first_padding_BT, starts_BT).cumsum(1) - 1


def _place_in_piece(batch: PackedBatch) -> Tensor:
    return torch.arange(batch.ids_BT.shape[1], device=batch.ids_BT.device) - batch.visible_from_BT


def _starts(patch_lengths: Sequence[int] | np.ndarray, num_bytes: int) -> np.ndarray:
    """Whether a patch starts at each of the positions `0 ... num_bytes`."""
    lengths = np.asarray(patch_lengths, dtype=np.int64)
    if lengths.ndim != 1 or lengths.sum() != num_bytes + 1:
        raise PatchingError(
            f"The patch lengths sum to {lengths.sum()}, but a document of {num_bytes} bytes needs {num_bytes + 1}: its end counts as one."
        )
    if lengths.min() < 1:
        raise PatchingError(f"Patch {int(lengths.argmin())} has length {lengths.min()}; the shortest patch is 1 byte.")
    starts = np.zeros(num_bytes + 1, dtype=bool)
    starts[np.cumsum(lengths) - lengths] = True
    return starts
