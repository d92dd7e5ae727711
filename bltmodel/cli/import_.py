"""`bltmodel import`."""

from pathlib import Path

import click

from bltdata.cli.common import ANY_PATH, command, json_option, out_option, print_json
from bltdata.cli.progress import say


@command(
    "import",
    example="""
    bltmodel import blt-1b-hf --out runs/blt-1b --entropy-model-out runs/blt-1b-entropy-model
    bltmodel import runs/blt-hf --out runs/blt-again
    """,
)
@click.argument("checkpoint", metavar="CHECKPOINT", type=ANY_PATH)
@out_option("New or empty folder that gets the BLT.")
@click.option(
    "--entropy-model-out",
    type=ANY_PATH,
    metavar="FOLDER",
    help="New or empty folder that gets its patcher as an entropy model.  [default: none]",
)
@click.option("--window", type=click.IntRange(min=1), help="Bytes that the patcher sees, BOS among them.  [default: as in the checkpoint]")
@json_option
def import_command(checkpoint: Path, out: Path, entropy_model_out: Path | None, window: int | None, as_json: bool) -> None:
    """Read a BLT from a transformers checkpoint.

    CHECKPOINT is a folder that save_pretrained of a BltForCausalLM wrote. OUT then serves as a BLT everywhere, in float32, and its logits
    are those that transformers computes in that type. It says with which rule it cuts: an entropy threshold, as transformers has it, or
    the rule of the training shards if bltmodel wrote the checkpoint.
    """
    from bltdata.config import to_mapping
    from bltdata.patching.settings import describe_rule
    from bltmodel.interop import import_blt

    imported = import_blt(checkpoint, out, entropy_model_out=entropy_model_out, window=window)
    num_parameters, rule = sum(imported.model.num_parameters().values()), imported.rule
    patcher = imported.entropy_model
    if as_json:
        found = {
            "patch_rule": None if rule is None else to_mapping(rule),
            "entropy_model": None if patcher is None else patcher.fingerprint,
        }
        print_json({"folder": str(out), "num_parameters": num_parameters, **found})
        return
    say(f"The BLT, {num_parameters:,} parameters, is in {out}.")
    if entropy_model_out is not None:
        say(f"Its entropy model is in {entropy_model_out}.")
    if rule is None:
        say("Nobody knows how its documents were cut: it has no patcher, so it computes logits of given patches but can't generate.")
    else:
        say(f"Its patches are cut by the rule {describe_rule(to_mapping(rule))}.")
