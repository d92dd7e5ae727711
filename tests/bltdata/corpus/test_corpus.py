import json
import multiprocessing
import os
import pickle
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import bltdata
from bltdata.config import from_mapping, to_mapping
from bltdata.corpus import CorpusSpec, Fragment, SplitFractions, open_corpus
from bltdata.errors import ConfigError, CorpusError


@pytest.fixture
def pages(files):
    """200 lines of different lengths, in 4 files; every line stands in two of them."""
    lines = [b"x" * (number % 20) + b" line %d" % number for number in range(100)]
    return files({f"{name}.txt": b"\n".join(lines[start : start + 50]) for name, start in (("a", 0), ("b", 50), ("c", 0), ("d", 50))})


def read_in_another_process(corpus, fragment):
    left_out = Counter()
    return list(corpus.read(fragment, left_out)), left_out


def write_rows(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"text": ["one", "two"]}), path)


def test_public_name():
    assert bltdata.open_corpus is open_corpus


def test_splits_are_disjoint_by_content_and_complete(pages):
    thirds = SplitFractions(train=0.5, validation=0.25, test=0.25)
    by_split = {
        split: list(open_corpus(f"{pages}#document=line", split, fractions=thirds)) for split in ("train", "validation", "test", None)
    }
    contents = {split: {document.data for document in documents} for split, documents in by_split.items()}
    assert all(contents.values())
    assert contents["train"] | contents["validation"] | contents["test"] == contents[None]
    assert sum(map(len, contents.values())) == 2 * len(contents[None])
    # Every content stands twice, under two ids, and both are in the same split.
    for documents in by_split.values():
        assert set(Counter(document.data for document in documents).values()) == {2}
    assert len({document.doc_id for document in by_split[None]}) == 200


def test_what_is_left_out_is_counted(pages):
    corpus = open_corpus(f"{pages}#document=line", "train", min_bytes=15, max_bytes=24)
    num_documents = len(list(corpus))
    assert set(corpus.left_out) == {"other split", "too short", "too long"}
    assert num_documents + corpus.left_out.total() == 200
    # Each iteration counts anew.
    before = corpus.left_out
    list(corpus)
    assert corpus.left_out == before


def test_lengths_are_limits_that_belong(files, read):
    folder = files({f"{length}.txt": b"x" * length for length in range(6)})
    assert [len(data) for _, data in read(f"{folder}", min_bytes=2, max_bytes=4)] == [2, 3, 4]
    # A spec may ask for more, and can't ask for less.
    assert [len(data) for _, data in read(f"{folder}#min_bytes=3&max_bytes=5", min_bytes=2, max_bytes=4)] == [3, 4]


def test_a_limit_counts_what_is_read(pages):
    """Not what is left after the split and the lengths."""
    assert [document.doc_id for document in open_corpus(f"{pages}#limit=3")] == ["pages/a.txt", "pages/b.txt", "pages/c.txt"]
    assert [document.doc_id for document in open_corpus(f"{pages}#document=line&limit=51")][49:] == ["pages/a.txt:50", "pages/b.txt:1"]
    corpus = open_corpus(f"{pages}#document=line&limit=60", "train", min_bytes=15)
    assert len(list(corpus)) + corpus.left_out.total() == 60


@pytest.mark.parametrize("limit", [1, 49, 50, 51, 200, 1000])
def test_a_limit_is_the_same_in_any_plan(pages, limit):
    corpus = open_corpus(f"{pages}#document=line&limit={limit}")
    expected = list(open_corpus(f"{pages}#document=line"))[:limit]
    for target_bytes in (1, 300, 1 << 20):
        assert [document for fragment in corpus.fragments(target_bytes) for document in corpus.read(fragment)] == expected


def test_one_plan_many_orders_and_processes(pages):
    corpus = open_corpus(f"{pages}#document=line", "train", min_bytes=12)
    expected = list(corpus)
    fragments = corpus.fragments(300)
    assert len(fragments) > 8
    assert [fragment.index for fragment in fragments] == list(range(len(fragments)))
    assert open_corpus(f"{pages}#document=line", "train", min_bytes=12).fragments(300) == fragments
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        parts = list(pool.map(read_in_another_process, [corpus] * len(fragments), reversed(fragments)))
    assert [document for documents, _ in reversed(parts) for document in documents] == expected
    assert sum((counts for _, counts in parts), Counter()) == corpus.left_out


def test_a_fragment_from_json_is_as_good(pages):
    corpus = open_corpus(f"{pages}#document=line&limit=70")
    for fragment in corpus.fragments(300):
        again = from_mapping(Fragment, json.loads(json.dumps(to_mapping(fragment))))
        assert again == fragment
        assert list(corpus.read(again)) == list(corpus.read(fragment))


def test_several_sources(files):
    folder = files({"a/x.txt": b"1", "b/x.txt": b"2"})
    corpus = open_corpus([f"{folder}/b", CorpusSpec(kind="files", location=f"{folder}/a", source="first")])
    assert [(document.doc_id, document.source) for document in corpus] == [("b/x.txt", "b"), ("first/x.txt", "first")]
    assert [fragment.source for fragment in corpus.fragments()] == ["b", "first"]


def test_sources_of_one_name(files):
    folder = files({"a/pages/x.txt": b"1", "b/pages/x.txt": b"2"})
    with pytest.raises(ConfigError, match=r"'files:.*a/pages' and 'files:.*b/pages' are both called 'pages'; give one .* '#source=NAME'"):
        open_corpus([f"{folder}/a/pages", f"{folder}/b/pages"])
    assert len(list(open_corpus([f"{folder}/a/pages", f"{folder}/b/pages#source=other"]))) == 2


def test_splits_by_spec(files, read):
    folder = files({"t/x.txt": b"1", "v/x.txt": b"1"})
    specs = {"train": f"{folder}/t", "validation": [f"{folder}/v"]}
    assert read(specs, "train") == [("t/x.txt", b"1")]
    assert read(specs, "validation") == [("v/x.txt", b"1")]
    assert open_corpus(specs, "train").describe()["split_fractions"] is None
    for split in ("vlidation", None):
        with pytest.raises(ConfigError, match=rf"There is no corpus for the split {split!r}.*validation"):
            open_corpus(specs, split)


def test_ids_are_unique(files, read):
    contents = {"a": b"1\n2", "a:1": b"1", "a.txt": b"1", "a.txt.gz:1": b"1", "b/a": b"1", "b:a": b"1", "b\\a": b"1"}
    folder = files(contents)
    (folder / os.fsdecode(b"\xff")).write_bytes(b"1")
    (folder / "\\xff").write_bytes(b"1")
    for unit in ("file", "line"):
        ids = [doc_id for doc_id, _ in read(f"{folder}#document={unit}")]
        assert len(set(ids)) == len(ids) >= 9
        assert all(doc_id.encode() for doc_id in ids)


def test_an_id_that_occurs_twice(files, read):
    folder = files({"a.jsonl": b'{"text": "x", "id": 1}\n{"text": "y", "id": 2}\n{"text": "z", "id": 1}\n'})
    with pytest.raises(CorpusError, match=r"The id 'pages/1' occurs twice; name another column with '#id=', or none"):
        read(f"jsonl:{folder}#id=id")


def test_empty_files_are_documents(files, read):
    folder = files({"a.txt": b"", "b.txt": b""})
    assert read(f"{folder}") == [("pages/a.txt", b""), ("pages/b.txt", b"")]


@pytest.mark.parametrize(
    ("options", "keywords", "message"),
    [
        ("#document=line", {}, r"The corpus files:.*pages#document=line has no documents; all there is was left out: 2 \(blank line\)\."),
        ("#document=paragraph", {}, r"has no documents; there is nothing in its files\."),
        ("", {"min_bytes": 9}, r"has no documents; all there is was left out: 1 \(too short\)\."),
        ("", {"split": "validation"}, r"has no documents in the split 'validation'; all there is was left out: 1 \(other split\)\."),
    ],
)
def test_an_empty_corpus_says_why(files, options, keywords, message):
    folder = files({"a.txt": b"\n \n"})
    with pytest.raises(CorpusError, match=message):
        list(open_corpus(f"{folder}{options}", **keywords))


def test_fingerprints(pages):
    def fingerprint(*arguments, **options):
        return open_corpus(*arguments, **options).fingerprint

    before = fingerprint(str(pages))
    others = [
        fingerprint(f"{pages}#document=line"),
        fingerprint(f"{pages}#limit=3"),
        fingerprint(f"{pages}#min_bytes=3"),
        fingerprint(str(pages), "train"),
        fingerprint(str(pages), "train", fractions=SplitFractions(train=0.8, validation=0.1, test=0.1)),
        fingerprint(str(pages), max_bytes=5000),
    ]
    assert len({before, *others}) == 1 + len(others)
    # Fractions that nothing is split by are of no consequence.
    assert fingerprint(str(pages), fractions=SplitFractions(train=0.8, validation=0.1, test=0.1)) == before

    files = open_corpus(str(pages)).files_fingerprint
    assert open_corpus(str(pages)).files_fingerprint == files
    os.utime(pages / "b.txt", ns=(0, 0))
    assert fingerprint(str(pages)) == before
    assert open_corpus(str(pages)).files_fingerprint != files
    (pages / "b.txt").write_bytes(b"less")
    assert fingerprint(str(pages)) != before


def test_the_description_is_json(files):
    folder = files({"a.txt": b"1"})
    odd = folder / os.fsdecode(b"\xff.txt")
    odd.write_bytes(b"2")
    corpus = open_corpus([str(folder), f"{odd}#source=odd"], "train")
    description = corpus.describe()
    assert json.loads(json.dumps(description, ensure_ascii=False).encode()) == description
    assert description["specs"] == [f"files:{folder}", rf"files:{folder}/\xff.txt#source=odd"]
    assert description["split"] == "train"
    assert description["split_fractions"] == {"train": 0.9, "validation": 0.05, "test": 0.05}
    assert description["sources"]["odd"]["num_files"] == 1


def test_it_pickles_before_and_after_reading(pages):
    corpus = open_corpus(f"{pages}#document=line", "train")
    before = list(pickle.loads(pickle.dumps(corpus)))
    assert before == list(corpus) == list(pickle.loads(pickle.dumps(corpus)))


@pytest.mark.parametrize(
    ("arguments", "keywords", "error", "message"),
    [
        (([],), {}, ConfigError, r"No corpus was given; name at least one, e\.g\. python-docs"),
        (("python-docs", "trian"), {}, ConfigError, r"There is no split 'trian'.*'train'"),
        (("python-docs",), {"min_bytes": 5, "max_bytes": 4}, ConfigError, r"max_bytes is 4; it must be at least min_bytes, which is 5"),
        (("no/such/folder",), {}, CorpusError, r"There is no 'no/such/folder'; give a file, a folder"),
        (("jsonl:no/such.jsonl",), {}, CorpusError, r"There is no 'no/such\.jsonl'"),
        (("parquet:no/such/*.parquet",), {}, CorpusError, r"There is no file that ends with \.parquet in 'no/such/\*\.parquet'"),
    ],
)
def test_bad_corpora(arguments, keywords, error, message):
    with pytest.raises(error, match=message):
        open_corpus(*arguments, **keywords)


def test_bad_plans(pages):
    corpus = open_corpus(str(pages))
    with pytest.raises(ConfigError, match="target_bytes is 0; it must be at least 1"):
        corpus.fragments(0)
    with pytest.raises(CorpusError, match=r"The corpus has no source 'pagse'.*'pages'"):
        list(corpus.read(Fragment(index=0, source="pagse", items=())))


@pytest.mark.parametrize(
    ("spec", "out", "taken"),
    [
        # A folder stands for every file below it, and of some kinds for those with an ending.
        ("files:{}", "", "manifest.json"),
        ("files:{}", "new/shards", "manifest.json"),
        ("files:{}#document=line", "new", "manifest.json"),
        ("files:{}", "../shards", None),
        ("files:{}", ".shards", None),
        ("parquet:{}", "new", "part-00000.parquet"),
        ("jsonl:{}", "new", None),
        # A pattern finds what it says, and a file is a file.
        ("files:{}/*", "", "manifest.json"),
        ("files:{}/*", "new", None),
        ("files:{}/*/*", "new", "manifest.json"),
        ("files:{}/**/*.json", "new/shards", "manifest.json"),
        ("{}/*.txt", "", None),
        ("{}/*.parquet", "", "part-00000.parquet"),
        ("{}/a.txt", "", None),
        ("{}/part-00000.parquet", "", "part-00000.parquet"),
        ("python-docs", "", None),
    ],
)
def test_shards_are_not_written_where_the_corpus_is_read(files, monkeypatch, spec, out, taken):
    folder = files({"a.txt": b"", "a.json": b"", "b/a.txt": b"", "b.jsonl": b""})
    write_rows(folder / "part-00000.parquet")
    names = ("manifest.json", "part-00000.parquet")
    corpus = open_corpus(["python-docs#limit=1&source=other", spec.format(folder)])
    if taken is None:
        corpus.check_apart(folder / out, names)
        return
    message = f"is read, which would take {taken} for documents; choose a folder outside of it."
    with pytest.raises(CorpusError) as caught:
        corpus.check_apart(folder / out, names)
    assert str(caught.value).startswith(f"{folder / out} lies where the corpus ")
    assert str(caught.value).endswith(message)
    # However both are written.
    monkeypatch.chdir(folder)
    with pytest.raises(CorpusError, match="is read, which would take"):
        open_corpus(spec.format(".")).check_apart(Path(out), names)


def test_shards_are_not_written_into_a_local_dataset_of_the_hub_library(tmp_path):
    write_rows(tmp_path / "data" / "rows.parquet")
    corpus = open_corpus(f"hf:{tmp_path / 'data'}")
    corpus.check_apart(tmp_path / "shards", ["plan.json"])
    with pytest.raises(CorpusError, match=r"which would take plan\.json for documents"):
        corpus.check_apart(tmp_path / "data" / "shards", ["plan.json"])
