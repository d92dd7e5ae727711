"""Others open our shards, and read what we wrote."""

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import duckdb
import polars as pl
import pyarrow.parquet as pq
import pytest

from bltdata.shards import schema

Rows = list[dict[str, Any]]


@pytest.fixture
def documents(rows: Callable[..., Rows]) -> Rows:
    return rows(25)


@pytest.fixture
def shard(dataset_folder: Callable[..., Path], documents: Rows) -> Path:
    return dataset_folder(documents) / "part-00000.parquet"


def plain(rows: Rows) -> Rows:
    return [
        row
        | {
            "entropy_nats": row["entropy_nats"].tolist(),
            "patch_lengths": row["patch_lengths"].tolist(),
            "num_bytes": len(row["data"]),
            "num_patches": len(row["patch_lengths"]),
        }
        for row in rows
    ]


def test_polars(shard: Path, documents: Rows) -> None:
    frame = pl.read_parquet(shard)
    assert frame.schema["entropy_nats"] == pl.List(pl.Float16)
    assert frame.schema["patch_lengths"] == pl.List(pl.UInt32)
    assert frame.schema["num_bytes"] == pl.Int64
    assert frame.to_dicts() == plain(documents)


def test_duckdb(shard: Path, documents: Rows) -> None:
    with duckdb.connect() as connection:
        result = connection.execute("SELECT * FROM read_parquet(?)", [str(shard)])
        names = [column[0] for column in result.description or ()]
        assert [dict(zip(names, row, strict=True)) for row in result.fetchall()] == plain(documents)


def test_hugging_face_datasets(shard: Path, documents: Rows, tmp_path: Path) -> None:
    datasets.disable_progress_bars()
    dataset = datasets.load_dataset("parquet", data_files=str(shard), split="train", cache_dir=str(tmp_path / "cache"))
    assert dataset.column_names == list(schema.COLUMNS)
    assert dataset.to_list() == plain(documents)
    streamed = datasets.load_dataset("parquet", data_files=str(shard), split="train", streaming=True)
    assert list(streamed) == plain(documents)


def test_encodings_are_those_that_every_reader_opens(shard: Path) -> None:
    group = pq.read_metadata(shard).row_group(0)
    encodings = {group.column(i).path_in_schema: set(group.column(i).encodings) for i in range(group.num_columns)}
    assert {group.column(i).compression for i in range(group.num_columns)} == {"ZSTD"}
    for path, used in encodings.items():
        assert ("RLE_DICTIONARY" in used) == (path in schema.DICTIONARY_COLUMNS)
        assert used <= {"PLAIN", "RLE", "RLE_DICTIONARY"}


def test_documents_are_not_copied_into_the_footer(shard: Path) -> None:
    group = pq.read_metadata(shard).row_group(0)
    with_statistics = {group.column(i).path_in_schema for i in range(group.num_columns) if group.column(i).statistics}
    assert with_statistics == set(schema.STATISTICS_COLUMNS)


def examples() -> dict[str, str]:
    """Library -> the lines of `docs/shards.md` that open shards with it."""
    text = (Path(__file__).parents[3] / "docs" / "shards.md").read_text(encoding="utf-8")
    section = text.partition("They open everywhere:")[2].partition("\n#")[0]
    blocks = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    return {block.split()[1]: block for block in blocks}


def test_lines_of_the_guide(
    dataset_at: Callable[..., Path],
    rows: Callable[..., Rows],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    documents = [*rows(25), *rows(10, seed=1)]
    dataset_at(tmp_path / "runs" / "shards" / "train", [documents[:25], documents[25:]])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()
    num_bytes, num_patches, num_documents = Counter[str](), Counter[str](), Counter(row["source"] for row in documents)
    for row in documents:
        num_bytes[row["source"]] += len(row["data"])
        num_patches[row["source"]] += len(row["patch_lengths"])
    sources = sorted(num_bytes)
    lengths = [(source, (num_bytes[source] + num_documents[source]) / num_patches[source]) for source in sources]
    expected = {
        "polars": str([(source, num_bytes[source]) for source in sources]),
        "duckdb": str(lengths),
        "datasets": f"{len(documents)} {documents[0]['patch_lengths'].tolist()}",
    }
    assert list(examples()) == list(expected)
    for library, code in examples().items():
        assert sum(bool(line) for line in code.splitlines()) == 3
        exec(compile(code, f"shards.md, {library}", "exec"), {})
        assert capsys.readouterr().out == f"{expected[library]}\n"
