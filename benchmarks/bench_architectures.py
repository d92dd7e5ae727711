"""What do entropy patches bring, against a fixed stride and against no patches at all, at the same FLOPs per byte?

Three models learn from the same rows of the same documents in the same order, with the same settings and seed, and are judged on the
same documents: a BLT on the patches of the shards; the same BLT on patches of a fixed length (as MegaByte, arXiv:2305.07185), the
shards' mean length rounded; and a plain byte-level transformer with sliding windows (`--plain`), whose FLOPs per byte are near the
BLT's. What the entropy model cost isn't counted: it was spent when the shards were built. Each run has a folder of its own below
`--folder` and goes on from there when it is started again; `--models` says which are run now, and those that have run before are in the
table too. In the end the best model of each run reads all validation documents, whole or in windows half a context apart, and what
each has above the entropy patches comes with a 95 % interval, from resamples of the documents.

    python benchmarks/bench_architectures.py --shards shards --folder runs/architectures --steps 3000
"""

import dataclasses
import json
import math
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from bench_repatch import write_shards

from bltdata.config import to_mapping
from bltdata.entropy import EntropyModel, EntropyModelConfig
from bltdata.nn import prepare_cpu
from bltdata.patching import PatchRule
from bltdata.repatch import RepatchConfig, repatch_shards
from bltdata.shards import Manifest, open_shards
from bltdata.training.config import TrainingConfig
from bltdata.training.loop import Reporter, TrainingRun
from bltdata.training.packing import PackedRow
from bltdata.training.task import PackedTask
from bltdata.training.validation import ValidationRows
from bltdata.training.world import World
from bltmodel.config import BLTConfig, config_from_preset
from bltmodel.data import ShardStore, collate
from bltmodel.evaluation.bootstrap import interval_of_ratio
from bltmodel.evaluation.scores import score
from bltmodel.evaluation.windows import PatchedDocument
from bltmodel.flops import entropy_model_flops_per_byte, flops_per_byte
from bltmodel.masks import PackedBatch
from bltmodel.model import BLT
from bltmodel.rows import RowStream
from bltmodel.training import train_blt
from bltmodel.training_data import TrainingData, open_training_data

MODELS = ("entropy", "fixed", "plain")
SPLITS = ("train", "validation")


class PlainTask(PackedTask[EntropyModel, ShardStore, PackedBatch]):
    """A plain transformer, which learns from the BLT's rows and has no use for their patches."""

    def collate(self, rows: Sequence[PackedRow[ShardStore]]) -> PackedBatch:
        """Rows as tensors."""
        return collate(rows, torch.device("cpu"))

    def predict(self, batch: PackedBatch) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits and targets of a batch."""
        return self.model(batch.ids_BT, batch.visible_from_BT), batch.targets_BT


def printing(name: str) -> Reporter:
    """A line for each evaluation, and for each message."""
    begin = time.process_time()

    def evaluated(metrics: dict[str, Any]) -> None:
        seconds = time.process_time() - begin
        print(f"{name}: step {metrics['step']:5}  {metrics['bits_per_byte']:.4f} bits/byte  {seconds:6.0f} CPU s", flush=True)

    return Reporter(said=lambda message: print(f"{name}: {message}", flush=True), evaluated=evaluated)


def train_plain(architecture: EntropyModelConfig, config: TrainingConfig, data: TrainingData, folder: Path, reporter: Reporter) -> None:
    """Train a plain transformer on what `train_blt` would learn from."""
    model = EntropyModel(architecture, config.seed)
    rows = RowStream(data.train.dataset, config.row_tokens, seed=config.seed)
    judged = ValidationRows(data.validation, config.validation_bytes, config.row_tokens)
    identity = {"model": to_mapping(architecture), "data": data.describe()}
    task = PlainTask(model, rows, judged, config, folder, identity, World())
    TrainingRun(task, config, folder, identity, reporter).run(resume=True)


def mean_patch_length(shards: Path) -> float:
    """Of the documents to learn from."""
    mean = Manifest.read(shards / "train").totals.mean_patch_length
    if mean is None:
        raise click.UsageError(f"{shards / 'train'} has no documents; build shards of a corpus that has some.")
    return mean


def fixed_shards(shards: Path, folder: Path) -> tuple[Path, int]:
    """The same documents in patches of the mean length, made where they aren't there yet."""
    stride = round(mean_patch_length(shards))
    for split in SPLITS:
        config = RepatchConfig(rule=PatchRule(scheme="fixed", stride=stride))
        repatch_shards(shards / split, config, folder / split)
    return folder, stride


def result_of(folder: Path) -> dict[str, float] | None:
    """The last evaluation of a run, and its best; None where there was none."""
    path = folder / "metrics.jsonl"
    if not path.exists():
        return None
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    best = min(line["bits_per_byte"] for line in lines)
    return {"step": lines[-1]["step"], "bits_per_byte": lines[-1]["bits_per_byte"], "best": best, "seconds": lines[-1]["seconds"]}


def nats_of_documents(name: str, folder: Path, validation: Path, row_tokens: int) -> tuple[np.ndarray, np.ndarray]:
    """Negative log-likelihood of each validation document by the best model of a run, and its bytes."""
    store = ShardStore(open_shards(validation))
    if name == "plain":
        model = EntropyModel.load(folder)
        documents = (store.document(index).tobytes() for index in range(store.num_documents))
        return np.array([score.nll_nats for score in model.score_with_nll(documents)]), store.lengths
    patched = (PatchedDocument(store.document(index), store.starts(index)) for index in range(store.num_documents))
    scores = score(BLT.load(folder), patched, context_tokens=row_tokens, stride=row_tokens // 2)
    return scores.nats, scores.num_bytes


def print_judgement(nats: dict[str, np.ndarray], num_bytes: np.ndarray) -> dict[str, dict[str, float | list[float]]]:
    """Bits per byte of each, and how much that is above the entropy patches'."""
    found: dict[str, dict[str, float | list[float]]] = {}
    for name, each in nats.items():
        in_bits = np.log(2) * num_bytes
        found[name] = {"bits_per_byte": float(each.sum() / in_bits.sum())}
        line = f"{name:8} {found[name]['bits_per_byte']:.4f} bits/byte on all {len(each)} validation documents"
        if name != "entropy" and "entropy" in nats:
            above = each - nats["entropy"]
            interval = interval_of_ratio(above, in_bits, level=0.95, resamples=1000, seed=0)
            assert interval is not None
            found[name] |= {"above_entropy": float(above.sum() / in_bits.sum()), "interval": list(interval)}
            line += f", {found[name]['above_entropy']:+.4f} ({interval[0]:+.4f} to {interval[1]:+.4f})"
        print(line)
    return found


def plain_architecture(text: str) -> EntropyModelConfig:
    """From `dim x layers x heads x ffn_dim x window`."""
    dim, layers, heads, ffn_dim, window = (int(part) for part in text.split("x"))
    return EntropyModelConfig(dim=dim, num_layers=layers, num_heads=heads, ffn_dim=ffn_dim, window=window)


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--shards", type=click.Path(path_type=Path), help="A folder with `train` and `validation`, cut by an entropy rule.")
@click.option("--folder", type=click.Path(path_type=Path), help="Where the runs go.")
@click.option("--models", default=",".join(MODELS), show_default=True, help="Which to train now, with commas between them.")
@click.option("--preset", default="tiny", show_default=True, help="The BLT.")
@click.option("--hash-rows", type=int, help="Rows of each n-gram table, in place of the preset's.")
@click.option("--plain", default="192x3x6x512x128", show_default=True, help="Width, layers, heads, feed-forward, window.")
@click.option("--steps", default=3000, show_default=True, help="Optimiser steps of each.")
@click.option("--rows", default=4, show_default=True, help="Rows of a step.")
@click.option("--row-tokens", default=1024, show_default=True, help="Tokens a row.")
@click.option("--learning-rate", default=3e-3, show_default=True, help="Peak.")
@click.option("--validation-bytes", default=1_000_000, show_default=True, help="Documents to judge on.")
@click.option("--evaluate-every", default=500, show_default=True, help="Steps between evaluations.")
@click.option("--seed", default=0, show_default=True, help="Weights and order.")
@click.option("--judge/--no-judge", default=True, show_default=True, help="Let the best models read all validation documents in the end.")
@click.option("--small", is_flag=True, help="Seconds instead of hours: invented documents, a few steps.")
def main(
    shards: Path | None,
    folder: Path | None,
    models: str,
    preset: str,
    hash_rows: int | None,
    plain: str,
    steps: int,
    rows: int,
    row_tokens: int,
    learning_rate: float,
    validation_bytes: int,
    evaluate_every: int,
    seed: int,
    judge: bool,
    small: bool,
) -> None:
    """Print a table, and one line of JSON."""
    if small:
        steps, rows, row_tokens, validation_bytes, evaluate_every, hash_rows = 20, 2, 128, 10_000, 10, 2000
        folder = Path(tempfile.mkdtemp())
        shards = folder / "shards"
        write_shards(shards / "train", 0.3)
        write_shards(shards / "validation", 0.1)
    if shards is None or folder is None:
        raise click.UsageError("Give --shards and --folder, or --small.")
    prepare_cpu()
    config = TrainingConfig(
        steps=steps, batch_rows=rows, row_tokens=row_tokens, optimiser="muon", learning_rate=learning_rate, seed=seed,
        evaluate_every=evaluate_every, validation_bytes=validation_bytes,
    )  # fmt: skip
    architecture: BLTConfig = config_from_preset(preset)
    if hash_rows:
        architecture = dataclasses.replace(architecture, hash_rows=hash_rows)
    fixed, stride = fixed_shards(shards, folder / "fixed-shards")
    mean = mean_patch_length(shards)
    flops = {
        "entropy": math.fsum(flops_per_byte(architecture, mean, row_tokens).values()),
        "fixed": math.fsum(flops_per_byte(architecture, stride, row_tokens).values()),
        "plain": entropy_model_flops_per_byte(plain_architecture(plain), row_tokens),
    }
    for name in models.split(","):
        data, into, reporter = open_training_data(fixed if name == "fixed" else shards), folder / name, printing(name)
        if name == "plain":
            train_plain(plain_architecture(plain), config, data, into, reporter)
        else:
            train_blt(architecture, config, data, into, reporter=reporter)
    results = {name: result for name in MODELS if (result := result_of(folder / name))}
    for name, result in results.items():
        print(
            f"{name:8} {flops[name] / 1e6:.2f} MFLOP/byte  {result['bits_per_byte']:.4f} bits/byte (best {result['best']:.4f}) "
            f"after {result['step']} steps, {result['seconds']:.0f} s"
        )
    splits = {name: fixed if name == "fixed" else shards for name in results}
    judgement: dict[str, dict[str, float | list[float]]] = {}
    if judge:
        judged = {name: nats_of_documents(name, folder / name, splits[name] / "validation", row_tokens) for name in results}
        judgement = print_judgement({name: nats for name, (nats, _) in judged.items()}, next(iter(judged.values()))[1])
    about = {"mean_patch_length": mean, "stride": stride, "flops_per_byte": flops, "training": to_mapping(config)}
    print(json.dumps({**about, "results": results, "judgement": judgement}))


if __name__ == "__main__":
    main()
