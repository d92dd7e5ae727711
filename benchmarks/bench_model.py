"""How fast does a BLT train, and in how much memory, against transformers' `BltForCausalLM` with the same weights?

A step is forward pass, backward pass, clipping and optimiser, on `--rows` rows of `--row-tokens` tokens. Each row is one document of random
bytes that repeat as text does, cut into the same number of random patches of `--patch-length` bytes on average, so that nobody pads.
Bytes, patches, weights and precision are the same for both, and so are the losses, which is checked before anything is timed. Ours has
the optimiser that training takes (`RowAdam` for the n-gram tables, AdamW for the rest), theirs AdamW for all, as transformers' trainer;
`ours, adamw` is ours with AdamW for all. For each size of the n-gram tables and each type, the contestants take turns, `--repeats` times
after one untimed round: one process, one thread, CPU time, the allocator prepared alike. Peak memory is that of a process of its own for
each contestant, after two steps; that of a process that has only imported everything is given beside it.

    python benchmarks/bench_model.py --table-rows 30000,150000
"""

import dataclasses
import json
import statistics
import subprocess
import sys

import click
import numpy as np
import torch
from timing import cpu_seconds
from torch import Tensor, nn
from training_steps import CLIP_NORM, RATE, TYPES, Step, training_step, zipf_texts

from bltdata.nn import prepare_cpu
from bltdata.training.config import TrainingConfig
from bltdata.training.optimiser import build_optimiser, clip_gradients
from bltdata.usage import peak_memory_bytes
from bltmodel.config import BLTConfig, config_from_preset
from bltmodel.interop import transformers_config, transformers_names
from bltmodel.masks import PackedBatch
from bltmodel.model import BLT

CONTESTANTS = ("ours", "ours, adamw", "transformers")


@dataclasses.dataclass(frozen=True)
class Data:
    """Rows of one document each, for both models."""

    batch: PackedBatch
    patch_lengths: Tensor
    """As transformers counts: that of BOS first. int64 `[B, P]`."""

    @property
    def num_bytes(self) -> int:
        """Raw bytes of a step; a row has BOS beside them."""
        rows, tokens = self.batch.ids_BT.shape
        return rows * (tokens - 1)


def make_data(num_rows: int, row_tokens: int, patch_length: float) -> Data:
    """Documents of a row each, in as many patches each."""
    num_bytes = row_tokens - 1
    num_patches = max(round((num_bytes + 1) / patch_length), 1)
    rng = np.random.default_rng(1)
    rows, lengths = [], []
    for text in zipf_texts(num_rows, num_bytes):
        starts = np.sort(rng.choice(np.arange(1, num_bytes + 1), num_patches - 1, replace=False))
        patches = np.diff(np.concatenate(([0], starts, [num_bytes + 1])))
        rows.append(PackedBatch.of_document(text, patches))
        lengths.append([1, *patches.tolist()])
    return Data(PackedBatch(*(torch.cat(field) for field in zip(*rows, strict=True))), torch.tensor(lengths))


def our_step(config: BLTConfig, data: Data, dtype: torch.dtype, optimiser_of_tables: str) -> Step:
    """What `bltmodel train` does."""
    model = BLT(config).train()
    settings = TrainingConfig(learning_rate=RATE, clip_norm=CLIP_NORM, table_optimiser=optimiser_of_tables)  # type: ignore[arg-type]
    optimiser = build_optimiser(model, settings)
    num_patches = data.patch_lengths.shape[1]
    return training_step(
        lambda: model(data.batch, num_patches), data.batch.targets_BT, dtype, model.parameters(), optimiser, clip_gradients
    )


def their_step(config: BLTConfig, data: Data, dtype: torch.dtype) -> Step:
    """The same with transformers' model."""
    from transformers import BltConfig, BltForCausalLM

    model = BltForCausalLM(BltConfig(**transformers_config(config))).train()
    weights = BLT(config).state_dict()
    model.load_state_dict({theirs: weights[ours] for theirs, ours in transformers_names(config).items()})
    del weights
    optimiser = torch.optim.AdamW(model.parameters(), lr=RATE, fused=True)

    def logits() -> Tensor:
        return model(data.batch.ids_BT, patch_lengths=data.patch_lengths, use_cache=False).logits

    return training_step(logits, data.batch.targets_BT, dtype, model.parameters(), optimiser, nn.utils.clip_grad_norm_)


def make_step(contestant: str, config: BLTConfig, data: Data, dtype: torch.dtype) -> Step:
    """A contestant's step."""
    if contestant == "transformers":
        return their_step(config, data, dtype)
    return our_step(config, data, dtype, "adamw" if contestant == "ours, adamw" else "row_adam")


def check(steps: dict[str, Step], tolerance: float) -> dict[str, float]:
    """Take the first step of each; stop if their losses differ, since then they don't compute the same."""
    losses = {name: step() for name, step in steps.items()}
    if max(losses.values()) - min(losses.values()) > tolerance:
        sys.exit(f"the contestants have different losses: {losses}")
    return losses


def peak_memory(arguments: list[str], contestant: str) -> int:
    """Bytes that a process of its own uses at most for two steps of a contestant."""
    done = subprocess.run([sys.executable, __file__, *arguments, "--memory-of", contestant], check=True, capture_output=True, text=True)
    return int(done.stdout)


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--preset", default="small", show_default=True, help="Architecture.")
@click.option("--latent-layers", default=4, show_default=True, help="Layers of the latent transformer, in place of the preset's.")
@click.option("--adamw/--no-adamw", default=True, show_default=True, help="Take part with AdamW for all too: 4 GB more with 150,000 rows.")
@click.option("--table-rows", default="30000,150000", show_default=True, help="Rows of each n-gram table, with commas between them.")
@click.option("--types", default="float32,bfloat16", show_default=True, help="Types, with commas between them.")
@click.option("--rows", default=8, show_default=True, help="Rows of a step.")
@click.option("--row-tokens", default=1024, show_default=True, help="Tokens a row.")
@click.option("--patch-length", default=4.6, show_default=True, help="Mean bytes of a patch.")
@click.option("--repeats", default=5, show_default=True, help="Timed rounds.")
@click.option("--memory/--no-memory", default=True, show_default=True, help="Measure peak memory too.")
@click.option("--memory-of", type=click.Choice([*CONTESTANTS, "nothing"]), hidden=True)
@click.option("--small", is_flag=True, help="Seconds instead of an hour: the tiny preset, 2 x 128 tokens, one small table, two rounds.")
def main(
    preset: str,
    latent_layers: int,
    adamw: bool,
    table_rows: str,
    types: str,
    rows: int,
    row_tokens: int,
    patch_length: float,
    repeats: int,
    memory: bool,
    memory_of: str | None,
    small: bool,
) -> None:
    """Print a table, and one line of JSON."""
    if small:
        preset, latent_layers, table_rows, rows, row_tokens, repeats = "tiny", 1, "2000", 2, 128, 2
    torch.set_num_threads(1)
    prepare_cpu()
    data = make_data(rows, row_tokens, patch_length)
    base = dataclasses.replace(config_from_preset(preset), latent_layers=latent_layers)
    if memory_of:
        if memory_of != "nothing":
            step = make_step(memory_of, dataclasses.replace(base, hash_rows=int(table_rows)), data, TYPES[types])
            for _ in range(2):
                step()
        print(peak_memory_bytes())
        return
    chosen = [name for name in CONTESTANTS if adamw or name != "ours, adamw"]
    cases = []
    for num_rows in map(int, table_rows.split(",")):
        config = dataclasses.replace(base, hash_rows=num_rows)
        for name in types.split(","):
            steps = {contestant: make_step(contestant, config, data, TYPES[name]) for contestant in chosen}
            losses = check(steps, 1e-4 if name == "float32" else 0.05)
            seconds = cpu_seconds(steps, repeats)
            del steps
            same = ["--preset", preset, "--latent-layers", latent_layers, "--rows", rows, "--row-tokens", row_tokens]
            arguments = [*map(str, same), "--patch-length", str(patch_length), "--table-rows", str(num_rows), "--types", name]
            peaks = {contestant: peak_memory(arguments, contestant) for contestant in (*chosen, "nothing")} if memory else {}
            median = {contestant: statistics.median(values) for contestant, values in seconds.items()}
            for contestant, values in seconds.items():
                speed = data.num_bytes / median[contestant] / 1e3
                spread = f"{min(values):7.3f} to {max(values):7.3f} s"
                used = f"  {peaks[contestant] / 1e6:7.0f} MB" if memory else ""
                ratio = median["transformers"] / median[contestant]
                line = f"{num_rows:7} rows  {name:8}  {contestant:12}  {median[contestant]:7.3f} s  ({spread})"
                print(f"{line}  {speed:7.2f} kB/s  x{ratio:.2f}{used}")
            cases.append(
                {
                    "table_rows": num_rows,
                    "type": name,
                    "losses": losses,
                    "seconds": {contestant: round(value, 4) for contestant, value in median.items()},
                    "bytes_per_second": {contestant: round(data.num_bytes / value) for contestant, value in median.items()},
                    "peak_memory_bytes": peaks,
                    "transformers_over_ours": round(median["transformers"] / median["ours"], 3),
                }
            )
    print(json.dumps({"preset": preset, "latent_layers": latent_layers, "rows": rows, "row_tokens": row_tokens, "cases": cases}))


if __name__ == "__main__":
    main()
