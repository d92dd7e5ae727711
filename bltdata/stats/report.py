"""Statistics as plain values for a program, and as tables for a person.

Each of `overall` and `by_source[NAME]` has these keys. A distribution is a table of `mean`, `std` (of the population: the sum of
squares over the number of values), `median`, `min`, `max` and the percentiles `p1 p5 p25 p75 p95 p99` (on a straight line between
the two neighbours, as NumPy has it). What no values have is `null`.
"""

import io
import math
from collections.abc import Callable
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bltdata.stats.sources import DatasetStatistics, SourceStatistics
from bltdata.stats.summary import Summary

KEYS = {
    "documents": "documents",
    "total_bytes": "raw bytes; the ends of documents are no bytes",
    "patches": "patches",
    "entropy_model_bits_per_byte": "the entropy model's negative log-likelihood in bits, ends of documents included, over raw bytes",
    "entropy_nats": "distribution of the stored entropies, one for each byte and each end of a document, in nats",
    "entropy_bits": "the same in bits",
    "impossible_entropies": "stored entropies outside of 0 ... ln 260, or no number at all: a sound dataset has none",
    "patch_length": "distribution of patch lengths, in bytes (the end of a document counts as one)",
    "most_common_patch_length": "the length that most patches have",
    "share_of_most_common_patch_length": "part of the patches that have it: 1 where a rule is a fixed stride in disguise",
    "boundaries_per_document": "distribution over documents of the patch starts inside them (patches less one)",
    "document_bytes": "distribution of document lengths, in raw bytes",
}
"""What each key means."""

PERCENTILES = (1, 5, 25, 75, 95, 99)


def to_mapping(statistics: DatasetStatistics) -> dict[str, Any]:
    """Statistics as values that JSON can hold: `overall` and `by_source`, each with the `KEYS`."""
    return {
        "overall": source_mapping(statistics.overall()),
        "by_source": {name: source_mapping(statistics.by_source[name]) for name in sorted(statistics.by_source)},
    }


def source_mapping(source: SourceStatistics) -> dict[str, Any]:
    """The `KEYS` of one source."""
    entropy, patch_length = source.entropy.summary(), source.patch_lengths.summary()
    in_nats = _distribution(entropy)
    most_common = patch_length.most_common
    return {
        "documents": source.num_documents,
        "total_bytes": source.num_bytes,
        "patches": source.num_patches,
        "entropy_model_bits_per_byte": source.bits_per_byte,
        "entropy_nats": in_nats,
        "entropy_bits": {name: None if value is None else value / math.log(2) for name, value in in_nats.items()},
        "impossible_entropies": source.entropy.num_impossible,
        "patch_length": _distribution(patch_length),
        "most_common_patch_length": None if most_common is None else int(most_common),
        "share_of_most_common_patch_length": None if most_common is None else patch_length.share_of(most_common),
        "boundaries_per_document": _distribution(source.boundaries.summary()),
        "document_bytes": _distribution(source.document_bytes.summary()),
    }


def tables(report: dict[str, Any]) -> list[Table]:
    """What `to_mapping` gives, as two tables: a line for each source, and a line for each distribution of them all."""
    return [_source_table(report), _distribution_table(report["overall"])]


def render(report: dict[str, Any], width: int = 120) -> str:
    """The tables as text, without colours."""
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(*tables(report))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def _distribution(summary: Summary) -> dict[str, float | None]:
    values = {"mean": summary.mean, "std": summary.std, "median": summary.median, "min": summary.minimum, "max": summary.maximum}
    return values | {f"p{percent}": summary.quantile(percent / 100) for percent in PERCENTILES}


Cell = Callable[[dict[str, Any]], str]

_SOURCE_COLUMNS: tuple[tuple[str, Cell], ...] = (
    ("documents", lambda source: _number(source["documents"])),
    ("bytes", lambda source: _number(source["total_bytes"])),
    ("patches", lambda source: _number(source["patches"])),
    ("bytes per\npatch", lambda source: _number(source["patch_length"]["mean"])),
    ("most common\nlength (share)", lambda source: _most_common(source)),
    ("entropy,\nbits", lambda source: _number(source["entropy_bits"]["mean"])),
    ("entropy model,\nbits per byte", lambda source: _number(source["entropy_model_bits_per_byte"])),
)

_DISTRIBUTIONS = {
    "entropy_nats": "entropy, nats",
    "entropy_bits": "entropy, bits",
    "patch_length": "patch length, bytes",
    "boundaries_per_document": "boundaries per document",
    "document_bytes": "document length, bytes",
}
_DISTRIBUTION_COLUMNS = ("mean", "std", "median", "min", "p5", "p95", "p99", "max")


def _source_table(report: dict[str, Any]) -> Table:
    table = Table(box=box.SIMPLE, title="Sources", title_justify="left")
    table.add_column("source", overflow="fold", vertical="bottom")
    for heading, _ in _SOURCE_COLUMNS:
        table.add_column(heading, justify="right", no_wrap=True)
    for name, source in report["by_source"].items():
        # As a Text, because a name may hold what rich takes for markup.
        table.add_row(Text(name), *(cell(source) for _, cell in _SOURCE_COLUMNS))
    table.add_section()
    table.add_row("all", *(cell(report["overall"]) for _, cell in _SOURCE_COLUMNS), style="bold")
    return table


def _distribution_table(overall: dict[str, Any]) -> Table:
    table = Table(box=box.SIMPLE, title="All documents", title_justify="left")
    table.add_column("", no_wrap=True)
    for name in _DISTRIBUTION_COLUMNS:
        table.add_column(name, justify="right", no_wrap=True)
    for key, label in _DISTRIBUTIONS.items():
        table.add_row(label, *(_number(overall[key][name]) for name in _DISTRIBUTION_COLUMNS))
    return table


def _most_common(source: dict[str, Any]) -> str:
    if source["most_common_patch_length"] is None:
        return "-"
    return f"{source['most_common_patch_length']:,} ({source['share_of_most_common_patch_length']:.1%})"


def _number(value: float | None) -> str:
    """Three decimals, fewer for large numbers; none for counts.

    >>> [_number(value) for value in (None, 3, 3.0, 4.51234, 123.456, 1234567.8)]
    ['-', '3', '3', '4.512', '123.5', '1,234,568']
    """
    if value is None:
        return "-"
    if value == int(value):
        return f"{int(value):,}"
    return f"{value:,.{3 if abs(value) < 100 else 1 if abs(value) < 10_000 else 0}f}"
