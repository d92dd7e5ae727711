"""What a source of documents is, and what those that are files on a disk have in common."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Protocol

from bltdata.address import is_url
from bltdata.config import fingerprint
from bltdata.corpus.document import Record
from bltdata.corpus.fragments import Piece
from bltdata.corpus.paths import FileEntry, find_files, fixed_part, matches, printable
from bltdata.corpus.remote_files import check_remote_file, find_remote_files
from bltdata.corpus.spec import CorpusSpec, kind_of_name
from bltdata.corpus.streams import estimate_raw_bytes
from bltdata.errors import CorpusError
from bltdata.remote import AnyPath, as_path, parts_below


class Source(Protocol):
    """Where documents come from. Sources are sent to worker processes: they pickle, and open their files when they read."""

    def pieces(self, target_bytes: int) -> Iterator[Piece]:
        """The parts that can be read by themselves, in order; none should be much bigger than `target_bytes` where that is possible."""

    def count(self, piece: Piece, at_most: int) -> int:
        """How many documents a piece holds, or any number from `at_most` up where it holds at least that many."""

    def read(self, piece: Piece, left_out: Counter[str]) -> Iterator[Record]:
        """The documents of a piece, in order: their ids within the source, and their bytes; for a record that is left out, why.

        Args:
            piece: one of `pieces`, made here or in another process.
            left_out: counts, by reason, what looked like a document and isn't one.

        Raises:
            CorpusError: the piece can't be read, changed since it was planned, or holds something else than expected.
        """

    def describe(self) -> dict[str, Any]:
        """What the documents depend on, as JSON can hold it: the same for the same files, wherever and whenever they were copied."""

    def would_read(self, path: AnyPath) -> bool:
        """Whether a file at `path`, which needn't be there, would be read if the corpus were opened again."""

    def state(self) -> Any:
        """What the plan depends on, as JSON can hold it: other than what `describe` says, a file's time of change. Reads no file."""


class DiskSource:
    """Base of the sources that read files, local or remote: they are found once, and checked against the plan when they are read."""

    endings: ClassVar[tuple[str, ...]] = ()
    """In a folder, only files with these endings are meant."""

    def __init__(self, spec: CorpusSpec) -> None:
        """Find the files.

        Raises:
            CorpusError: there are none, or most of them look like files of records, and nobody said that each is a document.
        """
        self.spec = spec
        self.files = find_remote_files(spec.location, self.endings) if is_url(spec.location) else find_files(spec.location, self.endings)
        if spec.is_guess:
            _check_guess(spec.location, [entry.name for entry in self.files.entries])

    def pieces(self, target_bytes: int) -> Iterator[Piece]:
        """Each file whole."""
        for entry in self.files.entries:
            yield self.whole(entry)

    def whole(self, entry: FileEntry) -> Piece:
        """The piece that is a whole file."""
        return Piece(
            name=entry.name,
            size_bytes=estimate_raw_bytes(entry.name, entry.size_bytes),
            file_bytes=entry.size_bytes,
            modified_ns=entry.modified_ns,
            file_version=entry.version,
        )

    def path(self, piece: Piece) -> str:
        """Where a piece's file is, if it is still the one that was planned.

        Raises:
            CorpusError: its size, or its time of change or version, is another; the plan would read it from the wrong places.
        """
        path = self.files.path(piece.name)
        if is_url(path):
            check_remote_file(path, piece.file_bytes, piece.file_version)
            return path
        try:
            status = os.stat(path)
        except OSError as error:
            raise CorpusError(f"{printable(path)} can't be read: {error.strerror}; it was there when the corpus was opened.") from error
        if status.st_size != piece.file_bytes:
            raise CorpusError(
                f"{printable(path)} has {status.st_size} bytes, but had {piece.file_bytes} when the corpus was opened; "
                "open the corpus again."
            )
        if status.st_mtime_ns != piece.modified_ns:
            raise CorpusError(f"{printable(path)} was written to after the corpus was opened; open the corpus again.")
        return path

    def describe(self) -> dict[str, Any]:
        """The files' number, total size, and a fingerprint of their names and sizes."""
        entries = self.files.entries
        return {
            "num_files": len(entries),
            "size_bytes": sum(entry.size_bytes for entry in entries),
            "files_fingerprint": fingerprint([[entry.name, entry.size_bytes] for entry in entries]),
        }

    def would_read(self, path: AnyPath) -> bool:
        """Whether it is the file, lies in the folder, or is found by the pattern."""
        location = os.path.expanduser(self.spec.location)
        parts = parts_below(path, as_path(self.files.folder))
        if not parts:
            return False
        if fixed_part(location) != location:
            return matches(parts, location)
        first = self.files.path(self.files.entries[0].name)
        if first == (location if is_url(location) else os.path.abspath(location)):
            return parts_below(path, as_path(first)) == ()
        return not any(part.startswith(".") for part in parts) and (not self.endings or parts[-1].lower().endswith(self.endings))

    def state(self) -> Any:
        """The files' names, sizes, and times of change or versions."""
        return [
            [entry.name, entry.size_bytes, entry.modified_ns if entry.version is None else entry.version] for entry in self.files.entries
        ]


def _check_guess(location: str, names: Sequence[str]) -> None:
    """Refuse to take files of records for a document each, because a folder has no ending."""
    kind, count = Counter(map(kind_of_name, names)).most_common(1)[0]
    if kind is not None and 2 * count > len(names):
        record = {"jsonl": "line", "parquet": "row"}[kind]
        example = next(name for name in names if kind_of_name(name) == kind)
        place = printable(location)
        raise CorpusError(
            f"{place} holds files such as {example}, and nothing says whether each is one document; "
            f"write {kind}:{place} for a document a {record}, or files:{place} for a document a file."
        )
