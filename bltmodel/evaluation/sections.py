"""An evaluation's report as tables, for a terminal and for Markdown."""

from typing import Any

from bltdata.patching.settings import describe_rule
from bltdata.stats.rendering import escape_markdown, markdown_table
from bltdata.stats.sections import Section, number, percent

Report = dict[str, Any]
"""What `Evaluation.report` gives."""


def sections(report: Report) -> list[Section]:
    """All tables of a report."""
    found = [_bits(report), _predictions(report)]
    if report["noise"]:
        found.append(_noise(report))
        if len(report["sources"]) > 1:
            found.append(_noise_by_source(report))
    return [*found, _calibration(report["overall"])]


def notes(report: Report) -> list[str]:
    """What a reader must know to read the tables, a sentence or two each."""
    context, stride, interval = report["context_tokens"], report["stride"], report["interval"]
    of_sources = f"; rules of their own for {', '.join(report['source_rules'])}" if report["source_rules"] else ""
    lines = [
        f"Contexts of {context:,} tokens; of a longer document, windows that begin {stride:,} tokens apart, each byte predicted once "
        f"with at least {context - stride:,} tokens before it, or all that there are. Matrix products in {report['precision']}.",
        f"Entropy model {report['entropy_model'] or 'unknown'}; patch rule {describe_rule(report['patch_rule'])}{of_sources}.",
        "Bits per byte are those of all bytes and ends of documents, divided by the raw bytes. Compressors get the documents of a "
        "source end to end.",
        f"Intervals hold {100 * interval['level']:g} % of {interval['resamples']:,} resamples of the documents (seed "
        f"{interval['seed']}); of one document, or without bytes, there is none.",
    ]
    judged, whole = report["overall"], report["dataset"]
    if judged["documents"] < whole["documents"]:
        lines.append(
            f"Read were the first {judged['documents']:,} of {whole['documents']:,} documents, {judged['bytes']:,} of {whole['bytes']:,} "
            f"bytes: those before the first that no longer fits into {whole['max_bytes']:,} bytes (max_bytes)."
        )
    if report["patches_look_ahead"]:
        lines.append(
            "These patches look ahead: where one starts tells of the bytes that are predicted there. So bits per byte and accuracy are "
            "better than without knowing it, and can't be compared with those of other patches."
        )
    if report["overall"]["reconstruction"] is not None:
        lines.append(
            "Reconstructed is the share of the bytes of documents' second halves that greedy decoding writes, given the first half, "
            "before its first wrong byte."
        )
    for kind, each in report["noise"].items():
        lines.append(f"Noise {kind}: with probability {each['rate']:g} (seed {each['seed']}), {each['what']}.")
    if report["noise"]:
        lines.append("With noise, bits per byte divide by the noised bytes, and bits per clean byte by those of the documents as they are.")
    return lines


def to_markdown(report: Report, title: str = "Evaluation") -> str:
    """Everything, as Markdown with tables; whatever sources are called, they stay text."""
    parts = [f"# {escape_markdown(title)}", *map(escape_markdown, notes(report))]
    for section in sections(report):
        parts += [f"## {escape_markdown(section.title)}", markdown_table(section)]
    return "\n\n".join(parts) + "\n"


def _bits(report: Report) -> Section:
    compressors = list(report["overall"]["compressors_bits_per_byte"])

    def cells(figures: Report) -> tuple[str, ...]:
        others = (number(figures["compressors_bits_per_byte"][each]) for each in compressors)
        return (number(figures["documents"]), number(figures["bytes"]), number(figures["bits_per_byte"]), _interval(figures), *others)

    headings = ("source", "documents", "bytes", "BLT", f"{100 * report['interval']['level']:g} % interval", *compressors)
    return Section(title="Bits per raw byte", headings=headings, rows=_by_source(report, cells), has_total=True)


def _predictions(report: Report) -> Section:
    def cells(figures: Report) -> tuple[str, ...]:
        reconstruction = figures["reconstruction"] or {"share": None, "whole_documents": None}
        return (
            number(figures["accuracy"]),
            number(figures["top_5_accuracy"]),
            number(figures["perplexity"]),
            number(figures["confidence_mean"]),
            number(figures["expected_calibration_error"]),
            percent(reconstruction["share"]),
            number(reconstruction["whole_documents"]),
            number(figures["mean_patch_length"]),
        )

    headings = ("source", "accuracy", "top 5", "perplexity", "confidence", "calibration\nerror", "recon-\nstructed", "whole\ndocuments")
    return Section(title="Predictions", headings=(*headings, "bytes per\npatch"), rows=_by_source(report, cells), has_total=True)


def _noise(report: Report) -> Section:
    overall = report["overall"]

    def cells(name: str, rate: str, figures: Report, ratio: float | None, per_clean_byte: float | None) -> tuple[str, ...]:
        return (
            name,
            rate,
            number(figures["bytes"]),
            number(figures["bits_per_byte"]),
            _interval(figures),
            number(ratio),
            number(per_clean_byte),
            number(figures["accuracy"]),
            number(figures["mean_patch_length"]),
        )

    rows = [cells("none", "-", overall, None, overall["bits_per_byte"])]
    for kind, about in report["noise"].items():
        figures = overall["noise"][kind]
        rows.append(cells(kind, f"{about['rate']:g}", figures, figures["bits_per_byte_ratio"], figures["bits_per_clean_byte"]))
    headings = ("noise", "rate", "bytes", "bits per\nbyte", "interval", "to none", "bits per\nclean byte", "accuracy", "bytes per\npatch")
    return Section(title="With noise in characters", headings=headings, rows=rows)


def _noise_by_source(report: Report) -> Section:
    def cells(figures: Report) -> tuple[str, ...]:
        return (number(figures["bits_per_byte"]), *(number(figures["noise"][kind]["bits_per_byte"]) for kind in report["noise"]))

    rows = _by_source(report, cells)
    return Section(title="Bits per byte with noise, by source", headings=("source", "none", *report["noise"]), rows=rows, has_total=True)


def _calibration(overall: Report) -> Section:
    rows = [
        (
            f"{each['from']:.3f} to {each['to']:.3f}",
            number(each["predictions"]),
            number(each["confidence"]),
            number(each["accuracy"]),
            f"{each['gap']:+.3f}",
        )
        for each in overall["bins"]
    ]
    return Section(
        title="Accuracy by confidence, all sources", headings=("confidence", "predictions", "mean", "accuracy", "gap"), rows=rows
    )


def _by_source(report: Report, cells: Any) -> list[tuple[str, ...]]:
    return [(name, *cells(figures)) for name, figures in [*report["sources"].items(), ("all", report["overall"])]]


def _interval(figures: Report) -> str:
    interval = figures["bits_per_byte_interval"]
    return "-" if interval is None else f"{interval[0]:.3f} to {interval[1]:.3f}"
