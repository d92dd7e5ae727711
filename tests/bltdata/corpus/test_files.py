import bz2
import gzip
import io
import lzma
import os
from collections import Counter

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bltdata.corpus import open_corpus
from bltdata.corpus.files import cut, is_blank
from bltdata.errors import CorpusError

ANY_BYTES = bytes(range(256))
TEXT = b"\n\none\r\n  two\t\n \n\nthree \xff\n\x0b\n\nfour"


def zstd(data):
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return sink.getvalue().to_pybytes()


def test_a_document_a_file(files, read):
    folder = files({"b/a.txt": b"", "a.bin": ANY_BYTES, "b.txt": b"x\n", "b/\xe9.txt": b"y"})
    assert read(f"{folder}") == [
        ("pages/a.bin", ANY_BYTES),
        ("pages/b.txt", b"x\n"),
        ("pages/b/a.txt", b""),
        ("pages/b/\xe9.txt", b"y"),
    ]


@pytest.mark.parametrize(("ending", "compress"), [("gz", gzip.compress), ("bz2", bz2.compress), ("xz", lzma.compress), ("zst", zstd)])
def test_compressed(files, read, ending, compress):
    folder = files({f"a.txt.{ending}": compress(TEXT)})
    assert read(f"{folder}") == [(f"pages/a.txt.{ending}", TEXT)]
    lines = read(f"{folder}#document=line")
    assert lines == [(f"pages/a.txt.{ending}:{number}", data) for number, data in LINES]


LINES = [(3, b"one\r"), (4, b"  two\t"), (7, b"three \xff"), (10, b"four")]


def test_a_document_a_line(files, read):
    folder = files({"a.txt": TEXT, "empty.txt": b"", "blank.txt": b" \n"})
    corpus = open_corpus(f"{folder}#document=line")
    assert [(document.doc_id, document.data) for document in corpus] == [(f"pages/a.txt:{number}", data) for number, data in LINES]
    # Lines 1, 2, 5, 6, 8 and 9, and one of the other file.
    assert corpus.left_out == {"blank line": 7}


def test_a_document_a_paragraph(files):
    corpus = open_corpus(f"{files({'a.txt': TEXT})}#document=paragraph")
    assert [(document.doc_id, document.data) for document in corpus] == [
        ("pages/a.txt:3", b"one\r\n  two\t"),
        ("pages/a.txt:7", b"three \xff"),
        ("pages/a.txt:10", b"four"),
    ]
    assert corpus.left_out == {}


def test_only_a_newline_ends_a_line(files, read):
    folder = files({"a.txt": "a\rb\x0bc\x0cd\u2028e\x85f\x1cg".encode() + b"\0h\n"})
    assert read(f"{folder}#document=line") == [("pages/a.txt:1", "a\rb\x0bc\x0cd\u2028e\x85f\x1cg\0h".encode())]


lines = st.lists(st.binary(max_size=6).map(lambda line: line.replace(b"\n", b"")), max_size=12)


@given(lines=lines, end=st.sampled_from([b"", b"\n"]), target_bytes=st.integers(1, 40))
@settings(max_examples=60)
def test_lines_round_trip_in_any_plan(tmp_path_factory, lines, end, target_bytes):
    folder = tmp_path_factory.mktemp("lines")
    content = b"\n".join(lines) + end
    (folder / "a.bin").write_bytes(content)
    corpus = open_corpus(f"{folder}#document=line&source=s")
    left_out = Counter()
    read = [(doc.doc_id, doc.data) for fragment in corpus.fragments(target_bytes) for doc in corpus.read(fragment, left_out)]
    assert read == [(f"s/a.bin:{number}", line) for number, line in enumerate(lines, start=1) if not is_blank(line)]
    assert len(read) + left_out["blank line"] == content.count(b"\n") + bool(content and not content.endswith(b"\n"))


@given(lines=lines, target_bytes=st.integers(1, 40))
@settings(max_examples=60)
def test_paragraphs_are_the_same_in_any_plan(tmp_path_factory, lines, target_bytes):
    folder = tmp_path_factory.mktemp("paragraphs")
    (folder / "a.bin").write_bytes(b"\n".join(lines))
    corpus = open_corpus(f"{folder}#document=paragraph")
    read = [doc for fragment in corpus.fragments(target_bytes) for doc in corpus.read(fragment)]
    whole = [doc for fragment in corpus.fragments() for doc in corpus.read(fragment)]
    assert read == whole
    # Every line that isn't blank is in a paragraph, in order.
    assert b"\n".join(doc.data for doc in read).split(b"\n") == ([line for line in lines if not is_blank(line)] or [b""])


def test_cut_in_parts_of_about_the_wanted_size():
    content = b"".join(b"%04d\n" % number for number in range(1000))
    parts = list(cut(io.BytesIO(content), 100, lambda line: True))
    assert len(parts) in range(45, 51)
    for (start, stop, number), following in zip(parts, [*parts[1:], (len(content), None, 1001)], strict=True):
        assert content[start:stop].startswith(b"%04d\n" % (number - 1))
        assert (stop, number + content[start:stop].count(b"\n")) == (following[0], following[2])


def test_a_paragraph_is_not_cut_at_a_line_whose_end_looks_blank():
    content = b"a" * 10 + b"    \nb\n\nc"
    assert list(cut(io.BytesIO(content), 12, is_blank)) == [(0, 18, 1), (18, 19, 4)]


def test_big_plain_files_are_cut_and_compressed_ones_are_not(files):
    content = b"some line\n" * 100
    folder = files({"a.txt": content, "b.txt.gz": gzip.compress(content)})
    fragments = open_corpus(f"{folder}#document=line").fragments(250)
    assert [(fragment.items[0].name, len(fragment.items)) for fragment in fragments] == [("a.txt", 1)] * 4 + [("b.txt.gz", 1)]
    # As one document, a file is never cut.
    assert [len(fragment.items) for fragment in open_corpus(f"{folder}").fragments(250)] == [1, 1]


@pytest.mark.parametrize("unit", ["file", "line", "paragraph"])
def test_a_document_of_50_mb(files, read, unit):
    data = b"\xfe" * (50 << 20)
    assert read(f"{files({'big.bin': data})}#document={unit}")[0][1] == data


def test_a_file_that_changed_since_the_plan(files):
    folder = files({"a.txt": b"one\ntwo\n", "b.txt": b"b"})
    corpus = open_corpus(f"{folder}#document=line")
    (fragment,) = corpus.fragments()
    files({"a.txt": b"zero\none\ntwo\n"})
    with pytest.raises(CorpusError, match=r"a\.txt has 13 bytes, but had 8 when the corpus was opened; open the corpus again"):
        list(corpus.read(fragment))
    files({"a.txt": b"three\n22"})
    os.utime(folder / "a.txt", ns=(0, 0))
    with pytest.raises(CorpusError, match=r"a\.txt was written to after the corpus was opened; open the corpus again"):
        list(corpus.read(fragment))
    (folder / "a.txt").unlink()
    with pytest.raises(CorpusError, match=r"a\.txt can't be read: No such file or directory; it was there when the corpus was opened"):
        list(corpus.read(fragment))


def test_a_damaged_file_is_named(files, read):
    folder = files({"a.txt.gz": gzip.compress(ANY_BYTES * 50)[:-9]})
    for unit in ("file", "line"):
        with pytest.raises(CorpusError, match=r"pages/a\.txt\.gz can't be read: .+; it may be damaged or cut off"):
            read(f"{folder}#document={unit}")


@pytest.mark.parametrize(
    ("names", "suggested"),
    [
        (["a.jsonl.gz", "b.jsonl.zst", "README.md"], "jsonl:{} for a document a line"),
        (["sub/a.ndjson"], "jsonl:{} for a document a line"),
        (["a.parquet", "b.PARQUET"], "parquet:{} for a document a row"),
    ],
)
def test_files_of_records_are_not_taken_for_documents(files, names, suggested):
    folder = files(dict.fromkeys(names, b"{}"))
    for location in (folder, f"{folder}/**"):
        for options in ("", "#document=line"):
            with pytest.raises(CorpusError) as caught:
                open_corpus(f"{location}{options}")
            assert str(caught.value) == (
                f"{location} holds files such as {names[0]}, and nothing says whether each is one document; "
                f"write {suggested.format(location)}, or files:{location} for a document a file."
            )
        # Who says so gets them, also from a spec that was written down.
        said = open_corpus(f"files:{location}").specs["pages"]
        assert len(open_corpus(str(said)).fragments(1)) == len(names)


def test_a_file_of_records_among_others_is_a_document(files, read):
    assert len(read(str(files({"a.jsonl": b"{}", "b.txt": b"b", "c.txt": b"c", "d.parquet": b"d"})))) == 4
