"""JSON Lines: an object a line, of which one value is the document."""

import codecs
from collections import Counter
from collections.abc import Iterator

from bltdata.corpus.columns import NO_ID, RecordError, check_column, choose_text_column, id_text, parse_object, text_bytes
from bltdata.corpus.document import Record
from bltdata.corpus.files import LineSource
from bltdata.corpus.fragments import Piece
from bltdata.corpus.paths import printable
from bltdata.corpus.streams import COMPRESSED_ENDINGS


class JsonlSource(LineSource):
    """A document is one value of each object; its id is another, or the file and the number of the line.

    Blank lines are counted and skipped. Without a column given it is `text`, or, in an object that has none, `content`.
    """

    endings = tuple(f"{ending}{compressed}" for ending in (".jsonl", ".ndjson") for compressed in ("", *COMPRESSED_ENDINGS))

    def read(self, piece: Piece, left_out: Counter[str]) -> Iterator[Record]:
        """The documents of the lines."""
        path = printable(self.files.path(piece.name))
        for number, line in self.blocks(piece, left_out):
            record: Record
            try:
                record = self._document(piece, number, line, f"{path}, line {number},")
            except RecordError as error:
                if not self.spec.leaves_out:
                    raise
                record = error.reason
            yield record

    def _document(self, piece: Piece, number: int, line: bytes, where: str) -> tuple[str, bytes]:
        record = parse_object(line.removeprefix(codecs.BOM_UTF8) if number == 1 else line, where)
        text_column, id_column = choose_text_column(self.spec.text, record, where), self.spec.id
        data = text_bytes(record[text_column], text_column, where)
        if id_column is None:
            return f"{piece.name}:{number}", data
        check_column(id_column, record, where, NO_ID)
        return id_text(record[id_column], id_column, where), data
