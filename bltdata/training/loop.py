"""The training loop of both models: steps, evaluations, checkpoints, and an exact way back after a kill.

The state on disk (weights, optimiser, step, cursor in the data, metrics so far) is written after every evaluation. A
run that starts in a folder with a state goes on from there and takes the same steps that the first run would have
taken, so the end is the same, bit for bit on a CPU with the same number of threads.

Several processes (see `world`) take the same steps as one, each learning from its share of a step's rows; only rounding
differs. So a run may go on with another number of them. The first writes all files and talks to the user. Every decision
is made by all in the same step, from numbers that all of them have.
"""

import json
import math
import resource
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn

from bltdata.atomic import remove_leftovers, write_bytes
from bltdata.config import to_mapping
from bltdata.errors import BuildError, CheckpointError
from bltdata.nn.loss import PredictionSums
from bltdata.nn.machine import autocast, prepare_allocator, resolve_precision
from bltdata.training.checkpoint import load_state, remove_run, save_state
from bltdata.training.config import TrainingConfig
from bltdata.training.interrupt import deferred_interrupt
from bltdata.training.optimiser import build_optimiser, learning_rate_at
from bltdata.training.world import World

METRICS_FILE = "metrics.jsonl"

Place = tuple[int, ...]
"""A place in the data, as whoever reads it counts; empty where it begins."""

BatchT = TypeVar("BatchT")


@dataclass(frozen=True)
class Step(Generic[BatchT]):
    """What an optimiser step learns from."""

    batches: Iterator[BatchT]
    """The micro-batches of this process."""

    num_bytes: int
    """Raw bytes that are predicted, in all processes together."""

    cursor: Place
    """Where the next step begins."""


class TrainingTask(Protocol[BatchT]):
    """What is trained: a model, the batches it learns from, and how it is judged and kept."""

    @property
    def model(self) -> nn.Module:
        """The model; the loop moves nothing, so it stands where it trains."""

    @property
    def tokens_per_epoch(self) -> int:
        """Tokens of an epoch, for reporting how far the run is."""

    def steps(self, cursor: Place) -> Iterator[Step[BatchT]]:
        """Optimiser steps from `cursor` on, without end."""

    def loss(self, batch: BatchT) -> Tensor:
        """Summed nats of a batch, differentiable; every one of its tokens predicts."""

    def evaluate(self) -> PredictionSums:
        """Totals over this process's share of the validation documents."""

    def save_best(self, metrics: dict[str, Any]) -> None:
        """Keep the model as it is now: it is the best so far."""


@dataclass
class Progress:
    """Where a run stands. All of it is in the state on disk."""

    step: int = 0
    cursor: Place = ()
    best_loss: float = math.inf
    evaluations_without_best: int = 0
    finished: bool = False
    seconds: float = 0.0
    metrics: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Reporter:
    """Who is told how the run goes. The default tells nobody."""

    said: Callable[[str], None] = lambda text: None
    """A sentence for the user."""

    evaluated: Callable[[dict[str, Any]], None] = lambda metrics: None
    """The metrics of an evaluation."""

    stepped: Callable[[int], None] = lambda steps: None
    """Steps taken since the last call."""


class TrainingRun(Generic[BatchT]):
    """One run of `task` in `folder`.

    Args:
        task: what is trained.
        config: how.
        folder: where checkpoints and metrics go.
        identity: everything that fixes the result, besides `config`, as JSON can hold it: the model's settings and the
            data's fingerprint. A state with another identity is refused.
        reporter: who is told, by the first process.
        world: the processes that share the work; None where there is one.
    """

    def __init__(
        self,
        task: TrainingTask[BatchT],
        config: TrainingConfig,
        folder: Path,
        identity: dict[str, Any],
        reporter: Reporter | None = None,
        world: World | None = None,
    ) -> None:
        self.task = task
        self.config = config
        self.folder = folder
        self.world = world or World()
        self.reporter = reporter if reporter and self.world.is_first else Reporter()
        # As JSON gives it back, so that it compares equal to the one in a state.
        self._identity = json.loads(json.dumps({**identity, "training": to_mapping(config)}))
        self._optimiser = build_optimiser(task.model, config)
        self._device = next(task.model.parameters()).device
        self._dtype = resolve_precision(config.precision, self._device)
        self._progress = Progress()

    def run(self, resume: bool = True) -> dict[str, Any]:
        """Train to the end.

        Args:
            resume: go on from the folder's state where it has one; otherwise start anew, and what a run left there is deleted.

        Returns:
            The metrics of the best evaluation.

        Raises:
            CheckpointError: the folder's state is damaged or belongs to another run.
            BuildError: the loss stopped being a number.
            KeyboardInterrupt: Ctrl-C, after the state was written.
        """
        prepare_allocator()
        with self.world.together():
            if self.world.is_first:
                self.folder.mkdir(parents=True, exist_ok=True)
                remove_leftovers(self.folder)
                if not resume:
                    remove_run(self.folder)
        with self.world.together():
            if resume:
                self._restore()
            self._write_metrics()
        if not self._progress.finished:
            with deferred_interrupt() as interrupted:
                self._train(interrupted)
        return min(self._progress.metrics, key=lambda metrics: metrics["loss"])

    def _train(self, interrupted: Callable[[], bool]) -> None:
        progress, config = self._progress, self.config
        steps = self.task.steps(progress.cursor)
        self.reporter.stepped(progress.step)
        seconds_before, started = progress.seconds, time.monotonic()
        bytes_since, since = 0, started
        while not progress.finished:
            bytes_since += self._step(steps)
            progress.step += 1
            self.reporter.stepped(1)
            progress.seconds = seconds_before + time.monotonic() - started
            if progress.step % config.evaluate_every == 0 or progress.step == config.steps:
                self._evaluate(bytes_since / max(time.monotonic() - since, 1e-9))
                self._save()
                bytes_since, since = 0, time.monotonic()
            if self.world.any(interrupted()):
                self._save()
                raise KeyboardInterrupt

    def _step(self, steps: Iterator[Step[BatchT]]) -> int:
        """One optimiser step; returns how many raw bytes it learned from, in all processes."""
        model = self.task.model
        model.train()
        self._optimiser.set_learning_rate(learning_rate_at(self._progress.step, self.config))
        with self.world.together():
            step = next(steps)
            nats = self._gradients(step)
        nats = self.world.sum_gradients(model.parameters(), nats)
        norm = nn.utils.clip_grad_norm_(model.parameters(), self.config.clip_norm)
        # The only time that the CPU waits for a GPU. Both are sums of what isn't negative, so one can't hide the other.
        self._check_finite(bool(torch.isfinite(nats + norm)), self._progress.step + 1)
        self._optimiser.step()
        self._optimiser.zero_grad()
        self._progress.cursor = step.cursor
        return step.num_bytes

    def _gradients(self, step: Step[BatchT]) -> Tensor:
        """Add up the gradients of this process's micro-batches; returns the nats they are of."""
        # Every row of every process is full, so the whole step's count is known before its last micro-batch.
        count = self.config.batch_rows * self.config.row_tokens
        total = torch.zeros((), device=self._device)
        for batch in step.batches:
            with autocast(self._device, self._dtype):
                nats = self.task.loss(batch)
            (nats / count).backward()
            total += nats.detach()
        return total

    def _evaluate(self, bytes_per_second: float) -> None:
        progress = self._progress
        self.task.model.eval()
        with self.world.together(), torch.no_grad(), autocast(self._device, self._dtype):
            share = self.task.evaluate()
        sums = sum(self.world.gather(share), PredictionSums())
        self._check_finite(math.isfinite(sums.nats), progress.step)
        metrics = {
            "step": progress.step,
            **sums.metrics(),
            "learning_rate": learning_rate_at(progress.step - 1, self.config),
            "bytes_per_second": bytes_per_second,
            "memory_bytes": peak_memory_bytes(self._device),
            "epoch": progress.step * self.config.batch_rows * self.config.row_tokens / self.task.tokens_per_epoch,
            "seconds": progress.seconds,
        }
        progress.metrics.append(metrics)
        if metrics["loss"] < progress.best_loss:
            progress.best_loss, progress.evaluations_without_best = metrics["loss"], 0
            with self.world.together():
                if self.world.is_first:
                    self.task.save_best(metrics)
        else:
            progress.evaluations_without_best += 1
        patience = self.config.patience
        out_of_patience = patience is not None and progress.evaluations_without_best >= patience
        progress.finished = out_of_patience or progress.step >= self.config.steps
        self.reporter.evaluated(metrics)
        if out_of_patience:
            self.reporter.said(f"Stopped at step {progress.step}: no new best in {patience} evaluations.")

    def _check_finite(self, is_finite: bool, step: int) -> None:
        if not is_finite:
            raise self.world.found_by_all(
                BuildError(
                    f"The loss stopped being a number at step {step}: lower the learning rate ({self.config.learning_rate:g}) or raise "
                    f"the warm-up ({self.config.warmup_steps} steps), and start again in another folder."
                )
            )

    def _save(self) -> None:
        with self.world.together():
            self._write_metrics()
            if self.world.is_first:
                self._write_state()

    def _write_state(self) -> None:
        progress = self._progress
        save_state(
            self.folder,
            {
                "identity": json.dumps(self._identity, sort_keys=True),
                "progress": {**vars(progress), "cursor": list(progress.cursor)},
                "model": self.task.model.state_dict(),
                "optimiser": self._optimiser.state_dict(),
            },
        )

    def _restore(self) -> None:
        state = load_state(self.folder)
        if state is None:
            return
        self._check_identity(json.loads(state["identity"]))
        self._progress = Progress(**{**state["progress"], "cursor": tuple(state["progress"]["cursor"])})
        self.task.model.load_state_dict(state["model"])
        self._optimiser.load_state_dict(state["optimiser"])
        how = "It had finished already" if self._progress.finished else "Going on"
        self.reporter.said(f"{how}: {self.folder} holds this run at step {self._progress.step} of {self.config.steps}.")

    def _check_identity(self, found: dict[str, Any]) -> None:
        there, here = _flatten(found), _flatten(self._identity)
        for name in sorted(there.keys() | here.keys()):
            if there.get(name) != here.get(name):
                raise CheckpointError(
                    f"{self.folder} holds another run: its {name} is {there.get(name)!r}, this one's is {here.get(name)!r}; "
                    "choose another folder, or start over there with --no-resume."
                )

    def _write_metrics(self) -> None:
        if not self.world.is_first:
            return
        lines = [json.dumps(metrics) + "\n" for metrics in self._progress.metrics]
        write_bytes(self.folder / METRICS_FILE, "".join(lines).encode())


def peak_memory_bytes(device: torch.device) -> int:
    """The most memory the run has used so far: of the GPU it runs on, else of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _flatten(mapping: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in mapping.items():
        flat.update(_flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value})
    return flat
