"""`bltdata import-entropy-model`."""

from pathlib import Path

import click

from bltdata.cli.common import ANY_PATH, command, json_option, out_option, print_json
from bltdata.cli.progress import say


@command(
    example="""
    bltdata import-entropy-model blt-1b-hf --out runs/entropy-model
    bltdata import-entropy-model patcher --window 512 --out runs/entropy-model
    """
)
@click.argument("checkpoint", metavar="CHECKPOINT", type=ANY_PATH)
@click.option("--window", type=click.IntRange(min=1), help="Bytes that a prediction sees, BOS among them.  [default: as in the checkpoint]")
@out_option("New or empty folder that gets the entropy model.")
@json_option
def import_entropy_model(checkpoint: Path, window: int | None, out: Path, as_json: bool) -> None:
    """Take the entropy model out of a transformers checkpoint of a BLT or of its patcher.

    CHECKPOINT is a folder that save_pretrained of a BltForCausalLM, BltModel or BltPatcher wrote. OUT then serves as an entropy model
    everywhere, and its entropies are those that transformers computes in float32, to about 1e-5 nats in the first 300 bytes of a text and
    3e-4 near 6000, since transformers' angles lose digits.
    """
    from bltdata.atomic import atomic_folder
    from bltdata.entropy import import_patcher

    with atomic_folder(out) as temporary:
        model = import_patcher(checkpoint, window=window)
        model.save(temporary, {"imported_from": checkpoint.resolve().name})
    if as_json:
        print_json(
            {"folder": str(out), "fingerprint": model.fingerprint, "num_parameters": model.num_parameters, "window": model.config.window}
        )
    else:
        say(f"The entropy model, {model.num_parameters:,} parameters with a window of {model.config.window:,} bytes, is in {out}.")
