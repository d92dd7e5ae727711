"""`bltmodel evaluate`."""

from pathlib import Path
from typing import Any

import click

from bltdata.cli.common import ANY_PATH, DATASET_PATH, command, json_option, print_json, print_tables
from bltdata.cli.outputs import check_file
from bltdata.cli.progress import progress
from bltdata.cli.settings import config_option, options_from, read_sections, section_name, settings
from bltdata.cli.training_options import device_option
from bltdata.errors import ConfigError
from bltdata.remote import AnyPath
from bltmodel.evaluation.config import EvaluationConfig

SECTIONS = ("evaluation",)
"""Of a file that is given with `--config`."""


@command(
    example="""
    bltmodel evaluate --model runs/blt --shards runs/shards/validation
    bltmodel evaluate --model runs/blt --shards runs/shards/validation --stride 128 --markdown evaluation.md
    bltmodel evaluate --model runs/blt --shards runs/shards/validation --entropy-model runs/entropy-model --noise drop,repeat=0.2,swap
    """
)
@click.option("--model", type=ANY_PATH, required=True, metavar="FOLDER", help="A trained BLT.")
@click.option("--shards", type=DATASET_PATH, required=True, metavar="FOLDER", help="Documents that it hasn't been trained on.")
@click.option(
    "--entropy-model",
    type=ANY_PATH,
    metavar="FOLDER",
    help="The entropy model of the shards, which --noise needs where their rule reads entropies.",
)
@options_from(EvaluationConfig)
@click.option("--markdown", type=ANY_PATH, metavar="FILE", help="Write all tables there, as Markdown.")
@device_option
@config_option(*SECTIONS)
@json_option
@click.pass_context
def evaluate(
    ctx: click.Context,
    model: Path,
    shards: AnyPath,
    entropy_model: Path | None,
    markdown: Path | None,
    device: str,
    config_file: Path | None,
    as_json: bool,
    **_: Any,
) -> None:
    """Measure bits per byte by source, beside general-purpose compressors.

    Bits per byte are those of every byte and of every document's end, divided by the raw bytes, with an interval over the documents. The
    compressors get the documents of a source end to end, and with all of them at once see more context than the model, which reads
    each document by itself, --context-tokens at a time. Then accuracy, calibration, and how much of a document's second half the model
    reproduces from the first; with --noise, the same documents with errors in their characters.
    """
    sections = read_sections(config_file, SECTIONS)
    config = settings(ctx, EvaluationConfig, sections["evaluation"], where=section_name(config_file, "evaluation"))
    check_file(markdown, "the tables")
    if entropy_model is not None and not config.noise:
        raise ConfigError(
            f"--entropy-model is {entropy_model}, but nothing reads it without --noise; leave it out, or give a kind of noise."
        )

    from bltdata.shards import open_shards
    from bltmodel.evaluation.evaluator import evaluate as run

    num_bytes = open_shards(shards).manifest.totals.num_bytes
    total = min(num_bytes, config.max_bytes or num_bytes) * (1 + len(config.noise))
    with progress(total, "Evaluating", "bytes") as advance:
        report = run(model, shards, config, entropy_model=entropy_model, device=device, advance=advance).report()
    report = {"model": str(model), **report}
    if markdown is not None:
        from bltdata.atomic import write_bytes
        from bltmodel.evaluation.sections import to_markdown

        write_bytes(markdown, to_markdown(report, f"Evaluation of {model} on {shards}").encode())
    if as_json:
        print_json(report)
        return
    from bltdata.stats.rendering import section_table
    from bltmodel.evaluation.sections import notes
    from bltmodel.evaluation.sections import sections as sections_of

    print_tables(*map(section_table, sections_of(report)))
    click.echo("\n".join(notes(report)))
