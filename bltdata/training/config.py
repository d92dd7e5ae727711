"""The settings of a training run, the same for the entropy model and the BLT."""

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from bltdata.config import ADDED_LATER
from bltdata.errors import ConfigError


class Share(NamedTuple):
    """A process's part of an optimiser step."""

    num_rows: int
    """Rows of `batch_rows` that it learns from."""

    rows_at_once: int
    """Rows of a micro-batch."""

    def at_most(self, rows_at_once: int) -> "Share":
        """The same rows in micro-batches that are no larger.

        >>> Share(num_rows=12, rows_at_once=12).at_most(5)
        Share(num_rows=12, rows_at_once=4)
        """
        limit = min(self.rows_at_once, rows_at_once)
        return self._replace(rows_at_once=next(size for size in range(limit, 0, -1) if self.num_rows % size == 0))


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How a model is trained. Every field but `micro_batch_rows`, which changes no more than rounding, identifies a run."""

    steps: int = 1000
    """Optimiser steps."""

    row_tokens: int = 1024
    """Tokens a row: the context that training shows the model."""

    batch_rows: int = 8
    """Rows an optimiser step learns from."""

    micro_batch_rows: int | None = None
    """Rows that go through the model at once in a process, at most, gradients being summed over `batch_rows`; none for all of a process at
    once. Where memory doesn't suffice they are halved, as often as it takes. It may differ when a run goes on: only rounding does."""

    optimiser: Literal["muon", "adamw"] = field(default="adamw", metadata=ADDED_LATER)
    """`muon` for the matrices between embeddings and head, with AdamW for all else, or `adamw` for everything. Muon learns more from few
    bytes. In bfloat16 it magnifies rounding, so several processes follow one less closely."""

    table_optimiser: Literal["row_adam", "adamw"] = field(default="row_adam", metadata=ADDED_LATER)
    """For the n-gram tables of a BLT: `row_adam` (Adam without a mean of gradients) changes the rows that a step reads, and costs as
    much as these do; `adamw` changes all rows."""

    learning_rate: float = 2e-3
    """Peak learning rate."""

    final_learning_rate_ratio: float = 0.05
    """Learning rate at the last step, as a share of the peak."""

    schedule: Literal["cosine", "wsd"] = field(default="cosine", metadata=ADDED_LATER)
    """How the learning rate gets from its peak to the last step: along half a `cosine`, or with `wsd` not before the end (warm-up, stable,
    decay)."""

    decay_share: float = field(default=0.1, metadata=ADDED_LATER)
    """Share of all steps over which the learning rate falls in the end; for `wsd`."""

    warmup_steps: int = 50
    """Steps over which the learning rate rises from 0 to its peak."""

    weight_decay: float = 0.1
    """Decoupled decay of the matrices of linear layers; norms and embeddings aren't decayed."""

    beta1: float = 0.9
    """AdamW's decay of the gradient's mean."""

    beta2: float = 0.95
    """AdamW's decay of the gradient's square."""

    clip_norm: float = 1.0
    """The gradient is scaled down to this norm where it is longer."""

    skip_spikes: bool = field(default=False, metadata=ADDED_LATER)
    """Leave a step out whose loss or gradient is far above those of the last 100 steps; such a step is reported in any case."""

    evaluate_every: int = 100
    """Steps between two evaluations on the validation documents, each followed by a checkpoint."""

    validation_bytes: int = 262_144
    """Bytes that an evaluation is on, from all over the validation documents; of long documents parts are taken. Where there are
    no more, it is on all of them."""

    patience: int | None = None
    """Stop after this many evaluations in a row without a new best; none to run all steps."""

    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Type of matrix products: `auto` is bfloat16 where the hardware multiplies it."""

    seed: int = 0
    """Fixes the initial weights and the order of the documents."""

    def __post_init__(self) -> None:
        for name in ("steps", "row_tokens", "batch_rows", "evaluate_every", "validation_bytes"):
            _require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        _require(self.micro_batch_rows is None or self.micro_batch_rows >= 1, "micro_batch_rows", self.micro_batch_rows, "at least 1")
        _require(self.row_tokens >= 2, "row_tokens", self.row_tokens, "at least 2")
        _require(self.patience is None or self.patience >= 1, "patience", self.patience, "at least 1")
        _require(self.learning_rate > 0, "learning_rate", self.learning_rate, "above 0")
        _require(0 <= self.final_learning_rate_ratio <= 1, "final_learning_rate_ratio", self.final_learning_rate_ratio, "from 0 to 1")
        _require(0 < self.decay_share <= 1, "decay_share", self.decay_share, "above 0 and at most 1")
        is_read = self.schedule == "wsd" or self.decay_share == 0.1
        _require(is_read, "decay_share", self.decay_share, f"left alone with the schedule {self.schedule}, or given with wsd")
        _require(self.warmup_steps >= 0, "warmup_steps", self.warmup_steps, "0 or more")
        _require(self.weight_decay >= 0, "weight_decay", self.weight_decay, "0 or more")
        for name in ("beta1", "beta2"):
            _require(0 <= getattr(self, name) < 1, name, getattr(self, name), "from 0 to below 1")
        _require(self.clip_norm > 0, "clip_norm", self.clip_norm, "above 0")
        _require(0 <= self.seed < 2**63, "seed", self.seed, "from 0 to below 2**63")

    def share(self, num_processes: int) -> Share:
        """What each of so many processes does of a step, in micro-batches of one size.

        Raises:
            ConfigError: the rows can't be shared out evenly.

        >>> TrainingConfig(batch_rows=12, micro_batch_rows=4).share(2)
        Share(num_rows=6, rows_at_once=3)
        """
        _require(self.batch_rows % num_processes == 0, "batch_rows", self.batch_rows, f"a multiple of the {num_processes} processes")
        num_rows = self.batch_rows // num_processes
        return Share(num_rows, num_rows).at_most(self.micro_batch_rows or num_rows)


def _require(holds: bool, name: str, value: object, limit: str) -> None:
    if not holds:
        raise ConfigError(f"The training setting {name} is {value}; it must be {limit}.")
