"""`bltmodel train`."""

from pathlib import Path
from typing import Any

import click

from bltdata.cli.common import ANY_PATH, command, json_option, out_option, print_json
from bltdata.cli.progress import say
from bltdata.cli.settings import config_option, options_from, read_sections, section_name, settings
from bltdata.cli.training_options import device_option, resume_option, training_reporter, training_world
from bltdata.config import from_mapping, merged, to_mapping
from bltdata.training.config import TrainingConfig
from bltmodel.config import PRESETS, BLTConfig, config_from_preset


@command(
    example="""
    bltmodel train --shards runs/shards --preset tiny --steps 1000 --out runs/blt
    bltmodel train --shards runs/train --validation-shards runs/validation --config recipe.toml --out runs/blt
    torchrun --nproc-per-node 2 -m bltmodel train --shards runs/shards --preset small --out runs/blt
    """
)
@click.option(
    "--shards",
    type=ANY_PATH,
    required=True,
    metavar="FOLDER",
    help="A dataset of build-shards, or a folder with two, train and validation.",
)
@click.option(
    "--validation-shards",
    type=ANY_PATH,
    metavar="FOLDER",
    help="The validation documents; without them a twentieth of a single dataset is held out.",
)
@click.option("--preset", help=f"Size of the model: {', '.join(PRESETS)}.  [default: tiny]")
@options_from(TrainingConfig)
@device_option
@out_option("Folder that gets the model, its metrics, and what is needed to go on after a stop.")
@resume_option
@config_option
@json_option
@click.pass_context
def train(
    ctx: click.Context,
    shards: Path,
    validation_shards: Path | None,
    preset: str | None,
    device: str,
    out: Path,
    resume: bool,
    config_file: Path | None,
    as_json: bool,
    **_: Any,
) -> None:
    """Train a Byte Latent Transformer on a folder of shards.

    Run the same command again to go on after a stop. In the end OUT holds the model that was best on the validation documents. A
    TOML file may have the sections [model], whose keys change the preset's settings, and [training]. Several processes train one
    model when torchrun starts them: they share the rows of each step, and the result is that of one.
    """
    with training_world() as world:
        with world.together():
            sections = read_sections(config_file, ["model", "training"])
            changes = dict(sections["model"])
            preset_in_file = changes.pop("preset", "tiny")
            base = to_mapping(config_from_preset(preset or str(preset_in_file)))
            architecture = from_mapping(BLTConfig, merged(base, changes), section_name(config_file, "model"))
            training = settings(ctx, TrainingConfig, sections["training"], where=section_name(config_file, "training"))

            from bltmodel.training import open_training_data, train_blt

        data = open_training_data(shards, validation_shards, folder=out, world=world)
        with training_reporter(training.steps, world) as reporter:
            best = train_blt(architecture, training, data, out, device=device, reporter=reporter, resume=resume, world=world)
    if not world.is_first:
        return
    if as_json:
        print_json(merged({"folder": str(out)}, best))
    else:
        say(f"The best model, {best['bits_per_byte']:.3f} bits per byte at step {best['step']}, is in {out}.")
