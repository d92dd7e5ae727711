"""The training loop of both models: steps, evaluations, checkpoints, and an exact way back after a kill.

The state on disk (weights, optimiser, step, cursor in the data, metrics so far, what the guard has seen) is written after
every evaluation. A run that starts in a folder with a state goes on from there and takes the same steps that the first run
would have taken, so the end is the same, bit for bit on a CPU with the same number of threads.

Several processes (see `world`) take the same steps as one, each learning from its share of a step's rows; only rounding
differs. So a run may go on with another number of them. The first writes all files and talks to the user. Every decision
is made by all in the same step, from numbers that all of them have.
"""

import contextlib
import json
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from bltdata.errors import BuildError, CheckpointError, ConfigError
from bltdata.nn.loss import PredictionSums
from bltdata.nn.machine import autocast, prepare_cpu, resolve_precision
from bltdata.training.config import TrainingConfig
from bltdata.training.guards import Guard
from bltdata.training.identity import state_of_run, whole_identity
from bltdata.training.interface import Step, TrainingTask
from bltdata.training.interrupt import deferred_interrupt
from bltdata.training.keeping import Keeping
from bltdata.training.memory import is_out_of_memory
from bltdata.training.metrics import MetricsFiles, peak_memory_of_run
from bltdata.training.micro_batches import MicroBatches
from bltdata.training.optimiser import build_optimiser
from bltdata.training.placement import Placement
from bltdata.training.progress import Progress, Reporter
from bltdata.training.schedule import learning_rate_at
from bltdata.training.state_files import shards_of
from bltdata.training.states import prepare_folder, settle_folder, step_of_model
from bltdata.training.world import World

BatchT = TypeVar("BatchT")
T = TypeVar("T")


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
        keeping: what the folder keeps, and where the run goes on.
        placement: how the model stands in the processes; None where each has the whole of it.

    Raises:
        ConfigError: a step's rows can't be shared out evenly among the processes.
    """

    def __init__(
        self,
        task: TrainingTask[BatchT],
        config: TrainingConfig,
        folder: Path,
        identity: dict[str, Any],
        reporter: Reporter | None = None,
        world: World | None = None,
        keeping: Keeping | None = None,
        placement: Placement | None = None,
    ) -> None:
        self.task = task
        self.config = config
        self.folder = folder
        self.keeping = keeping or Keeping()
        self.world = world or World()
        self.reporter = reporter if reporter and self.world.is_first else Reporter()
        self._identity = whole_identity(identity, config)
        self._placement = placement or Placement(task.model, self.world)
        self._micro_batches = MicroBatches(config, self.world, not self._placement.is_shared_out, self.reporter)
        self._optimiser = build_optimiser(task.model, config, self._placement.muon)
        self._device = next(task.model.parameters()).device
        self._dtype = resolve_precision(config.precision, self._device)
        self._progress = Progress()
        self._guard = Guard()
        self._steps: Iterator[Step[BatchT]] = iter(())
        self._counted: Counter[str] = Counter()
        self._files: MetricsFiles | None = None
        """Of the process that writes."""
        self._saved_step = 0
        self._saved_shards: str | None = None

    def run(self, resume: bool = True) -> dict[str, Any]:
        """Train to the end.

        Args:
            resume: go on from the folder's state where it has one; otherwise start anew, and what a run left there is deleted.

        Returns:
            The metrics of the best evaluation.

        Raises:
            ConfigError: the state of a step is to be gone on from and is to be deleted.
            CheckpointError: the folder's state is damaged or belongs to another run.
            BuildError: the loss stopped being a number, or the model or a single row needs more memory than there is.
            KeyboardInterrupt: Ctrl-C, after the state was written.
        """
        prepare_cpu()
        with self.world.together():
            if not resume and self.keeping.resume_from is not None:
                raise ConfigError(f"--no-resume deletes the state of step {self.keeping.resume_from}; leave it or --resume-from out.")
            if self.world.is_first:
                prepare_folder(self.folder, resume)
        try:
            with self.world.together():
                if resume:
                    self._restore()
            if len(set(self.world.gather(self._progress.step))) > 1:
                what = f"The processes don't find the same state in {self.folder}"
                raise self.world.found_by_all(BuildError(f"{what}; choose a folder on a disk that all of them share."))
            with self.world.together():
                if self.world.is_first:
                    settle_folder(self.folder, self.keeping, self._saved_step, self._saved_shards, self._progress.finished)
                    self._files = MetricsFiles(self.folder, self.keeping.tensorboard)
                    self._files.write(self._progress.metrics)
            if not self._progress.finished:
                self._forget_a_best_that_is_gone()
                with deferred_interrupt() as interrupted:
                    self._train(interrupted)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            # Smaller micro-batches can't mend it: they were tried where they can.
            raise BuildError(
                f"Memory doesn't suffice for the model and its optimiser (step {self._progress.step + 1}): choose a smaller model or a "
                "larger device."
            ) from error
        finally:
            if self._files:
                self._files.close()
        # Not simply the lowest loss: a model that is gone may have had it.
        kept = [metrics for metrics in self._progress.metrics if metrics["loss"] >= self._progress.best_loss]
        return min(kept or self._progress.metrics, key=lambda metrics: metrics["loss"])

    def _forget_a_best_that_is_gone(self) -> None:
        """Where the folder has no best model, or one of a step after the one gone back to, let the next evaluation leave one."""
        has_best = 0 < step_of_model(self.folder) <= self._progress.step
        if self.world.any(self.world.is_first and not has_best):
            self._progress.best_loss = math.inf

    def _train(self, interrupted: Callable[[], bool]) -> None:
        progress, config = self._progress, self.config
        self._steps = self.task.steps(progress.cursor, self._micro_batches.share)
        self.reporter.stepped(progress.step)
        seconds_before, started = progress.seconds, time.monotonic()
        bytes_since, since = 0, started
        while not progress.finished:
            bytes_since += self._step()
            progress.step += 1
            self.reporter.stepped(1)
            progress.seconds = seconds_before + time.monotonic() - started
            if progress.step % config.evaluate_every == 0 or progress.step == config.steps:
                self._evaluate(bytes_since / max(time.monotonic() - since, 1e-9))
                self._save()
                bytes_since, since = 0, time.monotonic()
            if self.world.any(interrupted()):
                self._save_interrupted()
                raise KeyboardInterrupt

    def _save_interrupted(self) -> None:
        if self.world.any(not self._placement.is_finite()):
            # Steps from them are left out until there are too many; the last good state must not be lost to them.
            self.reporter.said(f"The weights of step {self._progress.step} aren't finite, so they aren't saved: {self._what_stands()}.")
            return
        self._add_up_counts()
        self._save()

    def _step(self) -> int:
        """One optimiser step; returns how many raw bytes it learned from, in all processes."""
        number = self._progress.step + 1
        self.task.model.train()
        self._optimiser.set_learning_rate(learning_rate_at(number - 1, self.config))
        step, nats = self._fitting(self._gradients)
        nats = self._placement.sum_gradients(nats)
        norm = self._placement.clip_gradients(self.config.clip_norm)
        # Both at once: here the CPU waits for a GPU.
        loss, length = torch.stack([nats / self._num_tokens, norm]).tolist()
        verdict = self._guard.judge(number, loss, length, skip_spikes=self.config.skip_spikes)
        if verdict.remark:
            self.reporter.said(verdict.remark)
        if verdict.is_taken:
            self._placement.step(self._optimiser)
        self._optimiser.zero_grad()
        if self._guard.is_lost:
            what = f"In {self._guard.not_finite_in_a_row} steps in a row, the last of them {number}, loss or gradient were not finite"
            raise self.world.found_by_all(BuildError(f"{what}: {self._cure()}"))
        self._progress.cursor = step.cursor
        self._counted.update(step.counted)
        return step.num_bytes

    @property
    def _num_tokens(self) -> int:
        """Tokens of a step: every row of every process is full."""
        return self.config.batch_rows * self.config.row_tokens

    def _gradients(self) -> tuple[Step[BatchT], Tensor]:
        """Add up the gradients of this process's micro-batches; returns the nats they are of, too."""
        step = next(self._steps)
        total = torch.zeros((), device=self._device)
        for batch in step.batches:
            with self._autocast():
                nats = self.task.loss(batch)
            (nats / self._num_tokens).backward()
            total += nats.detach()
        return step, total

    def _fitting(self, work: Callable[[], T]) -> T:
        """What `work` on micro-batches returns, smaller ones where memory doesn't suffice."""
        return self._micro_batches.fitting(work, self._progress.step + 1, self._begin_step_again)

    def _begin_step_again(self) -> None:
        self._progress.rows_at_once = self._micro_batches.share.rows_at_once
        self._optimiser.zero_grad()
        self._steps = self.task.steps(self._progress.cursor, self._micro_batches.share)

    def _evaluate(self, bytes_per_second: float) -> None:
        progress = self._progress
        self.task.model.eval()
        sums = sum(self.world.gather(self._fitting(self._judge)), PredictionSums())
        if not math.isfinite(sums.nats):
            what = f"The loss on the validation documents stopped being a number at step {progress.step}"
            raise self.world.found_by_all(BuildError(f"{what}: {self._cure()}"))
        self._add_up_counts()
        metrics = {
            "step": progress.step,
            **sums.metrics(),
            "validation_bytes": sums.num_bytes,
            **self._guard.metrics(),
            **progress.counted,
            "learning_rate": learning_rate_at(progress.step - 1, self.config),
            "bytes_per_second": bytes_per_second,
            "memory_bytes": peak_memory_of_run(self._device),
            "epoch": progress.step * self._num_tokens / self.task.tokens_per_epoch,
            "seconds": progress.seconds,
        }
        progress.metrics.append(metrics)
        is_best = metrics["loss"] < progress.best_loss
        if is_best:
            progress.best_loss, progress.evaluations_without_best = metrics["loss"], 0
        else:
            progress.evaluations_without_best += 1
        patience = self.config.patience
        out_of_patience = patience is not None and progress.evaluations_without_best >= patience
        progress.finished = out_of_patience or progress.step >= self.config.steps
        if is_best or progress.finished:
            with self._placement.whole_model(), self.world.together():
                if self.world.is_first and is_best:
                    self.task.save_best(metrics)
                if self.world.is_first and progress.finished:
                    self.task.save_last(metrics)
        self.reporter.evaluated(metrics)
        if out_of_patience:
            self.reporter.said(f"Stopped at step {progress.step}: no new best in {patience} evaluations.")

    def _add_up_counts(self) -> None:
        """Add what each process counted since the last time to the progress, which all have."""
        total = Counter(self._progress.counted)
        for counted in self.world.gather(self._counted):
            total.update(counted)
        self._progress.counted, self._counted = dict(total), Counter()

    def _judge(self) -> PredictionSums:
        with torch.no_grad(), self._autocast():
            return self.task.evaluate(self._micro_batches.share.rows_at_once)

    def _autocast(self) -> contextlib.AbstractContextManager[object]:
        # Weights that are gathered for a layer and dropped after it would stay, as copies.
        return autocast(self._device, self._dtype, keeps_casts=not self._placement.is_shared_out)

    def _cure(self) -> str:
        """What to do about a loss that isn't finite: the end of an error."""
        config = self.config
        return (
            f"{self._what_stands()}; lower the learning rate ({config.learning_rate:g}) or raise the warm-up ({config.warmup_steps} "
            "steps), and start again in another folder."
        )

    def _what_stands(self) -> str:
        return f"the state of step {self._saved_step} is kept" if self._saved_step else "no state was written yet"

    def _save(self) -> None:
        progress = self._progress
        state = {
            "identity": json.dumps(self._identity, sort_keys=True),
            "progress": {**vars(progress), "cursor": list(progress.cursor)},
            "guard": dict(vars(self._guard)),
            "model": self.task.model.state_dict(),
            "optimiser": self._optimiser.state_dict(),
        }
        self._placement.save(self.folder, progress.step, state, self.keeping.keep_last)
        self._saved_step = progress.step
        # After the state: as long as there is none, empty metrics say whose model it is that a first evaluation leaves.
        with self.world.together():
            if self._files:
                self._files.write(progress.metrics)

    def _restore(self) -> None:
        state = state_of_run(self.folder, self._identity, self.keeping)
        if state is None:
            return
        self._saved_shards = shards_of(state)
        state = self._placement.restored(self.folder, state)
        try:
            self._progress = Progress(**{**state["progress"], "cursor": tuple(state["progress"]["cursor"])})
            self._guard = Guard.restored(state.get("guard", {}))
            self.task.model.load_state_dict(state["model"])
            self._optimiser.load_state_dict(state["optimiser"])
            self._placement.settle(self._optimiser)
        except (RuntimeError, ValueError, KeyError, TypeError) as error:
            if is_out_of_memory(error):
                raise
            raise CheckpointError(
                f"The state in {self.folder} is of another version of the toolkit, whose models or optimisers differ; go on with that "
                "one, or start over with --no-resume."
            ) from error
        self._saved_step = self._progress.step
        came_since = ""
        if self.keeping.resume_from is not None:
            self._progress.went_back_to = self.keeping.resume_from
            if self._progress.step != self.keeping.resume_from:
                came_since = f", to which it came since it went back to step {self.keeping.resume_from}"
        if state["identity"]["training"].get("micro_batch_rows") != self.config.micro_batch_rows:
            # Whoever asks for another size wants it, though a smaller one was all that fitted before.
            self._progress.rows_at_once = None
        if self._progress.rows_at_once:
            self._micro_batches.at_most(self._progress.rows_at_once)
        how = "It had finished already" if self._progress.finished else "Going on"
        self.reporter.said(f"{how}: {self.folder} holds this run at step {self._progress.step} of {self.config.steps}{came_since}.")
