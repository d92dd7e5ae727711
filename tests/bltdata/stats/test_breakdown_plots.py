"""Pictures of breakdowns show the numbers of the report."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bltdata.shards import open_shards
from bltdata.stats import DatasetStatistics, collect_statistics, to_mapping
from bltdata.stats.breakdown_plots import MAX_SOURCES, class_figure, position_figure, source_figure

Rows = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def report(dataset_folder: Callable[..., Path], rows: Rows) -> dict[str, Any]:
    sources = [f"${index}$_source\u4e2d{'x' * 30}" for index in range(MAX_SOURCES + 6)]
    return to_mapping(collect_statistics(open_shards(dataset_folder(rows(300, sources=sources)))))


def test_classes_and_positions(report: dict[str, Any]) -> None:
    overall = report["overall"]
    bars = class_figure(overall).axes[0].patches
    assert [bar.get_width() for bar in bars] == [found["mean_entropy_nats"] for found in overall["by_class"].values()]
    (line,) = position_figure(overall).axes[0].lines
    assert list(line.get_xdata()) == [found["from"] for found in overall["by_position"]]
    assert list(line.get_ydata()) == [found["mean_entropy_nats"] for found in overall["by_position"]]


def test_the_largest_sources_have_bars_and_short_names(report: dict[str, Any]) -> None:
    figure = source_figure(report)
    figure.canvas.draw()
    (axes,) = figure.axes
    largest = sorted(report["by_source"].items(), key=lambda item: -item[1]["total_bytes"])[:MAX_SOURCES]
    assert [bar.get_width() for bar in axes.patches] == [source["patch_length"]["mean"] for _, source in largest]
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert all(len(name) <= 24 and name.isascii() for name in names)
    assert names[0] == f"{largest[0][0].split('_')[0]}_source\\u4e2dxxxxxxxxxxxxxx"[:21] + "..."
    assert axes.lines[0].get_xdata()[0] == report["overall"]["patch_length"]["mean"]


def test_nothing_to_show_is_said() -> None:
    nothing = to_mapping(DatasetStatistics())
    for figure in (class_figure(nothing["overall"]), position_figure(nothing["overall"]), source_figure(nothing)):
        assert figure.axes[0].texts[0].get_text() == "no documents"
