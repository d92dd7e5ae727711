"""`bltdata convert`."""

from pathlib import Path
from typing import Any

import click

from bltdata.cli.common import ANY_PATH, DATASET_PATH, command, json_option, out_option, print_json
from bltdata.cli.outputs import tell_of_shards
from bltdata.cli.patching_options import CUT_OPTIONS, cut_config, cut_options
from bltdata.cli.progress import format_amount, progress_once_known, say
from bltdata.cli.settings import config_option, field_docs, given_options, options_from, read_sections, section_name, settings
from bltdata.config import number_of
from bltdata.convert.config import FromArrowConfig, ToArrowConfig
from bltdata.errors import ConfigError
from bltdata.patching.settings import RuleSettings
from bltdata.remote import AnyPath, RemotePath

SECTIONS = ("to_arrow", "from_arrow", "rule")
"""Of a file that is given with `--config`."""


@command(
    example="""
    bltdata convert --shards runs/shards/train --dataset-name pages --num-chunks 8 --out runs/arrow
    bltdata convert --arrow preprocessed/dclm --threshold 1.335442066192627 --out runs/dclm
    bltdata convert --arrow dclm.chunk.00.jsonl.shard_00.arrow --target-patch-length 4.5 --out runs/dclm
    """,
    resumes=True,
)
@click.option("--shards", type=DATASET_PATH, metavar="FOLDER", help="Shards to convert to Arrow files; they aren't changed.")
@options_from(ToArrowConfig, prefix="to_arrow")
@click.option(
    "--arrow", type=ANY_PATH, multiple=True, metavar="PATH", help="Arrow file, or a folder of them, to convert to shards; repeatable."
)
@options_from(FromArrowConfig, prefix="from_arrow")
@cut_options
@click.option(
    "--workers", type=click.IntRange(min=1), default=None, help="Processes; the result doesn't depend on it.  [default: one a core]"
)
@out_option(
    "Folder that gets the Arrow files in folders of their own; or folder, or address such as s3://bucket/shards, that gets the shards and, "
    "last, manifest.json.",
    kind=DATASET_PATH,
)
@config_option(*SECTIONS)
@json_option
@click.pass_context
def convert(
    ctx: click.Context,
    shards: AnyPath | None,
    arrow: tuple[Path, ...],
    workers: int | None,
    out: AnyPath,
    config_file: Path | None,
    as_json: bool,
    **_: Any,
) -> None:
    """Convert shards to the Arrow files of the reference implementation, or such files to shards.

    With --shards the files are laid out as its trainer looks for them. With --arrow, documents and entropies are kept and cut by a patch
    rule. Run the same command again to go on after a stop: finished files are kept.
    """
    sections = read_sections(config_file, SECTIONS)
    if (shards is None) == (not arrow):
        raise ConfigError("Give either --shards, a folder of shards to convert, or --arrow, files to make shards of.")
    if shards is not None:
        _refuse_others(ctx, FromArrowConfig, "from_arrow", sections, "--shards", takes_rule=False)
        to = settings(ctx, ToArrowConfig, sections["to_arrow"], prefix="to_arrow", where=section_name(config_file, "to_arrow"))
        _to_arrow(shards, to, out, workers, as_json)
    else:
        _refuse_others(ctx, ToArrowConfig, "to_arrow", sections, "--arrow", takes_rule=True)
        how = settings(ctx, FromArrowConfig, sections["from_arrow"], prefix="from_arrow", where=section_name(config_file, "from_arrow"))
        _from_arrow(ctx, arrow, how, sections["rule"], config_file, out, workers, as_json)


def _to_arrow(shards: AnyPath, config: ToArrowConfig, out: AnyPath, workers: int | None, as_json: bool) -> None:
    if isinstance(out, RemotePath):
        raise ConfigError(f"Arrow files are written to folders of this machine only, and {out} is remote; give --out a local path.")

    from bltdata.convert import ArrowReporter, shards_to_arrow

    with progress_once_known("Converting", "bytes") as (planned, advance):
        reporter = ArrowReporter(said=say, planned=planned, written=lambda record: advance(record.num_bytes, record.file))
        written = shards_to_arrow(shards, config, out, workers=workers, reporter=reporter)
    names = {name: getattr(written, name) for name in ("dataset_name", "entropy_model_name", "num_chunks")}
    if as_json:
        counts = {"num_documents": written.num_documents, "num_bytes": written.num_bytes, "left_out": written.left_out}
        print_json({"folder": str(out), **names, **counts, "files": [record.file for record in written.files]})
        return
    say(
        f"{number_of(written.num_documents, 'document')}, {format_amount(written.num_bytes, 'bytes')} "
        f"in {number_of(len(written.files), 'file')}; {written.left_out:,} left out."
    )
    say(
        f"The trainer finds them with root_dir and preprocess_dir {out}, the source {written.dataset_name}, entropy_model_name "
        f"{written.entropy_model_name}, and a number of processes that {written.num_chunks} divides."
    )


def _from_arrow(
    ctx: click.Context,
    arrow: tuple[Path, ...],
    config: FromArrowConfig,
    rule: dict[str, Any],
    config_file: Path | None,
    out: AnyPath,
    workers: int | None,
    as_json: bool,
) -> None:
    from bltdata.convert import arrow_to_shards
    from bltdata.engines.resume import BuildReporter

    cut = cut_config(ctx, rule, config_file)
    with progress_once_known("Converting", "bytes") as (planned, advance):
        reporter = BuildReporter(said=say, planned=planned, built=lambda record: advance(record.num_bytes, record.file))
        manifest = arrow_to_shards(arrow, cut, config, out, workers=workers, reporter=reporter)
    tell_of_shards(manifest, out, as_json)
    if config.framing in ("eos", "none") and not as_json:
        say("Without BOS nothing is known of each document's first byte; its entropy is stored as ln 260.")


def _refuse_others(
    ctx: click.Context, others: type, prefix: str, sections: dict[str, dict[str, Any]], direction: str, *, takes_rule: bool
) -> None:
    """A setting that this direction doesn't read is a mistake."""
    given = [*given_options(ctx, list(field_docs(others)), prefix), *sections[prefix]]
    if not takes_rule:
        given += [*given_options(ctx, list(field_docs(RuleSettings)), "rule"), *given_options(ctx, CUT_OPTIONS), *sections["rule"]]
    if given:
        raise ConfigError(f"With {direction} nothing reads {', '.join(name.replace('_', '-') for name in given)}; leave it out.")
