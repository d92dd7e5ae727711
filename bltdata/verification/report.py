"""What verification found: faults, notes, and what was looked at."""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from bltdata.config import to_mapping
from bltdata.remote import as_path
from bltdata.shards.footer import escaped


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fault:
    """Something that is wrong, where, and what to do about it."""

    kind: str
    """Names the invariant that is broken, e.g. `checksum` or `patches`."""
    folder: str
    """The dataset."""
    file: str | None = None
    """A file of the dataset."""
    row_group: int | None = None
    """Index of the row group in the file."""
    row: int | None = None
    """Index of the row in the file, counted over all its row groups."""
    doc_id: str | None = None
    """The document in that row, where its name can be read."""
    message: str
    """What is wrong and what to do, one sentence."""

    @property
    def place(self) -> str:
        """Where it is, as precisely as it is known."""
        parts = [str(as_path(self.folder) / self.file) if self.file else self.folder]
        if self.row_group is not None:
            parts.append(f"row group {self.row_group}")
        if self.row is not None:
            parts.append(f"row {self.row}")
        if self.doc_id is not None:
            parts.append(f"document {self.doc_id!r}")
        return ", ".join(parts)

    def __str__(self) -> str:
        """One line."""
        # A text out of a damaged file may hold anything.
        return escaped(f"{self.place}: {self.message} [{self.kind}]")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Note:
    """Something that is no fault and still worth knowing."""

    folder: str
    """The dataset."""
    message: str
    """One sentence."""

    def __str__(self) -> str:
        """One line."""
        return f"{self.folder}: {self.message}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class DatasetReport:
    """What of a dataset was looked at."""

    folder: str
    fingerprint: str | None
    """As the manifest has it; None where no manifest could be read."""
    num_shards: int
    """Shards that the manifest lists."""
    num_readable: int
    """Those of them that could be looked into."""
    num_documents: int
    """Rows that could be read."""
    num_bytes: int
    """Raw bytes in them."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DeepReport:
    """What came of scoring documents of a dataset again."""

    folder: str
    num_documents: int
    """Documents that were scored."""
    num_entropies: int
    """Entropies that were compared."""
    num_inexact: int
    """Those that differ, all but the faults by no more than rounding explains."""
    largest_difference_nats: float
    """Between a stored entropy and its new value, rounded like it."""
    num_patched_otherwise: int
    """Documents that the new entropies would cut into other patches."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class VerificationReport:
    """Everything that verification has to say."""

    datasets: tuple[DatasetReport, ...]
    """In the order in which their folders were given."""
    faults: tuple[Fault, ...]
    """At most so many of a kind as were asked for."""
    num_faults: Mapping[str, int]
    """Kind -> how many there are, those that `faults` leaves out counted."""
    notes: tuple[Note, ...]
    deep: tuple[DeepReport, ...]
    """One for each dataset of which documents were scored again."""

    @property
    def is_good(self) -> bool:
        """Whether there is no fault."""
        return not self.num_faults

    @property
    def num_not_shown(self) -> dict[str, int]:
        """Kind -> faults that are counted and not in `faults`."""
        shown = Counter(fault.kind for fault in self.faults)
        return {kind: count - shown[kind] for kind, count in self.num_faults.items() if count > shown[kind]}

    def to_mapping(self) -> dict[str, Any]:
        """Plain values, as JSON can hold them."""
        return {"is_good": self.is_good, **to_mapping(self)}


class FaultLog:
    """Collects faults and keeps the first so many of each kind.

    Args:
        max_faults: how many.
    """

    def __init__(self, max_faults: int) -> None:
        self._max_faults = max_faults
        self.faults: list[Fault] = []
        """Those that are kept, in the order in which they were found."""
        self.counts: Counter[str] = Counter()
        """All of them, by kind."""

    def has_room(self, kind: str) -> bool:
        """Whether one more of this kind would be kept; if not, it needs no text."""
        return self.counts[kind] < self._max_faults

    def add(self, fault: Fault) -> None:
        """Count a fault, and keep it if there is room."""
        if self.has_room(fault.kind):
            self.faults.append(fault)
        self.counts[fault.kind] += 1

    def count(self, kind: str, number: int) -> None:
        """Count faults that there is no room for."""
        if number:
            self.counts[kind] += number

    def merge(self, faults: Iterable[Fault], counts: Mapping[str, int]) -> None:
        """Take over what another log has."""
        found = list(faults)
        for fault in found:
            self.add(fault)
        shown = Counter(fault.kind for fault in found)
        for kind, number in counts.items():
            self.count(kind, number - shown[kind])
