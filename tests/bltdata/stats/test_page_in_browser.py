"""The pages of statistics in Chromium: they fit, they can be read in both colours, and nothing in them runs or loads."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bltdata.stats import DatasetStatistics, to_comparison_page, to_page
from bltdata.stats.sections import sections
from tests.bltdata.browser import Opener

pytestmark = pytest.mark.browser

Made = tuple[dict[str, Any], DatasetStatistics]

CONTRASTS = """() => {
    const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
    const rgba = (colour) => {
        canvas.clearRect(0, 0, 1, 1);
        canvas.fillStyle = colour;
        canvas.fillRect(0, 0, 1, 1);
        return [...canvas.getImageData(0, 0, 1, 1).data];
    };
    const luminance = (colour) => {
        const parts = rgba(colour).slice(0, 3).map((part) => part / 255);
        const [r, g, b] = parts.map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const behind = (element) => {
        while (rgba(getComputedStyle(element).backgroundColor)[3] < 255) element = element.parentElement;
        return getComputedStyle(element).backgroundColor;
    };
    const found = [];
    for (const element of document.querySelectorAll("h1, h2, p, strong, span, th, td, svg text")) {
        const style = getComputedStyle(element);
        const [one, other] = [element.ownerSVGElement ? style.fill : style.color, behind(element)].map(luminance);
        found.push([(Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05), element.textContent]);
    }
    return found;
}"""
"""How much lighter or darker each text is than what is behind it: https://www.w3.org/TR/WCAG21/#dfn-contrast-ratio."""

OUTSIDE = """() => [...document.querySelectorAll("h1, h2, p, li, figure, svg, .scroll")]
    .filter((element) => element.getBoundingClientRect().left < 0 || element.getBoundingClientRect().right > innerWidth)
    .map((element) => element.outerHTML.slice(0, 100))"""


@pytest.fixture
def opened(browser: Any, tmp_path: Path) -> Iterator[Opener]:
    opener = Opener(browser, tmp_path)
    yield opener
    opener.close()


def comparison(made: Made) -> str:
    report, statistics = made
    source = next(iter(report["by_source"]))
    keys = ("documents", "total_bytes", "patches_per_byte", "share_of_most_common_patch_length", "entropy_model_bits_per_byte")
    found = {key: report["overall"][key] for key in keys} | {
        "dataset": source,
        "rule": source,
        "mean_patch_length_by_source": {source: 4.5},
    }
    numbers = dict.fromkeys(["mean_patch_length", "std_patch_length", "p95_patch_length", "mean_entropy_nats"], 2.25)
    return to_comparison_page([found | numbers] * 2, [statistics, statistics], title=source)


@pytest.mark.parametrize("colours", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("kind", ["report", "comparison"])
def test_a_page_fits_and_can_be_read(opened: Opener, hostile: Made, kind: str, width: int, colours: Any) -> None:
    text = to_page(*hostile, title="A <b>title</b> " + "of-a-folder/" * 20, threshold_nats=2.5) if kind == "report" else comparison(hostile)
    page = opened.open(text, viewport={"width": width, "height": 800}, color_scheme=colours)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.evaluate(OUTSIDE) == []
    contrasts = page.evaluate(CONTRASTS)
    assert len(contrasts) > 20
    # As the guidelines want it of small text.
    assert [text for contrast, text in contrasts if contrast < 4.5] == []
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(19, 20, 24)") == (colours == "dark")


def test_all_of_the_report_is_there_and_nothing_runs(opened: Opener, hostile: Made) -> None:
    report, _ = hostile
    page = opened.open(to_page(*hostile, title="<script>window.hacked = 1</script>"))
    assert page.locator("h1").inner_text() == page.title() == "<script>window.hacked = 1</script>"
    titles = [section.title for section in sections(report)]
    assert page.locator("h2").all_inner_texts() == ["Diagnostics", "Pictures", *titles]
    assert page.get_by_role("region").evaluate_all("all => all.map((each) => each.ariaLabel)") == titles
    assert page.locator(".diagnoses li").count() == len(report["diagnostics"])
    pictures = page.get_by_role("img")
    assert pictures.count() == 7
    assert all(box["width"] > 250 and box["height"] > 150 for box in (each.bounding_box() for each in pictures.all()) if box)
    first = page.get_by_role("region", name="Sources").locator("td:first-child").all_inner_texts()
    assert "<script>alert(1)</script>" in first
    assert page.evaluate("[window.hacked, document.scripts.length, document.images.length]") == [None, 0, 0]
    assert len(opened.requests) == 1


def test_wide_tables_are_scrolled_with_the_keyboard_and_keep_their_names(opened: Opener, hostile: Made) -> None:
    page = opened.open(to_page(*hostile), viewport={"width": 390, "height": 800})
    table = page.get_by_role("region", name="All documents")
    table.focus()
    before = table.locator("td").first.bounding_box()
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    # Not wait_for_function: it evaluates text in the page, which the page's own policy forbids.
    deadline = time.monotonic() + 20
    while page.evaluate("document.activeElement.scrollLeft") <= 100 and time.monotonic() < deadline:
        page.wait_for_timeout(20)
    assert page.evaluate("document.activeElement.scrollLeft") > 100
    assert table.locator("td").first.bounding_box() == before
    assert page.evaluate("scrollX") == 0
