import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bltdata.errors import ShardError
from bltdata.shards import open_shards, round_entropies
from bltdata.stats import DatasetStatistics, breakdown, collect_statistics, to_mapping
from tests.bltdata.stats.close import assert_close

Rows = list[dict[str, Any]]
PERCENTILES = (1, 5, 25, 75, 95, 99)


def slow_distribution(values: np.ndarray) -> dict[str, float]:
    values = values.astype(np.float64)
    named = {"mean": values.mean(), "std": values.std(ddof=0), "median": np.median(values), "min": values.min(), "max": values.max()}
    return named | {f"p{percent}": np.percentile(values, percent) for percent in PERCENTILES}


def slow_report(rows: Rows) -> dict[str, Any]:
    """The obvious computation: everything in memory, NumPy's own functions."""
    entropy_nats = np.concatenate([row["entropy_nats"] for row in rows]).astype(np.float64)
    patch_lengths = np.concatenate([row["patch_lengths"] for row in rows])
    distinct, counts = np.unique(patch_lengths, return_counts=True)
    total_bytes = sum(len(row["data"]) for row in rows)
    return {
        "documents": len(rows),
        "total_bytes": total_bytes,
        "patches": len(patch_lengths),
        "entropy_model_bits_per_byte": sum(row["nll_nats"] for row in rows) / math.log(2) / total_bytes,
        "entropy_nats": slow_distribution(entropy_nats),
        "entropy_bits": slow_distribution(entropy_nats / math.log(2)),
        "impossible_entropies": 0,
        "patch_length": slow_distribution(patch_lengths),
        "most_common_patch_length": distinct[np.argmax(counts)],
        "share_of_most_common_patch_length": counts.max() / counts.sum(),
        "boundaries_per_document": slow_distribution(np.array([len(row["patch_lengths"]) - 1 for row in rows])),
        "document_bytes": slow_distribution(np.array([len(row["data"]) for row in rows])),
    }


def own_keys(report: dict[str, Any]) -> dict[str, Any]:
    """Without what `test_breakdown` is about."""
    return {key: value for key, value in report.items() if key not in breakdown.KEYS}


def test_every_statistic_is_the_obvious_one(dataset_folder: Callable[..., Path], rows: Callable[..., Rows]) -> None:
    shards = [rows(60), [], rows(45, seed=7, sources=["news", "poems"]), rows(20, seed=8, sources=["code"])]
    everything = [row for shard in shards for row in shard]
    report = to_mapping(collect_statistics(open_shards(dataset_folder(*shards, row_group_bytes=3000))))
    assert_close(own_keys(report["overall"]), slow_report(everything))
    assert list(report["by_source"]) == ["code", "news", "poems"]
    for source, got in report["by_source"].items():
        assert_close(own_keys(got), slow_report([row for row in everything if row["source"] == source]))


def test_every_statistic_is_what_sql_says(dataset_folder: Callable[..., Path], rows: Callable[..., Rows]) -> None:
    folder = dataset_folder(rows(300), rows(200, seed=1))
    report = to_mapping(collect_statistics(open_shards(folder)))
    names = ["mean", "std", "median", "min", "max", *(f"p{percent}" for percent in PERCENTILES)]
    quantiles = "".join(f", quantile_cont(x, {percent / 100})" for percent in PERCENTILES)
    columns = {
        "entropy_nats": "unnest(entropy_nats)::DOUBLE",
        "entropy_bits": "unnest(entropy_nats)::DOUBLE / ln(2)",
        "patch_length": "unnest(patch_lengths)::DOUBLE",
        "boundaries_per_document": "(num_patches - 1)::DOUBLE",
        "document_bytes": "octet_length(data)::DOUBLE",
    }
    with duckdb.connect() as connection:
        connection.execute(f"CREATE VIEW shards AS SELECT * FROM read_parquet('{folder}/*.parquet')")
        for where, got in [("true", report["overall"]), *((f"source = '{name}'", part) for name, part in report["by_source"].items())]:
            for key, expression in columns.items():
                query = f"""SELECT avg(x), stddev_pop(x), median(x), min(x), max(x){quantiles}
                            FROM (SELECT {expression} AS x FROM shards WHERE {where})"""
                (expected,) = connection.execute(query).fetchall()
                assert_close(got[key], dict(zip(names, expected, strict=True)))
            query = f"""SELECT count(*), sum(octet_length(data)), sum(len(patch_lengths)),
                        sum(nll_nats) / ln(2) / sum(num_bytes) FROM shards WHERE {where}"""
            (counts,) = connection.execute(query).fetchall()
            assert [got["documents"], got["total_bytes"], got["patches"]] == list(counts[:3])
            assert got["entropy_model_bits_per_byte"] == pytest.approx(counts[3], rel=1e-12)
            query = f"""SELECT length, count(*) / sum(count(*)) OVER ()
                        FROM (SELECT unnest(patch_lengths) AS length FROM shards WHERE {where})
                        GROUP BY length ORDER BY count(*) DESC, length"""
            length, share = connection.execute(query).fetchall()[0]
            assert (got["most_common_patch_length"], got["share_of_most_common_patch_length"]) == (length, pytest.approx(share))
            query = f"""SELECT count(*) FILTER (NOT (nats >= 0 AND nats <= ln(260))) FROM
                        (SELECT unnest(entropy_nats)::DOUBLE AS nats FROM shards WHERE {where})"""
            assert connection.execute(query).fetchall() == [(got["impossible_entropies"],)]
            single = {"documents", "total_bytes", "patches", "entropy_model_bits_per_byte", "impossible_entropies"}
            assert single | {"most_common_patch_length", "share_of_most_common_patch_length", *columns} == set(own_keys(got))


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory, dataset_at: Callable[..., Path], rows: Callable[..., Rows]) -> list[DatasetStatistics]:
    base = tmp_path_factory.mktemp("parts")
    sources = [["a"], ["b", "c"], ["a", "c"], ["d"]]
    folders = [dataset_at(base / f"{i}", [rows(15, i, names)]) for i, names in enumerate(sources)]
    return [collect_statistics(open_shards(folder)) for folder in folders]


@given(order=st.permutations(range(4)), split=st.integers(0, 4))
@settings(max_examples=12)
def test_datasets_add_up_in_any_order_and_grouping(parts: list[DatasetStatistics], order: list[int], split: int) -> None:
    expected = to_mapping(parts[0] + parts[1] + parts[2] + parts[3])
    left, right = DatasetStatistics(), DatasetStatistics()
    for place, index in enumerate(order):
        if place < split:
            left += parts[index]
        else:
            right += parts[index]
    assert to_mapping(left + right) == expected
    assert to_mapping(left)["overall"] != expected["overall"] or split == 4


def test_row_groups_change_nothing(dataset_folder: Callable[..., Path], rows: Callable[..., Rows]) -> None:
    small = dataset_folder(rows(80), name="small", row_group_bytes=500)
    large = dataset_folder(rows(40), [], rows(80)[40:], name="large", row_group_bytes=10**6)
    assert to_mapping(collect_statistics(open_shards(small))) == to_mapping(collect_statistics(open_shards(large)))


def test_progress_adds_up_to_the_raw_bytes(dataset_folder: Callable[..., Path], rows: Callable[..., Rows]) -> None:
    seen: list[int] = []
    dataset = open_shards(dataset_folder(rows(80), rows(3, seed=4)))
    collect_statistics(dataset, progress=seen.append)
    assert len(seen) == len(dataset.row_groups) > 5
    assert sum(seen) == dataset.manifest.totals.num_bytes


def test_no_documents_give_nulls(dataset_folder: Callable[..., Path], row: Callable[..., dict[str, Any]]) -> None:
    report = to_mapping(collect_statistics(open_shards(dataset_folder([]))))
    assert report["by_source"] == {}
    overall = report["overall"]
    assert (overall["documents"], overall["total_bytes"], overall["patches"], overall["impossible_entropies"]) == (0, 0, 0, 0)
    assert set(overall["entropy_nats"].values()) == {None}
    assert overall["entropy_model_bits_per_byte"] is None
    assert overall["share_of_most_common_patch_length"] is None

    empty = to_mapping(collect_statistics(open_shards(dataset_folder([row("a", b"")], name="empty"))))["overall"]
    assert (empty["documents"], empty["patches"], empty["entropy_model_bits_per_byte"]) == (1, 1, None)
    assert (empty["boundaries_per_document"]["mean"], empty["patch_length"]["std"]) == (0.0, 0.0)


def test_a_likelihood_is_unknown_where_the_model_is(dataset_folder: Callable[..., Path], row: Callable[..., dict[str, Any]]) -> None:
    documents = [row("a", b"abc", "one") | {"nll_nats": None}, row("b", b"def", "one"), row("c", b"ghi", "two")]
    found = to_mapping(collect_statistics(open_shards(dataset_folder(documents, entropy_model={"fingerprint": None}))))
    bits = found["by_source"]["two"]["entropy_model_bits_per_byte"]
    assert bits == pytest.approx(documents[2]["nll_nats"] / math.log(2) / 3)
    assert (found["by_source"]["one"]["entropy_model_bits_per_byte"], found["overall"]["entropy_model_bits_per_byte"]) == (None, None)
    with pytest.raises(ShardError, match="has a negative log-likelihood that is not finite"):
        collect_statistics(open_shards(dataset_folder(documents, name="scored")))


def test_a_fixed_stride_in_disguise_shows(dataset_folder: Callable[..., Path]) -> None:
    data = bytes(7999)
    rows = [
        {
            "doc_id": f"{i}",
            "source": "s",
            "data": data,
            "entropy_nats": round_entropies(np.full(8000, 3.65)),
            "patch_lengths": np.full(250, 32),
            "nll_nats": 1.0,
        }
        for i in range(3)
    ]
    overall = to_mapping(collect_statistics(open_shards(dataset_folder(rows))))["overall"]
    assert (overall["most_common_patch_length"], overall["share_of_most_common_patch_length"]) == (32, 1.0)
    assert overall["patch_length"]["std"] == 0.0
    assert (overall["boundaries_per_document"]["mean"], overall["boundaries_per_document"]["std"]) == (249.0, 0.0)


@pytest.mark.parametrize("value", [20.77, 5.57, -0.1, math.nan])
def test_an_impossible_entropy_cannot_reach_a_report(
    dataset_folder: Callable[..., Path], row: Callable[..., dict[str, Any]], value: float
) -> None:
    planted = row("a", b"abcdef")
    planted["entropy_nats"] = np.array([1, 1, 1, value, 1, 1, 1], dtype=np.float16)
    with pytest.raises(ShardError, match="at position 3; it must lie in 0"):
        dataset_folder([planted])
