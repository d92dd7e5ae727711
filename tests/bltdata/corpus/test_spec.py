import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bltdata.corpus import CorpusSpec
from bltdata.corpus.spec import KINDS, OPTIONS, check_lengths
from bltdata.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("python-docs", CorpusSpec(kind="python-docs")),
        ("python-docs#limit=10", CorpusSpec(kind="python-docs", limit=10)),
        ("notes", CorpusSpec(kind="files", location="notes")),
        ("notes/*.txt.gz", CorpusSpec(kind="files", location="notes/*.txt.gz")),
        ("a.json", CorpusSpec(kind="files", location="a.json")),
        ("files:a.jsonl", CorpusSpec(kind="files", location="a.jsonl")),
        ("a.jsonl", CorpusSpec(kind="jsonl", location="a.jsonl")),
        ("p/*.JSONL.zst", CorpusSpec(kind="jsonl", location="p/*.JSONL.zst")),
        ("a.ndjson.bz2", CorpusSpec(kind="jsonl", location="a.ndjson.bz2")),
        ("a.parquet", CorpusSpec(kind="parquet", location="a.parquet")),
        ("parquet:rows", CorpusSpec(kind="parquet", location="rows")),
        ("C:/notes", CorpusSpec(kind="files", location="C:/notes")),
        ("hf:Skylion007/openwebtext", CorpusSpec(kind="hf", location="Skylion007/openwebtext")),
        ("hf:a/b:en", CorpusSpec(kind="hf", location="a/b", config="en")),
        ("hf:a/b:en:test", CorpusSpec(kind="hf", location="a/b", config="en", hub_split="test")),
        ("hf:a/b::test", CorpusSpec(kind="hf", location="a/b", hub_split="test")),
        ("hf:a/b@refs/convert/parquet:en", CorpusSpec(kind="hf", location="a/b", revision="refs/convert/parquet", config="en")),
        ("hf:/data/me@home/set", CorpusSpec(kind="hf", location="/data/me@home/set")),
        (
            "a.jsonl#text=body&id=key&source=web&min_bytes=5&max_bytes=1_000",
            CorpusSpec(kind="jsonl", location="a.jsonl", text="body", id="key", source="web", min_bytes=5, max_bytes=1000),
        ),
        ("a.txt#document=paragraph", CorpusSpec(kind="files", location="a.txt", document="paragraph")),
        ("a.jsonl#text=a%26b%3D%23c", CorpusSpec(kind="jsonl", location="a.jsonl", text="a&b=#c")),
        ("C#/a.txt#", CorpusSpec(kind="files", location="C#/a.txt")),
        ("C#/a.txt#limit=1", CorpusSpec(kind="files", location="C#/a.txt", limit=1)),
    ],
)
def test_parse(text, expected):
    assert CorpusSpec.parse(text) == expected
    assert CorpusSpec.parse(str(expected)) == expected


names = st.text(min_size=1, max_size=8)
labels = st.text(alphabet=st.characters(exclude_categories=["C", "Z"], exclude_characters="/"), min_size=1, max_size=8)
lengths = st.tuples(st.integers(0, 10**9), st.none() | st.integers(0, 10**9)).filter(lambda pair: pair[1] is None or pair[0] <= pair[1])


@st.composite
def specs(draw):
    kind = draw(st.sampled_from(KINDS))
    min_bytes, max_bytes = draw(lengths)
    hub_name = st.from_regex(r"[A-Za-z0-9][\w.-]{0,5}(/[A-Za-z0-9][\w.-]{0,5})?", fullmatch=True)
    location = {"python-docs": st.just(""), "hf": hub_name}.get(kind, names)
    values = {
        "document": draw(st.sampled_from(["file", "line", "paragraph"])) if "document" in OPTIONS[kind] else "file",
        "invalid": draw(st.sampled_from(["stop", "leave-out"])) if "invalid" in OPTIONS[kind] else "stop",
        "text": draw(st.none() | names) if "text" in OPTIONS[kind] else None,
        "id": draw(st.none() | names) if "id" in OPTIONS[kind] else None,
    }
    if kind == "hf":
        part = st.text("abc-_.", min_size=1, max_size=4)
        values |= {"config": draw(st.none() | part), "hub_split": draw(part), "revision": draw(st.none() | part)}
    return CorpusSpec(
        kind=kind,
        location=draw(location),
        source=draw(st.none() | labels),
        limit=draw(st.none() | st.integers(1, 10**9)),
        min_bytes=min_bytes,
        max_bytes=max_bytes,
        **values,
    )


@given(specs())
def test_the_text_of_a_spec_parses_back(spec):
    assert CorpusSpec.parse(str(spec)) == spec


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"A corpus spec is empty; write e\.g\. python-docs"),
        ("fils:a.txt", r"'fils:a\.txt' has an unknown kind 'fils' \(for a file of that name, write files:fils:a\.txt\).*'files'"),
        ("s3:bucket/a", r"unknown kind 's3'"),
        ("files:", r"lacks a location; write e\.g\. files:LOCATION"),
        ("python-docs:3", r"takes no location, but '3' was given"),
        ("hf:a:b:c:d", r"'hf:a:b:c:d' has too many parts"),
        ("a.txt#limt=3", r"option 'limt' that files doesn't take.*'limit'"),
        ("a.txt#text=body", r"option 'text' that files doesn't take; known are document, limit"),
        ("a.jsonl#document=line", r"option 'document' that jsonl doesn't take"),
        ("a.txt#document=lines", r"document=lines.*'line'"),
        ("a.jsonl#invalid=skip", r"invalid=skip; known are leave-out, stop"),
        ("a.txt#invalid=stop", r"option 'invalid' that files doesn't take"),
        ("a.txt#limit", r"has the option 'limit', which isn't key=value; where the '#' belongs to the path, end the spec with another '#'"),
        ("a.txt#limit=2&limit=3", r"gives the option 'limit' twice"),
        ("a.txt#limit=ten", r"has limit=ten; it must be a whole number"),
        ("a.txt#limit=-1", r"has limit=-1; it must be a whole number, at least 1\."),
        ("a.txt#min_bytes=-1", r"has min_bytes=-1; it must be a whole number, at least 0\."),
        ("a.txt#limit=1__0", r"has limit=1__0; it must be a whole number"),
        ("a.txt#limit=0", r"has limit=0; it must be a whole number, at least 1\."),
        ("a.txt#min_bytes=5&max_bytes=4", r"max_bytes is 4; it must be at least min_bytes, which is 5"),
        ("a.jsonl#text=", r"has nothing after text="),
        ("a.txt#source=a/b", r"source is 'a/b'; it must be a printable name without '/'"),
    ],
)
def test_bad_specs(text, message):
    with pytest.raises(ConfigError, match=message) as caught:
        CorpusSpec.parse(text)
    assert "\n" not in str(caught.value)


def test_length_limits():
    check_lengths(0, None)
    check_lengths(3, 3)
    with pytest.raises(ConfigError, match="limit is 0; it must be at least 1"):
        CorpusSpec(kind="python-docs", limit=0)
    with pytest.raises(ConfigError, match="min_bytes is -1; it must be at least 0"):
        check_lengths(-1, None)


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("python-docs", "python-docs"),
        ("some/pages.jsonl.gz", "pages"),
        ("some/pages", "pages"),
        ("some/pages/", "pages"),
        ("some/pages/*.txt", "pages"),
        ("some/pages/2024-*/part-?.txt", "pages"),
        ("some/.hidden", ".hidden"),
        ("hf:Skylion007/openwebtext", "openwebtext"),
        ("hf:Salesforce/wikitext:wikitext-103-raw-v1:test", "wikitext-103-raw-v1"),
        ("hf:some/folder/", "folder"),
        ("a.txt#source=mine", "mine"),
    ],
)
def test_labels(text, label):
    assert CorpusSpec.parse(text).label == label


def test_labels_of_folders(tmp_path, monkeypatch):
    folder = tmp_path / "wikitext-2.0"
    folder.mkdir()
    monkeypatch.chdir(folder)
    assert {CorpusSpec.parse(text).label for text in (".", "*.txt", "./*.txt", str(folder))} == {"wikitext-2.0"}


def test_labels_are_text_where_file_names_are_not():
    assert CorpusSpec.parse(os.fsdecode(b"a/\xff.txt")).label == r"\xff"
