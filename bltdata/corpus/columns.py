"""Which column of a record is the document, which its id, how a value becomes bytes, and what is wrong with a record."""

import json
from collections.abc import Collection, Iterator
from typing import Any

import pyarrow as pa

from bltdata.config import nearest
from bltdata.corpus.document import Record
from bltdata.errors import CorpusError

TEXT_COLUMNS = ("text", "content")
"""Tried in this order where no column was named."""

_BYTES_TYPES = (
    pa.types.is_string,
    pa.types.is_large_string,
    pa.types.is_string_view,
    pa.types.is_binary,
    pa.types.is_large_binary,
    pa.types.is_binary_view,
)
_ID_TYPES = (pa.types.is_integer, pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)


NO_OBJECT = "no JSON object"
NO_TEXT = "no text"
NO_ID = "no id"
"""The reasons by which invalid records are counted where they are left out."""

_OR_LEAVE_OUT = "or leave it out with '#invalid=leave-out'"


class RecordError(CorpusError):
    """A record that is no document.

    Attributes:
        reason: what it is counted by where such records are left out.
    """

    # Errors come from worker processes, which make them anew of the message alone and then put the rest in place.
    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason


def choose_text_column(wanted: str | None, columns: Collection[str], where: str) -> str:
    """The column that holds the documents.

    Args:
        wanted: its name, if it was given.
        columns: the names there are.
        where: how an error names the place.

    Raises:
        RecordError: there is no such column; the message names those there are.
    """
    if wanted is not None:
        check_column(wanted, columns, where)
        return wanted
    for column in TEXT_COLUMNS:
        if column in columns:
            return column
    raise RecordError(f"{where} has neither a column 'text' nor 'content'; name one of {_listed(columns)} with '#text=COLUMN'.", NO_TEXT)


def check_column(wanted: str, columns: Collection[str], where: str, reason: str = NO_TEXT) -> None:
    """Refuse a column that isn't there.

    Raises:
        RecordError: with the nearest name, or all.
    """
    if wanted not in columns:
        raise RecordError(f"{where} has no column {wanted!r}{nearest(wanted, columns)}.", reason)


def text_bytes(value: object, column: str, where: str) -> bytes:
    r"""The bytes of a text.

    A lone surrogate, which JSON can hold as `"\ud800"` and UTF-8 can't, becomes the three bytes that UTF-8 would have had for it:
    a bit odd, but nothing is lost and different texts stay different.

    Raises:
        RecordError: the value is no text.
    """
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    if isinstance(value, bytes):
        return value
    found = "null" if value is None else f"{value!r:.40} of type {type(value).__name__}"
    raise RecordError(
        f"{where} has {found} in its column {column!r}, where a text is needed; "
        f"correct or remove it, name another column, {_OR_LEAVE_OUT}.",
        NO_TEXT,
    )


def id_text(value: object, column: str, where: str) -> str:
    """The id that a value spells.

    Raises:
        RecordError: it is neither a text nor a whole number.
    """
    if isinstance(value, str):
        # Ids are written as UTF-8, so a lone surrogate is spelled out.
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    found = "null" if value is None else f"{value!r:.40} of type {type(value).__name__}"
    raise RecordError(
        f"{where} has {found} in its column {column!r}, where an id is needed: a text or a whole number; correct it, {_OR_LEAVE_OUT}.",
        NO_ID,
    )


def check_arrow_types(schema: pa.Schema, text_column: str, id_column: str | None, where: str) -> None:
    """Refuse Arrow columns that hold neither text nor bytes, or no ids.

    Raises:
        CorpusError: naming the type; or a column is missing.
    """
    for column in {text_column, id_column or text_column}:
        check_column(column, schema.names, where)
        # Arrow allows it, and then gives neither.
        if schema.names.count(column) > 1:
            raise CorpusError(f"{where} has more than one column {column!r}; rename all but one.")
    text_type = _value_type(schema.field(text_column).type)
    if not any(is_type(text_type) for is_type in _BYTES_TYPES):
        raise CorpusError(
            f"{where} has a column {text_column!r} of type {text_type}, where string or binary is needed; name another with '#text='."
        )
    if id_column is not None:
        id_type = _value_type(schema.field(id_column).type)
        if not any(is_type(id_type) for is_type in _ID_TYPES):
            raise CorpusError(
                f"{where} has a column {id_column!r} of type {id_type}, where string or integer is needed; name another with '#id='."
            )


def parse_object(line: bytes, where: str) -> dict[str, Any]:
    """Parse a line of JSON.

    Raises:
        RecordError: it isn't JSON in UTF-8, or isn't an object.
    """
    try:
        record = json.loads(line.decode("utf-8", "surrogatepass"))
    except UnicodeDecodeError as error:
        raise RecordError(
            f"{where} is not UTF-8 (byte {error.start + 1} of the line is wrong), as JSON must be; convert it first, {_OR_LEAVE_OUT}.",
            NO_OBJECT,
        ) from error
    # A number can have more digits than Python reads.
    except (ValueError, RecursionError) as error:
        raise RecordError(
            f"{where} is not valid JSON: {error}; a JSONL file has one whole object on each line: correct it, {_OR_LEAVE_OUT}.", NO_OBJECT
        ) from error
    if not isinstance(record, dict):
        raise RecordError(
            f'{where} is a JSON {type(record).__name__}; a JSONL file has one object on each line, e.g. {{"text": "..."}}: '
            f"correct it, {_OR_LEAVE_OUT}.",
            NO_OBJECT,
        )
    return record


def arrow_documents(
    batch: pa.RecordBatch | pa.Table,
    text_column: str,
    id_column: str | None,
    name: str,
    first_number: int,
    where: str,
    *,
    leaves_out: bool = False,
) -> Iterator[Record]:
    """The documents of some rows of Arrow data, whose types were checked.

    Args:
        batch: the rows.
        text_column: holds the documents.
        id_column: holds their ids; without it they are numbered.
        name: put before the number.
        first_number: of the first row.
        where: how an error names the place.
        leaves_out: give the reason of a row without a text or an id, and go on.

    Raises:
        RecordError: a null, where it isn't to be left out.
    """
    # Text is UTF-8 in Arrow already: seen as binary, it is neither decoded nor encoded.
    texts = batch.column(text_column).cast(pa.large_binary()).to_pylist()
    ids = batch.column(id_column).to_pylist() if id_column is not None else None
    for offset, text in enumerate(texts):
        number = first_number + offset
        record: Record
        try:
            data = text if text is not None else text_bytes(None, text_column, f"{where}, row {number},")
            record = f"{name}:{number}" if ids is None else id_text(ids[offset], id_column or "", f"{where}, row {number},"), data
        except RecordError as error:
            if not leaves_out:
                raise
            record = error.reason
        yield record


def _value_type(arrow_type: Any) -> Any:
    return arrow_type.value_type if pa.types.is_dictionary(arrow_type) else arrow_type


def _listed(columns: Collection[str]) -> str:
    return ", ".join(repr(column) for column in columns) if columns else "none (it has no columns)"
