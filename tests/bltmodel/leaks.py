"""Does a function of documents look at what it must not? Two checks, which find a planted leak too (`test_leaks.py`).

Both compare what a function says of a document with what it says after the forbidden part has changed: they know nothing of
how it is computed.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from bltmodel.masks import PackedBatch
from tests.bltmodel.documents import Patched, pack, random_document, with_new_suffix

TOLERANCE = 1e-5

Function = Callable[[PackedBatch], Tensor]
"""From packed rows to one vector (of any shape) a token, `[B, T, ...]`."""


def future_leaks(function: Function, seed: int = 0, num_bytes: int = 40, trials: int = 16) -> list[str]:
    """Tokens whose vector changes with a byte that they precede, or with a patch start that such a byte decides.

    Row `i` may depend on bytes `0 ... i - 1` and on patch starts `0 ... i`.
    """
    rng = np.random.default_rng(seed)
    documents = [random_document(rng, num_bytes, start_probability=rng.uniform(0.1, 0.9)) for _ in range(trials)]
    firsts = rng.integers(num_bytes, size=trials).tolist()
    changed = [with_new_suffix(document, first, rng) for document, first in zip(documents, firsts, strict=True)]
    before, after = _vectors(function, [[document] for document in documents + changed]).chunk(2)
    return [
        f"trial {trial}: row {i} knows byte {first} or later"
        for trial, first in enumerate(firsts)
        for i in _changed_rows(before[trial, : first + 1], after[trial, : first + 1])
    ]


def neighbour_leaks(function: Function, seed: int = 0, trials: int = 10) -> list[str]:
    """Tokens whose vector changes with another document of the row, or is not what it is for the document alone."""
    rng = np.random.default_rng(seed)
    rows = [[random_document(rng, int(rng.integers(0, 20)), 0.4) for _ in range(4)] for _ in range(trials)]
    chosen = rng.integers(4, size=trials).tolist()
    changed = [[*_others(row[:which], rng), row[which], *_others(row[which + 1 :], rng)] for row, which in zip(rows, chosen, strict=True)]
    alone = [[row[which]] for row, which in zip(rows, chosen, strict=True)]
    packed, among_others, by_itself = _vectors(function, rows + changed + alone).chunk(3)
    found = []
    for trial, (row, which) in enumerate(zip(rows, chosen, strict=True)):
        begin, length = sum(len(each.starts) for each in row[:which]), len(row[which].starts)
        place = slice(begin, begin + length)
        found += [f"trial {trial}: row {i} knows another document" for i in _changed_rows(packed[trial, place], among_others[trial, place])]
        found += [f"trial {trial}: row {i} depends on its place" for i in _changed_rows(packed[trial, place], by_itself[trial, :length])]
    return found


def _vectors(function: Function, rows: list[list[Patched]]) -> Tensor:
    # Some padding, which must not matter either.
    return function(pack(rows, max(sum(len(document.starts) for document in row) for row in rows) + 3)).detach()


def _others(documents: list[Patched], rng: np.random.Generator) -> list[Patched]:
    return [random_document(rng, len(document.data), rng.random()) for document in documents]


def _changed_rows(before: Tensor, after: Tensor) -> list[int]:
    difference = (before.double() - after.double()).abs().flatten(1).amax(1)
    return torch.nonzero(difference > TOLERANCE).flatten().tolist()
