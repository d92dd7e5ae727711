"""A spool: the documents of a corpus in one file on disk, for a trainer to pick from in any order.

Shuffling and exact resumption need the i-th document at once, again and again; a stream of compressed files can't give it. The
folder holds all bytes in `data.bin`, where documents start in `offsets.npy` (int64, one more than there are documents), and
`spool.json`, which is written last: without it there is no spool.
"""

import array
import dataclasses
import json
import operator
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bltdata.atomic import atomic_path, remove_leftovers, write_json
from bltdata.config import from_mapping, to_mapping
from bltdata.corpus.document import Document
from bltdata.corpus.streams import naming_errors
from bltdata.errors import CorpusError

FORMAT_VERSION = 1

_DATA, _OFFSETS, _SUMMARY = "data.bin", "offsets.npy", "spool.json"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Summary:
    format_version: int
    num_documents: int
    num_bytes: int
    fingerprint: str


class Spool:
    """The documents in a folder that `write_spool` made, mapped into memory: opening costs nothing, and memory is the system's cache."""

    def __init__(self, folder: Path, fingerprint: str, offsets: np.ndarray, data: np.ndarray) -> None:
        """Use `Spool.open`."""
        self.folder = folder
        self.fingerprint = fingerprint
        """What was spooled, as the writer named it."""
        self._offsets = offsets
        self._data = data

    @classmethod
    def open(cls, folder: Path | str) -> "Spool":
        """Open a spool.

        Raises:
            CorpusError: there is none, it is damaged, or another version of the program wrote it.
        """
        folder = Path(folder)
        summary = _read_summary(folder / _SUMMARY)
        with naming_errors(str(folder / _OFFSETS)):
            try:
                offsets = np.asarray(np.load(folder / _OFFSETS, mmap_mode="r", allow_pickle=False))
            except ValueError as error:
                raise CorpusError(f"{folder / _OFFSETS} is damaged: {error}; delete the folder and spool again.") from error
        with naming_errors(str(folder / _DATA)):
            num_bytes = (folder / _DATA).stat().st_size
            # An empty file can't be mapped.
            data = np.asarray(np.memmap(folder / _DATA, dtype=np.uint8, mode="r")) if num_bytes else np.empty(0, dtype=np.uint8)
        if offsets.shape != (summary.num_documents + 1,) or offsets[-1] != num_bytes or num_bytes != summary.num_bytes:
            raise CorpusError(
                f"{folder} is damaged: its files don't have the sizes that {_SUMMARY} says; delete the folder and spool again."
            )
        return cls(folder, summary.fingerprint, offsets, data)

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process maps the files itself."""
        return Spool.open, (self.folder,)

    def __len__(self) -> int:
        return self.num_documents

    def __iter__(self) -> Iterator[np.ndarray]:
        return map(self.document, range(self.num_documents))

    @property
    def num_documents(self) -> int:
        """How many documents there are."""
        return len(self._offsets) - 1

    @property
    def num_bytes(self) -> int:
        """How many bytes they have together."""
        return len(self._data)

    @property
    def lengths(self) -> np.ndarray:
        """How many bytes each document has: int64 `[num_documents]`."""
        return np.diff(self._offsets)

    def document(self, index: int) -> np.ndarray:
        """The bytes of a document, from 0: a read-only uint8 view of the file.

        Raises:
            IndexError: there are fewer documents; counting from the end isn't done.
        """
        index = operator.index(index)
        if not 0 <= index < self.num_documents:
            raise IndexError(f"There is no document {index}: the spool has {self.num_documents}.")
        return self._data[self._offsets[index] : self._offsets[index + 1]]


def write_spool(documents: Iterable[Document], folder: Path | str, *, fingerprint: str = "") -> Spool:
    """Write documents to a folder, replacing a spool that is there, and open it.

    Args:
        documents: a corpus, or any documents; read once, and never held in memory together.
        folder: where to; made if need be. No one else may be writing to it.
        fingerprint: what is being spooled, e.g. `corpus.fingerprint`; compare it with `Spool.fingerprint` to use a spool again.

    Raises:
        OSError: the disk is full, say; then there is no spool.
    """
    folder = Path(folder)
    # First of all the old spool ends: its summary must never stand beside new data.
    (folder / _SUMMARY).unlink(missing_ok=True)
    remove_leftovers(folder)
    offsets = array.array("q", [0])
    with atomic_path(folder / _DATA) as temporary, temporary.open("wb") as file:
        for document in documents:
            file.write(document.data)
            offsets.append(offsets[-1] + len(document.data))
    with atomic_path(folder / _OFFSETS) as temporary, temporary.open("wb") as file:
        np.save(file, np.frombuffer(offsets, dtype=np.int64))
    summary = _Summary(format_version=FORMAT_VERSION, num_documents=len(offsets) - 1, num_bytes=offsets[-1], fingerprint=fingerprint)
    write_json(folder / _SUMMARY, to_mapping(summary))
    return Spool.open(folder)


def _read_summary(path: Path) -> _Summary:
    if not path.exists():
        raise CorpusError(f"There is no spool in {path.parent}: {path.name} is missing; write it first.")
    with naming_errors(str(path)):
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise CorpusError(f"{path} is damaged: {error}; delete the folder and spool again.") from error
    version = values.get("format_version") if isinstance(values, dict) else None
    if version != FORMAT_VERSION:
        raise CorpusError(f"{path} has the format version {version}, but this program reads {FORMAT_VERSION}; spool again.")
    return from_mapping(_Summary, values, str(path))
