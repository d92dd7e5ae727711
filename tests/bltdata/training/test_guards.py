"""What isn't finite never reaches the weights, what leaps is reported, and a run that goes on remembers all of it."""

import dataclasses
import math
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from torch import Tensor

from bltdata.errors import BuildError
from bltdata.training.guards import MAX_SKIPPED_IN_A_ROW, MAX_SPIKES_SKIPPED_IN_A_ROW, MIN_HISTORY, WINDOW, Guard
from bltdata.training.optimiser import Optimiser
from bltdata.training.task import PackedTask
from tests.bltdata.small import training
from tests.bltdata.training.runs import assert_same_run, at_step, metrics_of, press_ctrl_c, state_of, train

NAN, INFINITY = math.nan, math.inf


def seasoned(**changes: int) -> Guard:
    """A guard that has seen enough."""
    guard = Guard()
    for step in range(MIN_HISTORY):
        assert guard.judge(step + 1, 2.0 + 0.1 * (step % 3), 1.0, skip_spikes=False) == (True, None)
    return dataclasses.replace(guard, **changes)


@pytest.mark.parametrize(
    ("loss", "norm", "wrong"),
    [
        (NAN, 1.0, "its loss is nan"),
        (1.0, INFINITY, "its gradient's norm is inf"),
        (NAN, NAN, "its loss is nan and its gradient's norm is nan"),
        (-INFINITY, 1.0, "its loss is -inf"),
    ],
)
def test_what_is_not_finite_is_left_out(loss, norm, wrong):
    guard = Guard()
    assert guard.judge(7, loss, norm, skip_spikes=False) == (False, f"Step 7 is left out: {wrong}.")
    assert (guard.skipped_steps, guard.losses, guard.norms) == (1, [], [])
    assert guard.metrics() == {"training_loss": None, "gradient_norm": None, "skipped_steps": 1, "spikes": 0}


def test_it_is_lost_after_so_many_in_a_row_and_not_before():
    guard = Guard()
    for step in range(3 * MAX_SKIPPED_IN_A_ROW):
        is_finite = step % MAX_SKIPPED_IN_A_ROW == 0
        guard.judge(step + 1, 1.0 if is_finite else NAN, 1.0, skip_spikes=False)
        assert not guard.is_lost
    guard.judge(99, NAN, 1.0, skip_spikes=False)
    assert guard.is_lost


def test_spikes():
    guard = seasoned()
    verdict = guard.judge(21, 9.0, 1.0, skip_spikes=False)
    assert verdict == (True, "Step 21 is a spike: its loss is 9, with a median of 2.1 in the last 20 steps.")
    verdict = guard.judge(22, 2.0, 6.0, skip_spikes=True)
    assert verdict == (False, "Step 22 is left out as a spike: its gradient's norm is 6, with a median of 1 in the last 21 steps.")
    verdict = guard.judge(23, 9.0, 6.0, skip_spikes=False)
    assert verdict.remark.count(" and its gradient's norm is 6") == 1
    assert (guard.spikes, guard.skipped_steps) == (3, 1)
    # What is far below is none, nor what is a little above.
    assert guard.judge(24, 0.1, 4.9, skip_spikes=True) == (True, None)


def test_the_training_loss_is_of_steps_that_were_taken():
    guard = seasoned()
    expected = guard.metrics()["training_loss"]
    guard.judge(21, 900.0, 1.0, skip_spikes=True)
    guard.judge(22, NAN, 1.0, skip_spikes=True)
    assert guard.metrics()["training_loss"] == expected
    # A spike that isn't left out has taught the model something.
    guard.judge(23, 900.0, 1.0, skip_spikes=False)
    assert guard.metrics()["training_loss"] == pytest.approx((20 * expected + 900) / 21)


def test_what_a_guard_of_before_remembers():
    guard = seasoned()
    before = {name: value for name, value in vars(guard).items() if name != "taken_losses"}
    assert Guard.restored(before) == guard
    assert Guard.restored({}) == Guard()


def test_a_new_level_is_not_left_out_for_ever():
    guard = seasoned()
    taken = [guard.judge(21 + step, 9.0, 1.0, skip_spikes=True).is_taken for step in range(50)]
    assert taken == [False] * MAX_SPIKES_SKIPPED_IN_A_ROW + [True] * 40
    # By then most of what it compares with is of the new level.
    assert guard.spikes < 50


def test_few_steps_say_nothing():
    guard = Guard()
    assert all(guard.judge(step, 10.0**step, 10.0**step, skip_spikes=True).is_taken for step in range(MIN_HISTORY))


@given(st.lists(st.tuples(st.floats(0, 1e6), st.floats(0, 1e6)), max_size=130), st.booleans(), st.integers(0, 130))
def test_what_it_remembers_is_all_it_knows(values, skip_spikes, stop):
    whole, first = Guard(), Guard()
    expected = [whole.judge(step, *pair, skip_spikes=skip_spikes) for step, pair in enumerate(values)]
    found = [first.judge(step, *pair, skip_spikes=skip_spikes) for step, pair in enumerate(values[:stop])]
    second = Guard(**vars(first))
    found += [second.judge(step, *pair, skip_spikes=skip_spikes) for step, pair in enumerate(values) if step >= stop]
    assert found == expected
    assert second == whole
    assert len(whole.losses) == min(len(values), WINDOW)
    assert len(whole.taken_losses) == min(sum(verdict.is_taken for verdict in expected), WINDOW)


# ------------------------------------------------------------------------------------------------------------------ in runs


@contextmanager
def losses_times(factors: dict[int, float], gradients_too: bool = True, first: int = 1) -> Iterator[None]:
    """Multiply the losses of steps, counted from the first that this run takes; each has one micro-batch."""
    plain, taken = PackedTask.loss, first - 1

    def loss(task: PackedTask, batch: tuple[Tensor, ...]) -> Tensor:
        nonlocal taken
        taken += 1
        nats = plain(task, batch)
        if gradients_too or taken not in factors:
            return nats * factors.get(taken, 1.0)
        # Worth nothing, with a gradient that isn't a number.
        return nats + (0 * next(task.model.parameters()).sum()).sqrt()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PackedTask, "loss", loss)
        yield


def weights_after(folder: Path, step: int, factors: dict[int, float], **changes: bool) -> dict[str, Tensor]:
    with losses_times(factors, **changes), pytest.raises(KeyboardInterrupt):
        train(folder, training(steps=9, evaluate_every=100), stepped=at_step(step, press_ctrl_c))
    return state_of(folder)["model"]


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(tensor, other[name]) for name, tensor in one.items())


@pytest.mark.parametrize(("factor", "gradients_too"), [(NAN, True), (INFINITY, True), (1.0, False)])
def test_the_weights_stay_as_they_are(tmp_path, factor, gradients_too):
    before = weights_after(tmp_path / "before", 3, {})
    skipped = weights_after(tmp_path / "skipped", 4, {4: factor}, gradients_too=gradients_too)
    assert equal(before, skipped)
    assert not equal(before, weights_after(tmp_path / "taken", 4, {}))
    states = [state_of(tmp_path / name) for name in ("before", "skipped", "taken")]
    assert [state["guard"]["skipped_steps"] for state in states] == [0, 1, 0]
    # The moments neither, but its data are behind it.
    moments = [state["optimiser"]["state"][0] for state in states]
    assert equal(moments[0], moments[1])
    assert states[1]["progress"]["cursor"] == states[2]["progress"]["cursor"]


CONFIG = training(steps=30, evaluate_every=7)


def disturbed(folder: Path, stops: Collection[int] = (), **changes: bool) -> list[str]:
    """A run with two steps that aren't finite and two spikes, stopped here and there; returns what it said."""
    factors = {5: NAN, 11: INFINITY, 23: 1e3, 26: 1e3}
    said: list[str] = []
    for begin, end in zip([0, *stops], [*stops, None], strict=True):
        if end is None:
            with losses_times(factors, first=begin + 1):
                train(folder, dataclasses.replace(CONFIG, **changes), said=said.append)
        else:
            with losses_times(factors, first=begin + 1), pytest.raises(KeyboardInterrupt):
                train(folder, dataclasses.replace(CONFIG, **changes), said=said.append, stepped=at_step(end, press_ctrl_c))
    return [line for line in said if line.startswith("Step")]


@pytest.mark.parametrize("skip_spikes", [False, True])
def test_a_run_with_troubles_that_is_stopped_ends_as_one_that_is_not(tmp_path, skip_spikes):
    whole = disturbed(tmp_path / "whole", skip_spikes=skip_spikes)
    assert [line.split(":")[0] for line in whole] == [
        "Step 5 is left out", "Step 11 is left out", *(f"Step {step} is {'left out as ' * skip_spikes}a spike" for step in (23, 26)),
    ]  # fmt: skip
    assert disturbed(tmp_path / "stopped", stops=(4, 5, 11, 22, 25), skip_spikes=skip_spikes) == whole
    assert_same_run(tmp_path / "stopped", tmp_path / "whole")
    last = metrics_of(tmp_path / "whole")[-1]
    assert (last["skipped_steps"], last["spikes"]) == (4 if skip_spikes else 2, 2)
    # The spikes change the weights where they aren't left out; their gradient is clipped then, but it isn't nothing.
    assert math.isfinite(last["gradient_norm"])


@pytest.mark.parametrize("step", [2, 5])
def test_ctrl_c_does_not_save_weights_that_are_not_finite(tmp_path, monkeypatch, step):
    plain, steps, said = Optimiser.step, 0, list[str]()

    def spoil(self: Optimiser) -> None:
        nonlocal steps
        plain(self)
        steps += 1
        if steps == step - 1:
            self.param_groups[0]["params"][0].data[0] = NAN

    monkeypatch.setattr(Optimiser, "step", spoil)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, training(steps=9, evaluate_every=3), said=said.append, stepped=at_step(step, press_ctrl_c))
    kept = {2: "no state was written yet", 5: "the state of step 3 is kept"}[step]
    assert said[-1] == f"The weights of step {step} aren't finite, so they aren't saved: {kept}."
    assert [path.name for path in tmp_path.glob("training_state*")] == ["training_state.pt"] * (step == 5)
    monkeypatch.undo()
    train(tmp_path, training(steps=9, evaluate_every=3))
    train(tmp_path / "undisturbed", training(steps=9, evaluate_every=3))
    assert metrics_of(tmp_path) == metrics_of(tmp_path / "undisturbed")


def test_it_stops_after_too_many_and_keeps_the_last_good_state(tmp_path):
    config = training(steps=60, evaluate_every=100)
    said: list[str] = []
    expected = r"^In 10 steps in a row, the last of them 15, loss or gradient were not finite: the state of step 9 is kept; lower the"
    with losses_times(dict.fromkeys(range(6, 60), NAN)), pytest.raises(KeyboardInterrupt):
        train(tmp_path, config, said=said.append, stepped=at_step(9, press_ctrl_c))
    assert [line.split(" is ")[0] for line in said] == ["Step 6", "Step 7", "Step 8", "Step 9"]
    assert state_of(tmp_path)["guard"]["not_finite_in_a_row"] == 4
    before = (tmp_path / "training_state.pt").read_bytes()
    with losses_times(dict.fromkeys(range(60), NAN)), pytest.raises(BuildError, match=expected):
        train(tmp_path, config)
    assert (tmp_path / "training_state.pt").read_bytes() == before
