"""The page and the Markdown: whole, well-formed, and nothing but text whatever sources are called."""

import re
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from bltdata.shards import open_shards
from bltdata.stats import DatasetStatistics, to_markdown, to_page
from bltdata.stats.assess import assess, count, count_jobs
from bltdata.stats.rendering import escape_markdown
from bltdata.stats.sections import sections

VOID = {"meta", "link", "br"}


@pytest.fixture(scope="module")
def page(hostile: tuple[dict[str, Any], DatasetStatistics]) -> str:
    return to_page(*hostile, title="<i>Title</i>", threshold_nats=2.5)


class Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_names_are_text_and_nothing_runs_or_loads(page: str) -> None:
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert reader.open == []
    assert not {"script", "img", "i", "b", "iframe", "object", "image"} & set(reader.tags)
    assert not [name for _, name, _ in reader.attributes if name.startswith("on")]
    loads = [value for _, name, value in reader.attributes if name in ("src", "href", "xlink:href")]
    assert all(value.startswith("#") or value == "data:," for value in loads)
    assert "url(" not in re.sub(r"url\(#", "", page)
    for shown in ("<script>alert(1)</script>", "\"'><img src=x onerror=y>", "<i>Title</i>", "\\x1b[31m", "\\u202e"):
        assert shown in reader.text
    assert "default-src 'none'" in page


def test_pictures_are_well_formed_and_have_names_of_their_own(page: str) -> None:
    drawn = re.findall(r"<svg .*?</svg>", page, flags=re.DOTALL)
    assert len(drawn) == 7
    names = Counter(element.get("id") for svg in drawn for element in ElementTree.fromstring(svg).iter() if element.get("id"))
    assert max(names.values()) == 1
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', page))
    assert used <= set(names)
    # Every colour is one of the page's own, which has two sets of them.
    assert set(re.findall(r"#[0-9a-f]{6}", "".join(re.findall(r'style="[^"]*"', page)))) == set()
    assert "prefers-color-scheme: dark" in page


def test_the_page_says_what_the_report_says(page: str, hostile: tuple[dict[str, Any], DatasetStatistics]) -> None:
    report, _ = hostile
    reader = Reader()
    reader.feed(page)
    for each in report["diagnostics"]:
        assert each["name"] in reader.text
        assert each["verdict"] in reader.text
    for section in sections(report):
        assert section.title in reader.text
        assert all(cell in reader.text for row in section.rows for cell in row)
    assert to_page(*hostile, title="<i>Title</i>", threshold_nats=2.5) == page


def test_markdown_has_every_cell_and_no_markup_of_others(hostile: tuple[dict[str, Any], DatasetStatistics]) -> None:
    report, _ = hostile
    text = to_markdown(report, "<i>Title</i>")
    lines = text.splitlines()
    assert lines[0] == "# &lt;i&gt;Title&lt;/i&gt;"
    assert not re.search(r"<[a-z/]", text)
    for section in sections(report):
        start = lines.index(f"## {section.title}") + 2
        for line, row in zip(lines[start + 2 :], section.rows, strict=False):
            assert line == "| " + " | ".join(map(escape_markdown, row)) + " |"
            assert len(re.findall(r"(?<!\\)\|", line)) == len(section.headings) + 1
    assert all(escape_markdown(each["evidence"]) in text for each in report["diagnostics"])


def test_nothing_to_report(dataset_folder: Callable[..., Path]) -> None:
    dataset = open_shards(dataset_folder([]))
    made = assess([dataset], map(count, count_jobs([dataset], 1)))
    for text in (to_page(*made), to_markdown(made[0])):
        assert not re.search(r"\bnan\b|None", text)
