r"""Does `calibrate` give patches the mean length that is asked for: on documents it saw, on others, and for each language by itself?

The documents of each corpus are split in two by a hash of their content. `build-shards` scores both halves; `calibrate` finds thresholds
on one half and is tried on the other, for the rules global, relative, and global with relative. For each rule and wanted length there is
a line of means, one for every source under the one threshold and under its own, and one for the pair of sources that lies furthest apart.

`noise` is one standard deviation of the held-out mean over the mean that was seen, as the choice of documents alone makes it: from how
much the documents of each half differ, by the delta method. What is missed by a few times as much tells of few documents, not of a
threshold that is wrong.

    python benchmarks/bench_calibration.py --entropy-model runs/entropy-model --corpus "en.txt.gz#document=paragraph" \
        --corpus "ru.txt.gz#document=paragraph" --keep runs/calibration
"""

import dataclasses
import itertools
import json
import math
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from bltdata.build import BuildConfig, build_shards
from bltdata.corpus import CorpusSpec, SplitFractions, open_corpus
from bltdata.entropy import EntropyModel
from bltdata.patching import PatchRule
from bltdata.shards import ShardDataset, open_shards
from bltdata.shards.batches import document_batches
from bltdata.shards.calibration import calibrate_shards

HALVES = {"seen": "train", "held out": "validation"}
SEEN_LIMIT, HELD_OUT_LIMIT, APART, TOGETHER = 0.005, 0.03, 0.3, 0.05


def first_documents(spec: str, kilobytes: float) -> CorpusSpec:
    """The spec, limited to its first documents that together have so many bytes."""
    sizes = (len(document.data) for document in open_corpus(spec))
    count = sum(1 for total in itertools.accumulate(sizes) if total <= kilobytes * 1000)
    return dataclasses.replace(CorpusSpec.parse(spec), limit=max(count, 1))


def score(specs: Iterable[str], kilobytes: float, model_folder: Path, folder: Path, workers: int) -> dict[str, ShardDataset]:
    """Both halves of the corpora as shards."""
    limited = [first_documents(spec, kilobytes) for spec in specs]
    # Any rule will do: only the entropies are read.
    config = BuildConfig(rule=PatchRule(threshold=2.0))
    for name, split in HALVES.items():
        corpus = open_corpus(limited, split, fractions=SplitFractions(train=0.5, validation=0.5, test=0.0))
        build_shards(corpus, model_folder, config, folder / name, workers=workers)
    return {name: open_shards(folder / name) for name in HALVES}


def relative_error(dataset: ShardDataset, rule: PatchRule, sources: Iterable[str]) -> float:
    """Standard deviation of the mean patch length of some sources, as a part of it, over documents drawn like these."""
    positions, patches = [], []
    for batch in document_batches(dataset, needs_bytes=rule.needs_bytes):
        if batch.source in sources:
            positions.append(np.diff(batch.bounds))
            patches.append(np.diff(batch.lengths(rule)[1]))
    all_positions, all_patches = np.concatenate(positions), np.concatenate(patches)
    mean = all_positions.sum() / all_patches.sum()
    residuals = all_positions - mean * all_patches
    return float(np.sqrt((residuals**2).sum()) / all_positions.sum())


def noise(halves: dict[str, ShardDataset], rule: PatchRule, sources: Iterable[str]) -> float:
    """Standard deviation of the held-out mean over the seen mean."""
    return math.hypot(*(relative_error(dataset, rule, sources) for dataset in halves.values()))


def furthest(means: dict[str, float]) -> tuple[float, str, str]:
    """How much longer the longest mean is than the shortest, as a part of it, and whose they are."""
    low, high = min(means, key=lambda name: means[name]), max(means, key=lambda name: means[name])
    return means[high] / means[low] - 1, low, high


def try_target(halves: dict[str, ShardDataset], rule: PatchRule, target: float) -> dict[str, Any]:
    """Calibrate on one half, and compare with the other."""
    report = calibrate_shards(halves["seen"], rule, target, by_source=True, held_out=halves["held out"])
    found = report.to_mapping()
    held_out = found["held_out"]
    sources = {
        name: {
            "one_threshold": seen["mean_patch_length"],
            "one_threshold_held_out": held_out["sources"][name]["mean_patch_length"],
            "threshold": seen["own"]["threshold"],
            "own": seen["own"]["mean_patch_length"],
            "own_held_out": held_out["sources"][name]["own_mean_patch_length"],
            "noise": noise(halves, report.found.by_source[name].rule, {name}),
        }
        for name, seen in found["sources"].items()
    }
    pairs = {}
    for kind in ("one_threshold", "one_threshold_held_out", "own", "own_held_out"):
        apart, low, high = furthest({name: means[kind] for name, means in sources.items()})
        pairs[kind] = {"apart": apart, "shortest": low, "longest": high}
    return {
        "wanted": target,
        "threshold": found["threshold"],
        "seen": found["mean_patch_length"],
        "held_out": held_out["mean_patch_length"],
        "noise": noise(halves, report.found.overall.rule, set(sources)),
        "sources": sources,
        "furthest": pairs,
        "holds": verdicts(target, found["mean_patch_length"], held_out["mean_patch_length"], sources),
    }


def verdicts(target: float, seen: float, held_out: float, sources: dict[str, dict[str, float]]) -> dict[str, Any]:
    """How many of the means, and of the pairs of sources that one threshold sets apart, are where they should be."""

    def within(values: Iterable[float], limit: float) -> list[int]:
        near = [abs(value / target - 1) <= limit for value in values]
        return [sum(near), len(near)]

    def pairs_within(one: str, own: str) -> list[int]:
        apart = [
            furthest({"a": a[own], "b": b[own]})[0] <= TOGETHER
            for a, b in itertools.combinations(sources.values(), 2)
            if furthest({"a": a[one], "b": b[one]})[0] > APART
        ]
        return [sum(apart), len(apart)]

    return {
        "seen": within([seen], SEEN_LIMIT),
        "held_out": within([held_out], HELD_OUT_LIMIT),
        "own_seen": within([source["own"] for source in sources.values()], SEEN_LIMIT),
        "own_held_out": within([source["own_held_out"] for source in sources.values()], HELD_OUT_LIMIT),
        "pairs_seen": pairs_within("one_threshold", "own"),
        "pairs_held_out": pairs_within("one_threshold_held_out", "own_held_out"),
    }


def percent(value: float, wanted: float) -> str:
    """By how much a mean misses what was wanted."""
    return f"{100 * (value / wanted - 1):+6.2f}%"


def show(name: str, result: dict[str, Any]) -> None:
    """A table of one rule and wanted length."""
    wanted = result["wanted"]
    print(f"\n{name}, {wanted:g} bytes wanted                one threshold: seen   held out |  own: seen           held out         noise")
    line = f"{'all':24} {result['threshold']:8.4f} nats {result['seen']:8.3f} {percent(result['seen'], wanted)} {result['held_out']:8.3f} "
    print(f"{line}{percent(result['held_out'], wanted)}  noise {100 * result['noise']:.2f}%")
    for source, means in result["sources"].items():
        under_one = f"{means['one_threshold']:8.3f} {means['one_threshold_held_out']:8.3f}"
        seen, held_out = (f"{means[kind]:8.3f} {percent(means[kind], wanted)}" for kind in ("own", "own_held_out"))
        print(f"{source:24} {means['threshold']:8.4f} nats {under_one} | {seen} {held_out}  {100 * means['noise']:6.2f}%")
    for kind, pair in result["furthest"].items():
        print(f"furthest apart, {kind}: {pair['shortest']} and {pair['longest']}, {100 * pair['apart']:.1f}%")
    print("hold:", ", ".join(f"{kind} {good} of {count}" for kind, (good, count) in result["holds"].items()))


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--entropy-model", "model_folder", type=click.Path(path_type=Path), help="A trained entropy model; an untrained one if missing."
)
@click.option("--corpus", multiple=True, default=["python-docs"], show_default=True, help="A source of documents; may be given often.")
@click.option("--kilobytes", default=1000.0, show_default=True, help="Of each source, the first documents that have so many bytes.")
@click.option("--targets", default="3,4.5,8", show_default=True, help="Mean lengths to ask for.")
@click.option("--relative", default=0.0, show_default=True, help="Of global with relative: nats by which the entropy must rise.")
@click.option("--keep", type=click.Path(path_type=Path), help="Keep the shards here; what is scored already is not scored again.")
@click.option("--workers", default=1, show_default=True, help="Processes that score; they change nothing else.")
@click.option("--small", is_flag=True, help="A size that takes seconds.")
def main(
    model_folder: Path | None,
    corpus: tuple[str, ...],
    kilobytes: float,
    targets: str,
    relative: float,
    keep: Path | None,
    workers: int,
    small: bool,
) -> None:
    """Print tables, and one line of JSON."""
    if small:
        corpus, kilobytes, targets = ("python-docs",), 60.0, "3"
    torch.set_num_threads(1)
    rules = {
        "global": PatchRule(),
        "relative": PatchRule(relative_threshold=0.0),
        "global and relative": PatchRule(threshold=0.0, relative_threshold=relative),
    }
    with tempfile.TemporaryDirectory() as name:
        if model_folder is None:
            model_folder = Path(name) / "entropy-model"
            EntropyModel.from_preset("tiny").save(model_folder)
        halves = score(corpus, kilobytes, model_folder, keep or Path(name) / "shards", workers)
        results = {}
        for rule_name, rule in rules.items():
            results[rule_name] = [try_target(halves, rule, float(target)) for target in targets.split(",")]
            for result in results[rule_name]:
                show(rule_name, result)
        sizes = {half: dataset.manifest.totals for half, dataset in halves.items()}
    print(
        json.dumps(
            {
                "documents": {half: totals.num_documents for half, totals in sizes.items()},
                "megabytes": {half: round(totals.num_bytes / 1e6, 3) for half, totals in sizes.items()},
                "rules": results,
            }
        )
    )


if __name__ == "__main__":
    main()
