"""`bltdata evaluate-entropy-model`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bltdata.cli.common import ANY_PATH, command, json_option, print_json, print_tables
from bltdata.cli.outputs import check_file
from bltdata.cli.progress import format_amount, progress, say
from bltdata.cli.settings import config_option, options_from, read_sections, section_name, settings
from bltdata.cli.training_options import device_option
from bltdata.corpus.config import CorpusConfig

if TYPE_CHECKING:
    from rich.table import Table

SECTIONS = ("corpus",)
"""Of a file that is given with `--config`."""


@command(
    example="""
    bltdata evaluate-entropy-model --entropy-model runs/entropy-model
    bltdata evaluate-entropy-model --entropy-model runs/entropy-model --corpus wiki.txt --split all --plot reliability.png
    """
)
@click.option("--entropy-model", "model_folder", type=ANY_PATH, required=True, metavar="FOLDER", help="The trained entropy model.")
@options_from(CorpusConfig)
@click.option("--split", default="validation", show_default=True, help="Documents to take: train, validation, test, or all.")
@click.option("--sample-bytes", type=click.IntRange(min=1), help="Take about this much, from all over the corpus.  [default: all]")
@click.option(
    "--precision",
    type=click.Choice(["auto", "float32", "bfloat16"]),
    default="float32",
    show_default=True,
    help="Type of matrix products; auto is bfloat16 where the hardware multiplies it.",
)
@click.option("--reset-scoring-at-newline", "reset_at_newline", is_flag=True, help="Score each line as if nothing stood before it.")
@click.option("--plot", type=ANY_PATH, metavar="FILE", help="Draw negative log-likelihoods against entropies there, as PNG.")
@device_option
@config_option(*SECTIONS)
@json_option
@click.pass_context
def evaluate_entropy_model(
    ctx: click.Context,
    model_folder: Path,
    split: str,
    sample_bytes: int | None,
    precision: Any,
    reset_at_newline: bool,
    plot: Path | None,
    device: str,
    config_file: Path | None,
    as_json: bool,
    **_: Any,
) -> None:
    """Measure an entropy model's bits per byte, and whether its entropies can be believed.

    Bits per byte are those of every byte and of every document's end, divided by the raw bytes, with a 95 % interval over
    resampled documents, beside what compressors need, which get all documents of a source as one file.
    Entropies can be believed where bytes cost what the model expects: the second table sets the mean negative log-likelihood against
    the mean entropy, by entropy.
    """
    sections = read_sections(config_file, SECTIONS)
    corpora = settings(ctx, CorpusConfig, sections["corpus"], where=section_name(config_file, "corpus"))
    check_file(plot, "the plot")

    from bltdata.corpus.corpus import left_out_in_words
    from bltdata.corpus.sample import expected_bytes
    from bltdata.entropy import EntropyModel
    from bltdata.entropy.evaluation import evaluate_entropy_model as evaluate
    from bltdata.nn import prepare_cpu, resolve_device, resolve_precision

    prepare_cpu()
    where = resolve_device(device)
    model = EntropyModel.load(model_folder).to(where)
    corpus = corpora.open(split)
    with progress(sample_bytes or expected_bytes(corpus, corpus.fragments()), "Scoring", "bytes") as advance:
        found = evaluate(
            model,
            corpus,
            sample_bytes=sample_bytes,
            precision=resolve_precision(precision, where),
            reset_at_newline=reset_at_newline,
            advance=advance,
        )
    report = {"entropy_model": {"folder": str(model_folder), "fingerprint": model.fingerprint}, "corpus": corpus.describe()}
    report |= found.report()
    if plot is not None:
        from bltdata.stats.plots import write_figure
        from bltdata.stats.reliability_plot import reliability_figure

        write_figure(reliability_figure(report["overall"]["reliability"]["bins"]), plot)
    if as_json:
        print_json(report)
        return
    print_tables(_sources(report), _bins(report["overall"]["reliability"]))
    click.echo(_in_words(report["overall"]["reliability"]))
    overall = found.overall
    say(f"{overall.num_documents:,} documents, {format_amount(overall.num_bytes, 'bytes')}{left_out_in_words(found.left_out)}.")


def _sources(report: dict[str, Any]) -> "Table":
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE, title="Bits per raw byte, and means by position in nats", title_justify="left")
    compressors = list(report["overall"]["compressors_bits_per_byte"])
    table.add_column("source", overflow="fold")
    for column in ("documents", "bytes", "model", "95 % interval", *compressors, "entropy", "likelihood", "gap"):
        table.add_column(column, justify="right")
    for name, figures in [*report["sources"].items(), ("all", report["overall"])]:
        interval, reliability = figures["bits_per_byte_interval"], figures["reliability"]
        table.add_row(
            # As a Text, because a name may hold what rich takes for markup.
            Text(name),
            f"{figures['documents']:,}",
            f"{figures['bytes']:,}",
            _figure(figures["bits_per_byte"]),
            "-" if interval is None else f"{interval[0]:.3f} to {interval[1]:.3f}",
            *(_figure(figures["compressors_bits_per_byte"][compressor]) for compressor in compressors),
            _figure(reliability["mean_entropy_nats"]),
            _figure(reliability["mean_nll_nats"]),
            f"{reliability['gap_nats']:+.3f}",
        )
    return table


def _bins(reliability: dict[str, Any]) -> "Table":
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE, title="By entropy, nats", title_justify="left")
    for column in ("from", "to", "positions", "share", "mean entropy", "mean negative log-likelihood", "gap"):
        table.add_column(column, justify="right")
    for found in reliability["bins"]:
        table.add_row(
            f"{found['from_nats']:.2f}",
            f"{found['to_nats']:.2f}",
            f"{found['count']:,}",
            f"{found['count'] / reliability['positions']:.1%}",
            _figure(found["mean_entropy_nats"]),
            _figure(found["mean_nll_nats"]),
            f"{found['gap_nats']:+.3f}",
        )
    return table


def _in_words(reliability: dict[str, Any]) -> str:
    gap = reliability["gap_nats"]
    return (
        f"A position costs {reliability['mean_nll_nats']:.4f} nats where the model expects {reliability['mean_entropy_nats']:.4f}: it is "
        f"{'too sure' if gap > 0 else 'not sure enough'} by {abs(gap):.4f} nats. By entropy it is off by "
        f"{reliability['mean_absolute_gap_nats']:.4f} nats on average."
    )


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
