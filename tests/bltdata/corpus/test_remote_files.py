import gzip
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from bltdata.corpus import CorpusSpec, open_corpus
from bltdata.errors import ConfigError, CorpusError
from bltdata.remote import RemotePath
from tests.bltdata.conftest import SECRET

LINES = [f"document {number}" for number in range(200)]


@pytest.fixture(params=["memory", "s3"])
def bucket(request: pytest.FixtureRequest) -> str:
    found: str = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def put(bucket: str) -> Callable[[dict[str, bytes]], str]:
    """Writes objects, given by key and content, and returns the address of what they are in."""

    def put(contents: dict[str, bytes]) -> str:
        # Not in the order of their names.
        for key, data in reversed(contents.items()):
            RemotePath(f"{bucket}/pages/{key}").write_bytes(data)
        return f"{bucket}/pages"

    return put


def jsonl(lines: list[str]) -> bytes:
    return "".join(json.dumps({"text": line}) + "\n" for line in lines).encode()


def parquet(tmp_path: Path, lines: list[str]) -> bytes:
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"text": lines, "number": list(range(len(lines)))}), path, row_group_size=30)
    return path.read_bytes()


@pytest.fixture
def contents(tmp_path: Path) -> dict[str, bytes]:
    return {
        "a.jsonl": jsonl(LINES),
        "b.jsonl.gz": gzip.compress(jsonl(LINES), mtime=0),
        "below/c.jsonl.zst": pa.compress(jsonl(LINES), "zstd", asbytes=True),
        "below/d.parquet": parquet(tmp_path, LINES),
        "below/e f\\g.txt": b"plain\n\nlines\r\n",
        ".hidden.jsonl": jsonl(["hidden"]),
    }


SPECS = [
    "jsonl:{}/*.jsonl#source=x",
    "jsonl:{}/**/*.jsonl*#source=x",
    "jsonl:{}#source=x",
    "{}/a.jsonl",
    "parquet:{}/below#source=x",
    "{}/below/d.parquet#id=number",
    "files:{}/below/*.txt#source=x",
    "files:{}/*.gz#source=x&document=line",
    "files:{}#source=x&document=paragraph&limit=3",
]


def test_documents_and_fragments_are_those_of_local_files(put, files, read, contents):
    remote, local = put(contents), files(contents)
    for spec in SPECS:
        assert read(spec.format(remote)) == read(spec.format(local)), spec
        here, there = open_corpus(spec.format(local)), open_corpus(spec.format(remote))
        for target_bytes in (300, 1 << 20):
            assert [part.fingerprint for part in there.fragments(target_bytes)] == [
                part.fingerprint for part in here.fragments(target_bytes)
            ]
        assert there.describe()["sources"] == here.describe()["sources"]


def test_fragments_read_in_any_order_are_the_corpus(put, contents):
    corpus = open_corpus(f"{put(contents)}/a.jsonl")
    fragments = corpus.fragments(500)
    assert len(fragments) > 5
    parts = [[document.data.decode() for document in corpus.read(fragment)] for fragment in reversed(fragments)]
    assert [text for part in reversed(parts) for text in part] == LINES


def test_the_label_of_an_address():
    specs = ["s3://bucket/pages/*.gz", "s3://bucket/pages/", "s3://bucket/pages.jsonl.gz", "s3://bucket/2024/rows.parquet", "s3://bucket"]
    assert [CorpusSpec.parse(spec).label for spec in specs] == ["pages", "pages", "pages", "rows", "bucket"]
    assert [CorpusSpec.parse(spec).kind for spec in specs] == ["files", "files", "jsonl", "parquet", "files"]
    assert str(CorpusSpec.parse("jsonl:s3://bucket/a?.jsonl#text=t")) == "jsonl:s3://bucket/a?.jsonl#text=t"


@pytest.mark.parametrize("spec", ["jsonl:s3://me:hush@bucket/a", "https://host/a.jsonl?sig=hush", "files:s3://me:hush@bucket/a#nonsense=1"])
def test_credentials_in_a_spec_are_refused_and_not_repeated(spec):
    with pytest.raises(ConfigError, match="in the environment") as caught:
        open_corpus(spec)
    assert "hush" not in str(caught.value)


def test_what_a_corpus_says_of_itself_has_no_credentials(put, contents):
    corpus = open_corpus(f"jsonl:{put(contents)}#source=x")
    said = json.dumps([corpus.describe(), corpus.files_fingerprint, [str(part) for part in corpus.fragments()]])
    assert SECRET not in said
    assert "someone" not in said


@pytest.mark.parametrize("ending", ["/none.jsonl", "/none/*.jsonl", "/none"])
def test_nothing_there_is_an_error(bucket, ending):
    with pytest.raises(CorpusError, match=r"There is no file .*check the address or the pattern\."):
        open_corpus(f"files:{bucket}{ending}")


def test_a_wildcard_in_the_bucket_is_refused():
    with pytest.raises(CorpusError, match="spell that out"):
        open_corpus("files:s3://buck*/a")


def test_a_file_that_changed_is_refused(put, contents):
    address = put(contents)
    corpus = open_corpus(f"{address}/a.jsonl")
    fragments = corpus.fragments()
    before = corpus.files_fingerprint
    # Stores without an ETag go by the clock.
    time.sleep(0.01)
    RemotePath(f"{address}/a.jsonl").write_bytes(contents["a.jsonl"].replace(b"document", b"DOCUMENT"))
    with pytest.raises(CorpusError, match="was written to after the corpus was opened"):
        list(corpus.read(fragments[0]))
    RemotePath(f"{address}/a.jsonl").write_bytes(b"")
    with pytest.raises(CorpusError, match="has 0 bytes, but had"):
        list(corpus.read(fragments[0]))
    RemotePath(f"{address}/a.jsonl").unlink()
    with pytest.raises(CorpusError, match="is gone"):
        list(corpus.read(fragments[0]))
    RemotePath(f"{address}/a.jsonl").write_bytes(contents["a.jsonl"].replace(b"document", b"DOCUMENT"))
    assert open_corpus(f"{address}/a.jsonl").files_fingerprint != before


@pytest.mark.parametrize("name", ["a.jsonl", "b.jsonl.gz", "below/c.jsonl.zst", "below/d.parquet", "below/e f\\g.txt"])
def test_an_error_half_way_is_one_sentence_and_shortens_no_document(memory, contents, name, monkeypatch):
    RemotePath(f"{memory}/{name}").write_bytes(contents[name])
    corpus = open_corpus(f"{memory}/{name}")
    whole = [document.data for document in corpus]
    opened = MemoryFileSystem._open

    class Breaking:
        def __init__(self, file: Any, after: int) -> None:
            self._file, self._after, self.size = file, after, len(contents[name])

        def seek(self, position: int) -> None:
            self._file.seek(position)

        def read(self, count: int) -> bytes:
            if self._file.tell() + count > self._after:
                raise RuntimeError("Connection reset by peer")
            return self._file.read(count)

        def close(self) -> None:
            pass

    for after in range(0, len(contents[name]), 1 + len(contents[name]) // 7):
        with monkeypatch.context() as broken:
            broken.setattr(MemoryFileSystem, "_open", lambda *args, after=after, **options: Breaking(opened(*args, **options), after))
            got = []
            with pytest.raises(CorpusError, match="Connection reset by peer; check the network and the credentials") as caught:
                got += [document.data for document in corpus]
            assert str(caught.value).startswith(f"{memory}/{name} ")
            assert got == whole[: len(got)]


def test_shards_are_not_written_where_the_corpus_is_read(put):
    place = put({"a.txt": b"a", "below/b.txt": b"b"})
    for spec, out in (("", "shards"), ("/", "below"), ("/*/*", "shards"), ("/**", "shards")):
        with pytest.raises(CorpusError, match=r"is read, which would take plan\.json for documents"):
            open_corpus(f"files:{place}{spec}").check_apart(RemotePath(f"{place}/{out}"), ["plan.json"])
    for spec, out in (("", "-6"), ("/*", "/shards"), ("/a.txt", "/shards"), ("/**/*.txt", "/shards")):
        open_corpus(f"files:{place}{spec}").check_apart(RemotePath(f"{place}{out}"), ["plan.json"])
    open_corpus(f"files:{place}").check_apart(Path("pages"), ["plan.json"])


def test_files_of_records_are_not_taken_for_documents(put):
    place = put({"a.jsonl.gz": b"a"})
    with pytest.raises(CorpusError, match=f"write jsonl:{place} for a document a line, or files:{place} for a document a file"):
        open_corpus(place)
    open_corpus(f"files:{place}")
