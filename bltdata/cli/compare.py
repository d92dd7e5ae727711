"""`bltdata compare`: several datasets side by side."""

from pathlib import Path

import click

from bltdata.cli.common import ANY_PATH, DATASET_PATH, command, json_option, print_json, print_tables
from bltdata.cli.counting import counted, workers_option
from bltdata.cli.outputs import check_file
from bltdata.errors import ConfigError
from bltdata.remote import AnyPath


@command(
    example="""
    bltdata compare runs/shards/train runs/shards-6/train --html comparison.html
    """
)
@click.argument("folders", metavar="FOLDER FOLDER...", type=DATASET_PATH, nargs=-1, required=True)
@click.option("--html", "page", type=ANY_PATH, metavar="FILE", help="Write tables and picture there, as one HTML file.")
@click.option("--markdown", type=ANY_PATH, metavar="FILE", help="Write the tables there, as Markdown.")
@click.option("--plot", type=ANY_PATH, metavar="FILE", help="Save how much lies in patches up to each length, a line a dataset, as PNG.")
@workers_option
@json_option
def compare(folders: tuple[AnyPath, ...], page: Path | None, markdown: Path | None, plot: Path | None, workers: int, as_json: bool) -> None:
    """Put datasets side by side: their rules, patch lengths, entropies and bits per byte.

    Each FOLDER is a folder that build-shards or repatch wrote: other rules, thresholds or entropy models on the same
    documents, or other documents.
    """
    check_file(page, "the page")
    check_file(markdown, "the tables")
    check_file(plot, "the picture")

    from bltdata import atomic
    from bltdata.shards import open_shards
    from bltdata.stats import to_comparison_page
    from bltdata.stats.assess import merge_counted
    from bltdata.stats.compare import compare_figure, compare_mapping, compare_sections
    from bltdata.stats.rendering import section_table, sections_to_markdown

    if len(folders) < 2:
        raise ConfigError(f"There is one dataset, {folders[0]}, and nothing to compare it with; give at least two folders.")
    datasets = [open_shards(folder) for folder in folders]
    statistics = merge_counted(counted(datasets, workers), len(datasets))
    names = [str(dataset.folder) for dataset in datasets]
    found = compare_mapping(names, [dataset.manifest for dataset in datasets], statistics)
    title = "Comparison of " + ", ".join(names)
    if plot:
        from bltdata.stats.plots import write_figure

        write_figure(compare_figure(names, statistics), plot)
    if markdown:
        atomic.write_bytes(markdown, sections_to_markdown(compare_sections(found), title).encode())
    if page:
        atomic.write_bytes(page, to_comparison_page(found, statistics, title=title).encode())
    if as_json:
        print_json({"datasets": found, "plot": str(plot) if plot else None})
        return
    print_tables(*map(section_table, compare_sections(found)))
    for path in (plot, markdown, page):
        if path:
            click.echo(f"Wrote {path}.")
