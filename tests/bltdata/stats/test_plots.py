import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bltdata.shards import open_shards
from bltdata.stats import SourceStatistics, collect_statistics, plots
from bltdata.stats.plots import boundaries_figure, entropy_figure, patch_length_figure, write_plots
from bltdata.stats.sections import number

NAMES = ["boundaries_per_document.png", "entropy.png", "patch_length.png"]
FIGURES = [entropy_figure, boundaries_figure, patch_length_figure]


@pytest.fixture
def source(dataset_folder: Callable[..., Path], rows: Callable[..., list[dict[str, Any]]]) -> SourceStatistics:
    return collect_statistics(open_shards(dataset_folder(rows(200)))).overall()


def legend(figure: Any) -> str:
    return " | ".join(text.get_text() for text in figure.legends[0].get_texts())


def test_three_pictures_that_depend_on_the_statistics_only(source: SourceStatistics, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "plots"
    paths = write_plots(source, folder, threshold_nats=2.5)
    assert sorted(path.name for path in paths) == sorted(os.listdir(folder)) == NAMES
    pictures = [path.read_bytes() for path in paths]
    assert all(picture.startswith(b"\x89PNG") and len(picture) > 5000 for picture in pictures)
    assert [path.read_bytes() for path in write_plots(source, folder, threshold_nats=2.5)] == pictures


@pytest.mark.parametrize("make", FIGURES)
def test_bars_add_up_to_everything(
    source: SourceStatistics, make: Callable[[SourceStatistics], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plots, "LONGEST_BAR", 1000)
    (axes,) = make(source).axes
    assert sum(bar.get_height() for bar in axes.patches) == pytest.approx(100)


def test_the_threshold_is_marked_with_the_share_above_it(source: SourceStatistics) -> None:
    summary = source.entropy.summary()
    above = summary.counts[summary.values > 2.5].sum() / summary.total
    assert f"threshold 2.5: {above:.1%} above it" in legend(entropy_figure(source, 2.5))
    assert "threshold" not in legend(entropy_figure(source))
    assert f"mean {number(summary.mean)} nats, median {number(summary.median)} nats" in legend(entropy_figure(source))


def test_a_mean_is_never_a_power_of_ten() -> None:
    source = SourceStatistics()
    source.boundaries.add(np.array([999, 1000, 1000]))
    assert legend(boundaries_figure(source)) == "mean 999.7, median 1,000"


def test_long_patches_are_said_not_drawn(monkeypatch: pytest.MonkeyPatch, source: SourceStatistics) -> None:
    monkeypatch.setattr(plots, "LONGEST_BAR", 5)
    figure = patch_length_figure(source)
    lengths = source.patch_lengths.summary()
    share = lengths.counts[lengths.values > 5].sum() / lengths.total
    assert len(figure.axes[0].patches) == 5
    assert f"{share:.2%} are longer than 5, up to {lengths.values[-1]}" in legend(figure)


@pytest.mark.parametrize("boundaries", [[0], [7, 7], [0, 3, 60], [61], [1000, 1000], [0, 5, 1_000_000], [3, 70, 20_000]])
def test_any_documents_have_bars(boundaries: list[int]) -> None:
    source = SourceStatistics()
    source.boundaries.add(np.array(boundaries))
    figure = boundaries_figure(source)
    figure.canvas.draw()
    assert sum(bar.get_height() for bar in figure.axes[0].patches) == pytest.approx(100)


@pytest.mark.parametrize("make", FIGURES)
def test_nothing_to_show_is_said(make: Callable[[SourceStatistics], Any]) -> None:
    figure = make(SourceStatistics())
    figure.canvas.draw()
    assert figure.axes[0].texts[0].get_text() == "no documents"


def test_a_failing_plot_leaves_the_old_one(source: SourceStatistics, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "plots"
    before = {path: path.read_bytes() for path in write_plots(source, folder)}

    def fail(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("bltdata.atomic.os.replace", fail)
    with pytest.raises(OSError, match="No space left"):
        write_plots(source, folder, threshold_nats=1.0)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_pyplot_stays_out_of_it() -> None:
    import subprocess
    import sys

    code = (
        "import sys; from bltdata.stats import SourceStatistics; from bltdata.stats.plots import entropy_figure;"
        "before = 'matplotlib' in sys.modules; entropy_figure(SourceStatistics());"
        "print(before, 'matplotlib.pyplot' in sys.modules, 'torch' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["False", "False", "False"]
