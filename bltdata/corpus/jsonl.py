"""JSON Lines: an object a line, of which one value is the document."""

import codecs
import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

from bltdata.corpus.columns import check_column, choose_text_column, id_text, text_bytes
from bltdata.corpus.files import LineSource
from bltdata.corpus.fragments import Piece
from bltdata.corpus.paths import printable
from bltdata.corpus.streams import COMPRESSED_ENDINGS
from bltdata.errors import CorpusError


class JsonlSource(LineSource):
    """A document is one value of each object; its id is another, or the file and the number of the line.

    Blank lines are counted and skipped. Without a column given it is `text`, or, in an object that has none, `content`.
    """

    endings = tuple(f"{ending}{compressed}" for ending in (".jsonl", ".ndjson") for compressed in ("", *COMPRESSED_ENDINGS))

    def read(self, piece: Piece, left_out: Counter[str]) -> Iterator[tuple[str, bytes]]:
        """The documents of the lines."""
        path = printable(self.files.path(piece.name))
        id_column = self.spec.id
        for number, line in self.blocks(piece, left_out):
            where = f"{path}, line {number},"
            record = parse_object(line.removeprefix(codecs.BOM_UTF8) if number == 1 else line, where)
            text_column = choose_text_column(self.spec.text, record, where)
            data = text_bytes(record[text_column], text_column, where)
            if id_column is None:
                yield f"{piece.name}:{number}", data
            else:
                check_column(id_column, record, where)
                yield id_text(record[id_column], id_column, where), data


def parse_object(line: bytes, where: str) -> dict[str, Any]:
    """Parse a line of JSON.

    Raises:
        CorpusError: it isn't JSON in UTF-8, or isn't an object.
    """
    try:
        record = json.loads(line.decode("utf-8", "surrogatepass"))
    except UnicodeDecodeError as error:
        raise CorpusError(
            f"{where} is not UTF-8 (byte {error.start + 1} of the line is wrong), as JSON must be; convert it first."
        ) from error
    except (json.JSONDecodeError, RecursionError) as error:
        raise CorpusError(f"{where} is not valid JSON: {error}; a JSONL file has one whole object on each line.") from error
    if not isinstance(record, dict):
        raise CorpusError(f'{where} is a JSON {type(record).__name__}; a JSONL file has one object on each line, e.g. {{"text": "..."}}.')
    return record
