"""Several real processes train what one trains, and end together."""

import contextlib
import dataclasses
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bltdata.entropy.pretraining import pretrain
from bltdata.entropy.training import train_entropy_model
from bltdata.errors import BuildError, ConfigError
from bltdata.lock import exclusive
from bltdata.nn.loss import PredictionSums
from bltdata.training import processes
from bltdata.training.config import TrainingConfig
from bltdata.training.packing import Packer, ShuffledRows, shuffled_order
from bltdata.training.processes import joined
from bltdata.training.progress import Reporter
from bltdata.training.task import PackedTask
from bltdata.training.validation import spread_excerpts
from bltdata.training.world import World
from tests.bltdata.small import Documents, architecture, line_corpus, random_documents, training, write_lines
from tests.bltdata.training.runs import MEASURED, metrics_of, state_of
from tests.several import Group, Outcome, commands, group

ROOT = Path(__file__).parents[3]
STEPS = 5
CONFIG = training(steps=STEPS, evaluate_every=2, batch_rows=4, validation_bytes=150)
TRAIN = Documents(random_documents(30, 40, seed=1, num_symbols=8))
VALIDATION = Documents(random_documents(12, 40, seed=2, num_symbols=8))

PEER_FAILED = Outcome(None, "PeerFailedError", "Process 1 of 2 failed; see what it says.")


@pytest.fixture(scope="module")
def pair() -> Iterator[Group]:
    with group(2) as both:
        yield both


def train(world: World, folder: Path, config: TrainingConfig, train: Documents = TRAIN, reporter: Reporter | None = None) -> dict[str, Any]:
    return train_entropy_model(
        architecture(), config, train, VALIDATION, folder, data={}, device=torch.device("cpu"), reporter=reporter, world=world
    )


class Trap(Documents):
    """Documents of which one springs, in one process, when it is read for the first time."""

    def __init__(self, document: int, rank: int, action: Callable[[], Any]) -> None:
        super().__init__([TRAIN.document(index).tobytes() for index in range(len(TRAIN.lengths))])
        self.index, self.rank, self.action = document, rank, action

    def document(self, index: int) -> np.ndarray:
        if index == self.index and int(os.environ["RANK"]) == self.rank:
            self.rank = -1
            self.action()
        return super().document(index)


def fail() -> None:
    raise BuildError("The document has gone.")


def press_ctrl_c() -> None:
    signal.raise_signal(signal.SIGINT)


def be_told_to_end() -> None:
    signal.raise_signal(signal.SIGTERM)


def die() -> None:
    os._exit(9)


def document_of_step(step: int, rank: int, config: TrainingConfig = CONFIG) -> int:
    """A document that process `rank` of two reads in a step for the first time, and in no earlier one."""
    packer = Packer(TRAIN, shuffled_order(len(TRAIN.lengths), config.seed), config.row_tokens)
    rows = ShuffledRows(packer, config.seed).endless_rows(())
    seen: set[int] = set()
    for number in itertools.count(1):
        taken = [row for row, _ in itertools.islice(rows, config.batch_rows)]
        own = taken[rank * 2 : rank * 2 + 2]
        new = {piece.document for row in own for piece in row.pieces} - seen
        if number == step:
            return min(new)
        seen |= {piece.document for row in own for piece in row.pieces}
    raise AssertionError


def assert_same_run(folder: Path, other: Path) -> None:
    """Equal to 1e-5, and exactly where nothing is computed."""
    assert sorted(path.name for path in folder.iterdir()) == sorted(path.name for path in other.iterdir())
    for ours, theirs in zip(metrics_of(folder), metrics_of(other), strict=True):
        assert ours == pytest.approx(theirs, abs=1e-5, rel=1e-5)
    ours, theirs = state_of(folder), state_of(other)
    for name in ("step", "cursor", "finished"):
        assert ours["progress"][name] == theirs["progress"][name]
    for name, tensor in theirs["model"].items():
        torch.testing.assert_close(ours["model"][name], tensor, atol=1e-5, rtol=0, msg=name)
    # Steps hide the scale of a gradient, what is remembered of it doesn't.
    remembered = moments_of(theirs["optimiser"])
    for place, moment in moments_of(ours["optimiser"]).items():
        torch.testing.assert_close(moment, remembered.pop(place), atol=1e-6, rtol=1e-3)
    assert not remembered


def moments_of(optimiser: dict[str, Any]) -> dict[tuple[Any, ...], torch.Tensor]:
    """What a state remembers of gradients, by optimiser, parameter and name."""
    parts = {"": optimiser} if "state" in optimiser else optimiser
    states = {(part, index): moments for part, state in parts.items() for index, moments in state["state"].items()}
    return {(*place, name): value for place, moments in states.items() for name, value in moments.items()}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of one process. Nothing is clipped: that would hide a wrong scale."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    train(World(), folder, dataclasses.replace(CONFIG, clip_norm=1e6))
    return folder


@pytest.mark.parametrize("micro", [None, 1])
def test_two_processes_train_what_one_does(pair, alone, tmp_path, micro):
    first, second = pair.run(train, tmp_path / "run", dataclasses.replace(CONFIG, clip_norm=1e6, micro_batch_rows=micro))
    assert first.error is None
    # They agree to the last bit on all that they decide by.
    assert {**first.value, **dict.fromkeys(MEASURED)} == {**second.value, **dict.fromkeys(MEASURED)}
    assert_same_run(tmp_path / "run", alone)


def train_watched(world: World, folder: Path) -> tuple[list[int], list[str]]:
    """How many validation targets each evaluation of this process had, and the names of the files that it published."""
    counts, names = [], []
    evaluate, rename = PackedTask.evaluate, os.replace

    def counted(task: PackedTask, rows_at_once: int) -> PredictionSums:
        sums = evaluate(task, rows_at_once)
        counts.append(sums.num_targets)
        return sums

    def replace(source: Path, target: Path) -> None:
        names.append(Path(target).name)
        rename(source, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PackedTask, "evaluate", counted)
        patch.setattr(os, "replace", replace)
        train(world, folder, CONFIG)
    return counts, names


def test_evaluation_is_shared_and_one_writes(pair, tmp_path):
    first, second = (outcome.value for outcome in pair.run(train_watched, tmp_path / "run"))
    _, begins, ends = spread_excerpts(VALIDATION.lengths, CONFIG.validation_bytes).T
    num_targets = int((ends - begins).sum())
    assert [sum(counts) for counts in zip(first[0], second[0], strict=True)] == [num_targets] * 3
    assert min(first[0] + second[0]) > 0
    assert set(first[1]) == {"config.json", "metrics.jsonl", "model.safetensors", "training_state.pt"}
    assert second[1] == []


def test_clipping_is_of_the_whole_gradient(pair, tmp_path):
    config = dataclasses.replace(CONFIG, clip_norm=1e-3)
    pair.run(train, tmp_path / "run", config)
    train(World(), tmp_path / "alone", config)
    assert_same_run(tmp_path / "run", tmp_path / "alone")


def stop_after(step: int) -> Reporter:
    taken = 0

    def stepped(count: int) -> None:
        nonlocal taken
        taken += count
        if count and taken == step:
            press_ctrl_c()

    return Reporter(stepped=stepped)


def train_until(world: World, folder: Path, config: TrainingConfig, step: int) -> dict[str, Any]:
    return train(world, folder, config, reporter=stop_after(step))


def test_a_run_goes_on_with_another_number_of_processes(pair, alone, tmp_path):
    config = dataclasses.replace(CONFIG, clip_norm=1e6)
    folder, of_four = tmp_path / "run", tmp_path / "of_four"
    with pytest.raises(KeyboardInterrupt):
        train_until(World(), folder, config, 1)
    assert [outcome.error for outcome in pair.run(train_until, folder, config, 3)] == ["KeyboardInterrupt"] * 2
    assert state_of(folder)["progress"]["step"] == 3
    shutil.copytree(folder, of_four)
    train(World(), folder, config)
    assert_same_run(folder, alone)
    with group(4) as four:
        assert [outcome.error for outcome in four.run(train, of_four, config)] == [None] * 4
    assert_same_run(of_four, alone)


@pytest.mark.parametrize("action", [press_ctrl_c, be_told_to_end])
def test_an_interrupt_in_one_process_stops_all_after_the_same_step(pair, tmp_path, action):
    trap = Trap(document_of_step(3, rank=1), 1, action)
    assert [outcome.error for outcome in pair.run(train, tmp_path / "run", CONFIG, trap)] == ["KeyboardInterrupt"] * 2
    assert state_of(tmp_path / "run")["progress"]["step"] == 3
    assert pair.run(train, tmp_path / "run", CONFIG)[0].error is None
    train(World(), tmp_path / "alone", CONFIG)
    assert_same_run(tmp_path / "run", tmp_path / "alone")


def test_a_failure_in_one_process_ends_all(pair, tmp_path):
    trap = Trap(document_of_step(4, rank=1), 1, fail)
    outcomes = pair.run(train, tmp_path / "run", CONFIG, trap)
    assert outcomes == [PEER_FAILED, Outcome(None, "BuildError", "The document has gone.")]
    # What stands is the last checkpoint.
    assert state_of(tmp_path / "run")["progress"]["step"] == 2


def train_on_a_full_disk(world: World, folder: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bltdata.training.state_files.atomic_path", lambda path: contextlib.nullcontext(Path("/dev/full")))
        train(world, folder, CONFIG)


def test_a_failure_of_the_one_that_writes_ends_all(pair, tmp_path):
    first, second = pair.run(train_on_a_full_disk, tmp_path / "run")
    assert (first.error, second.error) == ("OSError", "PeerFailedError")


def test_a_loss_that_is_not_a_number_is_said_once(pair, tmp_path):
    config = dataclasses.replace(CONFIG, steps=60, learning_rate=1e30, warmup_steps=0, evaluate_every=60)
    first, second = pair.run(train, tmp_path / "run", config)
    assert first.sentence.startswith("In 10 steps in a row, the last of them ")
    assert (first.error, second.error) == ("BuildError", "PeerFailedError")


def train_with_a_loss(world: World, folder: Path, step: int, value: float) -> list[str]:
    """Train where the second process finds another loss in a step; returns what was said."""
    plain, taken, said = PackedTask.loss, 0, []

    def loss(task: PackedTask, batch: tuple[Tensor, ...]) -> Tensor:
        nonlocal taken
        taken += 1
        return plain(task, batch) * (value if world.rank == 1 and taken == step else 1.0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PackedTask, "loss", loss)
        train(world, folder, CONFIG, reporter=Reporter(said=said.append))
    return said


def test_all_leave_a_step_out_whose_loss_is_not_finite_in_one(pair, tmp_path):
    first, second = (outcome.value for outcome in pair.run(train_with_a_loss, tmp_path / "run", 3, float("nan")))
    assert (first, second) == (["Step 3 is left out: its loss is nan and its gradient's norm is nan."], [])
    assert metrics_of(tmp_path / "run")[-1]["skipped_steps"] == 1
    # It is the step of both that is left out, and nothing besides.
    pair.run(train_with_a_loss, tmp_path / "both", 3, float("inf"))
    assert state_of(tmp_path / "run")["model"].keys() == state_of(tmp_path / "both")["model"].keys()
    assert_same_run(tmp_path / "run", tmp_path / "both")


def train_with_room(world: World, folder: Path, num_rows: int) -> tuple[list[int], list[str]]:
    """Train where the second process has memory for so many rows at once; returns the sizes that were tried, and what was said."""
    plain = PackedTask.loss
    tried: list[int] = []
    said: list[str] = []

    def loss(task: PackedTask, batch: tuple[Tensor, ...]) -> Tensor:
        tried.append(len(batch[0]))
        if world.rank == 1 and len(batch[0]) > num_rows:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return plain(task, batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PackedTask, "loss", loss)
        train(world, folder, dataclasses.replace(CONFIG, clip_norm=1e6), reporter=Reporter(said=said.append))
    return tried, said


def test_all_halve_their_micro_batches_when_memory_runs_out_in_one(pair, alone, tmp_path):
    first, second = (outcome.value for outcome in pair.run(train_with_room, tmp_path / "run", 1))
    assert first[0] == second[0] == [2] + [1] * 2 * STEPS
    assert second[1] == []
    (said,) = first[1]
    assert said.startswith("Memory didn't suffice for 2 rows at once (step 1): from here on a micro-batch has 1, and a step learns")
    assert_same_run(tmp_path / "run", alone)
    first, second = pair.run(train_with_room, tmp_path / "none", 0)
    assert first.sentence.startswith("Memory doesn't suffice for a single row of 24 tokens (step 1)")
    assert (first.error, second.error) == ("BuildError", "PeerFailedError")


def test_rows_that_cannot_be_shared_out(pair, tmp_path):
    first, second = pair.run(train, tmp_path / "run", dataclasses.replace(CONFIG, batch_rows=3))
    assert first == Outcome(None, "ConfigError", "The training setting batch_rows is 3; it must be a multiple of the 2 processes.")
    assert second.error == "PeerFailedError"


def test_micro_batches_of_one_process_need_not_divide_the_rows_of_two(pair, tmp_path):
    config = dataclasses.replace(CONFIG, batch_rows=6, micro_batch_rows=2, clip_norm=1e6)
    train(World(), tmp_path / "alone", config)
    with pytest.raises(KeyboardInterrupt):
        train_until(World(), tmp_path / "run", config, 3)
    assert pair.run(train, tmp_path / "run", config)[0].error is None
    assert_same_run(tmp_path / "run", tmp_path / "alone")


def train_with_losses(world: World, folder: Path, losses: list[float], config: TrainingConfig) -> tuple[int, float]:
    remaining = iter(losses)

    def evaluate(task: PackedTask, rows_at_once: int) -> PredictionSums:
        return PredictionSums(nats=next(remaining), num_targets=1, num_bytes=1, confidence_min=0.5, confidence_max=0.5)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PackedTask, "evaluate", evaluate)
        best = train(world, folder, config)
    return best["step"], best["loss"]


def test_patience_is_that_of_all(pair, tmp_path):
    config = dataclasses.replace(CONFIG, steps=50, patience=2)
    outcomes = pair.run(train_with_losses, tmp_path / "run", [3.0, 2.0, 2.0, 2.5, 1.0], config)
    assert [outcome.value for outcome in outcomes] == [(4, 2.0)] * 2
    assert [line["step"] for line in metrics_of(tmp_path / "run")] == [2, 4, 6, 8]


def pretrain_on_lines(world: World, lines: Path, folder: Path) -> list[str]:
    said: list[str] = []
    corpora = [line_corpus(lines, "train"), line_corpus(lines, "train")]
    pretrain(*corpora, architecture(), CONFIG, folder, device="cpu", reporter=Reporter(said=said.append), world=world)
    return said


def test_the_first_copies_the_documents_for_all(pair, tmp_path):
    lines = write_lines(tmp_path / "lines.txt", random_documents(60, 30, seed=1, num_symbols=90))
    first, second = pair.run(pretrain_on_lines, lines, tmp_path / "run")
    assert (len(first.value), second.value) == (2, [])
    pretrain_on_lines(World(), lines, tmp_path / "alone")
    assert_same_run(tmp_path / "run", tmp_path / "alone")


def test_one_run_a_folder(pair, tmp_path):
    lines = write_lines(tmp_path / "lines.txt", random_documents(60, 30, seed=1, num_symbols=90))
    with exclusive(tmp_path / "run"):
        first, second = pair.run(pretrain_on_lines, lines, tmp_path / "run")
    assert "Another process is writing to" in first.sentence
    assert second.error == "PeerFailedError"


def agree(world: World) -> list[Any]:
    flags = [world.any(world.rank == rank) for rank in (0, 1, 2)]
    parameters = [torch.nn.Parameter(torch.zeros(2)), torch.nn.Parameter(torch.zeros(1, 2))]
    parameters[world.rank].grad = torch.full_like(parameters[world.rank], 3.0)
    nats = world.sum_gradients(iter(parameters), torch.tensor(world.rank + 1.0))
    return [flags, world.gather({"rank": world.rank}), [p.grad.tolist() for p in parameters], float(nats), str(world.device("auto"))]


def test_what_they_tell_each_other(pair):
    device = "cuda:0" if torch.cuda.is_available() else "cpu"
    expected = [[True, True, False], [{"rank": 0}, {"rank": 1}], [[3.0, 3.0], [[3.0, 3.0]]], 3.0]
    first, second = (outcome.value for outcome in pair.run(agree))
    assert first == [*expected, device]
    assert second[:4] == expected


def work_together(world: World, problems: list[type[BaseException] | None]) -> str:
    with world.together():
        problem = problems[world.rank]
        if problem is not None:
            raise problem(f"It went wrong in {world.rank}.")
    return "done"


@pytest.mark.parametrize(
    ("problems", "errors"),
    [
        ([None, None], [None, None]),
        ([ValueError, None], ["ValueError", "PeerFailedError"]),
        ([None, ValueError], ["PeerFailedError", "ValueError"]),
        # Of two that failed one speaks.
        ([ValueError, ValueError], ["ValueError", "PeerFailedError"]),
        ([ValueError, KeyboardInterrupt], ["KeyboardInterrupt", "KeyboardInterrupt"]),
    ],
)
def test_all_or_none(pair, problems, errors):
    assert [outcome.error for outcome in pair.run(work_together, problems)] == errors
    # They are still in step.
    assert [outcome.value for outcome in pair.run(work_together, [None, None])] == ["done", "done"]


def test_a_process_that_dies_is_missed_at_once(tmp_path):
    trap = Trap(document_of_step(4, rank=1), 1, die)
    with group(2) as both:
        first, second = both.run(train, tmp_path / "run", CONFIG, trap)
    assert second == Outcome(None)
    assert first.error == "BuildError"
    assert (
        first.sentence
        == "Process 0 lost another of the 2 that train together; run the same command again to go on from the last checkpoint."
    )
    assert state_of(tmp_path / "run")["progress"]["step"] == 2


def test_without_torchrun_one_is_alone(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    before = signal.getsignal(signal.SIGTERM)
    with joined() as world:
        assert (world.rank, world.size, world.is_first) == (0, 1, True)
        assert (world.mesh(torch.device("cpu")), world.inside) == (None, None)
        assert (world.any(True), world.any(False), world.gather("a")) == (True, False, ["a"])
        assert signal.getsignal(signal.SIGTERM) is before


def test_half_of_what_torchrun_sets(monkeypatch):
    for name in ("LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(ConfigError, match=r"^WORLD_SIZE is 2 but LOCAL_RANK isn't set; start the processes with torchrun\.$"), joined():
        pass


@pytest.mark.parametrize(
    ("name", "local_rank", "expected"),
    [
        ("cpu", 5, "cpu"),
        ("auto", 1, "cuda:1"),
        ("cuda", 0, "cuda:0"),
        ("cuda:1", 0, "Several processes can't share the device 'cuda:1'; give --device cuda, which is a GPU for each, or cpu."),
        ("auto", 2, "This is process 3 of this machine, which has 2 GPUs; start no more, or give --device cpu."),
        ("mps", 0, "Several processes can't share the device 'mps'; give --device cuda, which is a GPU for each, or cpu."),
    ],
)
def test_each_process_has_a_gpu_of_its_own(monkeypatch, name, local_rank, expected):
    monkeypatch.setattr(processes, "resolve_device", torch.device)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    if expected.endswith("."):
        with pytest.raises(ConfigError) as caught:
            processes._own_device(name, local_rank)
        assert str(caught.value) == expected
    else:
        assert str(processes._own_device(name, local_rank)) == expected


# ------------------------------------------------------------------------------------------------------------- the command

SETTINGS = """
[corpus]
corpus = ["files:{lines}#document=line"]
validation_corpus = ["files:{lines}#document=line"]

[entropy_model]
dim = 16
num_layers = 1
num_heads = 2
ffn_dim = 24
window = 8

[training]
steps = 6
row_tokens = 24
batch_rows = 4
warmup_steps = 2
evaluate_every = 3
validation_bytes = 300
precision = "float32"
"""


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("settings")
    lines = write_lines(folder / "lines.txt", random_documents(30, 40, seed=1, num_symbols=90))
    path = folder / "small.toml"
    path.write_text(SETTINGS.format(lines=lines))
    return path


def test_the_first_process_talks(settings, tmp_path):
    with commands(
        tmp_path / "said", "bltdata", "train-entropy-model", "--config", settings, "--out", tmp_path / "run", "--json"
    ) as running:
        first, second = running.wait()
    assert second == (0, "", "")
    assert first.exit_code == 0
    assert json.loads(first.stdout)["step"] == 6
    assert [line.split()[1] for line in first.stderr.splitlines() if line.startswith("step ")] == ["3", "6"]


def test_a_mistake_is_one_sentence(settings, tmp_path):
    with commands(
        tmp_path / "said", "bltdata", "train-entropy-model", "--config", settings, "--out", tmp_path / "run", "--batch-rows", "3"
    ) as running:
        first, second = running.wait()
    sentence = "Error: The training setting batch_rows is 3; it must be a multiple of the 2 processes.\n"
    assert [first, second] == [(1, "", sentence), (1, "", "")]
    # Nor was the corpus copied first.
    assert not (tmp_path / "run").exists()


def test_an_interrupt_is_one_sentence(settings, tmp_path):
    run = ("train-entropy-model", "--config", settings, "--out", tmp_path / "run", "--steps", "100000")
    with commands(tmp_path / "said", "bltdata", *run) as running:
        metrics, patient_until = tmp_path / "run" / "metrics.jsonl", time.monotonic() + 60
        while not (metrics.exists() and metrics.read_bytes()) and time.monotonic() < patient_until:
            time.sleep(0.01)
        os.kill(running.pids[1], signal.SIGTERM)
        first, second = running.wait()
    interrupted = "Interrupted; what was finished is kept: run the same command again to go on."
    assert (first.exit_code, first.stderr.splitlines()[-1]) == (130, interrupted)
    assert second == (130, "", "")
    assert state_of(tmp_path / "run")["progress"]["step"] >= 3


@pytest.mark.slow
def test_torchrun(settings, tmp_path):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m"]
    arguments = ["bltdata", "train-entropy-model", "--config", str(settings), "--out"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    two = subprocess.run([*torchrun, *arguments, str(tmp_path / "two")], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert two.returncode == 0, two.stderr
    one = subprocess.run(
        [sys.executable, "-m", *arguments, str(tmp_path / "one")], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert one.returncode == 0, one.stderr
    assert_same_run(tmp_path / "two", tmp_path / "one")
