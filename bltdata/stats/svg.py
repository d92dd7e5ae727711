"""A matplotlib figure as a part of a page: an SVG whose colours are those of the page, light or dark."""

import html
import io
import re
from typing import TYPE_CHECKING

from bltdata.stats.plots import BAR_COLOUR, GRID_COLOUR, MEAN_COLOUR, THRESHOLD_COLOUR

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH_INCHES, HEIGHT_INCHES = 5.4, 3.7
"""About as wide as a phone, so that letters are not made smaller there."""

_COLOURS = {
    BAR_COLOUR: "var(--bar)",
    MEAN_COLOUR: "var(--ink)",
    THRESHOLD_COLOUR: "var(--mark)",
    GRID_COLOUR: "var(--line)",
    "#000000": "var(--ink)",
    "#888888": "var(--soft)",
    "#ffffff": "var(--panel)",
}


def inline_svg(figure: "Figure", prefix: str, label: str) -> str:
    """The figure as an `<svg>` element, equal for equal figures.

    Args:
        figure: is made small.
        prefix: letters that begin the identifiers in it; another for each figure of a page.
        label: what a reader is told who doesn't see it.
    """
    import matplotlib

    figure.set_size_inches(WIDTH_INCHES, HEIGHT_INCHES)
    drawn = io.StringIO()
    # As text, not as outlines, so that it can be searched and has the colour of the page's.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "bltdata"}):
        figure.savefig(drawn, format="svg", transparent=True, metadata={"Date": None})
    svg = drawn.getvalue()
    # A page needs neither the declarations before the element nor the description inside it.
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}-", svg)
    # Only in styles: a label may look like a colour.
    svg = re.sub(r'style="[^"]*"', lambda style: _recolour(style[0]), svg)
    return svg.replace("<svg ", f'<svg role="img" aria-label="{html.escape(label)}" ', 1).rstrip()


def _recolour(style: str) -> str:
    return re.sub(r"#[0-9a-f]{6}\b", lambda colour: _COLOURS.get(colour[0], colour[0]), style)
