"""How fast does the entropy model train, against transformers' `BltPatcher` with the same weights, and what the machine can multiply?

A step is forward pass, backward pass, clipping and AdamW, on `--tokens` tokens of text that repeats as text does, as rows of
`--row-tokens` and as one long row. Each row is one document. Weights, bytes and precision are the same for all, and so are the losses
of the same rows, which is checked before anything is timed. transformers' forward pass computes entropies beside the logits. Then the
contestants take turns, `--repeats` times after one untimed round: one process, one thread, CPU time, the allocator prepared alike.
Shares of the peak are of useful FLOPs (three times those of a forward pass) and of the best matrix product in the same type. `ours,
muon` has Muon in place of AdamW and `--muon-rows` rows a step, as presets train.

    python benchmarks/bench_entropy_training.py --models reference-256x4,tiny --types float32
"""

import json
import statistics
import sys

import click
import torch
from entropy_contestants import CONFIGS, make_peer, peak_flops, useful_flops
from timing import cpu_seconds
from torch import Tensor, nn
from training_steps import CLIP_NORM, RATE, TYPES, Step, training_step, zipf_texts

from bltdata.entropy import EntropyModel, EntropyModelConfig
from bltdata.nn import prepare_cpu
from bltdata.training.config import TrainingConfig
from bltdata.training.optimiser import build_optimiser, clip_gradients
from bltdata.vocab import encode

LARGEST_DIFFERENCE = {"float32": 1e-4, "bfloat16": 0.02}
"""Nats a token between the losses of the same rows. Rows that are no longer than the window are equal but for rounding; in longer ones
transformers' rotary angles lose digits."""


def tokens_of(texts: list[bytes]) -> Tensor:
    """Rows of BOS and a text each, int64 `[B, T + 1]`: inputs and the targets one further."""
    return torch.stack([torch.from_numpy(encode(text, bos=True)) for text in texts]).long()


def our_step(config: EntropyModelConfig, rows: Tensor, kind: str, optimiser: str) -> Step:
    """What `bltdata train-entropy-model` does."""
    model = EntropyModel(config).train()
    settings = TrainingConfig(learning_rate=RATE, clip_norm=CLIP_NORM, optimiser=optimiser, precision=kind)  # type: ignore[arg-type]
    ids, targets = rows[:, :-1], rows[:, 1:]
    first = torch.zeros_like(ids)
    built = build_optimiser(model, settings)
    return training_step(lambda: model(ids, first), targets, TYPES[kind], model.parameters(), built, clip_gradients)


def their_step(config: EntropyModelConfig, rows: Tensor, kind: str) -> Step:
    """The same with transformers' model."""
    patcher = make_peer(EntropyModel(config), "float32").train()
    optimiser = torch.optim.AdamW(patcher.parameters(), lr=RATE, fused=True)

    def logits() -> Tensor:
        return patcher(rows[:, :-1], use_cache=False)[2]

    return training_step(logits, rows[:, 1:], TYPES[kind], patcher.parameters(), optimiser, nn.utils.clip_grad_norm_)


def make_contestants(
    config: EntropyModelConfig, rows: dict[str, list[bytes]], kind: str, muon_rows: int
) -> tuple[dict[str, list[bytes]], dict[str, Step]]:
    """What each contestant learns from, and its step; `rows` are the texts by shape, the short ones first."""
    learned = {f"{who}, {shape}": texts for who in ("ours", "transformers") for shape, texts in rows.items()}
    steps = {
        name: their_step(config, tokens_of(texts), kind)
        if name.startswith("transformers")
        else our_step(config, tokens_of(texts), kind, "adamw")
        for name, texts in learned.items()
    }
    few = next(iter(rows.values()))[:muon_rows]
    muon = f"ours, muon, {len(few)} x {len(few[0])}"
    learned[muon], steps[muon] = few, our_step(config, tokens_of(few), kind, "muon")
    return learned, steps


def check(losses: dict[str, float], pairs: list[tuple[str, str]], tolerance: float) -> None:
    """Stop if two that learn from the same rows have different losses: they don't compute the same."""
    for one, other in pairs:
        if abs(losses[one] - losses[other]) > tolerance:
            sys.exit(f"{one} and {other} have different losses: {losses}")


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--models", default="tiny,reference-256x4", show_default=True, help=f"Architectures: {', '.join(CONFIGS)}.")
@click.option("--types", default="float32,bfloat16", show_default=True, help="Types, with commas between them.")
@click.option("--tokens", default=8192, show_default=True, help="Tokens of a step.")
@click.option("--row-tokens", default=1024, show_default=True, help="Tokens of a short row.")
@click.option("--muon-rows", default=2, show_default=True, help="Short rows of a step with Muon.")
@click.option("--repeats", default=3, show_default=True, help="Timed rounds.")
@click.option("--small", is_flag=True, help="Seconds instead of minutes: the tiny preset, 256 tokens, one round.")
def main(models: str, types: str, tokens: int, row_tokens: int, muon_rows: int, repeats: int, small: bool) -> None:
    """Print a table, and one line of JSON."""
    if small:
        models, types, tokens, row_tokens, repeats = "tiny", "float32", 256, 64, 1
    torch.set_num_threads(1)
    prepare_cpu()
    num_rows = tokens // row_tokens
    if not muon_rows <= num_rows > 1:
        sys.exit(f"{tokens} tokens are {num_rows} rows of {row_tokens}: there must be two at least, and as many as with Muon.")
    texts = zipf_texts(num_rows, row_tokens)
    rows = {f"{num_rows} x {row_tokens}": texts, f"1 x {tokens}": [b"".join(texts)]}
    short, long = rows
    cases = []
    for kind in types.split(","):
        peak = peak_flops(kind, small=small)
        for name in models.split(","):
            config = CONFIGS[name]
            learned, steps = make_contestants(config, rows, kind, muon_rows)
            losses = {contestant: step() for contestant, step in steps.items()}
            check(losses, [(f"ours, {shape}", f"transformers, {shape}") for shape in rows], LARGEST_DIFFERENCE[kind])
            seconds = {contestant: statistics.median(values) for contestant, values in cpu_seconds(steps, repeats).items()}
            del steps
            speed = {contestant: sum(map(len, learned[contestant])) / value for contestant, value in seconds.items()}
            share = {contestant: 3 * useful_flops(config, learned[contestant]) / value / peak for contestant, value in seconds.items()}
            for contestant in learned:
                against = "  ".join(f"x{speed[contestant] / speed[f'transformers, {shape}']:5.2f} {shape}" for shape in rows)
                print(
                    f"{name}  {kind:8}  {contestant:26}  {speed[contestant] / 1e3:7.2f} kB/s  {share[contestant]:4.0%} of peak  {against}"
                )
            cases.append(
                {
                    "model": name,
                    "type": kind,
                    "losses": losses,
                    "bytes_per_second": {contestant: round(value) for contestant, value in speed.items()},
                    "share_of_peak": {contestant: round(value, 4) for contestant, value in share.items()},
                    "peak_flops": round(peak),
                    "ours_over_transformers": {
                        shape: round(speed[f"ours, {short}"] / speed[f"transformers, {shape}"], 3) for shape in (short, long)
                    },
                }
            )
    print(json.dumps({"tokens": tokens, "row_tokens": row_tokens, "cases": cases}))


if __name__ == "__main__":
    main()
