"""Where memory doesn't suffice, micro-batches are halved, and the run learns what it would have learned."""

import dataclasses
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from bltdata.errors import BuildError
from bltdata.nn.loss import PredictionSums
from bltdata.training.memory import is_out_of_memory, within_memory
from bltdata.training.optimiser import Optimiser
from bltdata.training.task import PackedTask
from tests.bltdata.small import training
from tests.bltdata.training.runs import Killed, at_step, kill, metrics_of, press_ctrl_c, state_of, train

CPU_ERROR = "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."


def test_what_counts():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60)
    assert is_out_of_memory(caught.value)
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory."))
    assert is_out_of_memory(RuntimeError(CPU_ERROR))
    assert is_out_of_memory(RuntimeError("std::bad_alloc"))
    assert is_out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"))
    with pytest.raises(MemoryError) as of_numpy:
        np.empty(1 << 58)
    assert is_out_of_memory(of_numpy.value)
    assert not is_out_of_memory(RuntimeError("The size of tensor a (2) must match the size of tensor b (3)"))
    assert not is_out_of_memory(ValueError(CPU_ERROR))


def test_other_errors_stay_errors():
    assert within_memory(lambda: 3) == 3
    assert within_memory(lambda: torch.empty(1 << 60)) is None
    assert within_memory(lambda: np.empty(1 << 58)) is None
    with pytest.raises(RuntimeError, match="other"):
        within_memory(lambda: (_ for _ in ()).throw(RuntimeError("other")))


@contextmanager
def room_for(num_rows: int, first_call: int = 1, judging: int | None = None) -> Iterator[list[int]]:
    """Memory for so many rows at once from some micro-batch on; yields the sizes of all that were tried."""
    plain_loss, plain_evaluate = PackedTask.loss, PackedTask.evaluate
    tried: list[int] = []

    def loss(task: PackedTask, batch: tuple[Tensor, ...]) -> Tensor:
        tried.append(len(batch[0]))
        if len(batch[0]) > num_rows and len(tried) >= first_call:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return plain_loss(task, batch)

    def evaluate(task: PackedTask, rows_at_once: int) -> PredictionSums:
        if judging and rows_at_once > judging:
            raise RuntimeError(CPU_ERROR)
        return plain_evaluate(task, rows_at_once)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PackedTask, "loss", loss)
        patch.setattr(PackedTask, "evaluate", evaluate)
        yield tried


# Nothing is clipped at this norm: clipping would hide a wrong scale.
CONFIG = training(steps=6, evaluate_every=2, batch_rows=12, clip_norm=1e6)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    train(folder, CONFIG)
    return folder


def assert_same_curve(folder: Path, other: Path) -> None:
    """The same rows in the same steps, and so the same losses and weights but for rounding."""
    ours, theirs = state_of(folder), state_of(other)
    assert ours["progress"]["cursor"] == theirs["progress"]["cursor"]
    assert ours["guard"]["losses"] == pytest.approx(theirs["guard"]["losses"], rel=1e-6)
    assert ours["guard"]["norms"] == pytest.approx(theirs["guard"]["norms"], rel=1e-5)
    for line, expected in zip(metrics_of(folder), metrics_of(other), strict=True):
        assert line == pytest.approx(expected, abs=1e-5, rel=1e-5)
    for name, tensor in theirs["model"].items():
        torch.testing.assert_close(ours["model"][name], tensor, atol=1e-5, rtol=0, msg=name)


def said_of(step: int, before: int, after: int) -> str:
    return (
        f"Memory didn't suffice for {before} rows at once (step {step}): from here on a micro-batch has {after}, and a step learns from "
        "the same rows as before."
    )


def test_micro_batches_are_halved_until_they_fit(undisturbed, tmp_path):
    said: list[str] = []
    with room_for(3) as tried:
        train(tmp_path, CONFIG, said=said.append)
    assert said == [said_of(1, 12, 6), said_of(1, 6, 3)]
    assert tried == [12, 6, *[3] * 4 * 6]
    assert state_of(tmp_path)["progress"]["rows_at_once"] == 3
    assert_same_curve(tmp_path, undisturbed)
    # Bit for bit the run whose settings say so from the beginning.
    train(tmp_path / "settings", dataclasses.replace(CONFIG, micro_batch_rows=3))
    assert metrics_of(tmp_path) == metrics_of(tmp_path / "settings")
    assert state_of(tmp_path)["guard"] == state_of(tmp_path / "settings")["guard"]


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("std::bad_alloc"), RuntimeError(CPU_ERROR)])
def test_whoever_says_it(tmp_path, monkeypatch, error):
    plain, tried = PackedTask.loss, list[int]()

    def loss(task: PackedTask, batch: tuple[Tensor, ...]) -> Tensor:
        tried.append(len(batch[0]))
        if len(batch[0]) > 6:
            raise error
        return plain(task, batch)

    monkeypatch.setattr(PackedTask, "loss", loss)
    train(tmp_path, dataclasses.replace(CONFIG, steps=1))
    assert tried == [12, 6, 6]


def test_what_a_step_had_added_up_before_is_dropped(undisturbed, tmp_path):
    # Micro-batches of 6: the second of step 3 is the sixth.
    said: list[str] = []
    with room_for(4, first_call=6) as tried:
        train(tmp_path, dataclasses.replace(CONFIG, micro_batch_rows=6), said=said.append)
    assert said == [said_of(3, 6, 3)]
    assert tried == [6] * 6 + [3] * 4 * 4
    assert_same_curve(tmp_path, undisturbed)


def test_evaluation_needs_memory_too(undisturbed, tmp_path):
    said: list[str] = []
    with room_for(12, judging=5) as tried:
        train(tmp_path, CONFIG, said=said.append)
    assert said == [said_of(3, 12, 6), said_of(3, 6, 3)]
    assert tried == [12, 12, *[3] * 4 * 4]
    assert_same_curve(tmp_path, undisturbed)


def test_a_run_that_goes_on_remembers(undisturbed, tmp_path):
    with room_for(3), pytest.raises(KeyboardInterrupt):
        train(tmp_path, CONFIG, stepped=at_step(3, press_ctrl_c))
    said: list[str] = []
    with room_for(3) as tried:
        train(tmp_path, CONFIG, said=said.append)
    assert len(said) == 1
    assert tried == [3] * 4 * 3
    # Bit for bit what it would have been without the stop, and with a kill that forgets it.
    with room_for(3):
        train(tmp_path / "whole", CONFIG)
        with pytest.raises(Killed):
            train(tmp_path / "killed", CONFIG, stepped=at_step(1, kill))
        train(tmp_path / "killed", CONFIG)
    for name in ("whole", "killed"):
        assert metrics_of(tmp_path) == metrics_of(tmp_path / name)
        assert (tmp_path / "last" / "model.safetensors").read_bytes() == (tmp_path / name / "last" / "model.safetensors").read_bytes()
    assert_same_curve(tmp_path, undisturbed)


def test_another_size_may_be_asked_for_when_a_run_goes_on(undisturbed, tmp_path):
    with room_for(3), pytest.raises(KeyboardInterrupt):
        train(tmp_path, CONFIG, stepped=at_step(2, press_ctrl_c))
    sizes = []
    for step, rows in ((3, 4), (4, 4), (5, 12)):
        with room_for(12) as tried, pytest.raises(KeyboardInterrupt):
            train(tmp_path, dataclasses.replace(CONFIG, micro_batch_rows=rows), stepped=at_step(step, press_ctrl_c))
        sizes.append(tried[0])
    assert sizes == [4, 4, 12]
    # Memory is short again, and the size that is asked for is the one that was tried.
    smaller = dataclasses.replace(CONFIG, micro_batch_rows=6)
    with room_for(2), pytest.raises(KeyboardInterrupt):
        train(tmp_path, smaller, stepped=at_step(6, press_ctrl_c))
    assert state_of(tmp_path)["progress"]["rows_at_once"] == 1
    assert_same_curve(tmp_path, undisturbed)


def test_a_state_that_counts_micro_batches_to_its_identity(undisturbed, tmp_path):
    # As states did before only rounding depended on them.
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, CONFIG, stepped=at_step(3, press_ctrl_c))
    assert json.loads(state_of(tmp_path)["identity"])["training"]["micro_batch_rows"] is None
    train(tmp_path, dataclasses.replace(CONFIG, micro_batch_rows=4))
    assert_same_curve(tmp_path, undisturbed)


def test_a_single_row_that_does_not_fit(tmp_path):
    said: list[str] = []
    expected = r"^Memory doesn't suffice for a single row of 24 tokens \(step 1\): lower row_tokens, or choose a smaller model "
    with room_for(0), pytest.raises(BuildError, match=expected):
        train(tmp_path, CONFIG, said=said.append)
    assert said == [said_of(1, 12, 6), said_of(1, 6, 3), said_of(1, 3, 1)]


@pytest.mark.parametrize("error", [RuntimeError(CPU_ERROR), torch.OutOfMemoryError("CUDA out of memory."), MemoryError()])
@pytest.mark.parametrize("place", ["torch.load", "bltdata.training.optimiser.Optimiser.load_state_dict"])
def test_a_state_that_does_not_fit_is_not_called_damaged(tmp_path, monkeypatch, place, error):
    def fail(*_: object, **__: object) -> None:
        raise error

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, CONFIG, stepped=at_step(3, press_ctrl_c))
    with monkeypatch.context() as patch:
        patch.setattr(place, fail)
        with pytest.raises(BuildError, match=r"^Memory doesn't suffice for the model and its optimiser"):
            train(tmp_path, CONFIG)
    train(tmp_path, CONFIG)


def test_an_optimiser_that_does_not_fit(tmp_path, monkeypatch):
    def step(self: Optimiser) -> None:
        raise RuntimeError(CPU_ERROR)

    monkeypatch.setattr(Optimiser, "step", step)
    with pytest.raises(BuildError, match=r"^Memory doesn't suffice for the model and its optimiser \(step 1\): choose a smaller model"):
        train(tmp_path, CONFIG)
