"""`bltdata repatch`."""

from pathlib import Path
from typing import Any

import click

from bltdata.cli.common import DATASET_PATH, command, json_option, out_option
from bltdata.cli.outputs import tell_of_shards
from bltdata.cli.patching_options import cut_config, cut_options
from bltdata.cli.progress import progress_once_known, say
from bltdata.cli.settings import config_option, read_sections
from bltdata.remote import AnyPath

SECTIONS = ("rule",)
"""Of a file that is given with `--config`."""


@command(
    example="""
    bltdata repatch --shards runs/shards/train --threshold 1.335 --out runs/shards-1.335/train
    bltdata repatch --shards runs/shards/train --target-patch-length 6 --by source --out runs/shards-6/train
    bltdata repatch --shards runs/shards/validation --rule-from runs/shards-6/train --out runs/shards-6/validation
    """,
    resumes=True,
)
@click.option("--shards", type=DATASET_PATH, required=True, metavar="FOLDER", help="The shards to cut again; they aren't changed.")
@cut_options
@click.option(
    "--workers", type=click.IntRange(min=1), default=None, help="Processes; the shards don't depend on it.  [default: one a core]"
)
@out_option("Folder, or an address such as s3://bucket/shards, that gets the new shards and, last, manifest.json.", kind=DATASET_PATH)
@config_option(*SECTIONS)
@json_option
@click.pass_context
def repatch(
    ctx: click.Context,
    shards: AnyPath,
    workers: int | None,
    out: AnyPath,
    config_file: Path | None,
    as_json: bool,
    **_: Any,
) -> None:
    """Cut shards again with another rule, from their stored entropies.

    The entropy model isn't needed: bytes and entropies are copied, patches are new. Run the same command again to go on after a stop:
    finished shards are kept.
    """
    sections = read_sections(config_file, SECTIONS)

    from bltdata.repatch import BuildReporter, repatch_shards

    config = cut_config(ctx, sections["rule"], config_file)

    with progress_once_known("Cutting", "bytes") as (planned, advance):
        reporter = BuildReporter(said=say, planned=planned, built=lambda record: advance(record.num_bytes, record.file))
        manifest = repatch_shards(shards, config, out, workers=workers, reporter=reporter)
    tell_of_shards(manifest, out, as_json)
