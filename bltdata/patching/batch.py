"""Documents that lie end to end: how shards give them to whoever cuts many at a time."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from bltdata.errors import PatchingError
from bltdata.patching import inputs
from bltdata.patching.rule import PatchRule

_BATCH = 1 << 20
"""Positions that make a batch of single documents: counting and cutting cost something a call, so short documents share one."""


@dataclass(frozen=True, kw_only=True, eq=False)
class DocumentBatch:
    """Documents of one source, one after the other."""

    source: str
    """Label of the source."""
    data: np.ndarray | None
    """uint8 [bytes]; None where no rule will read them."""
    data_offsets: np.ndarray
    """int64 [documents + 1], where each document starts in `data`; the first is 0."""
    entropy_nats: np.ndarray
    """float16 or float32 [bytes + documents], the `n + 1` entropies of each document of n bytes."""
    names: Sequence[str] | None = None
    """What errors call each document."""

    @property
    def num_documents(self) -> int:
        """Documents."""
        return len(self.data_offsets) - 1

    @property
    def num_bytes(self) -> int:
        """Bytes of all of them."""
        return int(self.data_offsets[-1])

    @cached_property
    def bounds(self) -> np.ndarray:
        """Where each document starts in `entropy_nats`: int64 [documents + 1]."""
        bounds: np.ndarray = self.data_offsets + np.arange(len(self.data_offsets))
        return bounds

    def lengths(self, rule: PatchRule) -> tuple[np.ndarray, np.ndarray]:
        """Patch lengths, uint32, and where those of each document start, int64 [documents + 1]; see `PatchRule.lengths_of_documents`."""
        data = self.data if rule.needs_bytes else None
        entropy_nats = self.entropy_nats if rule.needs_entropies else None
        return rule.lengths_of_documents(data, self.data_offsets, entropy_nats, names=self.names)

    def check_entropies(self) -> None:
        """Raise a `PatchingError` that names document and position if an entropy is NaN, infinite, negative or above ln 260."""
        if self.entropy_nats.size != self.bounds[-1]:
            raise PatchingError(f"There are {self.entropy_nats.size} entropies for {self.bounds[-1]} positions; give one for each.")
        if inputs.are_valid(self.entropy_nats):
            return
        where = inputs.first_invalid(self.entropy_nats)
        document = int(np.searchsorted(self.bounds, where, side="right")) - 1
        name = self.names[document] if self.names is not None else f"document {document}"
        raise inputs.entropy_error(self.entropy_nats[where], where - int(self.bounds[document]), name)


def batches_of(documents: Iterable[tuple[Any, Any]], *, keeps_bytes: bool) -> Iterator[DocumentBatch]:
    """Documents end to end, a million positions at a time, each of them checked.

    Args:
        documents: pairs of data and entropy_nats; copied, so that a caller may fill the same buffer again.
        keeps_bytes: whether the batches shall have `data`.

    Raises:
        PatchingError: data that isn't bytes, or entropies that can't be theirs.
    """
    names: list[str] = []
    data: list[np.ndarray] = []
    entropies: list[np.ndarray] = []
    waiting = 0
    for index, pair in enumerate(documents):
        try:
            document, nats = pair
        except (TypeError, ValueError) as error:
            raise PatchingError(f"Document {index} is no pair; give pairs of data and entropy_nats.") from error
        array, values = inputs.as_bytes(document), inputs.as_entropies(nats)
        names.append(f"document {index}")
        inputs.check_entropies(values, array.size, names[-1])
        entropies.append(values.copy())
        if keeps_bytes:
            data.append(array.copy())
        waiting += values.size
        if waiting >= _BATCH:
            yield _batch(names, data, entropies)
            names, data, entropies, waiting = [], [], [], 0
    if names:
        yield _batch(names, data, entropies)


def _batch(names: list[str], data: list[np.ndarray], entropies: list[np.ndarray]) -> DocumentBatch:
    return DocumentBatch(
        source="",
        data=np.concatenate(data) if data else None,
        data_offsets=np.cumsum([0, *(values.size - 1 for values in entropies)]),
        entropy_nats=np.concatenate(entropies),
        names=names,
    )
