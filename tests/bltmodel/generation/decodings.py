"""Documents with any patches, decoded step by step and compared with one forward pass over each whole document."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from bltmodel.generation import CachedDecoding
from bltmodel.generation.patches import Patches
from bltmodel.model import BLT
from tests.bltmodel.documents import Patched, random_document

TOLERANCE = 1e-4


class Scripted:
    """Patches that are known beforehand."""

    def __init__(self, documents: Sequence[Patched], prompt_lengths: Sequence[int]) -> None:
        self._rows = [*zip(documents, prompt_lengths, strict=True)]
        self.prompt_starts = [document.starts[: length + 1] for document, length in self._rows]
        self.entropy_nats: list[float | None] = [None] * len(documents)

    @property
    def starts(self) -> list[bool]:
        return [bool(document.starts[position]) for document, position in self._rows]

    def append(self, values: Sequence[int]) -> None:
        assert list(values) == [document.data[position] for document, position in self._rows]
        self._rows = [(document, position + 1) for document, position in self._rows]

    def select(self, rows: Tensor) -> None:
        self._rows = [self._rows[row] for row in rows.tolist()]
        self.entropy_nats = [None] * len(self._rows)


def random_rows(rng: np.random.Generator, prompt_lengths: Sequence[int], steps: int) -> list[Patched]:
    """A document for each prompt, so many bytes longer."""
    return [random_document(rng, length + steps, rng.uniform(0.05, 0.95)) for length in prompt_lengths]


def wrong_steps(
    model: BLT,
    documents: Sequence[Patched],
    prompt_lengths: Sequence[int],
    reorder: dict[int, list[int]] | None = None,
    patches: Patches | None = None,
) -> list[str]:
    """Where decoding the documents side by side gives other logits than a forward pass over each by itself.

    Args:
        model: any BLT.
        documents: each longer than its prompt by the same number of bytes.
        prompt_lengths: how much of each is its prompt.
        reorder: before which steps which rows are kept, in which order.
        patches: where patches start, found out step by step; None for what the documents say.
    """
    rows = [
        (document, length, model.logits(document.data, document.lengths))
        for document, length in zip(documents, prompt_lengths, strict=True)
    ]
    prompts = [document.data[:length] for document, length, _ in rows]
    decoding = CachedDecoding(model, prompts, patches or Scripted(documents, prompt_lengths))
    found = []
    steps = len(documents[0].data) - prompt_lengths[0]
    for step in range(steps + 1):
        expected = torch.stack([logits[length + step] for _, length, logits in rows])
        differences = (decoding.logits_BV - expected).abs().amax(1).tolist()
        found += [f"step {step}, row {row}: {difference}" for row, difference in enumerate(differences) if not difference < TOLERANCE]
        if step == steps:
            break
        if reorder and step in reorder:
            rows = [rows[row] for row in reorder[step]]
            decoding.select(reorder[step])
        decoding.append([document.data[length + step] for document, length, _ in rows])
    return found
