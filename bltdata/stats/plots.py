"""The three histograms of a dataset as PNG files."""

import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bltdata import atomic
from bltdata.stats.sections import number
from bltdata.stats.sources import SourceStatistics
from bltdata.stats.summary import Summary
from bltdata.vocab import MAX_ENTROPY_NATS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BAR_COLOUR = "#4c78a8"
MEAN_COLOUR = "#222222"
THRESHOLD_COLOUR = "#e45756"
GRID_COLOUR = "#dddddd"

ENTROPY_BIN_NATS = 1 / 16
LONGEST_BAR = 64
"""Patches longer than this share one note instead of a bar each."""
LARGEST_SINGLE_BAR = 60
"""Up to this many boundaries each number has its bar; above, bars widen by a constant factor."""
BINS_PER_DECADE = 8


def write_plots(source: SourceStatistics, folder: Path | str, *, threshold_nats: float | None = None) -> list[Path]:
    """Draw the distributions of entropies, boundaries per document and patch lengths.

    Args:
        source: statistics, e.g. those of a whole dataset.
        folder: where `entropy.png`, `boundaries_per_document.png` and `patch_length.png` go; made if it isn't there.
        threshold_nats: where the patch rule's threshold lies, to be marked in the first.

    Returns:
        The three files.
    """
    figures = {
        "entropy.png": entropy_figure(source, threshold_nats),
        "boundaries_per_document.png": boundaries_figure(source),
        "patch_length.png": patch_length_figure(source),
    }
    paths = []
    for name, figure in figures.items():
        paths.append(Path(folder) / name)
        write_figure(figure, paths[-1])
    return paths


def write_figure(figure: "Figure", path: Path) -> None:
    """Write a figure as PNG; its folder is made if it isn't there."""
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=150)
    atomic.write_bytes(path, image.getvalue())


def entropy_figure(source: SourceStatistics, threshold_nats: float | None = None) -> "Figure":
    """Share of positions by entropy, with the threshold and the part of the positions above it."""
    summary = source.entropy.summary()
    figure, axes = blank_axes("Entropy of the next byte", "entropy, nats", "positions, %")
    if summary.total == 0:
        return nothing_to_show(figure, axes)
    last = max(MAX_ENTROPY_NATS, summary.values[-1])
    edges = np.arange(0, last + ENTROPY_BIN_NATS, ENTROPY_BIN_NATS)
    _bars(axes, summary, edges)
    axes.set_xlim(0, last)
    _mark_mean(axes, summary, "nats")
    if threshold_nats is not None:
        above = summary.counts[summary.values > np.float32(threshold_nats)].sum() / summary.total
        axes.axvline(threshold_nats, color=THRESHOLD_COLOUR, linewidth=1.6, label=f"threshold {threshold_nats:.3g}: {above:.1%} above it")
    in_bits = axes.secondary_xaxis("top", functions=(lambda nats: nats / np.log(2), lambda bits: bits * np.log(2)))
    in_bits.set_xlabel("bits")
    _legend(axes)
    return figure


def boundaries_figure(source: SourceStatistics) -> "Figure":
    """Share of documents by the number of patch starts inside them."""
    summary = source.boundaries.summary()
    figure, axes = blank_axes("Boundaries per document", "patch starts inside the document", "documents, %")
    if summary.total == 0:
        return nothing_to_show(figure, axes)
    edges = _count_edges(int(summary.values[0]), int(summary.values[-1]))
    if np.diff(edges).max() > 1:
        axes.set_xscale("symlog", linthresh=1, linscale=0.3)
        axes.xaxis.set_major_formatter("{x:,.0f}")
    _bars(axes, summary, edges)
    axes.set_xlim(edges[0], edges[-1])
    _mark_mean(axes, summary, "")
    _legend(axes)
    return figure


def patch_length_figure(source: SourceStatistics) -> "Figure":
    """Share of patches by length: a single tall bar is a fixed stride in disguise."""
    summary = source.patch_lengths.summary()
    figure, axes = blank_axes("Patch length", "bytes in the patch", "patches, %")
    if summary.total == 0:
        return nothing_to_show(figure, axes)
    edges = np.arange(1, min(int(summary.values[-1]), LONGEST_BAR) + 2) - 0.5
    _bars(axes, summary, edges)
    axes.set_xlim(edges[0], edges[-1])
    _mark_mean(axes, summary, "bytes")
    longer = summary.counts[summary.values > LONGEST_BAR].sum() / summary.total
    if longer:
        axes.plot([], [], " ", label=f"{longer:.2%} are longer than {LONGEST_BAR}, up to {int(summary.values[-1]):,} bytes")
    _legend(axes)
    return figure


def blank_axes(title: str, x_label: str, y_label: str) -> "tuple[Figure, Axes]":
    """A figure in the style of all of them, with nothing in it yet."""
    # No pyplot: its global list of figures would hold on to each one and pick a window system.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_title(title, loc="left", fontweight="bold")
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_axisbelow(True)
    axes.grid(axis="y", color=GRID_COLOUR, linewidth=0.8)
    return figure, axes


def _bars(axes: "Axes", summary: Summary, edges: np.ndarray) -> None:
    counts, _ = np.histogram(summary.values, bins=edges, weights=summary.counts)
    axes.bar(edges[:-1], counts * 100 / summary.total, np.diff(edges), align="edge", color=BAR_COLOUR, edgecolor="white", linewidth=0.4)


def _count_edges(smallest: int, largest: int) -> np.ndarray:
    """Borders of bars over the integers `smallest ... largest`: one bar each, or bars that widen by a constant factor.

    >>> _count_edges(2, 4)
    array([1.5, 2.5, 3.5, 4.5])
    """
    if largest <= LARGEST_SINGLE_BAR:
        return np.arange(smallest, largest + 2) - 0.5
    # Documents differ by factors, so the axis does too; zero has no place on it and gets a bar of its own.
    first, last = max(smallest, 1), largest + 1
    edges = np.unique(np.geomspace(first, last, int(BINS_PER_DECADE * np.log10(last / first)) + 2).round())
    return edges if smallest else np.concatenate([[0.0], edges])


def _legend(axes: "Axes") -> None:
    # Beside the plot: looking for the emptiest place inside is slow enough that matplotlib warns of it.
    axes.figure.legend(loc="outside lower right", frameon=False)


def _mark_mean(axes: "Axes", summary: Summary, unit: str) -> None:
    label = f"mean {number(summary.mean)} {unit}, median {number(summary.median)} {unit}".replace(" ,", ",").rstrip()
    axes.axvline(summary.mean or 0.0, color=MEAN_COLOUR, linewidth=1.2, linestyle="--", label=label)


def nothing_to_show(figure: "Figure", axes: "Axes") -> "Figure":
    """Say so in a figure that has no values."""
    axes.text(0.5, 0.5, "no documents", transform=axes.transAxes, ha="center", va="center", color="#888888")
    return figure
