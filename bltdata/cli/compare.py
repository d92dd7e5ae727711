"""`bltdata compare`: several datasets side by side."""

from pathlib import Path

import click

from bltdata.cli.common import ANY_PATH, DATASET_PATH, command, json_option, print_json, print_tables
from bltdata.cli.progress import progress
from bltdata.errors import ConfigError
from bltdata.remote import AnyPath


@command(
    example="""
    bltdata compare runs/shards/train runs/shards-6/train --plot lengths.png
    """
)
@click.argument("folders", metavar="DIR DIR...", type=DATASET_PATH, nargs=-1, required=True)
@click.option("--plot", type=ANY_PATH, metavar="FILE", help="Save how much lies in patches up to each length, a line a dataset, as PNG.")
@json_option
def compare(folders: tuple[AnyPath, ...], plot: Path | None, as_json: bool) -> None:
    """Put datasets side by side: their rules, patch lengths, entropies and bits per byte.

    Each DIR is a folder that build-shards or repatch wrote: other rules, thresholds or entropy models on the same
    documents, or other documents.
    """
    from bltdata.shards import open_shards
    from bltdata.stats import collect_statistics
    from bltdata.stats.compare import compare_figure, compare_mapping, compare_sections
    from bltdata.stats.rendering import section_table

    if len(folders) < 2:
        raise ConfigError(f"There is one dataset, {folders[0]}, and nothing to compare it with; give at least two folders.")
    datasets = [open_shards(folder) for folder in folders]
    with progress(sum(dataset.manifest.totals.num_bytes for dataset in datasets), "Counting", "bytes") as advance:
        statistics = [collect_statistics(dataset, progress=advance) for dataset in datasets]
    names = [str(dataset.folder) for dataset in datasets]
    found = compare_mapping(names, [dataset.manifest for dataset in datasets], statistics)
    if plot:
        from bltdata.stats.plots import write_figure

        write_figure(compare_figure(names, statistics), plot)
    if as_json:
        print_json({"datasets": found, "plot": str(plot) if plot else None})
        return
    print_tables(*map(section_table, compare_sections(found)))
    if plot:
        click.echo(f"Wrote {plot}.")
