"""`bltmodel evaluate`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bltdata.cli.common import ANY_PATH, DATASET_PATH, command, json_option, print_json, print_tables
from bltdata.cli.progress import progress
from bltdata.cli.training_options import device_option
from bltdata.remote import AnyPath

if TYPE_CHECKING:
    from rich.table import Table


@command(example="bltmodel evaluate --model runs/blt --shards runs/shards/validation")
@click.option("--model", type=ANY_PATH, required=True, metavar="FOLDER", help="A trained BLT.")
@click.option("--shards", type=DATASET_PATH, required=True, metavar="FOLDER", help="Documents that it hasn't been trained on.")
@click.option("--max-bytes", type=click.IntRange(min=1), help="Take the first documents that fit into this.  [default: all]")
@click.option("--row-tokens", type=click.IntRange(min=2), help="Tokens a row, the context of a prediction.  [default: as in training]")
@click.option(
    "--precision",
    type=click.Choice(["auto", "float32", "bfloat16"]),
    default="float32",
    show_default=True,
    help="Type of matrix products; auto is bfloat16 where the hardware multiplies it.",
)
@device_option
@json_option
def evaluate(
    model: Path, shards: AnyPath, max_bytes: int | None, row_tokens: int | None, precision: Any, device: str, as_json: bool
) -> None:
    """Measure bits per byte by source, beside general-purpose compressors.

    Bits per byte are those of every byte and of every document's end, divided by the raw bytes. The compressors get the documents of
    a source end to end, and with all of them at once see more context than the model, whose rows are --row-tokens long.
    """
    from bltdata.shards import open_shards
    from bltmodel.evaluation import evaluate as run

    num_bytes = open_shards(shards).manifest.totals.num_bytes
    with progress(min(num_bytes, max_bytes or num_bytes), "Evaluating", "bytes") as advance:
        report = run(
            model, shards, max_bytes=max_bytes, row_tokens=row_tokens, precision=precision, device=device, advance=advance
        ).report()
    if as_json:
        print_json(report)
    else:
        print_tables(_table(report))


def _table(report: dict[str, Any]) -> "Table":
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(
        box=box.SIMPLE_HEAD, caption=f"bits per raw byte; contexts of {report['context_tokens']:,} tokens", caption_justify="left"
    )
    compressors = list(report["overall"]["compressors_bits_per_byte"])
    table.add_column("source", overflow="fold")
    for column in ("documents", "bytes", "BLT", *compressors, "accuracy", "perplexity", "confidence"):
        table.add_column(column, justify="right")
    for name, figures in [*report["sources"].items(), ("all", report["overall"])]:
        others = [_figure(figures["compressors_bits_per_byte"][compressor]) for compressor in compressors]
        table.add_row(
            # As a Text, because a name may hold what rich takes for markup.
            Text(name),
            f"{figures['documents']:,}",
            f"{figures['bytes']:,}",
            _figure(figures["bits_per_byte"]),
            *others,
            _figure(figures["accuracy"]),
            _figure(figures["perplexity"]),
            _figure(figures["confidence_mean"]),
        )
    return table


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
