import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bltdata.shards import open_shards
from bltdata.stats import DatasetStatistics, collect_statistics, render, report, to_mapping

Rows = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def statistics(dataset_folder: Callable[..., Path], rows: Rows) -> DatasetStatistics:
    return collect_statistics(open_shards(dataset_folder(rows(60))))


def test_every_key_is_explained_and_every_explanation_has_a_key(statistics: DatasetStatistics) -> None:
    mapping = to_mapping(statistics)
    for part in (mapping["overall"], *mapping["by_source"].values()):
        assert list(part) == list(report.KEYS)
        assert list(part["entropy_bits"]) == ["mean", "std", "median", "min", "max", "p1", "p5", "p25", "p75", "p95", "p99"]


def test_a_report_is_json(statistics: DatasetStatistics) -> None:
    for mapping in (to_mapping(statistics), to_mapping(DatasetStatistics())):
        assert json.loads(json.dumps(mapping, allow_nan=False)) == mapping


def test_the_tables_show_the_numbers(statistics: DatasetStatistics) -> None:
    mapping = to_mapping(statistics)
    text = render(mapping)
    lines = {line.split()[0]: line for line in text.splitlines() if line.split()}
    assert f"{mapping['overall']['total_bytes']:,}" in lines["all"]
    assert f"{mapping['overall']['entropy_model_bits_per_byte']:.3f}" in lines["all"]
    assert f"{mapping['by_source']['code']['documents']}" in lines["code"]
    entropy = next(line for line in text.splitlines() if "entropy, nats" in line)
    for name in ("mean", "std", "median", "p95", "max"):
        assert f"{mapping['overall']['entropy_nats'][name]:.3f}" in entropy
    assert max(map(len, text.splitlines())) <= 110
    assert not any(mark in text for mark in ("nan", "\x1b", "…"))


def test_tables_of_nothing(dataset_folder: Callable[..., Path]) -> None:
    text = render(to_mapping(DatasetStatistics()))
    assert "nan" not in text
    assert "None" not in text
    assert next(line for line in text.splitlines() if "entropy, bits  " in line).split()[2:] == ["-"] * 8


def test_a_sources_name_is_no_markup(dataset_folder: Callable[..., Path], rows: Rows) -> None:
    statistics = collect_statistics(open_shards(dataset_folder(rows(5, sources=["[red]odd[/nonsense]"]))))
    assert "[red]odd[/nonsense]" in render(to_mapping(statistics))
