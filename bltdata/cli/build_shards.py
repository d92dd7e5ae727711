"""`bltdata build-shards`."""

from pathlib import Path
from typing import Any, Literal

import click

from bltdata.cli.common import ANY_PATH, DATASET_PATH, command, json_option, out_option, print_json
from bltdata.cli.outputs import tell_of_shards
from bltdata.cli.progress import progress_once_known, say
from bltdata.cli.settings import config_option, options_from, read_sections, section_name, settings
from bltdata.config import number_of, to_mapping
from bltdata.corpus.config import CorpusConfig
from bltdata.errors import ConfigError
from bltdata.patching.settings import RuleSettings
from bltdata.remote import AnyPath

SECTIONS = ("corpus", "rule", "build")
"""Of a file that is given with `--config`."""


@command(
    example="""
    bltdata build-shards --entropy-model runs/entropy-model --target-patch-length 4.5 --split train --out runs/train
    bltdata build-shards --entropy-model runs/entropy-model --rule-from runs/train --split validation --out runs/validation
    bltdata build-shards --entropy-model runs/entropy-model --threshold 1.5 --shard-index 3 --shard-count 100 --out runs/big
    bltdata build-shards --entropy-model runs/entropy-model --corpus "s3://bucket/pages/*.jsonl.gz" --threshold 1.5 --out s3://bucket/shards
    """,
    resumes=True,
)
@options_from(CorpusConfig)
@click.option("--split", default="train", show_default=True, help="Documents to take: train, validation, test, or all.")
@click.option("--entropy-model", "model_folder", type=ANY_PATH, required=True, metavar="FOLDER", help="The trained entropy model.")
@options_from(RuleSettings, prefix="rule")
@click.option("--rule-from", type=DATASET_PATH, metavar="FOLDER", help="Take the patch rule of this dataset, threshold included.")
@click.option("--target-patch-length", type=float, help="Calibrate the threshold so that patches have this mean length, e.g. 4.5.")
@click.option("--calibration-bytes", type=int, default=None, help="Bytes of documents to calibrate on.  [default: 1048576]")
@click.option(
    "--entropy-precision",
    type=click.Choice(["grid", "float16"]),
    help="Store entropies on a grid of 1/256 nat, or as computed.  [default: grid]",
)
@click.option("--precision", type=click.Choice(["float32", "bfloat16"]), help="Type of the model's matrix products.  [default: float32]")
@click.option("--reset-scoring-at-newline", "reset_at_newline", is_flag=True, help="Score each line as if nothing stood before it.")
@click.option("--fragment-bytes", type=int, default=None, help="Raw bytes a shard should have at most.  [default: 33554432]")
@click.option(
    "--device",
    "device_name",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default=None,
    help="What the entropy model runs on; auto is the GPU where there is one.  [default: auto]",
)
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    help="Where workers run: processes of this machine, or the Ray cluster at RAY_ADDRESS, whose machines must all see --out, the corpus "
    "and the model; the shards don't depend on it.  [default: local]",
)
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    default=None,
    help="How many work at once; the shards don't depend on it.  [default: one a core, or one a GPU]",
)
@click.option("--shard-index", type=int, help="Make the share of this job of an array, from 0; the last to finish writes manifest.json.")
@click.option("--shard-count", type=int, help="How many jobs the array has; each makes every so-many-th shard.")
@click.option("--plan-only", is_flag=True, help="Write plan.json and no shard: what is to be done, and the calibrated threshold.")
@out_option("Folder, or an address such as s3://bucket/shards, that gets the shards and, last, manifest.json.", kind=DATASET_PATH)
@config_option(*SECTIONS)
@json_option
@click.pass_context
def build_shards(
    ctx: click.Context,
    split: str,
    model_folder: Path,
    rule_from: AnyPath | None,
    device_name: str | None,
    engine: Literal["local", "ray"],
    workers: int | None,
    shard_index: int | None,
    shard_count: int | None,
    plan_only: bool,
    out: AnyPath,
    config_file: Path | None,
    as_json: bool,
    **_: Any,
) -> None:
    """Score a corpus, cut it into patches, and write both as Parquet shards.

    Each document is scored by the entropy model, and a patch starts where its next byte is hard to predict. Run the same command
    again to go on after a stop: finished shards are kept. The jobs of an array share a folder and need not talk to each other.
    """
    sections = read_sections(config_file, SECTIONS)
    corpora = settings(ctx, CorpusConfig, sections["corpus"], where=section_name(config_file, "corpus"))
    rule_settings = settings(ctx, RuleSettings, sections["rule"], prefix="rule", where=section_name(config_file, "rule"))

    from bltdata.build import BuildConfig, BuildReporter, Share, build_share, plan_shards
    from bltdata.nn import resolve_device
    from bltdata.shards import EntropyContext, Manifest

    if (shard_index is None) != (shard_count is None):
        raise ConfigError("--shard-index and --shard-count belong together; give both, or neither.")
    if plan_only and shard_index is not None:
        raise ConfigError("--plan-only makes no shards, so there is nothing to share; leave --shard-index and --shard-count out.")
    share = Share() if shard_index is None or shard_count is None else Share(shard_index, shard_count)

    rule, scored = to_mapping(rule_settings), EntropyContext()
    if rule_from is not None:
        if rule_settings != RuleSettings():
            raise ConfigError("Both --rule-from and settings of a rule are given; leave one of them out.")
        found = Manifest.read(rule_from)
        if found.source_rules:
            raise ConfigError(
                f"{rule_from} has a rule for each source, and a build has one for all; build with any rule, "
                f"then run bltdata repatch with --rule-from {rule_from}."
            )
        rule, scored = found.patch_rule, EntropyContext.of(found.entropy_model)
    table = {"device": "auto"} | sections["build"] | ({"device": device_name} if device_name else {})
    if table["device"] == "auto":
        table["device"] = resolve_device().type
    config = settings(ctx, BuildConfig, table, defaults={"rule": rule}, where=section_name(config_file, "build"))
    if scored.reset_at_newline and not config.reset_at_newline:
        say(f"{rule_from} was scored line by line, and this isn't to be, so a model can't have both: see --reset-scoring-at-newline.")
    corpus = corpora.open(split)
    if plan_only:
        plan = plan_shards(corpus, model_folder, config, out, reporter=BuildReporter(said=say))
        if as_json:
            print_json(
                {"folder": str(out), "num_shards": len(plan.fragments), "plan": plan.fingerprint, "patch_rule": to_mapping(plan.rule)}
            )
        else:
            say(f"{number_of(len(plan.fragments), 'shard is', 'shards are')} planned in {out}.")
        return

    with progress_once_known("Scoring", "bytes") as (planned, advance):
        reporter = BuildReporter(said=say, planned=planned, built=lambda record: advance(record.num_bytes, record.file))
        manifest = build_share(corpus, model_folder, config, out, share, workers=workers, engine=engine, reporter=reporter)
    if manifest is None:
        if as_json:
            print_json({"folder": str(out), "fingerprint": None, "shard_index": share.index, "shard_count": share.count})
        return
    tell_of_shards(manifest, out, as_json)
