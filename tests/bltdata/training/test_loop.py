"""The loop, with the entropy model as what it trains: small, and real."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bltdata.entropy import EntropyModel
from bltdata.errors import BuildError, CheckpointError
from bltdata.nn.loss import PredictionSums
from bltdata.training.metrics import METRICS_FILE
from bltdata.training.optimiser import Optimiser
from bltdata.training.schedule import learning_rate_at
from bltdata.training.task import PackedTask
from bltdata.training.world import World
from tests.bltdata.small import architecture, training
from tests.bltdata.training.runs import (
    MEASURED,
    TRAIN,
    VALIDATION,
    Killed,
    assert_same_run,
    at_step,
    die_at_renames,
    kill,
    metrics_of,
    outcome,
    press_ctrl_c,
    state_of,
    train,
)

STEPS = 7
CONFIG = training(steps=STEPS, evaluate_every=3)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    train(folder, CONFIG)
    return folder


def test_a_run(undisturbed):
    metrics = metrics_of(undisturbed)
    assert [line["step"] for line in metrics] == [3, 6, 7]
    assert [line["learning_rate"] for line in metrics] == [learning_rate_at(step - 1, CONFIG) for step in (3, 6, 7)]
    assert [line["epoch"] for line in metrics] == [step * 48 / int((TRAIN.lengths + 1).sum()) for step in (3, 6, 7)]
    assert sorted(path.name for path in undisturbed.iterdir()) == [
        "config.json",
        "last",
        METRICS_FILE,
        "model.safetensors",
        "training_state.pt",
    ]
    config = json.loads((undisturbed / "config.json").read_text())
    assert config["data"] == {"name": "data"}
    assert config["training"]["steps"] == STEPS
    best = min(metrics, key=lambda line: line["loss"])
    assert {key: value for key, value in config["validation"].items() if key not in MEASURED} == best


def test_every_line_has_what_a_user_asks_for(undisturbed):
    line = json.loads((undisturbed / METRICS_FILE).read_text().splitlines()[-1])
    assert set(line) == {
        "step", "loss", "bits_per_byte", "accuracy", "perplexity", "confidence_mean", "confidence_min", "confidence_max",
        "validation_bytes", "training_loss", "gradient_norm", "skipped_steps", "spikes",
        "learning_rate", "bytes_per_second", "memory_bytes", "epoch", "seconds",
    }  # fmt: skip
    assert line["bytes_per_second"] > 0
    assert line["memory_bytes"] > 1 << 20
    assert line["seconds"] > 0


def test_the_same_settings_give_the_same_run(undisturbed, tmp_path):
    train(tmp_path, CONFIG)
    assert_same_run(tmp_path, undisturbed)


def test_another_seed_gives_another_run(undisturbed, tmp_path):
    train(tmp_path, dataclasses.replace(CONFIG, seed=1))
    assert outcome(tmp_path)[0] != outcome(undisturbed)[0]


@pytest.mark.parametrize("step", range(1, STEPS + 1))
def test_ctrl_c_at_any_step(undisturbed, tmp_path, step):
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, CONFIG, stepped=at_step(step, press_ctrl_c))
    assert state_of(tmp_path)["progress"]["step"] == step
    said: list[str] = []
    train(tmp_path, CONFIG, said=said.append)
    how = "It had finished already" if step == STEPS else "Going on"
    assert said == [f"{how}: {tmp_path} holds this run at step {step} of {STEPS}."]
    assert_same_run(tmp_path, undisturbed)


@pytest.mark.parametrize("step", range(1, STEPS + 1))
def test_a_kill_at_any_step(undisturbed, tmp_path, step):
    with pytest.raises(Killed):
        train(tmp_path, CONFIG, stepped=at_step(step, kill))
    train(tmp_path, CONFIG)
    assert_same_run(tmp_path, undisturbed)


def test_a_kill_between_any_two_files(undisturbed, tmp_path, monkeypatch):
    # Each file becomes visible by a rename: die before the first, before the second, and so on, going on from what is there.
    allow, kills = die_at_renames(monkeypatch), 0
    while True:
        allow(kills)
        try:
            train(tmp_path / "again", CONFIG)
            break
        except Killed:
            kills += 1
    # Three evaluations of metrics, state and perhaps a best model, and the metrics at the start.
    assert kills >= 7
    assert_same_run(tmp_path / "again", undisturbed)
    for published in range(kills):
        allow(published)
        folder = tmp_path / str(published)
        with pytest.raises(Killed):
            train(folder, CONFIG)
        allow(1000)
        train(folder, CONFIG)
        assert_same_run(folder, undisturbed)


def test_interrupted_in_every_step_of_one_run(undisturbed, tmp_path):
    for _ in range(STEPS):
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path, CONFIG, stepped=lambda count: press_ctrl_c() if count == 1 else None)
    train(tmp_path, CONFIG)
    assert_same_run(tmp_path, undisturbed)


def test_files_that_are_newer_than_the_state(undisturbed, tmp_path):
    # Killed after the best model and the metrics of an evaluation, before its state.
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, CONFIG, stepped=at_step(4, press_ctrl_c))
    for name in (METRICS_FILE, "model.safetensors", "config.json"):
        (tmp_path / name).write_bytes((undisturbed / name).read_bytes())
    with pytest.raises(Killed):
        train(tmp_path, CONFIG, stepped=at_step(6, kill))
    # What the state doesn't know of has not happened.
    assert [line["step"] for line in metrics_of(tmp_path)] == [3]
    train(tmp_path, CONFIG)
    assert_same_run(tmp_path, undisturbed)


def test_a_finished_run_is_not_taken_up_again(undisturbed, tmp_path):
    best = train(tmp_path, CONFIG)
    before = (tmp_path / "training_state.pt").read_bytes()
    steps: list[int] = []
    assert train(tmp_path, CONFIG, stepped=steps.append) == best
    assert steps == []
    assert (tmp_path / "training_state.pt").read_bytes() == before


def test_a_resumed_run_starts_the_bar_where_it_goes_on(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, CONFIG, stepped=at_step(4, press_ctrl_c))
    steps: list[int] = []
    train(tmp_path, CONFIG, stepped=steps.append)
    assert steps == [4, 1, 1, 1]


@pytest.mark.parametrize(
    ("changes", "name", "there", "here"),
    [
        ({"steps": 8}, "training.steps", 7, 8),
        ({"learning_rate": 0.5}, "training.learning_rate", 0.01, 0.5),
        ({"patience": 3}, "training.patience", None, 3),
    ],
)
def test_another_run_in_the_folder(undisturbed, changes, name, there, here):
    with pytest.raises(CheckpointError) as caught:
        train(undisturbed, dataclasses.replace(CONFIG, **changes))
    assert str(caught.value) == (
        f"{undisturbed} holds another run: its {name} is {there!r}, this one's is {here!r}; "
        "choose another folder, or start over there with --no-resume."
    )


def test_other_data_in_the_folder(undisturbed):
    with pytest.raises(CheckpointError, match=r"its data\.name is 'data', this one's is 'other'"):
        train(undisturbed, CONFIG, data="other")


def test_a_tuple_in_the_identity_is_a_list_in_the_state(tmp_path):
    train(tmp_path, CONFIG, data=("a", "b"))
    train(tmp_path, CONFIG, data=("a", "b"))


def test_starting_anew(undisturbed, tmp_path):
    train(tmp_path, dataclasses.replace(CONFIG, seed=5, steps=5))
    # Until the first evaluation there is nothing that could be taken for the new run's.
    with pytest.raises(Killed):
        train(tmp_path, CONFIG, resume=False, stepped=at_step(2, kill))
    assert [path.name for path in tmp_path.iterdir()] == [METRICS_FILE]
    assert metrics_of(tmp_path) == []
    train(tmp_path, CONFIG, resume=False)
    assert_same_run(tmp_path, undisturbed)


@pytest.mark.parametrize("gone", [["last"], ["config.json", "model.safetensors"], ["metrics.jsonl"], ["model.safetensors"]])
def test_a_model_without_a_state_is_not_written_over(undisturbed, tmp_path, gone):
    shutil.copytree(undisturbed, tmp_path / "run")
    for name in ("training_state.pt", *gone):
        path = tmp_path / "run" / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    where = tmp_path / "run" / ("last" if "config.json" in gone else "")
    with pytest.raises(CheckpointError) as caught:
        train(tmp_path / "run", CONFIG)
    assert str(caught.value) == (
        f"{where} holds a trained model, but there is no state of a run to go on from; choose another folder, or start over there with "
        "--no-resume, which deletes the model."
    )
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before
    train(tmp_path / "run", CONFIG, resume=False)
    assert_same_run(tmp_path / "run", undisturbed)


def test_leftovers_of_a_killed_writer_are_removed(tmp_path):
    (tmp_path / "last").mkdir()
    for folder in (tmp_path, tmp_path / "last"):
        (folder / ".model.safetensors.123.tmp").touch()
    train(tmp_path, CONFIG)
    assert not list(tmp_path.rglob(".*"))


def with_losses(monkeypatch: pytest.MonkeyPatch, losses: list[float]) -> None:
    """Let the evaluations find these losses, one after the other."""
    remaining = iter(losses)

    def evaluate(task: PackedTask, rows_at_once: int) -> PredictionSums:
        return PredictionSums(nats=next(remaining), num_targets=1, num_bytes=1, confidence_min=0.5, confidence_max=0.5)

    monkeypatch.setattr(PackedTask, "evaluate", evaluate)


def test_a_loss_that_is_not_a_number(tmp_path):
    config = training(steps=60, learning_rate=1e30, warmup_steps=0, evaluate_every=60)
    expected = (
        r"^In 10 steps in a row, the last of them \d+, loss or gradient were not finite: no state was written yet; lower the learning rate "
        r"\(1e\+30\) or raise the warm-up \(0 steps\), and start again in another folder\.$"
    )
    with pytest.raises(BuildError, match=expected):
        train(tmp_path, config)
    assert [path.name for path in tmp_path.iterdir()] == [METRICS_FILE]


def test_validation_that_is_not_a_number(tmp_path, monkeypatch):
    with_losses(monkeypatch, [float("nan")])
    with pytest.raises(BuildError, match="The loss on the validation documents stopped being a number at step 2: no state was"):
        train(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [METRICS_FILE]


def test_patience(tmp_path, monkeypatch):
    with_losses(monkeypatch, [3.0, 2.0, 2.0, 2.5, 1.0])
    said: list[str] = []
    best = train(tmp_path, training(steps=50, evaluate_every=2, patience=2), said=said.append)
    assert said == ["Stopped at step 8: no new best in 2 evaluations."]
    # An equal loss is no new best.
    assert (best["step"], best["loss"]) == (4, 2.0)
    assert [line["step"] for line in metrics_of(tmp_path)] == [2, 4, 6, 8]
    assert json.loads((tmp_path / "config.json").read_text())["validation"]["step"] == 4


def test_patience_starts_over_with_every_best_and_survives_an_interruption(tmp_path, monkeypatch):
    config = training(steps=50, evaluate_every=2, patience=2)
    with_losses(monkeypatch, [3.0, 3.5, 2.0, 2.5])
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, config, stepped=at_step(9, press_ctrl_c))
    with_losses(monkeypatch, [2.5, 0.0])
    best = train(tmp_path, config)
    assert best["step"] == 6
    assert [line["step"] for line in metrics_of(tmp_path)] == [2, 4, 6, 8, 10]


def test_the_best_model_is_kept_not_the_last(tmp_path, monkeypatch):
    weights = []
    with_losses(monkeypatch, [3.0, 1.0, 2.0])
    train(tmp_path, evaluated=lambda metrics: weights.append((tmp_path / "model.safetensors").read_bytes()))
    assert weights[0] != weights[1]
    assert weights[1] == weights[2] == (tmp_path / "model.safetensors").read_bytes()
    last = state_of(tmp_path)["model"]
    assert not all(torch.equal(tensor, last[name]) for name, tensor in EntropyModel.load(tmp_path).state_dict().items())
    # The last is beside it, once the run has ended.
    assert all(torch.equal(tensor, last[name]) for name, tensor in EntropyModel.load(tmp_path / "last").state_dict().items())
    assert [json.loads((folder / "config.json").read_text())["validation"]["step"] for folder in (tmp_path, tmp_path / "last")] == [4, 6]


def test_the_last_step_is_always_evaluated(tmp_path):
    assert train(tmp_path, training(steps=3, evaluate_every=100))["step"] == 3


@pytest.mark.parametrize("micro", [1, 2])
def test_accumulated_gradients_are_those_of_the_whole_batch(tmp_path, micro):
    # Nothing is clipped at this norm: clipping would hide a wrong scale.
    config = training(steps=4, batch_rows=4, clip_norm=1e6)
    train(tmp_path / "whole", config)
    train(tmp_path / "parts", dataclasses.replace(config, micro_batch_rows=micro))
    whole, parts = (state_of(tmp_path / name) for name in ("whole", "parts"))
    assert whole["progress"]["cursor"] == parts["progress"]["cursor"]
    for name, tensor in whole["model"].items():
        torch.testing.assert_close(parts["model"][name], tensor, atol=1e-5, rtol=0, msg=name)
    # Adam hides the scale of a gradient, its moments don't.
    for index, moments in whole["optimiser"]["state"].items():
        for name in ("exp_avg", "exp_avg_sq"):
            torch.testing.assert_close(parts["optimiser"]["state"][index][name], moments[name], atol=1e-6, rtol=1e-4)
    losses = [[line["loss"] for line in metrics_of(tmp_path / name)] for name in ("whole", "parts")]
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)


def test_every_step_has_its_learning_rate(tmp_path, monkeypatch):
    rates: list[float] = []
    monkeypatch.setattr(Optimiser, "set_learning_rate", lambda self, rate: rates.append(rate))
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, CONFIG, stepped=at_step(4, press_ctrl_c))
    train(tmp_path, CONFIG)
    assert rates == [learning_rate_at(step, CONFIG) for step in range(STEPS)]


def test_gradients_are_clipped(tmp_path):
    train(tmp_path, training(steps=1, clip_norm=1e-3))
    moments = [moments["exp_avg"] for moments in state_of(tmp_path)["optimiser"]["state"].values()]
    # After one step the first moment is (1 - beta1) times the gradient.
    norm = torch.cat([moment.flatten() for moment in moments]).norm() / (1 - training().beta1)
    assert float(norm) == pytest.approx(1e-3, rel=1e-3)


def test_evaluation_does_not_depend_on_how_many_rows_go_at_once(tmp_path):
    losses = []
    for micro in (1, 3):
        best = train(tmp_path / str(micro), training(steps=1, batch_rows=3, micro_batch_rows=micro, learning_rate=1e-9))
        losses.append((best["loss"], best["bits_per_byte"], best["accuracy"]))
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_evaluation_counts_every_byte_once(tmp_path):
    # At a learning rate of nothing the model is the initial one.
    config = training(steps=1, learning_rate=1e-30, validation_bytes=10**6, row_tokens=200, batch_rows=1)
    best = train(tmp_path, config)
    model = EntropyModel(architecture(), config.seed)
    scores = list(model.score_with_nll([VALIDATION.document(i).tobytes() for i in range(4)]))
    nats, num_bytes = sum(score.nll_nats for score in scores), int(VALIDATION.lengths.sum())
    assert best["bits_per_byte"] == pytest.approx(nats / np.log(2) / num_bytes, rel=1e-5)
    assert best["loss"] == pytest.approx(nats / (num_bytes + 4), rel=1e-5)


def test_half_precision_trains(tmp_path):
    best = train(tmp_path, training(steps=30, evaluate_every=10, precision="bfloat16"))
    # The loss of knowing nothing is ln 260 = 5.56.
    assert best["loss"] < 5
    assert EntropyModel.load(tmp_path).embedding.weight.dtype == torch.float32


class Apart(World):
    """Two processes that don't see the same disk: the other finds no state."""

    def gather(self, value: Any) -> list[Any]:
        return [value, type(value)()]


def test_processes_that_find_other_states_do_not_go_on(tmp_path):
    config = training(steps=4, evaluate_every=2)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, config, stepped=at_step(3, press_ctrl_c))
    with pytest.raises(
        BuildError, match=r"^The processes don't find the same state in .*; choose a folder on a disk that all of them share\.$"
    ):
        train(tmp_path, config, world=Apart())
