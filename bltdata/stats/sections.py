"""What a report shows, as titles and cells of text: the one source of what a terminal, Markdown and a page say."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from bltdata.patching.display import printable_line

Report = dict[str, Any]
"""What `to_mapping` gives, and perhaps `samples` and `diagnostics`."""

NUM_BYTE_VALUES = 20
"""Byte values that are listed by how many patches start after them."""
MIN_BYTE_SHARE = 0.001
"""Part of all bytes that a value must be to be listed."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Section:
    """A table. The first column is text, the others are numbers unless they are named in `texts`."""

    title: str
    headings: tuple[str, ...]
    """May have a line break."""
    rows: Sequence[tuple[str, ...]]
    note: str = ""
    """What a reader must know to read it."""
    texts: tuple[str, ...] = ()
    """Headings of further columns that are text."""
    has_total: bool = False
    """Whether the last row is the sum of those before."""
    is_brief: bool = False
    """Whether it is shown where there is little room."""


def sections(report: Report) -> list[Section]:
    """All tables of a report, those of a dataset without documents empty."""
    found = [_sources(report), _patching(report), _distributions(report["overall"]), _classes(report["overall"])]
    found += [_positions(report["overall"]), _byte_values(report["overall"])]
    if report.get("samples"):
        found.append(_samples(report["samples"]))
    return found


_SOURCE_COLUMNS: tuple[tuple[str, Callable[[Report], str]], ...] = (
    ("documents", lambda source: number(source["documents"])),
    ("bytes", lambda source: number(source["total_bytes"])),
    ("patches", lambda source: number(source["patches"])),
    ("bytes per\npatch", lambda source: number(source["patch_length"]["mean"])),
    ("most common\nlength (share)", lambda source: _most_common(source)),
    ("entropy,\nbits", lambda source: number(source["entropy_bits"]["mean"])),
    ("entropy model,\nbits per byte", lambda source: number(source["entropy_model_bits_per_byte"])),
)
_PATCHING_COLUMNS: tuple[tuple[str, Callable[[Report], str]], ...] = (
    ("patches\nper byte", lambda source: number(source["patches_per_byte"])),
    ("patches\nper word", lambda source: number(source["patches_per_word"])),
    ("shortest\n(share)", lambda source: _with_share(source["patch_length"]["min"], source["share_of_shortest_patches"])),
    ("longest\n(share)", lambda source: _with_share(source["patch_length"]["max"], source["share_of_longest_patches"])),
    ("start above\ninside", lambda source: percent(source["start_separation"])),
    ("cost over\nentropy", lambda source: number(source["cost_over_entropy"])),
)
_DISTRIBUTIONS = {
    "entropy_nats": "entropy, nats",
    "entropy_bits": "entropy, bits",
    "patch_length": "patch length, bytes",
    "boundaries_per_document": "boundaries per document",
    "document_bytes": "document length, bytes",
}
_DISTRIBUTION_COLUMNS = ("mean", "std", "median", "min", "p5", "p95", "p99", "max")


def _sources(report: Report) -> Section:
    return Section(title="Sources", **_by_source(report, _SOURCE_COLUMNS), has_total=True, is_brief=True)


def _patching(report: Report) -> Section:
    note = (
        "Start above inside: how probable it is that a start has a higher entropy than a position inside a patch. "
        "Cost over entropy: what documents cost the entropy model over what its entropies promised; 1 is as promised."
    )
    return Section(title="Patches by source", **_by_source(report, _PATCHING_COLUMNS), note=note, has_total=True)


def _by_source(report: Report, columns: tuple[tuple[str, Callable[[Report], str]], ...]) -> dict[str, Any]:
    parts = [*((printable_line(name), source) for name, source in report["by_source"].items()), ("all", report["overall"])]
    rows = [(name, *(cell(source) for _, cell in columns)) for name, source in parts]
    return {"headings": ("source", *(heading for heading, _ in columns)), "rows": rows}


def _distributions(overall: Report) -> Section:
    rows = [(label, *(number(overall[key][name]) for name in _DISTRIBUTION_COLUMNS)) for key, label in _DISTRIBUTIONS.items()]
    return Section(title="All documents", headings=("", *_DISTRIBUTION_COLUMNS), rows=rows, is_brief=True)


def _classes(overall: Report) -> Section:
    headings = ("class", "positions", "share", "entropy,\nnats", "median", "p95", "starts\na patch", "patch\nlength")
    rows = [
        (
            name,
            number(found["bytes"]),
            percent(found["share"]),
            *(number(found[f"{kind}_entropy_nats"]) for kind in ("mean", "median", "p95")),
            percent(found["start_rate"]),
            number(found["patch_length"]),
        )
        for name, found in overall["by_class"].items()
    ]
    note = "Patch length is of the patches that begin with such a byte; the end is that of a document."
    return Section(title="Classes of bytes", headings=headings, rows=rows, note=note, is_brief=True)


def _positions(overall: Report) -> Section:
    rows = [
        (
            number(found["from"]) if found["to"] - found["from"] == 1 else f"{number(found['from'])} to {number(found['to'] - 1)}",
            number(found["positions"]),
            number(found["mean_entropy_nats"]),
            percent(found["start_rate"]),
        )
        for found in overall["by_position"]
    ]
    return Section(title="Distance from the start", headings=("position", "positions", "entropy,\nnats", "starts\na patch"), rows=rows)


def _byte_values(overall: Report) -> Section:
    counts = overall["byte_counts"]
    known = [(rate, value) for value, rate in enumerate(overall["start_rate_after"]) if rate is not None]
    # What hardly ever occurs has a rate of 100% or of nothing by chance, and would be all there is to see.
    common = [(rate, value) for rate, value in known if counts[value] >= MIN_BYTE_SHARE * overall["total_bytes"]]
    often = sorted(common, key=lambda pair: (-pair[0], pair[1]))[:NUM_BYTE_VALUES]
    rows = [(_byte_name(value), number(counts[value]), percent(rate)) for rate, value in often]
    note = (
        f"The {NUM_BYTE_VALUES} byte values after which a patch starts most often, as a share of their occurrences, of those that are "
        f"at least {MIN_BYTE_SHARE:.1%} of all bytes."
    )
    return Section(title="Starts after a byte", headings=("byte", "occurrences", "starts\na patch"), rows=rows, note=note)


def _samples(samples: list[Report]) -> Section:
    columns = (
        ("bytes", "num_bytes"),
        ("entropy model,\nbits per byte", "model_bits_per_byte"),
        ("two bytes of\ncontext", "order_2_bits_per_byte"),
        ("no\ncontext", "order_0_bits_per_byte"),
        ("xz", "compressor_bits_per_byte"),
        ("bytes per\npatch", "bytes_per_patch"),
        ("bytes per\ntoken", "bytes_per_token"),
    )
    rows = [(printable_line(each["folder"]), *(number(each[key]) for _, key in columns)) for each in samples]
    note = "On a sample of each dataset. The models of two bytes and of none learn as they go, and pay for it."
    return Section(title="Yardsticks", headings=("dataset", *(heading for heading, _ in columns)), rows=rows, note=note)


def _byte_name(value: int) -> str:
    """A byte as a person reads it.

    >>> [_byte_name(value) for value in (97, 32, 195)]
    ["0x61 'a'", "0x20 ' '", '0xc3']
    """
    return f"0x{value:02x} '{chr(value)}'" if 0x20 <= value < 0x7F else f"0x{value:02x}"


def _most_common(source: Report) -> str:
    return _with_share(source["most_common_patch_length"], source["share_of_most_common_patch_length"])


def _with_share(value: float | None, share: float | None) -> str:
    return "-" if value is None or share is None else f"{int(value):,} ({share:.1%})"


def percent(share: float | None) -> str:
    """A share, or a dash for none."""
    return "-" if share is None else f"{share:.1%}"


def number(value: float | None) -> str:
    """Three decimals, fewer for large numbers; none for counts.

    >>> [number(value) for value in (None, 3, 3.0, 4.51234, 123.456, 1234567.8)]
    ['-', '3', '3', '4.512', '123.5', '1,234,568']
    """
    if value is None:
        return "-"
    if value == int(value):
        return f"{int(value):,}"
    return f"{value:,.{3 if abs(value) < 100 else 1 if abs(value) < 10_000 else 0}f}"
