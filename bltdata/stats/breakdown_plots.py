"""Pictures of entropies by class, by distance from the start and by source."""

from typing import TYPE_CHECKING, Any

from bltdata.patching.display import printable_line
from bltdata.stats.plots import BAR_COLOUR, MEAN_COLOUR, blank_axes, nothing_to_show

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_SOURCES = 24
"""Sources that a picture has room for: the largest."""
MAX_NAME = 24
"""Characters of a name beside a bar."""


def class_figure(overall: dict[str, Any]) -> "Figure":
    """Mean entropy by class of bytes."""
    figure, axes = blank_axes("Entropy by class of byte", "mean entropy, nats", "")
    classes = {name: found for name, found in overall["by_class"].items() if found["mean_entropy_nats"] is not None}
    if not classes:
        return nothing_to_show(figure, axes)
    axes.barh(list(classes), [found["mean_entropy_nats"] for found in classes.values()], color=BAR_COLOUR)
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    return figure


def position_figure(overall: dict[str, Any]) -> "Figure":
    """Mean entropy by distance from the start of the document: where it goes on changing, entropies drift."""
    figure, axes = blank_axes("Entropy by distance from the start", "position in the document", "mean entropy, nats")
    bins = overall["by_position"]
    if not bins:
        return nothing_to_show(figure, axes)
    # A symmetric logarithm has a place for position 0.
    axes.set_xscale("symlog", linthresh=1)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.plot([found["from"] for found in bins], [found["mean_entropy_nats"] for found in bins], color=BAR_COLOUR, linewidth=1.8)
    axes.set_ylim(bottom=0)
    return figure


def source_figure(report: dict[str, Any]) -> "Figure":
    """Bytes for a patch by source: those that are far below the line pay more than the rest."""
    figure, axes = blank_axes("Bytes for a patch, by source", "bytes per patch", "")
    by_size = sorted(report["by_source"].items(), key=lambda item: -item[1]["total_bytes"])[:MAX_SOURCES]
    shown = [(name, source["patch_length"]["mean"]) for name, source in by_size if source["patch_length"]["mean"] is not None]
    if not shown:
        return nothing_to_show(figure, axes)
    axes.barh(range(len(shown)), [length for _, length in shown], color=BAR_COLOUR)
    # Never as mathematics, which matplotlib makes of dollar signs.
    axes.set_yticks(range(len(shown)), [_short(name) for name, _ in shown], parse_math=False)
    axes.axvline(report["overall"]["patch_length"]["mean"], color=MEAN_COLOUR, linewidth=1.2, linestyle="--")
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    return figure


def _short(name: str) -> str:
    # The font that pictures are drawn with has few letters beyond ASCII.
    text = printable_line(name).encode("ascii", "backslashreplace").decode()
    return text if len(text) <= MAX_NAME else text[: MAX_NAME - 3] + "..."
