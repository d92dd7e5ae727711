"""What a model paid against what it expected to pay, by entropy, as a picture."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bltdata.stats.plots import BAR_COLOUR, MEAN_COLOUR, blank_axes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LARGEST_MARK = 400
"""Area of the mark of a bin that holds all positions, in square points."""


def reliability_figure(bins: Sequence[Mapping[str, Any]], title: str = "Can the entropies be believed?") -> "Figure":
    """A mark for each bin, at its mean entropy and its mean negative log-likelihood, as large as its share of the positions.

    Args:
        bins: each with `count`, `mean_entropy_nats` and `mean_nll_nats`.
        title: the heading.
    """
    figure, axes = blank_axes(title, "mean entropy of the bin, nats", "mean negative log-likelihood, nats")
    entropies = [found["mean_entropy_nats"] for found in bins]
    costs = [found["mean_nll_nats"] for found in bins]
    total = sum(found["count"] for found in bins)
    last = max([*entropies, *costs, 1.0]) * 1.05
    axes.plot([0, last], [0, last], color=MEAN_COLOUR, linewidth=1.2, linestyle="--", label="as expected; above it the model is too sure")
    axes.plot(entropies, costs, color=BAR_COLOUR, linewidth=1.2)
    areas = [max(LARGEST_MARK * found["count"] / total, 4.0) for found in bins]
    axes.scatter(entropies, costs, areas, color=BAR_COLOUR, label="bins; area by share of positions", zorder=3)
    axes.set_xlim(0, last)
    axes.set_ylim(0, last)
    figure.legend(loc="outside lower right", frameon=False, markerscale=0.5)
    return figure
