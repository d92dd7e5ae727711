import pickle

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bltdata.corpus.columns import RecordError, arrow_documents, check_arrow_types, choose_text_column, id_text, text_bytes
from bltdata.errors import CorpusError

BYTES_TYPES = [
    pa.string(),
    pa.large_string(),
    pa.string_view(),
    pa.binary(),
    pa.large_binary(),
    pa.binary_view(),
    pa.dictionary(pa.int32(), pa.string()),
]


def test_choose():
    assert choose_text_column(None, ["content", "text"], "a") == "text"
    assert choose_text_column(None, ["x", "content"], "a") == "content"
    assert choose_text_column("x", ["x", "content"], "a") == "x"


@pytest.mark.parametrize(
    ("wanted", "columns", "message"),
    [
        (None, ["body", "url"], r"a\.jsonl has neither a column 'text' nor 'content'; name one of 'body', 'url' with '#text=COLUMN'"),
        (None, [], r"name one of none \(it has no columns\)"),
        ("bodi", ["body", "url"], r"a\.jsonl has no column 'bodi'.*'body'"),
        ("qqq", ["body", "url"], r"a\.jsonl has no column 'qqq'; known are body, url"),
    ],
)
def test_no_such_column(wanted, columns, message):
    with pytest.raises(CorpusError, match=message):
        choose_text_column(wanted, columns, "a.jsonl")


@given(st.text(st.characters()), st.text(st.characters()))
def test_text_loses_nothing(one, other):
    assert text_bytes(one, "text", "a").decode("utf-8", "surrogatepass") == one
    assert (text_bytes(one, "text", "a") == text_bytes(other, "text", "a")) == (one == other)


def test_lone_surrogates_are_kept():
    assert text_bytes("a\ud800b", "text", "a") == b"a\xed\xa0\x80b"
    assert id_text("a\ud800b", "id", "a") == "a\\ud800b"


@pytest.mark.parametrize(
    ("value", "found"),
    [(None, "null"), (3, "3 of type int"), (0.5, "0.5 of type float"), (["a"], r"\['a'\] of type list"), (True, "True of type bool")],
)
def test_no_text(value, found):
    with pytest.raises(CorpusError, match=rf"a\.jsonl, line 3, has {found} in its column 'body', where a text is needed"):
        text_bytes(value, "body", "a.jsonl, line 3,")


def test_long_values_are_not_repeated_whole():
    with pytest.raises(CorpusError) as caught:
        text_bytes(["x" * 1000], "body", "a")
    assert len(str(caught.value)) < 200


def test_ids():
    assert id_text("x/\xe9", "id", "a") == "x/\xe9"
    assert id_text(12, "id", "a") == "12"
    for value in (None, 0.5, True, []):
        with pytest.raises(CorpusError, match=r"in its column 'id', where an id is needed: a text or a whole number"):
            id_text(value, "id", "a")


@pytest.mark.parametrize("arrow_type", BYTES_TYPES, ids=str)
def test_arrow_texts(arrow_type):
    batch = pa.record_batch({"text": pa.array(["", "\xe9", "a"]).cast(arrow_type), "id": pa.array([5, 6, 7])})
    check_arrow_types(batch.schema, "text", "id", "a")
    assert list(arrow_documents(batch, "text", None, "f", 10, "a")) == [("f:10", b""), ("f:11", b"\xc3\xa9"), ("f:12", b"a")]
    assert list(arrow_documents(batch, "text", "id", "f", 10, "a")) == [("5", b""), ("6", b"\xc3\xa9"), ("7", b"a")]


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        (pa.schema({"text": pa.int64(), "id": pa.string()}), r"rows has a column 'text' of type int64, where string or binary is needed"),
        (pa.schema({"text": pa.list_(pa.string()), "id": pa.string()}), r"column 'text' of type list<.*>, where string or binary"),
        (pa.schema({"texts": pa.string(), "id": pa.string()}), r"rows has no column 'text'.*'texts'"),
        (pa.schema({"text": pa.string(), "id": pa.float64()}), r"column 'id' of type double, where string or integer is needed"),
        (pa.schema([("text", pa.string()), ("text", pa.string()), ("id", pa.int8())]), r"rows has more than one column 'text'"),
    ],
)
def test_wrong_arrow_types(schema, message):
    with pytest.raises(CorpusError, match=message):
        check_arrow_types(schema, "text", "id", "rows")


def test_an_arrow_null_is_located():
    batch = pa.record_batch({"text": ["a", None], "id": pa.array([1, None])})
    with pytest.raises(CorpusError, match=r"rows, row 11, has null in its column 'text'"):
        list(arrow_documents(batch, "text", None, "f", 10, "rows"))
    with pytest.raises(CorpusError, match=r"rows, row 11, has null in its column 'id'"):
        list(arrow_documents(pa.record_batch({"text": ["a", "b"], "id": batch["id"]}), "text", "id", "f", 10, "rows"))


def test_an_error_of_a_record_comes_from_a_worker_as_it_was():
    with pytest.raises(RecordError) as caught:
        text_bytes(None, "text", "a.jsonl, line 3,")
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (type(copy), str(copy), copy.reason) == (RecordError, str(caught.value), "no text")
