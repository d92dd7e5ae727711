"""`bltdata train-entropy-model`."""

from pathlib import Path
from typing import Any

import click

from bltdata.cli.common import command, json_option, out_option, print_json
from bltdata.cli.progress import say
from bltdata.cli.settings import config_option, options_from, read_sections, section_name, settings
from bltdata.cli.training_options import defaults_by_preset, device_option, resume_option, training_reporter, training_world
from bltdata.corpus.config import CorpusConfig
from bltdata.entropy.config import PRESETS, TRAINING
from bltdata.training.config import TrainingConfig
from bltdata.training.keeping import Keeping

SECTIONS = ("corpus", "entropy_model", "training")
"""Of a file that is given with `--config`."""


@command(
    example="""
    bltdata train-entropy-model --preset tiny --steps 500 --out runs/entropy-model
    bltdata train-entropy-model --corpus 'pages/*.jsonl.gz#text=body' --preset small --out runs/entropy-model
    torchrun --nproc-per-node 2 -m bltdata train-entropy-model --preset base --out runs/entropy-model
    """,
    resumes=True,
)
@options_from(CorpusConfig)
@click.option("--preset", help=f"Size of the model: {', '.join(PRESETS)}.  [default: tiny]")
@options_from(TrainingConfig, exclude=("table_optimiser",), other_defaults=defaults_by_preset(TRAINING))
@device_option
@out_option("Folder that gets the model, its metrics, and what is needed to go on after a stop.")
@resume_option
@options_from(Keeping)
@config_option(*SECTIONS)
@json_option
@click.pass_context
def train_entropy_model(
    ctx: click.Context, preset: str | None, device: str, out: Path, resume: bool, config_file: Path | None, as_json: bool, **_: Any
) -> None:
    """Train the small byte model that says where the next byte is hard to predict.

    The documents are copied to OUT/data first, so that training can pick them in any order. Run the same command again to go on
    after a stop. In the end OUT holds the model that was best on the validation documents, and OUT/last the last one. Several
    processes train one model when torchrun starts them: they share the rows of each step, and the result is that of one
    (less closely with Muon in bfloat16).
    """
    with training_world() as world:
        with world.together():
            sections = read_sections(config_file, SECTIONS)
            changes = dict(sections["entropy_model"])
            preset_in_file = changes.pop("preset", "tiny")
            preset = preset or str(preset_in_file)
            corpora = settings(ctx, CorpusConfig, sections["corpus"], where=section_name(config_file, "corpus"))
            where = section_name(config_file, "training")
            training = settings(ctx, TrainingConfig, sections["training"], defaults=TRAINING.get(preset), where=where)
            keeping = settings(ctx, Keeping, {})

            from bltdata.entropy.pretraining import architecture_of, pretrain

            architecture = architecture_of(preset, changes, section_name(config_file, "entropy_model"))
            train, validation = corpora.open("train"), corpora.open("validation")
        with training_reporter(training.steps, world) as reporter:
            best = pretrain(
                train,
                validation,
                architecture,
                training,
                out,
                device=device,
                reporter=reporter,
                resume=resume,
                keeping=keeping,
                world=world,
            )
    if not world.is_first:
        return
    if as_json:
        print_json({"folder": str(out), **best})
    else:
        say(f"The best model, {best['bits_per_byte']:.3f} bits per byte at step {best['step']}, is in {out}.")
