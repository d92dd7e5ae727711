"""`bltdata verify`: whether datasets are what they say they are."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from bltdata.cli.common import ANY_PATH, DATASET_PATH, command, json_option, print_json
from bltdata.cli.progress import format_amount, progress_once_known, say
from bltdata.config import number_of
from bltdata.errors import ConfigError
from bltdata.remote import AnyPath

if TYPE_CHECKING:
    from bltdata.verification import DeepCheck, VerificationReport


@command(
    example="""
    bltdata verify runs/shards/train runs/shards/validation
    bltdata verify runs/shards/train --deep --entropy-model runs/entropy-model
    """
)
@click.argument("folders", metavar="FOLDER...", type=DATASET_PATH, nargs=-1, required=True)
@click.option("--deep", is_flag=True, help="Score a sample of documents again and compare; needs --entropy-model.")
@click.option("--deep-documents", type=click.IntRange(min=1), default=None, help="Documents of each dataset to score.  [default: 32]")
@click.option("--entropy-model", "model_folder", type=ANY_PATH, metavar="FOLDER", help="The model that scored the datasets, for --deep.")
@click.option(
    "--max-faults", type=click.IntRange(min=1), default=20, show_default=True, help="Faults of a kind to list; the rest is counted."
)
@click.option(
    "--workers", type=click.IntRange(min=1), default=None, help="Processes; the report doesn't depend on it.  [default: one a core]"
)
@json_option
@click.pass_context
def verify(
    ctx: click.Context,
    folders: tuple[AnyPath, ...],
    deep: bool,
    deep_documents: int | None,
    model_folder: Path | None,
    max_faults: int,
    workers: int | None,
    as_json: bool,
) -> None:
    """Check that shards are what their manifest says: every file, every row, every patch.

    FOLDER is a folder that build-shards or repatch wrote; of several it is checked that they share no document. Prints a line for each
    fault, which says where it is, what is wrong and what to do, and ends with exit code 1 if there is one.
    """
    settings = _deep_check(deep, deep_documents, model_folder)

    from bltdata.usage import num_cores
    from bltdata.verification import verify_dataset
    from bltdata.verification.verify import VerifyReporter

    with progress_once_known("Verifying", "bytes") as (planned, advance):
        reporter = VerifyReporter(planned=planned, done=advance)
        report = verify_dataset(*folders, workers=workers or num_cores(), max_faults=max_faults, deep=settings, reporter=reporter)
    if as_json:
        print_json(report.to_mapping())
    else:
        _print(report)
    if not report.is_good:
        ctx.exit(1)


def _deep_check(deep: bool, num_documents: int | None, model_folder: Path | None) -> "DeepCheck | None":
    if not deep:
        for option, value in (("--deep-documents", num_documents), ("--entropy-model", model_folder)):
            if value is not None:
                raise ConfigError(f"{option} is given without --deep, which alone needs it; add --deep, or leave it out.")
        return None
    if model_folder is None:
        raise ConfigError("--deep scores documents again and needs the model that scored them; give its folder with --entropy-model.")

    from bltdata.verification import DeepCheck

    return DeepCheck(entropy_model=model_folder, **({} if num_documents is None else {"num_documents": num_documents}))


def _print(report: "VerificationReport") -> None:
    for fault in report.faults:
        click.echo(str(fault))
    for kind, count in report.num_not_shown.items():
        click.echo(f"{count:,} more of the kind {kind}; --max-faults lists more of them.")
    for note in report.notes:
        say(f"Note: {note}")
    for found in report.deep:
        say(
            f"{found.folder}: {number_of(found.num_documents, 'document')} scored again; "
            f"{found.num_inexact:,} of {found.num_entropies:,} entropies differ, "
            f"by {found.largest_difference_nats:.4g} nats at most, and {found.num_patched_otherwise:,} would get other patches."
        )
    for dataset in report.datasets:
        shards = number_of(dataset.num_shards, "shard")
        if dataset.num_readable < dataset.num_shards:
            shards = f"{dataset.num_readable:,} of {shards}"
        documents, size = number_of(dataset.num_documents, "document"), format_amount(dataset.num_bytes, "bytes")
        say(f"{dataset.folder}: {shards}, {documents}, {size} looked at.")
    total = sum(report.num_faults.values())
    say("No faults." if report.is_good else f"{number_of(total, 'fault')}.")
