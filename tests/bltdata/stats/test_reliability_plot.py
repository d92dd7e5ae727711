import numpy as np
import pytest

from bltdata.stats.plots import write_figure
from bltdata.stats.reliability_plot import reliability_figure

BINS = [
    {"count": 30, "mean_entropy_nats": 0.5, "mean_nll_nats": 0.75},
    {"count": 10, "mean_entropy_nats": 3.0, "mean_nll_nats": 7.0},
]


def test_a_mark_for_each_bin_as_large_as_its_share(tmp_path):
    figure = reliability_figure(BINS)
    (axes,) = figure.axes
    (marks,) = axes.collections
    assert np.asarray(marks.get_offsets()).tolist() == [[0.5, 0.75], [3.0, 7.0]]
    assert marks.get_sizes()[0] == pytest.approx(3 * marks.get_sizes()[1])
    # All of it is seen, and the line of what is expected is the diagonal.
    assert axes.get_xlim() == axes.get_ylim()
    assert axes.get_ylim()[1] > 7.0
    diagonal = axes.lines[0]
    assert list(diagonal.get_xdata()) == list(diagonal.get_ydata())
    write_figure(figure, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_nothing_to_show():
    assert reliability_figure([]).axes[0].get_xlim()[1] > 0
