"""Micro-batches that fit: those of a step are halved, in all processes, as often as memory doesn't suffice in one of them."""

from collections.abc import Callable
from typing import TypeVar

from bltdata.errors import BuildError
from bltdata.training.config import TrainingConfig
from bltdata.training.memory import within_memory
from bltdata.training.progress import Reporter
from bltdata.training.world import World

T = TypeVar("T")


class MicroBatches:
    """This process's part of every step, in micro-batches that fit into memory.

    Args:
        config: how many rows a step has, and a micro-batch at most.
        world: the processes that share a step.
        can_begin_again: whether a step may, which it can't where processes send each other parts of the model in the middle of it.
        reporter: who is told.

    Raises:
        ConfigError: a step's rows can't be shared out evenly among the processes.
    """

    def __init__(self, config: TrainingConfig, world: World, can_begin_again: bool, reporter: Reporter) -> None:
        self.share = config.share(world.size)
        self._row_tokens = config.row_tokens
        self._world = world
        self._can_begin_again = can_begin_again
        self._reporter = reporter

    def at_most(self, rows: int) -> None:
        """Let no micro-batch have more rows."""
        self.share = self.share.at_most(rows)

    def fitting(self, work: Callable[[], T], step: int, begin_again: Callable[[], None]) -> T:
        """What `work` returns once it fits.

        Args:
            work: goes through micro-batches of `share`.
            step: its number, for what is said.
            begin_again: goes back to the step's beginning, with micro-batches of what `share` is then.

        Raises:
            BuildError: not even a single row fits; or it doesn't, and a step can't begin again.
        """
        while True:
            with self._world.together(talks=not self._can_begin_again):
                result = within_memory(work)
                if result is None and not self._can_begin_again:
                    raise BuildError(self._too_many_rows(step))
            # Asked again outside of the block, at whose end all that failed otherwise are gone.
            if not self._world.any(result is None):
                assert result is not None
                return result
            del result
            self._halve(step)
            begin_again()

    def _too_many_rows(self, step: int) -> str:
        return (
            f"Memory doesn't suffice for {self.share.rows_at_once} rows at once (step {step}), and with sharding they aren't halved during "
            f"a run: lower micro_batch_rows, or for a single row row_tokens ({self._row_tokens})."
        )

    def _halve(self, step: int) -> None:
        rows = self.share.rows_at_once
        if rows == 1:
            raise self._world.found_by_all(
                BuildError(
                    f"Memory doesn't suffice for a single row of {self._row_tokens} tokens (step {step}): lower row_tokens, or choose a "
                    "smaller model or a larger device."
                )
            )
        self.at_most(rows // 2)
        self._reporter.said(
            f"Memory didn't suffice for {rows} rows at once (step {step}): from here on a micro-batch has {self.share.rows_at_once}, and a "
            "step learns from the same rows as before."
        )
