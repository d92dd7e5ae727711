import json
import os
import re
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import bltmodel.rows
import bltmodel.training
from bltdata.errors import BuildError, CheckpointError, ConfigError, CorpusError
from bltdata.lock import exclusive
from bltdata.nn.loss import PredictionSums
from bltdata.patching import PatchRule
from bltdata.shards import open_shards
from bltdata.training.progress import Reporter
from bltdata.training.validation import ValidationRows, spread_excerpts
from bltdata.training.world import World
from bltmodel.cutting import trained_on
from bltmodel.data import ShardStore, collate
from bltmodel.latent import LatentTransformer
from bltmodel.model import BLT
from bltmodel.patch_budget import remark
from bltmodel.step_config import StepConfig
from bltmodel.training import train_blt
from bltmodel.training_data import TrainingData, open_training_data
from tests.bltmodel.datasets import texts, train, training, write_dataset
from tests.bltmodel.documents import tiny_config
from tests.several import group

TIMES = ("seconds", "bytes_per_second", "memory_bytes")


def run(data: TrainingData, out: Path, *, reporter: Reporter | None = None, resume: bool = True, **changes: Any) -> dict[str, Any]:
    return train_blt(tiny_config(), training(**changes), data, out, device="cpu", reporter=reporter, resume=resume)


def metrics_of(out: Path) -> list[dict[str, Any]]:
    """The metrics file, times aside."""
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [{name: value for name, value in line.items() if name not in TIMES} for line in lines]


def weights_of(out: Path) -> bytes:
    return (out / "model.safetensors").read_bytes()


# ---------------------------------------------------------------------------------------------------------------- the data


def test_validation_documents_without_a_byte_are_refused(tmp_path, split_shards):
    empty = write_dataset(tmp_path / "empty", [b"", b""])
    with pytest.raises(CorpusError, match="The validation documents have no bytes to judge a model on"):
        run(open_training_data(split_shards / "train", empty), tmp_path / "blt")


def seen_documents(monkeypatch: pytest.MonkeyPatch) -> dict[bool, list[int]]:
    """Documents of the batches that were made while gradients were (True) and weren't computed."""
    seen: dict[bool, list[int]] = {True: [], False: []}
    collate, fill_rows = bltmodel.training.collate, bltmodel.rows.fill_rows

    def spy(rows, device):
        seen[torch.is_grad_enabled()] += [piece.document for row in rows for piece in row.pieces]
        return collate(rows, device)

    def spy_on_the_stream(block, begins, count, *rest):
        for begin in begins:
            first, last = np.searchsorted(block.token_ends, (begin, begin + count - 1), side="right") - 1
            seen[torch.is_grad_enabled()] += block.documents[first : last + 1].tolist()
        return fill_rows(block, begins, count, *rest)

    monkeypatch.setattr(bltmodel.training, "collate", spy)
    monkeypatch.setattr(bltmodel.rows, "fill_rows", spy_on_the_stream)
    return seen


def test_patches_that_look_ahead_come_with_a_word(shards, tmp_path, monkeypatch):
    said: list[str] = []
    run(open_training_data(shards), tmp_path / "honest", reporter=Reporter(said=said.append), steps=1)
    assert not any("compare with nothing" in line for line in said)
    monkeypatch.setattr(PatchRule, "is_incremental", False)
    run(open_training_data(shards), tmp_path / "ahead", reporter=Reporter(said=said.append), steps=1)
    assert sum("compare with nothing" in line for line in said) == 1


def test_what_is_held_out_is_judged_on_and_never_learned(shards, tmp_path, monkeypatch):
    seen, data = seen_documents(monkeypatch), open_training_data(shards)
    run(data, tmp_path / "blt", steps=35, evaluate_every=35, row_tokens=64, batch_rows=2, validation_bytes=1 << 20)
    learned, judged = set(seen[True]), set(seen[False])
    assert metrics_of(tmp_path / "blt")[-1]["epoch"] > 1
    assert learned == set(np.flatnonzero(~data.held_out))
    assert judged == set(np.flatnonzero(data.held_out))


def test_validation_is_from_all_over_the_dataset(split_shards, tmp_path, monkeypatch):
    seen, data = seen_documents(monkeypatch), open_training_data(split_shards)
    lengths = data.validation.lengths
    run(data, tmp_path / "blt", steps=1, validation_bytes=300)
    judged = sorted(set(seen[False]))
    assert judged == spread_excerpts(lengths, 300)[:, 0].tolist()
    assert metrics_of(tmp_path / "blt")[-1]["validation_bytes"] == 300
    assert judged[0] < 10
    assert judged[-1] >= 20


# ------------------------------------------------------------------------------------------------------------------ the run


def test_a_run_leaves_the_best_model_and_says_what_it_learned_from(split_shards, tmp_path):
    out, said = tmp_path / "blt", []
    data = open_training_data(split_shards)
    best = run(data, out, reporter=Reporter(evaluated=said.append), steps=7, evaluate_every=3)
    assert [line["step"] for line in metrics_of(out)] == [line["step"] for line in said] == [3, 6, 7]
    assert best == min(said, key=lambda line: line["loss"])
    about = json.loads((out / "config.json").read_text(encoding="utf-8"))
    assert about["validation"] == best
    assert about["training"]["steps"] == 7
    assert trained_on(about, out) == data.describe()
    assert BLT.load(out).config == tiny_config()
    assert not list(out.glob("*.tmp"))


def judged(model_folder: Path, shards: Path, row_tokens: int) -> dict[str, float]:
    """The figures of the model on the disk, on rows as training packs them."""
    store, model, sums = ShardStore(open_shards(shards)), BLT.load(model_folder), PredictionSums()
    for row in ValidationRows(store, 1 << 30, row_tokens):
        batch = collate([row], torch.device("cpu"))
        with torch.no_grad():
            sums += PredictionSums.of(model(batch), batch.targets_BT)
    return sums.metrics()


def test_training_learns_and_its_figures_are_those_of_the_model_it_leaves(split_shards, tmp_path):
    out = train(split_shards, tmp_path / "blt", steps=60, evaluate_every=60, validation_bytes=1 << 20, row_tokens=64)
    (last,) = metrics_of(out)
    assert last["bits_per_byte"] < 4.5
    report = judged(out, split_shards / "validation", row_tokens=64)
    for name in ("loss", "bits_per_byte", "accuracy", "perplexity", "confidence_mean", "confidence_min", "confidence_max"):
        assert report[name] == pytest.approx(last[name], rel=1e-5), name


def test_gradients_of_micro_batches_add_up(split_shards, tmp_path):
    data = open_training_data(split_shards)
    for name, rows_at_once in (("whole", None), ("parts", 1)):
        run(data, tmp_path / name, micro_batch_rows=rows_at_once)
    for whole, parts in zip(*(metrics_of(tmp_path / name) for name in ("whole", "parts")), strict=True):
        assert parts == pytest.approx(whole, rel=1e-4)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_precisions(split_shards, tmp_path, precision):
    best = run(open_training_data(split_shards), tmp_path / "blt", precision=precision, steps=20, evaluate_every=10)
    assert best["bits_per_byte"] < 6.5
    assert BLT.load(tmp_path / "blt").head.weight.dtype == torch.float32


def test_patience_ends_a_run_that_gets_worse(split_shards, tmp_path):
    said: list[str] = []
    run(
        open_training_data(split_shards), tmp_path / "blt", reporter=Reporter(said=said.append),
        steps=200, learning_rate=3.0, warmup_steps=3, evaluate_every=1, patience=4, validation_bytes=1 << 20,
    )  # fmt: skip
    losses = [line["loss"] for line in metrics_of(tmp_path / "blt")]
    best = losses.index(min(losses))
    assert len(losses) == best + 1 + 4 < 200
    assert said == [f"Stopped at step {len(losses)}: no new best in 4 evaluations."]
    # What is kept is the best, not the last.
    assert judged(tmp_path / "blt", split_shards / "validation", row_tokens=32)["loss"] == pytest.approx(min(losses), rel=1e-5)


# ------------------------------------------------------------------------------------------------------------ stop and go on


def interrupt_at(step: int) -> Reporter:
    """Presses Ctrl-C while a step is reported."""
    taken = [0]

    def stepped(steps: int) -> None:
        taken[0] += steps
        if taken[0] == step:
            os.kill(os.getpid(), signal.SIGINT)

    return Reporter(stepped=stepped)


@pytest.mark.parametrize(
    "changes",
    [{}, {"micro_batch_rows": 2, "row_tokens": 24}, {"learning_rate": 3.0, "warmup_steps": 6}],
    ids=["whole", "micro-batches", "the best comes first"],
)
def test_a_run_that_was_stopped_ends_as_if_it_had_not_been(shards, tmp_path, changes):
    whole = run(open_training_data(shards), tmp_path / "whole", **changes)
    for step in (1, 2, 5):
        with pytest.raises(KeyboardInterrupt):
            run(open_training_data(shards), tmp_path / "stopped", reporter=interrupt_at(step), **changes)
    said: list[str] = []
    best = run(open_training_data(shards), tmp_path / "stopped", reporter=Reporter(said=said.append), **changes)
    assert said == [f"Going on: {tmp_path / 'stopped'} holds this run at step 5 of 6."]
    assert weights_of(tmp_path / "stopped") == weights_of(tmp_path / "whole")
    assert metrics_of(tmp_path / "stopped") == metrics_of(tmp_path / "whole")
    assert best["loss"] == whole["loss"]
    assert best["step"] == (2 if "learning_rate" in changes else 6)


def test_a_finished_run_is_left_as_it_is(shards, tmp_path):
    data, out, said = open_training_data(shards), tmp_path / "blt", []
    first = run(data, out)
    before = {path.name: path.stat().st_mtime_ns for path in out.iterdir() if path.name not in ("metrics.jsonl", ".lock")}
    assert run(data, out, reporter=Reporter(said=said.append)) == first
    assert said == [f"It had finished already: {out} holds this run at step 6 of 6."]
    assert {name: (out / name).stat().st_mtime_ns for name in before} == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data, out: run(data, out, learning_rate=0.5), r"holds another run: its training.learning_rate is 0.01, this one's is 0.5"),
        (
            lambda data, out: train_blt(tiny_config(window=8), training(), data, out, device="cpu"),
            r"holds another run: its model.window is 16, this one's is 8; choose another folder, or start over there with --no-resume",
        ),
    ],
)
def test_a_folder_with_another_run_is_refused(shards, tmp_path, change: Callable, message):
    data = open_training_data(shards)
    run(data, tmp_path / "blt", steps=2)
    before = weights_of(tmp_path / "blt")
    with pytest.raises(CheckpointError, match=message):
        change(data, tmp_path / "blt")
    assert weights_of(tmp_path / "blt") == before


def test_other_documents_are_another_run_and_can_start_over(shards, split_shards, tmp_path):
    run(open_training_data(shards), tmp_path / "blt", steps=2)
    other = open_training_data(split_shards)
    with pytest.raises(CheckpointError, match=r"holds another run: its data.train is '\w+', this one's is '\w+'"):
        run(other, tmp_path / "blt", steps=2)
    run(other, tmp_path / "blt", steps=2, resume=False)
    run(other, tmp_path / "alone", steps=2)
    assert weights_of(tmp_path / "blt") == weights_of(tmp_path / "alone")


def sources(count: int, seed: int = 0) -> list[tuple[str, bytes]]:
    """Documents of two sources, the second a tenth of them."""
    return [("code" if number % 10 == 3 else "prose", text) for number, text in enumerate(texts(count, seed=seed))]


def test_sources_in_given_proportions(tmp_path):
    folder = write_dataset(tmp_path / "shards", sources(60), sources(60, seed=1))
    data, said = open_training_data(folder, weights={"code": 1, "prose": 1}), []
    whole = run(data, tmp_path / "whole", reporter=Reporter(said=said.append))
    assert len(said) == 1
    assert re.fullmatch(r"Of the bytes that 6 steps learn from: code 50.0% \([\d.]+ epochs\), prose 50.0% \([\d.]+ epochs\)\.", said[0])
    about = json.loads((tmp_path / "whole" / "config.json").read_text(encoding="utf-8"))
    assert about["data"]["mixing"] == {"code": 1, "prose": 1}
    with pytest.raises(KeyboardInterrupt):
        run(data, tmp_path / "stopped", reporter=interrupt_at(3))
    other = open_training_data(folder, weights={"code": 2, "prose": 1})
    with pytest.raises(CheckpointError, match=r"holds another run: its data.mixing.code is 1, this one's is 2"):
        run(other, tmp_path / "stopped")
    assert run(data, tmp_path / "stopped")["loss"] == whole["loss"]
    assert weights_of(tmp_path / "stopped") == weights_of(tmp_path / "whole")
    assert run(open_training_data(folder), tmp_path / "without")["loss"] != whole["loss"]


def test_one_run_a_folder(shards, tmp_path):
    with exclusive(tmp_path / "blt"), pytest.raises(BuildError, match=r"Another process is writing to .*blt"):
        run(open_training_data(shards), tmp_path / "blt")


# ---------------------------------------------------------------------------------------------------------- several processes


def run_in(world: World, shards: Path, out: Path, changes: dict[str, Any]) -> dict[str, Any]:
    data = open_training_data(shards, folder=out, world=world)
    return train_blt(tiny_config(), training(**changes), data, out, device="cpu", world=world)


def run_until(world: World, shards: Path, out: Path, changes: dict[str, Any], step: int) -> dict[str, Any]:
    data = open_training_data(shards, folder=out, world=world)
    return train_blt(tiny_config(), training(**changes), data, out, device="cpu", reporter=interrupt_at(step), world=world)


def test_two_processes_train_what_one_does(shards, tmp_path):
    # Nothing is clipped, which would hide a wrong scale.
    changes = {"clip_norm": 1e6}
    run_in(World(), shards, tmp_path / "alone", changes)
    with pytest.raises(KeyboardInterrupt):
        run(open_training_data(shards), tmp_path / "resumed", reporter=interrupt_at(3), **changes)
    with group(2) as both:
        for name in ("together", "resumed"):
            first, second = both.run(run_in, shards, tmp_path / name, changes)
            assert first.error is None
            assert first.value["loss"] == second.value["loss"]
        (parts, _) = both.run(run_in, shards, tmp_path / "parts", {**changes, "micro_batch_rows": 1})
        stopped = both.run(run_until, shards, tmp_path / "by one", changes, 3)
    assert parts.error is None
    # What two saved, one goes on from, and four do.
    assert [outcome.error for outcome in stopped] == ["KeyboardInterrupt"] * 2
    shutil.copytree(tmp_path / "by one", tmp_path / "by four")
    run_in(World(), shards, tmp_path / "by one", changes)
    with group(4) as four:
        assert [outcome.error for outcome in four.run(run_in, shards, tmp_path / "by four", changes)] == [None] * 4
    for name in ("together", "resumed", "parts", "by one", "by four"):
        for line, expected in zip(metrics_of(tmp_path / name), metrics_of(tmp_path / "alone"), strict=True):
            assert line == pytest.approx(expected, abs=1e-5, rel=1e-5)


# ------------------------------------------------------------------------------------------------------- how steps are computed


def run_with(step: StepConfig, data: TrainingData, out: Path, world: World | None = None, **changes: Any) -> dict[str, Any]:
    reporter = changes.pop("reporter", None)
    return train_blt(tiny_config(), training(**changes), data, out, device="cpu", step=step, world=world, reporter=reporter)


def shapes_of_latents(monkeypatch: pytest.MonkeyPatch) -> dict[bool, set[int]]:
    """Patches a row, of batches while gradients were (True) and weren't computed."""
    seen: dict[bool, set[int]] = {True: set(), False: set()}
    forward = LatentTransformer.forward

    def spy(latent: LatentTransformer, patches: torch.Tensor, *rest: Any) -> torch.Tensor:
        seen[torch.is_grad_enabled()].add(patches.shape[1])
        return forward(latent, patches, *rest)

    monkeypatch.setattr(LatentTransformer, "forward", spy)
    return seen


def test_a_large_budget_changes_no_result_and_fixes_all_shapes(shards, tmp_path, monkeypatch):
    data = open_training_data(shards)
    expected = run(data, tmp_path / "without", row_tokens=64)
    seen = shapes_of_latents(monkeypatch)
    best = run_with(StepConfig(patch_margin=100.0), data, tmp_path / "with", row_tokens=64)
    assert seen == {True: {64}, False: {64}}
    assert (best["patches_joined"], best["rows_over_budget"]) == (0, 0)
    assert best["loss"] == pytest.approx(expected["loss"], abs=1e-5)


def test_what_overflows_the_budget_is_joined_counted_and_resumed(shards, tmp_path, monkeypatch):
    data, step, changes = open_training_data(shards), StepConfig(patch_margin=1.0), {"row_tokens": 64}
    seen = shapes_of_latents(monkeypatch)
    whole = run_with(step, data, tmp_path / "whole", **changes)
    counts = [(line["patches_joined"], line["rows_over_budget"]) for line in metrics_of(tmp_path / "whole")]
    assert counts == sorted(counts)
    assert counts[-1][0] > 0
    # The model says it, as its patches are other ones.
    assert json.loads((tmp_path / "whole" / "config.json").read_text())["patches_per_row"] in seen[True]
    assert len(seen[True]) == 1 or counts[-1][1] > 0
    with pytest.raises(KeyboardInterrupt):
        run_with(step, data, tmp_path / "stopped", reporter=interrupt_at(3), **changes)
    assert run_with(step, data, tmp_path / "stopped", **changes)["loss"] == whole["loss"]
    assert metrics_of(tmp_path / "stopped") == metrics_of(tmp_path / "whole")
    assert weights_of(tmp_path / "stopped") == weights_of(tmp_path / "whole")
    with pytest.raises(CheckpointError, match=r"holds another run: its patches_per_row is \d+, this one's is None"):
        run(data, tmp_path / "stopped", **changes)


def test_a_budget_is_that_of_the_source_with_most_patches(tmp_path):
    # A patch begins after each space: prose has one in ten bytes, code in two, and next to nothing of the dataset is code.
    prose, code = [("prose", b"aaaaaaaaa " * 6)] * 57, [("code", b"a b c d e f g h i j ")] * 3
    data = open_training_data(
        write_dataset(tmp_path / "shards", [*prose, ("prose", b"other")], [*code, ("code", b"another")], rule=PatchRule(scheme="space")),
        weights={"prose": 1, "code": 1},
    )
    best = run_with(StepConfig(patch_margin=1.1), data, tmp_path / "blt")
    budget = json.loads((tmp_path / "blt" / "config.json").read_text())["patches_per_row"]
    assert 1.1 * 32 / 2 < budget < 1.1 * 32 / 1.5
    assert best["patches_joined"] / best["patches"] < 0.05


def test_a_budget_that_joins_many_is_said_once(shards, tmp_path):
    data, step, said = open_training_data(shards), StepConfig(patch_margin=1.0), list[str]()
    with pytest.raises(KeyboardInterrupt):
        run_with(step, data, tmp_path / "blt", reporter=replace(interrupt_at(1), said=said.append))
    assert said == []
    for stop in (5, 6):
        with pytest.raises(KeyboardInterrupt):
            run_with(step, data, tmp_path / "blt", reporter=replace(interrupt_at(stop), said=said.append))
    first, *_ = metrics_of(tmp_path / "blt")
    share = first["patches_joined"] / first["patches"]
    budget = json.loads((tmp_path / "blt" / "config.json").read_text())["patches_per_row"]
    of_the_budget = [line for line in said if "joined" in line]
    assert of_the_budget == [remark(first, budget)]
    assert of_the_budget[0].startswith(f"{share:.1%} of the patches so far were joined to keep rows to {budget}: start again")


def test_a_budget_below_the_mean_is_refused():
    with pytest.raises(ConfigError, match=r"The patch margin is 0\.9; it must be at least 1"):
        StepConfig(patch_margin=0.9)


def test_checkpointed_activations_give_the_same_bits(shards, tmp_path):
    data = open_training_data(shards)
    run(data, tmp_path / "kept", steps=3)
    run_with(StepConfig(checkpoint_activations=True), data, tmp_path / "computed", steps=3)
    assert weights_of(tmp_path / "computed") == weights_of(tmp_path / "kept")
    # And either goes on where the other stopped.
    for name, step, other in (("one", StepConfig(), True), ("other", StepConfig(checkpoint_activations=True), False)):
        with pytest.raises(KeyboardInterrupt):
            run_with(step, data, tmp_path / name, steps=3, reporter=interrupt_at(2))
        run_with(StepConfig(checkpoint_activations=other), data, tmp_path / name, steps=3)
        assert weights_of(tmp_path / name) == weights_of(tmp_path / "kept")


@pytest.mark.parametrize("optimiser", ["row_adam", "adamw"])
def test_the_optimiser_of_the_tables_is_part_of_a_run(shards, tmp_path, optimiser):
    data = open_training_data(shards)
    run(data, tmp_path / "blt", steps=2, table_optimiser=optimiser)
    other = {"row_adam": "adamw", "adamw": "row_adam"}[optimiser]
    with pytest.raises(CheckpointError, match=r"holds another run: its training.table_optimiser is"):
        run(data, tmp_path / "blt", steps=2, table_optimiser=other)


def run_budgeted(world: World, shards: Path, out: Path) -> dict[str, Any]:
    return run_with(StepConfig(patch_margin=1.0), open_training_data(shards, folder=out, world=world), out, world, clip_norm=1e6)


def test_two_processes_join_and_count_what_one_does(shards, tmp_path):
    run_budgeted(World(), shards, tmp_path / "alone")
    with group(2) as both:
        first, _ = both.run(run_budgeted, shards, tmp_path / "together")
    assert first.error is None
    for line, expected in zip(metrics_of(tmp_path / "together"), metrics_of(tmp_path / "alone"), strict=True):
        assert line == pytest.approx(expected, abs=1e-5, rel=1e-5)
    assert expected["patches_joined"] > 0
