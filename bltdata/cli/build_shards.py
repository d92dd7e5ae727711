"""`bltdata build-shards`."""

import contextlib
import os
from pathlib import Path
from typing import Any

import click

from bltdata.cli.common import ANY_PATH, command, json_option, out_option, print_json
from bltdata.cli.progress import Advance, format_amount, progress, say
from bltdata.cli.settings import config_option, options_from, read_sections, section_name, settings
from bltdata.config import to_mapping
from bltdata.corpus.config import CorpusConfig
from bltdata.errors import ConfigError
from bltdata.patching.settings import RuleSettings


@command(
    example="""
    bltdata build-shards --entropy-model runs/entropy-model --target-patch-length 4.5 --split train --out runs/train
    bltdata build-shards --entropy-model runs/entropy-model --rule-from runs/train --split validation --out runs/validation
    """
)
@options_from(CorpusConfig)
@click.option("--split", default="train", show_default=True, help="Documents to take: train, validation, test, or all.")
@click.option("--entropy-model", "model_folder", type=ANY_PATH, required=True, metavar="FOLDER", help="The trained entropy model.")
@options_from(RuleSettings, prefix="rule")
@click.option("--rule-from", type=ANY_PATH, metavar="FOLDER", help="Take the patch rule of this dataset, threshold included.")
@click.option("--target-patch-length", type=float, help="Calibrate the threshold so that patches have this mean length, e.g. 4.5.")
@click.option("--calibration-bytes", type=int, default=None, help="Bytes of documents to calibrate on.  [default: 1048576]")
@click.option(
    "--entropy-precision",
    type=click.Choice(["grid", "float16"]),
    help="Store entropies on a grid of 1/256 nat, or as computed.  [default: grid]",
)
@click.option("--precision", type=click.Choice(["float32", "bfloat16"]), help="Type of the model's matrix products.  [default: float32]")
@click.option("--reset-scoring-at-newline", "reset_at_newline", is_flag=True, help="Score each line as if nothing stood before it.")
@click.option("--fragment-bytes", type=int, default=None, help="Raw bytes a shard should have, about.  [default: 33554432]")
@click.option(
    "--workers", type=click.IntRange(min=1), default=None, help="Processes; the shards don't depend on it.  [default: one a core]"
)
@out_option("Folder that gets the shards and, last, manifest.json.")
@config_option
@json_option
@click.pass_context
def build_shards(
    ctx: click.Context,
    split: str,
    model_folder: Path,
    rule_from: Path | None,
    workers: int | None,
    out: Path,
    config_file: Path | None,
    as_json: bool,
    **_: Any,
) -> None:
    """Score a corpus, cut it into patches, and write both as Parquet shards.

    Each document is scored by the entropy model, and a patch starts where its next byte is hard to predict. Run the same command
    again to go on after a stop: finished shards are kept.
    """
    sections = read_sections(config_file, ["corpus", "rule", "build"])
    corpora = settings(ctx, CorpusConfig, sections["corpus"], where=section_name(config_file, "corpus"))
    rule_settings = settings(ctx, RuleSettings, sections["rule"], prefix="rule", where=section_name(config_file, "rule"))

    from bltdata.build import BuildConfig, BuildReporter
    from bltdata.build import build_shards as build
    from bltdata.shards import Manifest

    rule = to_mapping(rule_settings)
    if rule_from is not None:
        if rule_settings != RuleSettings():
            raise ConfigError("Both --rule-from and settings of a rule are given; leave one of them out.")
        found = Manifest.read(rule_from)
        if found.source_rules:
            raise ConfigError(
                f"{rule_from} has a rule for each source, and a build has one for all; build with any rule, "
                f"then run bltdata repatch with --rule-from {rule_from}."
            )
        rule = found.patch_rule
    config = settings(ctx, BuildConfig, sections["build"], defaults={"rule": rule}, where=section_name(config_file, "build"))
    corpus = corpora.open(None if split == "all" else split)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

    with contextlib.ExitStack() as bars:
        # There is a bar once it is known how long it must be.
        advance: list[Advance] = []
        reporter = BuildReporter(
            said=say,
            planned=lambda num_bytes: advance.append(bars.enter_context(progress(num_bytes, "Scoring", "bytes"))),
            built=lambda record: advance[0](record.num_bytes, record.file),
        )
        manifest = build(corpus, model_folder, config, out, workers=workers or cores, reporter=reporter)
    totals = manifest.totals
    if as_json:
        print_json(
            {"folder": str(out), "fingerprint": manifest.fingerprint, "mean_patch_length": totals.mean_patch_length, **to_mapping(totals)}
        )
    else:
        left_out = "".join(f", {count:,} left out ({reason})" for reason, count in totals.left_out.items())
        say(
            f"{totals.num_documents:,} documents, {format_amount(totals.num_bytes, 'bytes')}, {totals.num_patches:,} patches of "
            f"{totals.mean_patch_length:.3f} bytes on average in {totals.num_shards} shards in {out}{left_out}."
        )
