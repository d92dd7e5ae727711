"""Others open our shards, and read what we wrote."""

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
