"""The plan of a corpus: pieces that can be read by themselves, grouped into fragments of about equal weight.

A fragment becomes one shard, so the plan must not depend on anything but the source and the wanted size.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator

from bltdata.config import ADDED_LATER, fingerprint, to_mapping

DEFAULT_FRAGMENT_BYTES = 32 << 20


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A part of a source: a file, a range of its bytes or row groups, or a range of a data set's rows."""

    name: str
    """The name of the file, or of what the source has instead."""
    start: int = 0
    """Where to begin: in bytes for lines and paragraphs, in row groups for Parquet, in rows for a range of a Hugging Face dataset."""
    stop: int | None = None
    """Where to end, in the same unit, exclusive; None for the end."""
    first_number: int = 1
    """The number of the first line or row, counted from 1 in the whole file."""
    max_documents: int | None = None
    """Take the first so many documents only."""
    size_bytes: int | None = None
    """About how many raw bytes it holds, by which pieces are grouped; None where nobody knows."""
    file_bytes: int | None = None
    """The size of the file on disk when the plan was made."""
    modified_ns: int | None = None
    """The file's time of change when the plan was made, in nanoseconds since 1970; None for a remote file."""
    skip_rows: int = dataclasses.field(default=0, metadata=ADDED_LATER)
    """Pass over the first so many rows of a row group: a part of one that is too large for a fragment."""
    file_version: str | None = dataclasses.field(default=None, metadata=ADDED_LATER)
    """Of a remote file, its version when the plan was made: see `FileEntry.version`."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Fragment:
    """What is read in one go, in order. `bltdata.config.to_mapping` and `from_mapping` take it to JSON and back."""

    index: int
    """Its place in the plan."""
    source: str
    """The label of the one source that it is from."""
    items: tuple[Piece, ...]

    @property
    def size_bytes(self) -> int | None:
        """About how many raw bytes it holds; None where nobody knows."""
        sizes = [piece.size_bytes for piece in self.items]
        return None if None in sizes else sum(size for size in sizes if size is not None)

    @property
    def fingerprint(self) -> str:
        """Names what the fragment reads: another file, size or range gives another one; its place in the plan, times and versions don't."""
        pieces = [dataclasses.replace(piece, modified_ns=None, file_version=None) for piece in self.items]
        return fingerprint([self.source, [to_mapping(piece) for piece in pieces]])


def group(pieces: Iterable[Piece], target_bytes: int) -> Iterator[tuple[Piece, ...]]:
    """Put pieces together, in order, up to `target_bytes`; a bigger piece, or one of unknown size, stays alone.

    >>> pieces = [Piece(name=str(size), size_bytes=size) for size in (3, 4, 5, 20, 1)]
    >>> [[piece.name for piece in items] for items in group(pieces, 10)]
    [['3', '4'], ['5'], ['20'], ['1']]
    """
    held: list[Piece] = []
    held_bytes = 0
    for piece in pieces:
        size = target_bytes + 1 if piece.size_bytes is None else piece.size_bytes
        if held and held_bytes + size > target_bytes:
            yield tuple(held)
            held, held_bytes = [], 0
        held.append(piece)
        held_bytes += size
    if held:
        yield tuple(held)


def take(pieces: Iterable[Piece], limit: int, count: Callable[[Piece, int], int]) -> Iterator[Piece]:
    """The pieces that hold the first `limit` documents; of the last one, no more than belong to them.

    Args:
        pieces: any number of them; no more are drawn than are needed.
        limit: how many documents, at least 1.
        count: how many documents a piece holds; it may stop counting at its second argument.
    """
    missing = limit
    for piece in pieces:
        num_documents = count(piece, missing)
        if num_documents >= missing:
            yield dataclasses.replace(piece, max_documents=missing)
            return
        missing -= num_documents
        yield piece
