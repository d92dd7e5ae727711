"""`bltmodel export`."""

from pathlib import Path

import click

from bltdata.cli.common import ANY_PATH, command, json_option, out_option, print_json
from bltdata.cli.progress import say


@command(
    example="""
    bltmodel export runs/blt --entropy-model runs/entropy-model --out runs/blt-hf
    bltmodel export runs/blt --out runs/blt-hf
    """
)
@click.argument("model", metavar="MODEL", type=ANY_PATH)
@click.option(
    "--entropy-model",
    "entropy_folder",
    type=ANY_PATH,
    metavar="FOLDER",
    help="The entropy model of its shards, to patch with; without it transformers must be given patch lengths.",
)
@click.option(
    "--threshold",
    type=float,
    help="Start patches above this many nats, instead of where the training shards have them.  [default: their rule's threshold]",
)
@out_option("New or empty folder that gets the checkpoint.")
@json_option
def export(model: Path, entropy_folder: Path | None, threshold: float | None, out: Path, as_json: bool) -> None:
    """Write a BLT as a checkpoint that transformers opens.

    MODEL is the folder of a trained BLT, and BltForCausalLM.from_pretrained opens OUT, with weights, settings and tokenizer. Its logits
    are those of this model, for one document a row and with use_cache=False, since transformers' cache of a BLT is wrong. The threshold
    is translated: transformers compares with entropies that aren't rounded as those of shards are.
    """
    from bltmodel.interop import export_blt

    exported = export_blt(model, out, entropy_model=entropy_folder, threshold=threshold)
    if as_json:
        print_json({"folder": str(out), **exported._asdict()})
        return
    say(f"The checkpoint, {exported.num_parameters:,} parameters, is in {out}; open it with BltForCausalLM.from_pretrained.")
    if exported.threshold is None:
        say("Without an entropy model, transformers takes every byte for a patch unless it is given patch_lengths.")
    else:
        say(f"transformers starts a patch where an entropy is above {exported.threshold:g} nats.")
