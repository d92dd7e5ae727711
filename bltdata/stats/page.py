"""A report, or a comparison, as one HTML file: no script, nothing loaded from anywhere, light or dark as the reader's system is.

Whatever documents, sources and folders are called, it is text: each text goes through `html.escape` here, or through matplotlib, which
escapes what it writes into a picture.
"""

import html
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from bltdata.patching.display import printable_line
from bltdata.stats import breakdown_plots, plots
from bltdata.stats.compare import compare_figure, compare_sections
from bltdata.stats.reliability_plot import reliability_figure
from bltdata.stats.sections import Section, sections
from bltdata.stats.sources import DatasetStatistics
from bltdata.stats.svg import inline_svg

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"

_STYLE = """
:root {
  color-scheme: light dark;
  --page: #fbfaf8; --panel: #ffffff; --ink: #1d1f23; --soft: #5d626b; --line: #dcd9d3; --bar: #3f6fa8; --mark: #b8322e;
  --ok: #1c6b3a; --warning: #8a5200; --error: #b3261e;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #131418; --panel: #1b1d22; --ink: #eceae6; --soft: #a5a9b2; --line: #3a3d45; --bar: #7fabe0; --mark: #ff8a80;
    --ok: #7fd49a; --warning: #f2b35e; --error: #ff8a80;
  }
}
*, ::before, ::after { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 76rem; background: var(--page); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.4rem; margin: 0 0 .8rem; }
h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
h1, h2, p, li, dd { overflow-wrap: anywhere; }
.soft { color: var(--soft); }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); gap: 1rem; }
figure { margin: 0; padding: .5rem; max-width: 48rem; background: var(--panel); border: 1px solid var(--line); border-radius: 8px; }
figure svg { display: block; width: 100%; height: auto; }
figure svg text { fill: var(--ink); }
.scroll {
  width: fit-content; max-width: 100%; overflow-x: auto; background: var(--panel); border: 1px solid var(--line); border-radius: 8px;
}
table { border-collapse: separate; border-spacing: 0; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .7rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line); }
th { color: var(--soft); font-weight: 600; vertical-align: bottom; }
th:first-child, td:first-child {
  position: sticky; left: 0; min-width: 10rem; max-width: 22rem; background: var(--panel);
  text-align: left; white-space: normal; overflow-wrap: anywhere;
}
th.text, td.text { text-align: left; }
tr:last-child td { border-bottom: 0; }
tr.total td { font-weight: 700; }
.diagnoses {
  display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 30rem), 1fr)); gap: .6rem;
  margin: 0; padding: 0; list-style: none;
}
.diagnoses li { padding: .6rem .8rem; background: var(--panel); border: 1px solid var(--line); border-left-width: 5px; border-radius: 8px; }
.diagnoses p { margin: .2rem 0 0; }
.verdict { font-weight: 700; margin-right: .5em; }
.diagnoses .ok { border-left-color: var(--ok); } .ok .verdict { color: var(--ok); }
.diagnoses .warning { border-left-color: var(--warning); } .warning .verdict { color: var(--warning); }
.diagnoses .error { border-left-color: var(--error); } .error .verdict { color: var(--error); }
"""


def to_page(
    report: dict[str, Any], statistics: DatasetStatistics, *, title: str = "Statistics", threshold_nats: float | None = None
) -> str:
    """The report as the text of one HTML file.

    Args:
        report: what `to_mapping` made of `statistics`, and perhaps `diagnostics` and `samples`, as `entropy-stats --json` has them.
        statistics: what it was made of, for the pictures.
        title: the heading.
        threshold_nats: where the patch rule's threshold lies, to be marked.
    """
    body = [_summary(report["overall"])]
    if report.get("diagnostics"):
        body += ["<h2>Diagnostics</h2>", _diagnostics(report["diagnostics"])]
    body += ["<h2>Pictures</h2>", _figures(_report_figures(report, statistics, threshold_nats))]
    return _document(title, [*body, *map(_section, sections(report))])


def to_comparison_page(found: Sequence[dict[str, Any]], statistics: Sequence[DatasetStatistics], *, title: str = "Comparison") -> str:
    """A comparison of datasets as the text of one HTML file.

    Args:
        found: what `compare_mapping` made of them.
        statistics: of each, for the picture.
        title: the heading.
    """
    names = [each["dataset"] for each in found]
    figure = _figures([("What lies in patches up to a length", compare_figure(names, statistics))])
    return _document(title, [figure, *map(_section, compare_sections(found))])


def _document(title: str, body: Sequence[str]) -> str:
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<link rel="icon" href="data:,">\n'
        f"<title>{_text(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join([f"<h1>{_text(title)}</h1>", *body])
        + "\n</main>\n</body>\n</html>\n"
    )


def _text(value: str) -> str:
    return html.escape(printable_line(value), quote=True)


def _summary(overall: dict[str, Any]) -> str:
    counts = ", ".join(
        f"{overall[key]:,} {name}" for key, name in (("documents", "documents"), ("total_bytes", "bytes"), ("patches", "patches"))
    )
    return f'<p class="soft">{counts}</p>'


def _diagnostics(diagnoses: list[dict[str, Any]]) -> str:
    several = len({each["dataset"] for each in diagnoses}) > 1
    # The worst first.
    order = ("error", "warning", "not checked", "ok")
    items = []
    for each in sorted(diagnoses, key=lambda each: order.index(each["verdict"])):
        where = f' <span class="soft">{_text(each["dataset"])}</span>' if several else ""
        advice = f"<p>{_text(each['advice'])}</p>" if each["advice"] else ""
        items.append(
            f'<li class="{each["verdict"].replace(" ", "-")}"><span class="verdict">{each["verdict"]}</span> '
            f'<strong>{_text(each["name"])}</strong>{where}<p class="soft">{_text(each["evidence"])}</p>{advice}</li>'
        )
    return '<ul class="diagnoses">' + "\n".join(items) + "</ul>"


def _report_figures(report: dict[str, Any], statistics: DatasetStatistics, threshold_nats: float | None) -> "list[tuple[str, Figure]]":
    everything, overall = statistics.overall(), report["overall"]
    figures = [
        ("Entropy of the next byte", plots.entropy_figure(everything, threshold_nats)),
        ("Patch length", plots.patch_length_figure(everything)),
        ("Boundaries per document", plots.boundaries_figure(everything)),
        ("Entropy by distance from the start", breakdown_plots.position_figure(overall)),
        ("Entropy by class of byte", breakdown_plots.class_figure(overall)),
    ]
    if len(report["by_source"]) > 1:
        figures.append(("Bytes for a patch, by source", breakdown_plots.source_figure(report)))
    if overall["documents_by_entropy"]:
        figures.append(("What documents cost", reliability_figure(overall["documents_by_entropy"], "What documents cost")))
    return figures


def _figures(figures: "Sequence[tuple[str, Figure]]") -> str:
    drawn = [f"<figure>{inline_svg(figure, f'f{index}', label)}</figure>" for index, (label, figure) in enumerate(figures)]
    return f'<div class="figures">{"".join(drawn)}</div>'


def _section(section: Section) -> str:
    note = f'\n<p class="soft">{_text(section.note)}</p>' if section.note else ""
    return f"<h2>{_text(section.title)}</h2>\n{_table(section)}{note}"


def _table(section: Section) -> str:
    kinds = [' class="text"' if heading in section.texts else "" for heading in section.headings]
    heads = "".join(
        f'<th scope="col"{kind}>{"<br>".join(map(_text, heading.split(chr(10))))}</th>'
        for kind, heading in zip(kinds, section.headings, strict=True)
    )
    rows = []
    for index, row in enumerate(section.rows):
        total = ' class="total"' if section.has_total and index == len(section.rows) - 1 else ""
        cells = "".join(f"<td{kind}>{_text(cell)}</td>" for kind, cell in zip(kinds, row, strict=True))
        rows.append(f"<tr{total}>{cells}</tr>")
    # Can be scrolled with the keyboard, as a wide table on a phone has to be.
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{_text(section.title)}"><table><thead><tr>{heads}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )
