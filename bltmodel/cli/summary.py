"""`bltmodel summary`."""

from pathlib import Path

import click

from bltdata.cli.common import ANY_PATH, command, json_option, print_json, print_tables
from bltdata.config import from_mapping
from bltdata.entropy.config import EntropyModelConfig
from bltdata.errors import ConfigError
from bltmodel.config import PRESETS, BLTConfig, config_from_preset


@command(
    example="""
    bltmodel summary --preset 1b
    bltmodel summary --model runs/blt --patch-length 6 --entropy-model runs/entropy-model --json
    """
)
@click.option("--preset", help=f"A named size: {', '.join(PRESETS)}.")
@click.option("--model", type=ANY_PATH, metavar="FOLDER", help="A trained BLT.")
@click.option("--entropy-model", "entropy_folder", type=ANY_PATH, metavar="FOLDER", help="Show what this entropy model costs, too.")
@click.option("--patch-length", type=float, default=4.5, show_default=True, help="Mean patch length that the FLOPs are for, in bytes.")
@click.option("--context-bytes", type=int, default=8192, show_default=True, help="Length of the documents that the FLOPs are for.")
@json_option
def summary(
    preset: str | None, model: Path | None, entropy_folder: Path | None, patch_length: float, context_bytes: int, as_json: bool
) -> None:
    """Count the parameters of each part, and the FLOPs per byte.

    The FLOPs are those of a forward pass; training costs three times as many. The entropy model isn't counted; with
    --entropy-model it has a line of its own, since shards hold its entropies and only generation runs it beside the BLT.
    """
    if (preset is None) == (model is None):
        raise ConfigError("Give either --preset or --model.")

    from bltdata.training.checkpoint import load_model_metadata
    from bltmodel.flops import entropy_model_flops_per_byte, summarise
    from bltmodel.model import KIND

    if model is not None:
        config = from_mapping(BLTConfig, load_model_metadata(model, KIND)["config"], f"{model}, config of the BLT")
    else:
        config = config_from_preset(str(preset))
    result = summarise(config, patch_length, context_bytes)
    beside = {}
    if entropy_folder is not None:
        entropy_config = _entropy_model_config(entropy_folder)
        beside = {
            "parameters": _num_parameters(entropy_config),
            "flops_per_byte": entropy_model_flops_per_byte(entropy_config, context_bytes),
        }
    if as_json:
        totals = {"parameters": result.total_parameters, "flops_per_byte": result.total_flops_per_byte}
        counted = {"parameters": result.parameters, "flops_per_byte": result.flops_per_byte, "total": totals}
        print_json(counted | ({"entropy_model": beside} if beside else {}))
        return

    from rich import box
    from rich.table import Table

    caption = f"patches of {result.mean_patch_length:g} bytes, documents of {result.context_bytes:,} bytes"
    table = Table(box=box.SIMPLE_HEAD, caption=caption, caption_justify="left")
    table.add_column("part")
    table.add_column("parameters", justify="right")
    table.add_column("FLOPs per byte", justify="right")
    for name, count in result.parameters.items():
        table.add_row(name, f"{count:,}", f"{result.flops_per_byte.get(name, 0):,.0f}")
    table.add_row("all", f"{result.total_parameters:,}", f"{result.total_flops_per_byte:,.0f}")
    if beside:
        table.add_row("entropy model, apart", f"{beside['parameters']:,}", f"{beside['flops_per_byte']:,.0f}")
    print_tables(table)


def _entropy_model_config(folder: Path) -> EntropyModelConfig:
    from bltdata.entropy.model import KIND
    from bltdata.training.checkpoint import load_model_metadata

    return from_mapping(EntropyModelConfig, load_model_metadata(folder, KIND)["config"], f"{folder}, config of the entropy model")


def _num_parameters(config: EntropyModelConfig) -> int:
    import torch

    from bltdata.entropy import EntropyModel

    with torch.device("meta"):
        return EntropyModel(config).num_parameters
