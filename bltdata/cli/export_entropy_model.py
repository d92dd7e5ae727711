"""`bltdata export-entropy-model`."""

from pathlib import Path

import click

from bltdata.cli.common import ANY_PATH, command, json_option, out_option, print_json
from bltdata.cli.progress import say


@command(example="bltdata export-entropy-model runs/entropy-model --out runs/patcher")
@click.argument("model_folder", metavar="MODEL", type=ANY_PATH)
@out_option("New or empty folder that gets the checkpoint.")
@json_option
def export_entropy_model(model_folder: Path, out: Path, as_json: bool) -> None:
    """Write an entropy model as a checkpoint that transformers opens.

    MODEL is the folder of a trained entropy model, and BltPatcher.from_pretrained opens OUT. The patcher's entropies are those that
    this model computes, to about 1e-5 nats in the first 300 bytes of a text and 3e-4 near 6000, since transformers' angles lose digits.
    """
    from bltdata.entropy import EntropyModel, export_patcher

    model = EntropyModel.load(model_folder)
    export_patcher(model, out)
    if as_json:
        print_json({"folder": str(out), "fingerprint": model.fingerprint, "num_parameters": model.num_parameters})
    else:
        say(f"The checkpoint, {model.num_parameters:,} parameters, is in {out}; open it with transformers' BltPatcher.from_pretrained.")
