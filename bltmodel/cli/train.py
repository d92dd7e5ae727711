"""`bltmodel train`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from bltdata.cli.common import DATASET_PATH, command, json_option, out_option, print_json
from bltdata.cli.progress import say
from bltdata.cli.settings import config_option, options_from, read_sections, section_name, settings
from bltdata.cli.training_options import defaults_by_preset, device_option, resume_option, training_reporter, training_world
from bltdata.config import from_mapping, merged, to_mapping
from bltdata.errors import ConfigError
from bltdata.remote import AnyPath
from bltdata.training.config import TrainingConfig
from bltdata.training.keeping import Keeping
from bltmodel.config import PRESETS, TRAINING, BLTConfig, config_from_preset
from bltmodel.step_config import StepConfig


class SourceWeight(click.ParamType):
    """`SOURCE=WEIGHT`; a source's name may hold `=` too."""

    name = "source=weight"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, float]:
        """Name and number."""
        if isinstance(value, tuple):
            return value
        source, separator, weight = value.rpartition("=")
        try:
            return (source, float(weight)) if separator else self.fail(f"{value!r} has no '='; write SOURCE=WEIGHT.", param, ctx)
        except ValueError:
            self.fail(f"{value!r} ends in no number; write SOURCE=WEIGHT.", param, ctx)


def source_weights(table: Mapping[str, Any], where: str) -> dict[str, float]:
    """The section [mixing] of a file.

    Raises:
        ConfigError: a weight is no number.
    """
    for source, weight in table.items():
        if isinstance(weight, bool) or not isinstance(weight, (int, float)):
            raise ConfigError(f"{where} gives source {source!r} the weight {weight!r}; it must be a number.")
    return {source: float(weight) for source, weight in table.items()}


SECTIONS = ("model", "training", "step", "mixing")
"""Of a file that is given with `--config`."""


@command(
    example="""
    bltmodel train --shards runs/shards --preset tiny --steps 1000 --out runs/blt
    bltmodel train --shards runs/shards --weight prose=3 --weight code=1 --out runs/blt
    bltmodel train --shards runs/train --validation-shards runs/validation --config recipe.toml --out runs/blt
    torchrun --nproc-per-node 2 -m bltmodel train --shards runs/shards --preset small --out runs/blt
    """,
    resumes=True,
)
@click.option(
    "--shards",
    type=DATASET_PATH,
    required=True,
    metavar="FOLDER",
    help="A dataset of build-shards, or a folder with two, train and validation.",
)
@click.option(
    "--validation-shards",
    type=DATASET_PATH,
    metavar="FOLDER",
    help="The validation documents; without them a twentieth of a single dataset is held out.",
)
@click.option(
    "--weight",
    "weights",
    type=SourceWeight(),
    multiple=True,
    metavar="SOURCE=WEIGHT",
    help="A source's share of the bytes that are learned from, for each source, in any unit; 0 leaves one out. Without any, every "
    "document comes once an epoch.",
)
@click.option("--preset", help=f"Size of the model: {', '.join(PRESETS)}.  [default: tiny]")
@options_from(TrainingConfig, other_defaults=defaults_by_preset(TRAINING))
@options_from(StepConfig)
@device_option
@out_option("Folder that gets the model, its metrics, and what is needed to go on after a stop.")
@resume_option
@options_from(Keeping)
@config_option(*SECTIONS)
@json_option
@click.pass_context
def train(
    ctx: click.Context,
    shards: AnyPath,
    validation_shards: AnyPath | None,
    weights: tuple[tuple[str, float], ...],
    preset: str | None,
    device: str,
    out: Path,
    resume: bool,
    config_file: Path | None,
    as_json: bool,
    **_: Any,
) -> None:
    """Train a Byte Latent Transformer on a folder of shards.

    Run the same command again to go on after a stop. In the end OUT holds the model that was best on the validation documents, and
    OUT/last the last one. A TOML file may have the sections [model], whose keys change the preset's settings, [training],
    [step], and [mixing], with a weight for each source. Several processes train one model when torchrun starts them: they share the rows of
    each step, with --sharding full its weights too, and the result is that of one.
    """
    with training_world() as world:
        with world.together():
            sections = read_sections(config_file, SECTIONS)
            changes = dict(sections["model"])
            preset_in_file = changes.pop("preset", "tiny")
            preset = preset or str(preset_in_file)
            base = to_mapping(config_from_preset(preset))
            architecture = from_mapping(BLTConfig, merged(base, changes), section_name(config_file, "model"))
            where = section_name(config_file, "training")
            training = settings(ctx, TrainingConfig, sections["training"], defaults=TRAINING.get(preset), where=where)
            step = settings(ctx, StepConfig, sections["step"], where=section_name(config_file, "step"))
            keeping = settings(ctx, Keeping, {})
            mixing = merged(source_weights(sections["mixing"], section_name(config_file, "mixing")), dict(weights))

            from bltmodel.training import train_blt
            from bltmodel.training_data import open_training_data

        data = open_training_data(shards, validation_shards, folder=out, weights=mixing, world=world)
        with training_reporter(training.steps, world) as reporter:
            best = train_blt(
                architecture,
                training,
                data,
                out,
                device=device,
                reporter=reporter,
                resume=resume,
                keeping=keeping,
                step=step,
                world=world,
            )
    if not world.is_first:
        return
    if as_json:
        print_json(merged({"folder": str(out)}, best))
    else:
        say(f"The best model, {best['bits_per_byte']:.3f} bits per byte at step {best['step']}, is in {out}.")
