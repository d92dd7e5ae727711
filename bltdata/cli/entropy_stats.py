"""`bltdata entropy-stats`: what is in a dataset and what may be wrong with it, as tables, JSON, Markdown, pictures and a page."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bltdata.cli.common import ANY_PATH, DATASET_PATH, command, json_option, print_json, print_tables
from bltdata.cli.counting import counted, workers_option
from bltdata.cli.outputs import check_file, check_folder
from bltdata.errors import ShardError
from bltdata.remote import AnyPath

if TYPE_CHECKING:
    from bltdata.shards import ShardDataset
    from bltdata.stats import DatasetStatistics


@command(
    example="""
    bltdata entropy-stats runs/quickstart/shards/train --html report.html --strict
    bltdata entropy-stats shards/train --against shards/validation --json
    """
)
@click.argument("folders", metavar="FOLDER...", type=DATASET_PATH, nargs=-1, required=True)
@click.option("--html", "page", type=ANY_PATH, metavar="FILE", help="Write everything there, with pictures, as one HTML file.")
@click.option("--markdown", type=ANY_PATH, metavar="FILE", help="Write all tables and diagnostics there, as Markdown.")
@click.option("--plots", type=ANY_PATH, metavar="FOLDER", help="Save histograms of entropy, boundaries and patch length there, as PNG.")
@click.option(
    "--against", type=DATASET_PATH, multiple=True, metavar="FOLDER", help="Another split, which must share no document; may be repeated."
)
@click.option("--tokenizer", type=ANY_PATH, metavar="FILE", help="A tokenizer.json, to compare patches with its tokens (extra hf).")
@click.option(
    "--sample-bytes",
    type=click.IntRange(min=1),
    default=2_000_000,
    show_default=True,
    help="Raw bytes of each dataset that xz, context models and the tokenizer are run on.",
)
@workers_option
@click.option("--strict", is_flag=True, help="End with exit code 1 if a diagnostic finds an error.")
@json_option
@click.pass_context
def entropy_stats(
    ctx: click.Context,
    folders: tuple[AnyPath, ...],
    page: Path | None,
    markdown: Path | None,
    plots: Path | None,
    against: tuple[AnyPath, ...],
    tokenizer: Path | None,
    sample_bytes: int,
    workers: int,
    strict: bool,
    as_json: bool,
) -> None:
    """Report the entropies, patches and bits per byte of a folder of shards.

    FOLDER is a folder that build-shards wrote; several are reported as one dataset, and each is diagnosed by itself. Means,
    standard deviations (of the population) and percentiles are exact.
    """
    check_file(page, "the page")
    check_file(markdown, "the tables")
    check_folder(plots, "the pictures")

    from bltdata import atomic
    from bltdata.shards import open_shards
    from bltdata.stats import to_markdown, to_page
    from bltdata.stats.assess import assess, has_error
    from bltdata.verification.overlap import find_overlap

    _check_distinct((*folders, *against))
    datasets, others = ([open_shards(folder) for folder in each] for each in (folders, against))
    overlaps = {index: [find_overlap(dataset, other) for other in others] for index, dataset in enumerate(datasets)}
    report, statistics = assess(datasets, counted(datasets, workers), overlaps=overlaps, sample_bytes=sample_bytes, tokenizer=tokenizer)
    report["left_out"] = _sum_counts([dataset.manifest.totals.left_out for dataset in datasets])
    report["datasets"] = [{"folder": str(dataset.folder), "fingerprint": dataset.manifest.fingerprint} for dataset in datasets]
    threshold_nats = _common_threshold(datasets)
    report["plots"] = _write_plots(statistics, plots, threshold_nats) if plots else []
    title = "Statistics of " + ", ".join(str(folder) for folder in folders)
    if markdown:
        atomic.write_bytes(markdown, to_markdown(report, title).encode())
    if page:
        atomic.write_bytes(page, to_page(report, statistics, title=title, threshold_nats=threshold_nats).encode())
    if as_json:
        print_json(report)
    else:
        _print(report, [path for path in (markdown, page) if path])
    if strict and has_error(report):
        ctx.exit(1)


def _write_plots(statistics: "DatasetStatistics", folder: Path, threshold_nats: float | None) -> list[str]:
    from bltdata.stats.plots import write_plots

    return [str(path) for path in write_plots(statistics.overall(), folder, threshold_nats=threshold_nats)]


def _print(report: dict[str, Any], files: list[Path]) -> None:
    from bltdata.patching.display import printable_line
    from bltdata.stats.rendering import diagnosis_lines, tables

    print_tables(*tables(report))
    if report["left_out"]:
        counts = ", ".join(f"{count:,} {reason}" for reason, count in report["left_out"].items())
        click.echo(f"Documents left out: {counts}.")
    for dataset in report["datasets"]:
        folder = dataset["folder"]
        click.echo(f"\nDiagnostics of {printable_line(folder)}")
        for line in diagnosis_lines([each for each in report["diagnostics"] if each["dataset"] == folder]):
            click.echo(f"  {line}")
    for path in (*report["plots"], *files):
        click.echo(f"Wrote {path}.")


def _check_distinct(folders: tuple[AnyPath, ...]) -> None:
    seen = set()
    for folder in folders:
        if folder.resolve() in seen:
            raise ShardError(f"The folder {folder} is given twice, and its documents would count twice; give it once.")
        seen.add(folder.resolve())


def _sum_counts(tables: list[dict[str, int]]) -> dict[str, int]:
    return {reason: sum(table.get(reason, 0) for table in tables) for reason in sorted(set().union(*tables))}


def _common_threshold(datasets: "Sequence[ShardDataset]") -> float | None:
    """The global threshold in nats that all the patch rules share, if they do."""
    rules = [rule for dataset in datasets for rule in (dataset.manifest.patch_rule, *dataset.manifest.source_rules.values())]
    thresholds = {rule.get("threshold") for rule in rules}
    return thresholds.pop() if len(thresholds) == 1 else None
