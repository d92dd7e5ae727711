"""Plain files, of any bytes: a document is a file, a line, or a paragraph."""

import dataclasses
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO

from bltdata.corpus.document import Record
from bltdata.corpus.fragments import Piece
from bltdata.corpus.source import DiskSource
from bltdata.corpus.streams import is_compressed, open_binary

BLANK_LINE = "blank line"
"""The reason by which blank lines are counted."""


class WholeFileSource(DiskSource):
    """Every file is one document, an empty file too; its id is the file's name."""

    def count(self, piece: Piece, at_most: int) -> int:
        """One."""
        return 1

    def read(self, piece: Piece, left_out: Counter[str]) -> Iterator[Record]:
        """The file."""
        with open_binary(self.path(piece)) as stream:
            data = stream.read()
        yield piece.name, data


class LineSource(DiskSource):
    r"""Every line that isn't blank is one document, without its `\n`; its id ends with the line's number.

    Only `\n` ends a line, so a `\r` before it belongs to the document. A line of nothing but white space is blank: it is no
    document, and is counted.
    """

    def pieces(self, target_bytes: int) -> Iterator[Piece]:
        """The files; a plain file that is bigger than `target_bytes` in several parts, for which its lines must be counted here."""
        for entry in self.files.entries:
            whole = self.whole(entry)
            if entry.size_bytes <= target_bytes or is_compressed(entry.name):
                yield whole
                continue
            with open_binary(self.path(whole)) as stream:
                for start, stop, first_number in cut(stream, target_bytes, self.ends_document):
                    yield dataclasses.replace(whole, start=start, stop=stop, first_number=first_number, size_bytes=stop - start)

    def count(self, piece: Piece, at_most: int) -> int:
        """Count by reading, as far as needed."""
        return sum(1 for _ in itertools.islice(self.blocks(piece, Counter()), at_most))

    def read(self, piece: Piece, left_out: Counter[str]) -> Iterator[Record]:
        """The lines."""
        for number, data in self.blocks(piece, left_out):
            yield f"{piece.name}:{number}", data

    def blocks(self, piece: Piece, left_out: Counter[str]) -> Iterator[tuple[int, bytes]]:
        """The documents as they stand in the file, with the number of their first line."""
        with open_binary(self.path(piece)) as stream:
            yield from self.split(numbered_lines(stream, piece), left_out)

    def split(self, lines: Iterable[tuple[int, bytes]], left_out: Counter[str]) -> Iterator[tuple[int, bytes]]:
        """Make documents of numbered lines."""
        for number, line in lines:
            if is_blank(line):
                left_out[BLANK_LINE] += 1
            else:
                yield number, line.removesuffix(b"\n")

    def ends_document(self, line: bytes) -> bool:
        """Whether a file may be cut after this line."""
        return True


class ParagraphSource(LineSource):
    r"""Every run of lines that aren't blank is one document, without its last `\n`; its id ends with its first line's number."""

    def split(self, lines: Iterable[tuple[int, bytes]], left_out: Counter[str]) -> Iterator[tuple[int, bytes]]:
        """Make documents of numbered lines; the blank ones only stand between them."""
        for blank, run in itertools.groupby(lines, key=lambda numbered: is_blank(numbered[1])):
            if not blank:
                first_number, first = next(run)
                yield first_number, b"".join([first, *(line for _, line in run)]).removesuffix(b"\n")

    def ends_document(self, line: bytes) -> bool:
        """Blank lines do."""
        return is_blank(line)


def is_blank(line: bytes) -> bool:
    """Whether a line is nothing but ASCII white space."""
    return not line or line.isspace()


def numbered_lines(stream: BinaryIO, piece: Piece) -> Iterator[tuple[int, bytes]]:
    r"""The lines of a piece, each with its `\n` where it has one, and with its number in the file."""
    # Only plain files are cut, and only those can be sought in without reading all that comes before.
    if piece.start:
        stream.seek(piece.start)
    position = piece.start
    for number, line in enumerate(stream, start=piece.first_number):
        yield number, line
        position += len(line)
        if piece.stop is not None and position >= piece.stop:
            return


def cut(stream: BinaryIO, target_bytes: int, ends_document: Callable[[bytes], bool]) -> Iterator[tuple[int, int, int]]:
    """Cut a file into parts of little more than `target_bytes` that end where a document does.

    Args:
        stream: the file, at its start.
        target_bytes: how big a part must be; it goes on to the next line after which the file may be cut.
        ends_document: whether it may be cut after this line.

    Yields:
        Where a part starts and stops, in bytes, and the number of its first line.
    """
    start, first_number = 0, 1
    while block := stream.read(target_bytes):
        stop, number = start + len(block), first_number + block.count(b"\n")
        line = block[block.rfind(b"\n") + 1 :]
        while rest := stream.readline():
            stop, number = stop + len(rest), number + rest.endswith(b"\n")
            if ends_document(line + rest):
                break
            line = b""
        yield start, stop, first_number
        start, first_number = stop, number
