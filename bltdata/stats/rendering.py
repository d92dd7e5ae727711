"""A report as tables for a terminal, and as Markdown."""

import io
import re
from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bltdata.patching.display import printable_line
from bltdata.stats.sections import Section, sections

_WIDTH = 110
_MARKDOWN_SIGNS = re.compile(r"([\\`*_{}\[\]#!|~])")


def tables(report: dict[str, Any]) -> list[Table]:
    """The tables that say most, for a terminal, from what `to_mapping` gives."""
    return [section_table(section) for section in sections(report) if section.is_brief]


def render(report: dict[str, Any]) -> str:
    """The same as text."""
    # Not as Jupyter would have it: there rich shows a table itself, and gives no text.
    console = Console(file=io.StringIO(), width=_WIDTH, color_system=None, force_jupyter=False)
    console.print(*tables(report))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def diagnosis_lines(diagnoses: list[dict[str, Any]]) -> list[str]:
    """A line for each diagnosis, and one below it with what to do."""
    lines = []
    for each in diagnoses:
        lines.append(f"{each['verdict']:<11}  {each['name']}: {printable_line(each['evidence'])}")
        if each["advice"]:
            lines.append(f"{'':<11}  {each['advice']}")
    return lines


def to_markdown(report: dict[str, Any], title: str = "Statistics") -> str:
    """Everything, as Markdown with tables; whatever sources and folders are called, they stay text."""
    diagnoses = [_diagnostics(report["diagnostics"])] if report.get("diagnostics") else []
    return sections_to_markdown([*diagnoses, *sections(report)], title)


def sections_to_markdown(found: Sequence[Section], title: str) -> str:
    """Tables as Markdown, each with its title above."""
    parts = [f"# {escape_markdown(title)}"]
    for section in found:
        parts += [f"## {escape_markdown(section.title)}", markdown_table(section)]
        if section.note:
            parts.append(escape_markdown(section.note))
    return "\n\n".join(parts) + "\n"


def escape_markdown(text: str) -> str:
    r"""Text that Markdown shows as it stands, also in a table.

    >>> print(escape_markdown("a|b <i>*x*</i>"))
    a\|b &lt;i&gt;\*x\*&lt;/i&gt;
    """
    entities = printable_line(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _MARKDOWN_SIGNS.sub(r"\\\1", entities)


def _diagnostics(diagnoses: list[dict[str, Any]]) -> Section:
    keys = ("dataset", "name", "verdict", "evidence", "advice")
    return Section(title="Diagnostics", headings=keys, texts=keys, rows=[tuple(str(each[key]) for key in keys) for each in diagnoses])


def markdown_table(section: Section) -> str:
    """A table as Markdown."""
    lines = [_markdown_row([heading.replace("\n", " ") for heading in section.headings])]
    lines.append(
        "|"
        + "|".join(" --- " if index == 0 or heading in section.texts else " ---: " for index, heading in enumerate(section.headings))
        + "|"
    )
    lines += [_markdown_row(list(row)) for row in section.rows]
    return "\n".join(lines)


def _markdown_row(cells: list[str]) -> str:
    return "| " + " | ".join(map(escape_markdown, cells)) + " |"


def section_table(section: Section) -> Table:
    """A table for a terminal."""
    table = Table(box=box.SIMPLE, title=section.title, title_justify="left")
    for index, heading in enumerate(section.headings):
        if index:
            table.add_column(heading, justify="left" if heading in section.texts else "right", no_wrap=True)
        elif section.has_total:
            table.add_column(heading, overflow="fold", vertical="bottom")
        else:
            table.add_column(heading, no_wrap=True)
    for index, row in enumerate(section.rows):
        is_total = section.has_total and index == len(section.rows) - 1
        if is_total:
            table.add_section()
        # As a Text, because a name may hold what rich takes for markup.
        table.add_row(Text(row[0]), *row[1:], style="bold" if is_total else None)
    return table
