"""Every statistic by class, place and neighbour against a query of DuckDB."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest

from bltdata.shards import open_shards, round_entropies
from bltdata.stats import breakdown, collect_statistics, to_mapping
from bltdata.stats.byte_classes import CLASSES, class_table, position_edges
from tests.bltdata.stats.close import assert_close

TABLES = """
CREATE TABLE documents AS
    SELECT row_number() OVER () AS doc, source, hex(data) AS digits, octet_length(data)::BIGINT AS n, nll_nats AS nll,
           entropy_nats, patch_lengths, list_sum(entropy_nats::DOUBLE[]) AS promised
    FROM read_parquet('{folder}/*.parquet');
CREATE TABLE patches AS
    SELECT doc, source, length, sum(length) OVER (PARTITION BY doc ORDER BY number)::BIGINT - length AS first
    FROM (SELECT doc, source, unnest(patch_lengths)::BIGINT AS length, unnest(range(len(patch_lengths))) AS number FROM documents);
CREATE TABLE positions AS
    SELECT each.*, first IS NOT NULL AS starts, length, coalesce(class, 'end') AS class
    FROM (
        SELECT doc, source, n, i, nats,
               CASE WHEN i < n THEN ('0x' || substr(digits, 2 * i + 1, 2))::INTEGER END AS byte,
               CASE WHEN i > 0 THEN ('0x' || substr(digits, 2 * i - 1, 2))::INTEGER END AS previous
        FROM (SELECT doc, source, n, digits, unnest(entropy_nats)::DOUBLE AS nats, unnest(range(n + 1)) AS i FROM documents)
    ) AS each
    LEFT JOIN patches ON patches.doc = each.doc AND first = i
    LEFT JOIN (VALUES {classes}) AS classes(value, class) ON value = byte;
CREATE TABLE bins AS SELECT * FROM (VALUES {bins}) AS t(low, high);
"""
"""A row for each document, patch and position: what stands there, its entropy, whether a patch starts there and how long it is."""


@pytest.fixture(scope="module")
def folder(
    tmp_path_factory: pytest.TempPathFactory, dataset_at: Callable[..., Path], rows: Callable[..., Any], row: Callable[..., dict[str, Any]]
) -> Path:
    rng = np.random.default_rng(0)
    alphabet = np.frombuffer(b"etaoin shrdlu ETA 0123 .,\n\t\xc3\xa9\xe4\xb8\xad\xff\0", np.uint8)
    sizes = [512, 513, 516, 1255, 1256, *rng.integers(1000, 6000, 25).tolist()]
    long = [row(f"long-{i}", rng.choice(alphabet, n).tobytes(), ("news", "poems")[i % 2], seed=i) for i, n in enumerate(sizes)]
    # Some of the mean entropies are further apart than those of long random documents.
    calm = [each | {"entropy_nats": round_entropies(each["entropy_nats"].astype(np.float32) / 4)} for each in rows(40, seed=5)]
    return dataset_at(tmp_path_factory.mktemp("sql") / "shards", [rows(150), long, [*calm, row("empty", b"", "news")]])


@pytest.fixture(scope="module")
def sql(folder: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    classes = ", ".join(f"({byte}, '{CLASSES[index]}')" for byte, index in enumerate(class_table()))
    edges = position_edges().tolist()
    bins = ", ".join(f"({low}, {high})" for low, high in itertools.pairwise(edges) if low < 10_000)
    with duckdb.connect() as connection:
        connection.execute(TABLES.format(folder=folder, classes=classes, bins=bins))
        yield connection


def by_query(sql: duckdb.DuckDBPyConnection, where: str) -> dict[str, Any]:
    """The keys of `breakdown`."""

    def ask(query: str) -> list[tuple[Any, ...]]:
        return sql.execute(query.format(where=where)).fetchall()

    def dicts(keys: str, query: str) -> list[dict[str, Any]]:
        return [dict(zip(keys.split(), found, strict=True)) for found in ask(query)]

    (num_bytes, promised, paid, num_patches, shortest, longest), (words,), (separation,) = (
        ask(query)[0]
        for query in (
            """SELECT * FROM (SELECT sum(n), sum(promised), sum(nll) FROM documents WHERE {where}), (
                   SELECT count(*), avg((length = shortest)::INTEGER), avg((length = longest)::INTEGER)
                   FROM patches, (SELECT min(length) AS shortest, max(length) AS longest FROM patches WHERE {where}) WHERE {where})""",
            """SELECT count(*) FROM positions WHERE {where} AND NOT (byte = 32 OR byte BETWEEN 9 AND 13)
               AND (previous IS NULL OR previous = 32 OR previous BETWEEN 9 AND 13)""",
            """WITH steps AS (SELECT round(nats * 256) AS step, count(*) FILTER (starts) AS starting, count(*) FILTER (NOT starts) AS inside
                              FROM positions WHERE {where} AND i > 0 GROUP BY 1),
                    ranks AS (SELECT *, sum(inside) OVER (ORDER BY step) - inside AS below FROM steps)
               SELECT sum(starting * (below + inside / 2)) / sum(starting) / sum(inside) FROM ranks""",
        )
    )
    counts = dict(ask("SELECT byte, count(*) FROM positions WHERE {where} AND byte IS NOT NULL GROUP BY 1"))
    after = dict(ask("SELECT previous, avg(starts::INTEGER) FROM positions WHERE {where} AND previous IS NOT NULL GROUP BY 1"))
    classes = dicts(
        "class bytes share mean_entropy_nats median_entropy_nats p95_entropy_nats start_rate patch_length",
        """SELECT class, count(*), count(*) / sum(count(*)) OVER (), avg(nats), median(nats), quantile_cont(nats, 0.95),
                  avg(starts::INTEGER), avg(length) FROM positions WHERE {where} GROUP BY 1""",
    )
    tenths = dict(
        ask(
            """SELECT part, avg(nats) FROM positions, range(10) AS parts(part)
               WHERE {where} AND n - 256 >= 1000 AND i >= 256 + (n - 256) * part // 10 AND i < 256 + (n - 256) * (part + 1) // 10
               GROUP BY 1"""
        )
    )
    return {
        "patches_per_byte": num_patches / num_bytes,
        "words": words,
        "patches_per_word": num_patches / words,
        "share_of_shortest_patches": shortest,
        "share_of_longest_patches": longest,
        "cost_over_entropy": paid / promised,
        "start_separation": separation,
        "by_class": {each.pop("class"): each for each in classes},
        "by_position": dicts(
            "from to positions mean_entropy_nats start_rate",
            """SELECT low, high, count(*), avg(nats), avg(starts::INTEGER) FROM positions JOIN bins ON i >= low AND i < high
               WHERE {where} GROUP BY ALL ORDER BY low""",
        ),
        "by_tenth": [tenths.get(part) for part in range(10)],
        "byte_counts": [counts.get(value, 0) for value in range(256)],
        "start_rate_after": [after.get(value) for value in range(256)],
        "seams": dicts(
            "window positions positions_before before_nats after_nats",
            """WITH places AS (SELECT w AS size, n, i, nats, i % w < 4 AS is_after,
                                     i // w * w + CASE WHEN i % w < 4 THEN 0 ELSE w END AS middle
                              FROM positions, (VALUES (256), (512), (1024), (2048), (4096), (8192), (16384)) AS windows(w)
                              WHERE {where} AND (i % w < 4 OR i % w >= w - 64))
               SELECT size, count(*) FILTER (is_after), count(*) FILTER (NOT is_after), avg(nats) FILTER (NOT is_after),
                      avg(nats) FILTER (is_after)
               FROM places WHERE middle > 256 AND middle < n AND i < n GROUP BY 1 ORDER BY 1""",
        ),
        "documents_by_entropy": dicts(
            "from_nats documents count mean_entropy_nats mean_nll_nats",
            """SELECT floor(promised / (n + 1) * 4) / 4, count(*), sum(n + 1), sum(promised) / sum(n + 1), sum(nll) / sum(n + 1)
               FROM documents WHERE {where} GROUP BY 1 ORDER BY 1""",
        ),
    }


def test_every_number_is_what_sql_says(folder: Path, sql: duckdb.DuckDBPyConnection) -> None:
    report = to_mapping(collect_statistics(open_shards(folder)))
    assert set(report["by_source"]) == {"news", "code", "poems"}
    for where, got in [("true", report["overall"]), *((f"source = '{name}'", part) for name, part in report["by_source"].items())]:
        expected = by_query(sql, where)
        assert set(expected) == set(breakdown.KEYS)
        assert_close({key: got[key] for key in expected}, expected)
    overall = report["overall"]
    # It has all that there is to find.
    assert set(overall["by_class"]) == set(CLASSES)
    assert None not in overall["by_tenth"]
    assert [each["window"] for each in overall["seams"]] == [256, 512, 1024, 2048, 4096]
    assert len(overall["documents_by_entropy"]) > 5
