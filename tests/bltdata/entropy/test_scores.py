"""Scores alone: documents beside their scores, and a Parquet file of them."""

import json
import math
from collections.abc import Iterator
from pathlib import Path

import duckdb
import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest

from bltdata.corpus import Document, open_corpus
from bltdata.entropy import scores
from bltdata.entropy.scores import METADATA_KEY, SCHEMA, describe_score, score_file, scored
from bltdata.entropy.scoring import CHUNK_TOKENS, Score
from bltdata.errors import CorpusError, ShardError
from bltdata.vocab import MAX_ENTROPY_NATS
from tests.bltdata.small import opinionated_model, random_documents

DOCUMENTS = [
    Document(f"test/{i}", "test" if i % 2 else "other", data) for i, data in enumerate([b"", *random_documents(8, 40), b"x" * 300])
]


def invented(document: Document) -> Score:
    rng = np.random.default_rng(len(document.data))
    return Score(rng.uniform(0, MAX_ENTROPY_NATS, len(document.data) + 1).astype(np.float32), float(rng.random() * 100))


def written(path: Path, row_group_bytes: int = 1000) -> Path:
    with score_file(path, {"precision": "float32"}, row_group_bytes=row_group_bytes) as file:
        for document in DOCUMENTS:
            file.add(document, invented(document))
    return path


def test_documents_keep_their_scores() -> None:
    model = opinionated_model()
    expected = list(model.score_with_nll([document.data for document in DOCUMENTS], reset_at_newline=True))
    found = list(scored(model, DOCUMENTS, reset_at_newline=True))
    assert [document for document, _ in found] == DOCUMENTS
    assert [score.entropy_nats.tobytes() for _, score in found] == [score.entropy_nats.tobytes() for score in expected]
    assert [score.nll_nats for _, score in found] == [score.nll_nats for score in expected]


def test_documents_are_read_as_their_scores_are_taken() -> None:
    num_read = 0

    def endless() -> Iterator[Document]:
        nonlocal num_read
        while True:
            num_read += 1
            yield Document(str(num_read), "test", b"y" * 99)

    results = scored(opinionated_model(), endless())
    assert [next(results)[0].doc_id for _ in range(3)] == ["1", "2", "3"]
    # A chunk ahead, and in no case all.
    assert num_read <= 4 * CHUNK_TOKENS // 100


def test_documents_before_one_that_cannot_be_read_have_their_scores(tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text("".join(json.dumps({"text": "a" * size}) + "\n" for size in range(1, 40)) + "{half")
    found: list[tuple[Document, Score]] = []
    with pytest.raises(CorpusError, match="line 40"):
        found.extend(scored(opinionated_model(), open_corpus(str(tmp_path / "bad.jsonl"))))
    assert [(len(document.data), len(score.entropy_nats)) for document, score in found] == [(size, size + 1) for size in range(1, 40)]


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    table = pq.read_table(written(tmp_path / "new" / "scores.parquet"))
    assert table.schema.equals(SCHEMA)
    rows = table.to_pylist()
    assert len(rows) == len(DOCUMENTS)
    for row, document in zip(rows, DOCUMENTS, strict=True):
        score = invented(document)
        assert (row["doc_id"], row["source"], row["num_bytes"]) == (document.doc_id, document.source, len(document.data))
        assert row["nll_nats"] == score.nll_nats
        assert np.float32(row["entropy_nats"]).tobytes() == score.entropy_nats.tobytes()
        if document.data:
            assert row["bits_per_byte"] == pytest.approx(score.nll_nats / math.log(2) / len(document.data))
        else:
            assert row["bits_per_byte"] is None
    metadata = json.loads(pq.read_schema(tmp_path / "new" / "scores.parquet").metadata[METADATA_KEY])
    assert metadata["precision"] == "float32"


def test_other_readers_open_it(tmp_path: Path) -> None:
    path = written(tmp_path / "scores.parquet")
    num_bytes = sum(len(document.data) for document in DOCUMENTS)
    counts = [len(document.data) + 1 for document in DOCUMENTS]
    assert pl.read_parquet(path)["entropy_nats"].list.len().to_list() == counts
    assert duckdb.sql(f"select sum(num_bytes), sum(len(entropy_nats)) from '{path}'").fetchall() == [(num_bytes, sum(counts))]


def test_row_groups_are_bounded(tmp_path: Path) -> None:
    groups = pq.ParquetFile(written(tmp_path / "scores.parquet", row_group_bytes=50)).metadata
    sizes = [len(document.data) + 1 for document in DOCUMENTS]
    begin = 0
    for index in range(groups.num_row_groups):
        num_rows = groups.row_group(index).num_rows
        assert num_rows == 1 or sum(sizes[begin : begin + num_rows]) <= 50
        begin += num_rows
    assert begin == len(DOCUMENTS)
    assert groups.num_row_groups > 3


def test_equal_scores_make_equal_bytes(tmp_path: Path) -> None:
    assert written(tmp_path / "one.parquet").read_bytes() == written(tmp_path / "two.parquet").read_bytes()


def test_no_documents(tmp_path: Path) -> None:
    with score_file(tmp_path / "none.parquet", {}):
        pass
    assert pq.read_table(tmp_path / "none.parquet").num_rows == 0


@pytest.mark.parametrize("error", [ZeroDivisionError(), KeyboardInterrupt()])
def test_an_exception_publishes_nothing(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "scores.parquet"
    path.write_bytes(b"old")

    def fail_halfway() -> None:
        with score_file(path, {}, row_group_bytes=1) as file:
            for document in DOCUMENTS[:3]:
                file.add(document, invented(document))
            raise error

    with pytest.raises(type(error)):
        fail_halfway()
    assert path.read_bytes() == b"old"
    assert [found.name for found in tmp_path.iterdir()] == ["scores.parquet"]


def test_a_document_that_is_too_long_for_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scores, "MAX_SCORED_BYTES", 10)
    document = Document("long", "test", b"x" * 11)
    with pytest.raises(ShardError, match=r"^Document 'long' has 11 bytes; a row can hold 10, so"), score_file(tmp_path / "s", {}) as file:
        file.add(document, invented(document))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("doc_id", "source"), [("\udcff", "test"), ("test", "\udcff")])
def test_names_that_are_not_unicode(doc_id: str, source: str) -> None:
    document = Document(doc_id, source, b"")
    with pytest.raises(ShardError, match="is not valid Unicode"):
        describe_score(document, invented(document))
