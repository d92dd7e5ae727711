"""Does a function of documents look at what it must not? Checks that find a planted leak too (`test_leaks.py`).

All but the last compare what a function says of a document with what it says after the forbidden part has changed: they know
nothing of how it is computed. The last follows gradients.
"""

from collections.abc import Callable
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from bltdata.vocab import BOE_ID
from bltmodel.masks import PackedBatch
from bltmodel.model import BLT
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
        begin, length = _num_tokens(row[:which]), len(row[which].starts)
        place = slice(begin, begin + length)
        found += [f"trial {trial}: row {i} knows another document" for i in _changed_rows(packed[trial, place], among_others[trial, place])]
        found += [f"trial {trial}: row {i} depends on its place" for i in _changed_rows(packed[trial, place], by_itself[trial, :length])]
    return found


def row_leaks(function: Function, rows: list[list[Patched]], seed: int = 0, *, patches_are_own: bool = True) -> list[str]:
    """Tokens of packed rows whose vector changes with what they must not know: with a byte of a document of their row, or what follows it.

    Args:
        function: what is asked.
        rows: packed documents.
        seed: fixes what is changed.
        patches_are_own: whether the patches of a document are the same whatever the row holds before it.
    """
    rng = np.random.default_rng(seed)
    places = [_Place.random(row, rng) for row in rows]
    suffixes = [with_new_suffix(place.document, place.position, rng) for place in places]
    same_patches = [Patched(new.data, place.document.starts) for place, new in zip(places, suffixes, strict=True)]
    changed = {
        "bytes": [place.replaced(new) for place, new in zip(places, same_patches, strict=True)],
        "bytes and patches": [place.replaced(new) for place, new in zip(places, suffixes, strict=True)],
        "all that follows": [[*place.before, new, *_others(place.after, rng)] for place, new in zip(places, suffixes, strict=True)],
        # The token before a document's end doesn't know that it is the last.
        "an end": [[*place.before, place.cut, *_any_documents(rng)] for place in places],
    }
    # What the other documents of a row say then is what they said before.
    others_stay = {"bytes", "bytes and patches"} if patches_are_own else {"bytes"}
    before, *vectors = _vectors(function, [*rows, *(row for new in changed.values() for row in new)]).chunk(1 + len(changed))
    return [
        f"{what}: token {token} of row {number} knows what follows token {place.token}"
        for what, after in zip(changed, vectors, strict=True)
        for number, place in enumerate(places)
        for token in _changed_rows(before[number, : place.row_tokens], after[number, : place.row_tokens])
        if token <= place.token or (what in others_stay and token >= place.end_token)
    ]


def gradient_leaks(model: BLT, function: Function, batch: PackedBatch, seed: int = 0) -> list[str]:
    """Tokens whose embedding has a part in the loss of a token, in each row a random one, that comes before or is of another document.

    Args:
        model: what is asked.
        function: how it is asked.
        batch: rows, each of which begins with a document.
        seed: fixes which losses.
    """
    embedded: list[Tensor] = []

    def remember(module: nn.Module, arguments: tuple, output: Tensor) -> Tensor:
        embedded.append(output.detach().requires_grad_())
        return embedded[-1]

    hook = model.embedding.register_forward_hook(remember)
    logits_BTV = function(batch)
    hook.remove()
    rng, rows = np.random.default_rng(seed), torch.arange(len(logits_BTV))
    tokens = torch.tensor([int(rng.integers(int(num_tokens))) for num_tokens in (batch.ids_BT != BOE_ID).sum(1)])
    losses = functional.cross_entropy(logits_BTV[rows, tokens], batch.targets_BT[rows, tokens], reduction="none")
    (gradient_BTD,) = torch.autograd.grad(losses.sum(), embedded)
    has_part_BT = gradient_BTD.abs().amax(2) > 0
    assert has_part_BT[rows, tokens].all()
    places = torch.arange(batch.ids_BT.shape[1])
    begins_B = batch.visible_from_BT[rows, tokens]
    may_have_BT = (places >= begins_B[:, None]) & (places <= tokens[:, None])
    return [
        f"row {row}: token {tokens[row]} of the document that begins at {begins_B[row]} learns from {place}"
        for row, place in torch.nonzero(has_part_BT & ~may_have_BT).tolist()
    ]


class _Place(NamedTuple):
    """A position of one of the documents of a row; a document's last one is its end."""

    row: list[Patched]
    which: int
    position: int

    @classmethod
    def random(cls, row: list[Patched], rng: np.random.Generator) -> Self:
        which = int(rng.integers(len(row)))
        return cls(row, which, int(rng.integers(len(row[which].starts))))

    @property
    def document(self) -> Patched:
        return self.row[self.which]

    @property
    def before(self) -> list[Patched]:
        return self.row[: self.which]

    @property
    def after(self) -> list[Patched]:
        return self.row[self.which + 1 :]

    @property
    def cut(self) -> Patched:
        """The document, which ends there."""
        return Patched(self.document.data[: self.position], self.document.starts[: self.position + 1])

    @property
    def token(self) -> int:
        """The one that predicts the position."""
        return _num_tokens(self.before) + self.position

    @property
    def end_token(self) -> int:
        """The first one of the next document."""
        return _num_tokens(self.row[: self.which + 1])

    @property
    def row_tokens(self) -> int:
        return _num_tokens(self.row)

    def replaced(self, new: Patched) -> list[Patched]:
        return [*self.before, new, *self.after]


def _num_tokens(documents: list[Patched]) -> int:
    return sum(len(document.starts) for document in documents)


def _vectors(function: Function, rows: list[list[Patched]]) -> Tensor:
    # Some padding, which must not matter either.
    return function(pack(rows, max(map(_num_tokens, rows)) + 3)).detach()


def _any_documents(rng: np.random.Generator) -> list[Patched]:
    return [random_document(rng, int(rng.integers(0, 9)), rng.random()) for _ in range(int(rng.integers(0, 4)))]


def _others(documents: list[Patched], rng: np.random.Generator) -> list[Patched]:
    return [random_document(rng, len(document.data), rng.random()) for document in documents]


def _changed_rows(before: Tensor, after: Tensor) -> list[int]:
    difference = (before.double() - after.double()).abs().flatten(1).amax(1)
    return torch.nonzero(difference > TOLERANCE).flatten().tolist()
