"""`bltdata entropy-stats`: what is in a dataset, as tables, as JSON, and as pictures."""

from pathlib import Path
from typing import Any

import click

from bltdata.cli.common import ANY_PATH, command, json_option, print_json, print_tables
from bltdata.cli.progress import progress
from bltdata.errors import ShardError


@command(
    example="""
    bltdata entropy-stats runs/quickstart/shards --plots plots
    bltdata entropy-stats shards/train shards/validation --json
    """
)
@click.argument("folders", metavar="DIR...", type=ANY_PATH, nargs=-1, required=True)
@click.option("--plots", type=ANY_PATH, metavar="FOLDER", help="Save histograms of entropy, boundaries and patch length there, as PNG.")
@json_option
def entropy_stats(folders: tuple[Path, ...], plots: Path | None, as_json: bool) -> None:
    """Report the entropies, patches and bits per byte of a folder of shards.

    DIR is a folder that build-shards wrote; several are reported as one dataset. Means, standard deviations (of the
    population) and percentiles are exact.
    """
    from bltdata.shards import open_shards
    from bltdata.stats import DatasetStatistics, collect_statistics, to_mapping

    _check_distinct(folders)
    datasets = [open_shards(folder) for folder in folders]
    statistics = DatasetStatistics()
    with progress(sum(dataset.manifest.totals.num_bytes for dataset in datasets), "Counting", "bytes") as advance:
        for dataset in datasets:
            statistics += collect_statistics(dataset, progress=advance)
    report = to_mapping(statistics)
    report["left_out"] = _sum_counts([dataset.manifest.totals.left_out for dataset in datasets])
    report["datasets"] = [{"folder": str(dataset.folder), "fingerprint": dataset.manifest.fingerprint} for dataset in datasets]
    report["plots"] = []
    if plots:
        from bltdata.stats.plots import write_plots

        rules = [rule for dataset in datasets for rule in (dataset.manifest.patch_rule, *dataset.manifest.source_rules.values())]
        threshold_nats = _common_threshold(rules)
        report["plots"] = [str(path) for path in write_plots(statistics.overall(), plots, threshold_nats=threshold_nats)]
    if as_json:
        print_json(report)
    else:
        _print(report)


def _print(report: dict[str, Any]) -> None:
    from bltdata.stats.report import tables

    print_tables(*tables(report))
    if report["left_out"]:
        counts = ", ".join(f"{count:,} {reason}" for reason, count in report["left_out"].items())
        click.echo(f"Documents left out: {counts}.")
    for path in report["plots"]:
        click.echo(f"Wrote {path}.")


def _check_distinct(folders: tuple[Path, ...]) -> None:
    seen = set()
    for folder in folders:
        if folder.resolve() in seen:
            raise ShardError(f"The folder {folder} is given twice, and its documents would count twice; give it once.")
        seen.add(folder.resolve())


def _sum_counts(tables: list[dict[str, int]]) -> dict[str, int]:
    return {reason: sum(table.get(reason, 0) for table in tables) for reason in sorted(set().union(*tables))}


def _common_threshold(rules: list[dict[str, Any]]) -> float | None:
    """The global threshold in nats that all the patch rules share, if they do."""
    thresholds = {rule.get("threshold") for rule in rules}
    return thresholds.pop() if len(thresholds) == 1 else None
