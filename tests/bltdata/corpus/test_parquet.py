import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bltdata.corpus import open_corpus
from bltdata.errors import CorpusError

ROWS = pa.table(
    {
        "id": ["a", "b/1", "c", "d", "e"],
        "text": ["one", "", "\xe9", "four", "five"],
        "raw": [b"\xff", b"\0", b"", b"4", b"5"],
        "key": pa.array([1, 2, 3, 4, 5], pa.uint8()),
        "meta": [{"url": "u", "text": "no"}] * 5,
        "holes": ["x", None, "x", "x", "x"],
    }
)


@pytest.fixture
def path(tmp_path):
    pq.write_table(ROWS, tmp_path / "rows.parquet", row_group_size=2)
    return tmp_path / "rows.parquet"


def test_read(path, read):
    expected = [("rows.parquet:1", b"one"), ("rows.parquet:2", b""), ("rows.parquet:3", b"\xc3\xa9")]
    assert read(f"{path}#limit=3&source=s") == [(f"s/{name}", data) for name, data in expected]
    assert len(read(f"parquet:{path.parent}#source=s")) == 5


def test_columns(path, read):
    assert read(f"{path}#text=raw&id=id") == [("rows/a", b"\xff"), ("rows/b/1", b"\0"), ("rows/c", b""), ("rows/d", b"4"), ("rows/e", b"5")]
    assert [doc_id for doc_id, _ in read(f"{path}#id=key")] == ["rows/1", "rows/2", "rows/3", "rows/4", "rows/5"]
    assert read(f"{path}#text=id&id=id")[1] == ("rows/b/1", b"b/1")


def test_row_groups_are_fragments(path, read):
    corpus = open_corpus(str(path))
    fragments = corpus.fragments(100)
    pieces = [piece for fragment in fragments for piece in fragment.items]
    assert [(piece.start, piece.stop, piece.first_number) for piece in pieces] == [(0, 1, 1), (1, 2, 3), (2, 3, 5)]
    assert len(corpus.fragments()) == 1
    # In any order, and each by itself.
    parts = [[(document.doc_id, document.data) for document in corpus.read(fragment)] for fragment in reversed(fragments)]
    assert [document for part in reversed(parts) for document in part] == read(str(path))


def test_a_large_row_group_is_divided(tmp_path, read):
    texts = [f"{number:03d}" + "x" * 997 for number in range(600)]
    path = tmp_path / "big.parquet"
    pq.write_table(pa.table({"text": texts}), path, use_dictionary=False, row_group_size=590)
    corpus = open_corpus(f"{path}#source=s")
    fragments = corpus.fragments(100_000)
    # 590 rows of 1,004 bytes in six, and then ten.
    pieces = [piece for fragment in fragments for piece in fragment.items]
    assert [(piece.start, piece.skip_rows, piece.max_documents, piece.first_number) for piece in pieces] == [
        (0, 0, 98, 1), (0, 98, 98, 99), (0, 196, 99, 197), (0, 295, 98, 296), (0, 393, 98, 394), (0, 491, 99, 492), (1, 0, None, 591)
    ]  # fmt: skip
    assert all(fragment.size_bytes <= 100_000 for fragment in fragments)
    parts = [[(document.doc_id, document.data) for document in corpus.read(fragment)] for fragment in reversed(fragments)]
    whole = [document for part in reversed(parts) for document in part]
    assert whole == [(f"s/big.parquet:{number}", text.encode()) for number, text in enumerate(texts, start=1)]
    limited = open_corpus(f"{path}#source=s&limit=150")
    assert [document.doc_id for part in limited.fragments(100_000) for document in limited.read(part)] == [
        doc_id for doc_id, _ in whole[:150]
    ]


def test_row_groups_are_weighed_by_the_column_that_is_read(tmp_path):
    texts = ["x" * 5000 + str(index) for index in range(10)]
    table = pa.table({"meta": [{"a": "y" * 50_000, "b": 1}] * 10, "text": texts})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=1)
    fragments = open_corpus(str(tmp_path / "a.parquet")).fragments(11_000)
    assert [len(fragment.items) for fragment in fragments] == [1] * 5
    assert all(10_000 < fragment.size_bytes <= 11_000 for fragment in fragments)


@given(data=st.lists(st.binary(), min_size=1, max_size=8), row_group_size=st.integers(1, 4), target_bytes=st.integers(1, 300))
@settings(max_examples=40)
def test_any_bytes_round_trip(tmp_path_factory, data, row_group_size, target_bytes):
    path = tmp_path_factory.mktemp("parquet") / "a.parquet"
    pq.write_table(pa.table({"content": pa.array(data, pa.binary())}), path, row_group_size=row_group_size)
    corpus = open_corpus(str(path))
    read = [(document.doc_id, document.data) for fragment in corpus.fragments(target_bytes) for document in corpus.read(fragment)]
    assert read == [(f"a/a.parquet:{number}", each) for number, each in enumerate(data, start=1)]


def test_a_file_without_rows(tmp_path):
    pq.write_table(ROWS.slice(0, 0), tmp_path / "none.parquet")
    pq.write_table(ROWS, tmp_path / "some.parquet")
    assert len(list(open_corpus(f"parquet:{tmp_path}"))) == 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("text=boddy", r"rows\.parquet has no column 'boddy'; known are holes, id, key, meta, raw, text"),
        ("text=raww", r"rows\.parquet has no column 'raww'.*'raw'"),
        ("id=idd", r"rows\.parquet has no column 'idd'.*'id'"),
        ("text=key", r"rows\.parquet has a column 'key' of type uint8, where string or binary is needed; name another with '#text='"),
        ("text=meta", r"rows\.parquet has a column 'meta' of type struct<.*>, where string or binary is needed"),
        ("id=meta", r"rows\.parquet has a column 'meta' of type struct<.*>, where string or integer is needed"),
        ("text=holes", r"rows\.parquet, row 2, has null in its column 'holes', where a text is needed"),
        ("id=holes", r"rows\.parquet, row 2, has null in its column 'holes', where an id is needed"),
    ],
)
def test_bad_columns(path, read, options, message):
    with pytest.raises(CorpusError, match=message):
        read(f"{path}#{options}")


def test_no_text_column_to_guess(tmp_path, read):
    pq.write_table(ROWS.select(["id", "raw"]), tmp_path / "a.parquet")
    with pytest.raises(CorpusError, match=r"a\.parquet has neither a column 'text' nor 'content'; name one of 'id', 'raw'"):
        read(str(tmp_path / "a.parquet"))


DAMAGES = [lambda data: b"no parquet", lambda data: b"", lambda data: data[:100] + data[200:], lambda data: data[:-9]]


@pytest.mark.parametrize("damage", DAMAGES, ids=["other", "empty", "hole", "cut"])
def test_damaged_files_are_named(path, read, damage):
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(CorpusError, match=r"rows\.parquet can't be read: .+; it may be damaged or cut off") as caught:
        read(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("options", "reason"), [("text=holes", "no text"), ("id=holes", "no id")])
def test_rows_without_a_text_or_an_id_can_be_left_out(tmp_path, read, options, reason):
    path = tmp_path / "rows.parquet"
    table = ROWS.set_column(ROWS.schema.get_field_index("holes"), "holes", pa.array(["1", None, "2", None, "3"]))
    pq.write_table(table, path, row_group_size=3)
    with pytest.raises(CorpusError, match=r"row 2, has null in its column 'holes', .* out with '#invalid=leave-out'"):
        read(f"{path}#{options}")
    for target_bytes in (1, 1000):
        corpus = open_corpus(f"{path}#{options}&invalid=leave-out")
        documents = [document for fragment in corpus.fragments(target_bytes) for document in corpus.read(fragment)]
        assert [document.doc_id for document in documents] == (
            ["rows/1", "rows/2", "rows/3"] if reason == "no id" else ["rows/rows.parquet:1", "rows/rows.parquet:3", "rows/rows.parquet:5"]
        )
        assert corpus.left_out == {reason: 2}


def test_parts_of_a_row_group_keep_to_their_rows(tmp_path):
    """What is left out of a part is not made up for from the next one."""
    path = tmp_path / "big.parquet"
    texts = [None if number % 4 == 1 else f"{number:03d}" + "x" * 997 for number in range(100)]
    pq.write_table(pa.table({"text": texts}), path, use_dictionary=False)
    corpus = open_corpus(f"{path}#invalid=leave-out")
    fragments = corpus.fragments(10_000)
    assert len(fragments) > 5
    assert [document.data.decode() for fragment in fragments for document in corpus.read(fragment)] == [text for text in texts if text]
    assert corpus.left_out == {"no text": 25}
    for limit in (1, 2, 33, 99):
        corpus = open_corpus(f"{path}#invalid=leave-out&limit={limit}")
        for target_bytes in (10_000, 1 << 20):
            read = [document.data.decode() for fragment in corpus.fragments(target_bytes) for document in corpus.read(fragment)]
            assert read == [text for text in texts[:limit] if text]


def test_a_column_of_another_type_is_no_record_to_leave_out(path, read):
    for options in ("text=key", "text=bdy", "id=bdy"):
        with pytest.raises(CorpusError, match=r"rows\.parquet has (a|no) column"):
            read(f"{path}#{options}&invalid=leave-out")
