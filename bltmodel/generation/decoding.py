"""What predicts the next bytes of documents that grow side by side: the interface, and the plain way, which remembers nothing.

Letters: B rows, V ids.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from bltdata.nn import autocast
from bltmodel.generation.patches import Patches


class NextByteModel(Protocol):
    """What predicts bytes from a document and its patches: a BLT."""

    def logits(self, data: bytes, patch_lengths: np.ndarray) -> Tensor:
        """Float32 `[n + 1, 260]`; row `n` predicts what stands after the `n` bytes."""


class Decoding(Protocol):
    """Documents that grow byte by byte.

    Attributes:
        patches: where their patches start.
        logits_BV: float32 `[B, 260]` on the CPU, of what stands next in each.
    """

    patches: Patches
    logits_BV: Tensor

    def append(self, values: Sequence[int]) -> None:
        """Each document's next byte."""

    def select(self, rows: Sequence[int]) -> None:
        """Keep these documents, in this order; one may be kept several times."""


class PlainDecoding:
    """Reads each whole document at every step.

    Args:
        model: in eval mode.
        prompts: the documents.
        patches: where their patches start.
        precision: type of matrix products.
    """

    def __init__(self, model: NextByteModel, prompts: Sequence[bytes], patches: Patches, precision: torch.dtype = torch.float32) -> None:
        self.patches = patches
        self._model = model
        weights = model.parameters() if isinstance(model, nn.Module) else ()
        self._device = next((weight.device for weight in weights), torch.device("cpu"))
        self._precision = precision
        self._documents = [*prompts]
        self._starts = [starts.tolist() for starts in patches.prompt_starts]
        self.logits_BV = self._logits()

    def append(self, values: Sequence[int]) -> None:
        """Each document's next byte."""
        self.patches.append(values)
        for row, (value, starts) in enumerate(zip(values, self.patches.starts, strict=True)):
            self._documents[row] += bytes([value])
            self._starts[row].append(starts)
        self.logits_BV = self._logits()

    def select(self, rows: Sequence[int]) -> None:
        """Keep these documents, in this order; one may be kept several times."""
        self.patches.select(torch.tensor(rows))
        self._documents = [self._documents[row] for row in rows]
        self._starts = [[*self._starts[row]] for row in rows]
        self.logits_BV = self.logits_BV[list(rows)]

    def _logits(self) -> Tensor:
        lengths = (np.diff(np.flatnonzero(starts), append=len(starts)) for starts in self._starts)
        # The document alone is held between steps, so that memory is that of one forward pass.
        with autocast(self._device, self._precision):
            last = [self._model.logits(data, each)[-1].float().cpu() for data, each in zip(self._documents, lengths, strict=True)]
        return torch.stack(last)
