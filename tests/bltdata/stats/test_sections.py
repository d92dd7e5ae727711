"""What a report shows: cells of text."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from bltdata.shards import open_shards
from bltdata.stats import DatasetStatistics, collect_statistics, to_mapping
from bltdata.stats.rendering import markdown_table, section_table
from bltdata.stats.sections import MIN_BYTE_SHARE, Section, sections

TITLES = ["Sources", "Patches by source", "All documents", "Classes of bytes", "Distance from the start", "Starts after a byte"]


def test_byte_values_that_hardly_occur_are_not_listed(dataset_folder: Callable[..., Path], row: Callable[..., dict[str, Any]]) -> None:
    # A patch starts after each b and after the only z.
    data = b"aaab" * 500 + b"zaaa"
    lengths = [4] * 500 + [1, 4]
    folder = dataset_folder([row("a", data) | {"patch_lengths": lengths}])
    report = to_mapping(collect_statistics(open_shards(folder)))
    assert report["overall"]["start_rate_after"][ord("z")] == report["overall"]["start_rate_after"][ord("b")] == 1.0
    assert report["overall"]["byte_counts"][ord("z")] == 1 < MIN_BYTE_SHARE * len(data)
    starts = {section.title: section for section in sections(report)}["Starts after a byte"]
    assert starts.rows == [("0x62 'b'", "500", "100.0%"), ("0x61 'a'", "1,503", "0.0%")]


def test_every_row_has_a_cell_for_each_heading(dataset_folder: Callable[..., Path], rows: Callable[..., Any]) -> None:
    for statistics in (collect_statistics(open_shards(dataset_folder(rows(30)))), DatasetStatistics()):
        found = sections(to_mapping(statistics))
        assert [section.title for section in found] == TITLES
        assert all(len(row) == len(section.headings) for section in found for row in section.rows)


def test_columns_of_text_begin_on_the_left() -> None:
    section = Section(title="T", headings=("name", "count", "rule"), rows=[("a", "1", "fixed")], texts=("rule",))
    assert markdown_table(section).splitlines() == ["| name | count | rule |", "| --- | ---: | --- |", "| a | 1 | fixed |"]
    assert [column.justify for column in section_table(section).columns] == ["left", "right", "left"]
