"""Figures as parts of a page."""

import re
import xml.etree.ElementTree as ElementTree

from bltdata.stats.plots import BAR_COLOUR, blank_axes
from bltdata.stats.svg import inline_svg


def drawn(prefix: str, label: str = "A label", text: str = "text") -> str:
    figure, axes = blank_axes("Title", "x", "y")
    axes.bar([1, 2], [3, 4], color=BAR_COLOUR, label=text)
    figure.legend(frameon=False)
    return inline_svg(figure, prefix, label)


def test_equal_figures_are_equal_and_prefixes_keep_them_apart() -> None:
    one, other = drawn("f0"), drawn("f1")
    assert one == drawn("f0")
    names = [set(re.findall(r'\bid="([^"]+)"', svg)) for svg in (one, other)]
    assert names[0]
    assert not names[0] & names[1]
    for svg, found in zip((one, other), names, strict=True):
        assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', svg)) <= found


def test_labels_are_text_and_colours_are_the_pages() -> None:
    label, text = '"><script>alert(1)</script>', "<b>#4c78a8</b> & more"
    svg = drawn("f0", label, text)
    element = ElementTree.fromstring(svg)
    assert element.get("aria-label") == label
    assert text in "".join(element.itertext())
    assert "var(--bar)" in svg
    assert not re.search(r'style="[^"]*#[0-9a-f]{6}', svg)
    # Neither when nor by what it was drawn.
    assert "<metadata" not in svg
