"""Real folders of datasets, read by the real library, which the suite's environment keeps off the network."""

import gzip
import json
import os
import pickle
from collections import Counter

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bltdata.corpus import open_corpus
from bltdata.corpus.hub import HubSource
from bltdata.errors import CorpusError


@pytest.fixture(autouse=True)
def caches(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_MODULES_CACHE", str(tmp_path / "modules"))


def rows(shard, num_rows):
    return {
        "id": [f"{shard}-{row}" for row in range(num_rows)],
        "text": [f"document {shard} {row} \xe9" for row in range(num_rows)],
        "score": [0.5] * num_rows,
    }


def documents(*sizes):
    return [(f"{shard:05d}:{row + 1}", f"document {shard} {row} \xe9".encode()) for shard, size in enumerate(sizes) for row in range(size)]


@pytest.fixture
def folder(tmp_path):
    """A dataset as the hub has them: Parquet files named by split."""
    data = tmp_path / "web" / "data"
    data.mkdir(parents=True)
    for shard, num_rows in enumerate((5, 3, 4)):
        pq.write_table(pa.table(rows(shard, num_rows)), data / f"train-{shard:05d}-of-00003.parquet", row_group_size=2)
    pq.write_table(pa.table(rows(0, 2)), data / "validation-00000-of-00001.parquet")
    return tmp_path / "web"


def test_shards_are_fragments(folder, read):
    expected = [(f"web/{name}", data) for name, data in documents(5, 3, 4)]
    assert read(f"hf:{folder}") == expected
    corpus = open_corpus(f"hf:{folder}")
    fragments = corpus.fragments()
    assert len(fragments) == 3
    assert [len(list(corpus.read(fragment))) for fragment in reversed(fragments)] == [4, 3, 5]


def test_columns_and_splits(folder, read):
    assert read(f"hf:{folder}::validation#text=id&id=id") == [("web/0-0", b"0-0"), ("web/0-1", b"0-1")]
    assert len(read(f"hf:{folder}::train+validation")) == 14


@pytest.mark.parametrize("limit", [1, 4, 5, 7, 12, 100])
def test_a_limit_is_read_in_ranges_and_keeps_the_ids(folder, limit):
    corpus = open_corpus(f"hf:{folder}#limit={limit}&source=s")
    # 3 rows a fragment.
    fragments = corpus.fragments(3 * 4096)
    assert len(fragments) == -(-limit // 3)
    read = [(document.doc_id, document.data) for fragment in fragments for document in corpus.read(fragment)]
    assert read == [(f"s/{name}", data) for name, data in documents(5, 3, 4)[:limit]]


def test_ranges_in_any_order(folder):
    corpus = open_corpus(f"hf:{folder}#limit=12")
    fragments = corpus.fragments(2 * 4096)
    in_order = [list(corpus.read(fragment)) for fragment in fragments]
    for order in ([5, 4, 3, 2, 1, 0], [0, 3, 1, 2, 2, 5]):
        assert [list(corpus.read(fragments[index])) for index in order] == [in_order[index] for index in order]
    # Two readers at once, and one that is given up, don't move each other.
    one, other, given_up = (corpus.read(fragments[index]) for index in (1, 1, 2))
    next(given_up)
    given_up.close()
    assert [next(one), next(other), next(one), next(other)] == [document for document in in_order[1] for _ in range(2)]
    assert list(corpus.read(fragments[3])) == in_order[3]


def test_ranges_in_order_are_read_once(folder, monkeypatch):
    opened = []
    read_shard = HubSource._read_shard
    monkeypatch.setattr(HubSource, "_read_shard", lambda self, index: opened.append(index) or read_shard(self, index))
    corpus = open_corpus(f"hf:{folder}#limit=12")
    for fragment in corpus.fragments(2 * 4096):
        next(corpus.read(fragment))
    assert opened == [0, 1, 2]
    list(corpus)
    assert opened == [0, 1, 2] * 2


def test_an_error_is_raised_again(folder):
    path = folder / "data" / "train-00001-of-00003.parquet"
    pq.write_table(pa.table({"text": ["a", None, "c"]}), path)
    corpus = open_corpus(f"hf:{folder}#limit=12")
    for _ in range(2):
        with pytest.raises(CorpusError, match=r"Shard 1 of the dataset .*, row 2, has null"):
            list(corpus)


def test_it_pickles(folder):
    corpus = open_corpus(f"hf:{folder}")
    before = list(corpus)
    copy = pickle.loads(pickle.dumps(corpus))
    assert list(copy) == before
    assert copy.fingerprint == corpus.fingerprint


def test_a_folder_of_jsonl(tmp_path, read):
    (tmp_path / "pages").mkdir()
    lines = "".join(json.dumps({"content": f"page {number}", "url": None}) + "\n" for number in range(3))
    (tmp_path / "pages" / "train.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    assert read(f"hf:{tmp_path}/pages") == [(f"pages/00000:{number + 1}", f"page {number}".encode()) for number in range(3)]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_folders_of_save_to_disk(tmp_path, read, capsys):
    dataset = datasets.Dataset.from_dict(rows(0, 5))
    dataset.save_to_disk(tmp_path / "one", num_shards=2)
    assert [data for _, data in read(f"hf:{tmp_path}/one")] == [data for _, data in documents(5)]
    datasets.DatasetDict({"train": dataset, "test": dataset.select(range(2))}).save_to_disk(tmp_path / "more")
    assert len(read(f"hf:{tmp_path}/more")) == 5
    assert read(f"hf:{tmp_path}/more::test#id=id") == [(f"more/0-{row}", data) for row, (_, data) in enumerate(documents(2))]
    with pytest.raises(CorpusError, match=r"The dataset .*more has no split 'tets'.*'test'"):
        read(f"hf:{tmp_path}/more::tets")
    with pytest.raises(CorpusError, match=r"The dataset .*one holds one split only, and that isn't 'test'; leave the split out"):
        read(f"hf:{tmp_path}/one::test")


@pytest.mark.parametrize("options", ["", "#limit=5"])
def test_a_changed_file_is_noticed(folder, options):
    def plan():
        return [fragment.fingerprint for fragment in open_corpus(f"hf:{folder}{options}").fragments()]

    corpus, before = open_corpus(f"hf:{folder}{options}"), plan()
    assert plan() == before
    pq.write_table(pa.table(rows(9, 50)), folder / "data" / "train-00000-of-00003.parquet")
    assert plan() != before
    changed = open_corpus(f"hf:{folder}{options}")
    assert changed.fingerprint != corpus.fingerprint
    os.utime(folder / "data" / "train-00000-of-00003.parquet", ns=(0, 0))
    touched = open_corpus(f"hf:{folder}{options}")
    assert touched.fingerprint == changed.fingerprint
    assert len({corpus.files_fingerprint, changed.files_fingerprint, touched.files_fingerprint}) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("#text=txt", r"The dataset .*web has no column 'txt'.*'text'"),
        ("#id=key", r"The dataset .*web has no column 'key'; known are id, score, text"),
        ("#text=score", r"The dataset .*web has a column 'score' of type double, where string or binary is needed"),
        ("::valid", r"The dataset hf:.*web::valid can't be opened: Bad split: valid\. Available splits: \['train', 'validation'\]"),
        (":german", r"The dataset hf:.*web:german can't be opened: BuilderConfig 'german' not found"),
    ],
)
def test_what_a_dataset_has_not(folder, options, message):
    with pytest.raises(CorpusError, match=message) as caught:
        open_corpus(f"hf:{folder}{options}")
    assert "\n" not in str(caught.value)


def test_no_text_column_to_guess(tmp_path):
    (tmp_path / "scores").mkdir()
    pq.write_table(pa.table({"score": [1], "body": ["x"]}), tmp_path / "scores" / "train.parquet")
    with pytest.raises(CorpusError, match=r"scores has neither a column 'text' nor 'content'; name one of 'score', 'body'"):
        open_corpus(f"hf:{tmp_path}/scores")


def test_a_null_is_located(tmp_path, read):
    (tmp_path / "holes").mkdir()
    pq.write_table(pa.table({"text": ["a", None]}), tmp_path / "holes" / "train.parquet")
    with pytest.raises(CorpusError, match=r"Shard 0 of the dataset .*holes, row 2, has null in its column 'text'"):
        read(f"hf:{tmp_path}/holes")


@pytest.mark.parametrize("limit", [None, 1, 3, 5, 8])
def test_nulls_can_be_left_out(tmp_path, limit):
    data = tmp_path / "web"
    data.mkdir()
    texts = [None if number % 3 == 1 else f"text {number}" for number in range(8)]
    for shard in (0, 1):
        pq.write_table(pa.table({"text": texts[shard * 4 : shard * 4 + 4]}), data / f"{shard}.parquet")
    corpus = open_corpus(f"hf:{data}#invalid=leave-out" + (f"&limit={limit}" if limit else ""))
    expected = [text.encode() for text in texts[:limit] if text]
    fragments = corpus.fragments(2 * 4096)
    # Backwards, each counts its own.
    left_out = [Counter() for _ in fragments]
    parts = [[each.data for each in corpus.read(*pair)] for pair in reversed(list(zip(fragments, left_out, strict=True)))]
    assert [data for part in reversed(parts) for data in part] == expected
    assert sum(left_out, Counter()) == Counter({"no text": len(texts[:limit]) - len(expected)})


def test_a_damaged_shard_is_named(folder, read):
    path = folder / "data" / "train-00001-of-00003.parquet"
    content = path.read_bytes()
    path.write_bytes(content[:40] + bytes(200) + content[240:])
    with pytest.raises(CorpusError, match=r"The dataset hf:.*web can't be read: .+"):
        read(f"hf:{folder}")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "hf:nobody/nothing",
            r"The dataset hf:nobody/nothing can't be opened: Couldn't reach 'nobody/nothing' on the Hub",
        ),
        ("hf:/no/such/folder", r"There is no folder '/no/such/folder'; check the path of the dataset"),
        ("hf:./no/such/folder", r"There is no folder '\./no/such/folder'"),
    ],
)
def test_what_is_not_there(name, message):
    with pytest.raises(CorpusError, match=message):
        open_corpus(name)


def test_an_empty_folder(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(CorpusError, match=r"empty can't be opened: The directory at .*empty doesn't contain any data files"):
        open_corpus(f"hf:{tmp_path}/empty")


def test_a_dataset_with_a_script_gets_advice(monkeypatch):
    def refuse(*_, **__):
        raise RuntimeError("Dataset scripts are no longer supported, but found openwebtext.py")

    monkeypatch.setattr(datasets, "load_dataset_builder", refuse)
    advice = r"found openwebtext\.py; try the hub's own conversion, hf:Skylion007/openwebtext@refs/convert/parquet\."
    with pytest.raises(CorpusError, match=advice):
        open_corpus("hf:Skylion007/openwebtext")


def test_names_reach_the_library(monkeypatch):
    asked = []

    def record(*arguments, **options):
        asked.append((arguments, options))
        raise ConnectionError("off line")

    monkeypatch.setattr(datasets, "load_dataset_builder", record)
    with pytest.raises(CorpusError, match="off line"):
        open_corpus("hf:Salesforce/wikitext@main:wikitext-103-raw-v1:test")
    assert asked == [(("Salesforce/wikitext", "wikitext-103-raw-v1"), {"revision": "main"})]
