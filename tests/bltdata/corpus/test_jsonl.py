import gzip
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bltdata.corpus import open_corpus
from bltdata.errors import CorpusError


def jsonl(*records):
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


def test_read(files, read):
    folder = files(
        {"a.jsonl": jsonl({"text": "one"}, {"text": "\xe9\n\0"}), "b.jsonl.gz": gzip.compress(jsonl({"text": ""})), "c.txt": b"no"}
    )
    expected = [("pages/a.jsonl:1", b"one"), ("pages/a.jsonl:2", b"\xc3\xa9\n\0"), ("pages/b.jsonl.gz:1", b"")]
    assert read(f"jsonl:{folder}") == expected
    assert read([f"{folder}/a.jsonl#source=pages"]) == expected[:2]


def test_columns(files, read):
    path = files({"a.jsonl": jsonl({"text": "one", "body": "two", "id": "x/1"}, {"body": "three", "id": 7})}) / "a.jsonl"
    assert read(f"{path}#text=body") == [("a/a.jsonl:1", b"two"), ("a/a.jsonl:2", b"three")]
    assert read(f"{path}#text=body&id=id") == [("a/x/1", b"two"), ("a/7", b"three")]


def test_the_guessed_column_does_not_depend_on_the_plan(files):
    path = files({"a.jsonl": jsonl({"text": "1", "content": "no"}, {"content": "2"}, {"text": "3"})}) / "a.jsonl"
    corpus = open_corpus(str(path))
    for target_bytes in (1, 1000):
        assert [document.data for fragment in corpus.fragments(target_bytes) for document in corpus.read(fragment)] == [b"1", b"2", b"3"]


def test_blank_lines_are_counted(files):
    corpus = open_corpus(str(files({"a.jsonl": b"\n" + jsonl({"text": "one"}) + b" \r\n\n" + jsonl({"text": "two"}) + b"\n"}) / "a.jsonl"))
    assert [document.doc_id for document in corpus] == ["a/a.jsonl:2", "a/a.jsonl:5"]
    assert corpus.left_out == {"blank line": 4}


@pytest.mark.parametrize("separator", [b"\n", b"\r\n"])
def test_files_from_windows(files, read, separator):
    path = files({"a.jsonl": b"\xef\xbb\xbf" + jsonl({"text": "one"}, {"text": "two"}).replace(b"\n", separator)}) / "a.jsonl"
    assert [data for _, data in read(str(path))] == [b"one", b"two"]


texts = st.lists(st.text(st.characters()), min_size=1, max_size=8)


@given(texts=texts, ascii_only=st.booleans(), target_bytes=st.integers(1, 200))
@settings(max_examples=60)
def test_any_text_round_trips(tmp_path_factory, texts, ascii_only, target_bytes):
    """Lone surrogates too, escaped or in the raw form that lenient programs write."""
    path = tmp_path_factory.mktemp("jsonl") / "a.jsonl"
    lines = [json.dumps({"text": text}, ensure_ascii=ascii_only) for text in texts]
    path.write_bytes("".join(f"{line}\n" for line in lines).encode("utf-8", "surrogatepass"))
    corpus = open_corpus(str(path))
    read = [document.data for fragment in corpus.fragments(target_bytes) for document in corpus.read(fragment)]
    # Two escapes that make a pair mean one character in JSON, so such a text comes back as what it means.
    assert read == [json.loads(line)["text"].encode("utf-8", "surrogatepass") for line in lines]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"text": "cut o', r"a\.jsonl, line 3, is not valid JSON: .+; a JSONL file has one whole object on each line"),
        (b"[" * 100_000, r"a\.jsonl, line 3, is not valid JSON"),
        (b'{"text": "\xff"}', r"a\.jsonl, line 3, is not UTF-8 \(byte 11 of the line is wrong\)"),
        (b'["text"]', r"a\.jsonl, line 3, is a JSON list; a JSONL file has one object on each line"),
        (b"null", r"a\.jsonl, line 3, is a JSON NoneType"),
        (b'{"text": "a", "n": ' + b"1" * 5000 + b"}", r"a\.jsonl, line 3, is not valid JSON: Exceeds the limit"),
        (b'{"text": null}', r"a\.jsonl, line 3, has null in its column 'text', where a text is needed"),
        (b'{"text": 3.5}', r"a\.jsonl, line 3, has 3\.5 of type float in its column 'text'"),
        (
            b'{"body": "x", "url": "y"}',
            r"a\.jsonl, line 3, has neither a column 'text' nor 'content'; name one of 'body', 'url' with '#text=",
        ),
    ],
)
def test_bad_lines_are_located(files, read, line, message):
    path = files({"a.jsonl": jsonl({"text": "one"}) + b"\n" + line + b"\n"}) / "a.jsonl"
    with pytest.raises(CorpusError, match=message) as caught:
        read(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("text=bdy", r"a\.jsonl, line 1, has no column 'bdy'.*'body'"),
        ("text=body&id=idd", r"a\.jsonl, line 1, has no column 'idd'.*'id'"),
        ("text=body&id=score", r"a\.jsonl, line 1, has 0\.5 of type float in its column 'score', where an id is needed"),
        ("text=id", r"a\.jsonl, line 1, has 3 of type int in its column 'id', where a text is needed"),
    ],
)
def test_bad_columns(files, read, options, message):
    path = files({"a.jsonl": jsonl({"body": "one", "id": 3, "score": 0.5})}) / "a.jsonl"
    with pytest.raises(CorpusError, match=message):
        read(f"{path}#{options}")


INVALID = [
    (b'{"text": "cut o', "no JSON object"),
    (b'{"text": "\xff"}', "no JSON object"),
    (b"[1]", "no JSON object"),
    (b'{"id": "a", "text": null}', "no text"),
    (b'{"id": "a", "text": ["one"]}', "no text"),
    (b'{"id": "a", "txt": "one"}', "no text"),
    (b'{"text": "one"}', "no id"),
    (b'{"text": "one", "id": null}', "no id"),
]


@pytest.mark.parametrize(("line", "reason"), INVALID)
def test_invalid_records_can_be_left_out(files, read, line, reason):
    good = jsonl({"text": "first", "id": 1}, {"text": "last", "id": 2})
    path = files({"a.jsonl": good.replace(b"\n", b"\n" + line + b"\n\n", 1)}) / "a.jsonl"
    with pytest.raises(CorpusError, match=r"a\.jsonl, line 2, "):
        read(f"{path}#id=id")
    with pytest.raises(CorpusError):
        read(f"{path}#id=id&invalid=stop")
    corpus = open_corpus(f"{path}#id=id&invalid=leave-out")
    assert [(document.doc_id, document.data) for document in corpus] == [("a/1", b"first"), ("a/2", b"last")]
    assert corpus.left_out == {reason: 1, "blank line": 1}


def test_an_error_says_how_invalid_records_are_left_out(files, read):
    for line, _ in INVALID[:5]:
        path = files({"a.jsonl": line + b"\n"}) / "a.jsonl"
        with pytest.raises(CorpusError, match=r"or leave it out with '#invalid=leave-out'\.$"):
            read(str(path))


@pytest.mark.parametrize("limit", [None, 1, 2, 5, 9, 100])
def test_what_is_left_out_does_not_depend_on_the_plan(files, limit):
    """A limit counts records, whatever becomes of them: else it would mean another document in each plan."""
    lines = [b'{"text": "%d"}' % number if number % 3 else INVALID[number % 5][0] for number in range(20)]
    folder = files({"a.jsonl": b"\n".join(lines[:8]), "b.jsonl": b"\n".join(lines[8:])})
    options = "invalid=leave-out" + (f"&limit={limit}" if limit else "")
    expected = [line[10:-2] for line in lines[:limit] if line.startswith(b'{"text": "') and line.endswith(b'"}') and b"\xff" not in line]
    for target_bytes in (1, 40, 1000):
        corpus = open_corpus(f"jsonl:{folder}#{options}")
        fragments = corpus.fragments(target_bytes)
        assert [document.data for fragment in fragments for document in corpus.read(fragment)] == expected
        assert corpus.left_out.total() == len(lines[:limit]) - len(expected)


def test_leaving_out_names_another_corpus(files):
    path = files({"a.jsonl": jsonl({"text": "one"})}) / "a.jsonl"
    fingerprints = {options: open_corpus(f"{path}{options}").fingerprint for options in ("", "#invalid=stop", "#invalid=leave-out")}
    assert fingerprints[""] == fingerprints["#invalid=stop"] != fingerprints["#invalid=leave-out"]


def test_nothing_but_invalid_records(files, read):
    path = files({"a.jsonl": b"1\n2\n" + jsonl({"body": "one"})}) / "a.jsonl"
    with pytest.raises(CorpusError, match=r"all there is was left out: 2 \(no JSON object\), 1 \(no text\)\.$"):
        read(f"{path}#invalid=leave-out")
