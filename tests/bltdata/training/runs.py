"""Training runs with the entropy model, small and real, and ways to disturb them."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from bltdata.entropy.training import train_entropy_model
from bltdata.training.config import TrainingConfig
from bltdata.training.keeping import Keeping
from bltdata.training.metrics import METRICS_FILE
from bltdata.training.progress import Reporter
from bltdata.training.world import World
from tests.bltdata.small import Documents, architecture, random_documents, training

CPU = torch.device("cpu")
MEASURED = ("bytes_per_second", "memory_bytes", "seconds")
"""What may differ between two equal runs."""

TRAIN = Documents(random_documents(9, 40, seed=1, num_symbols=8))
VALIDATION = Documents(random_documents(4, 40, seed=2, num_symbols=8))


class Killed(Exception):
    """Stands for a process that is killed: nothing is written any more."""


def train(
    folder: Path,
    config: TrainingConfig | None = None,
    *,
    data: Any = "data",
    resume: bool = True,
    keeping: Keeping | None = None,
    world: World | None = None,
    **told: Any,
) -> dict[str, Any]:
    return train_entropy_model(
        architecture(), config or training(), TRAIN, VALIDATION, folder, data={"name": data}, device=CPU,
        resume=resume, keeping=keeping, world=world, reporter=Reporter(**told),
    )  # fmt: skip


def at_step(step: int, action: Callable[[], Any]) -> Callable[[int], None]:
    """A reporter that acts once a step is taken, before its evaluation."""
    taken = 0

    def stepped(count: int) -> None:
        nonlocal taken
        taken += count
        if count and taken == step:
            action()

    return stepped


def kill() -> None:
    raise Killed


def die_at_renames(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Let this process die at a rename, by which files become visible; the function says how many may come before."""
    rename, left = os.replace, 0

    def allow(count: int) -> None:
        nonlocal left
        left = count

    def replace(source: Path, target: Path) -> None:
        nonlocal left
        if left == 0:
            raise Killed
        left -= 1
        rename(source, target)

    monkeypatch.setattr(os, "replace", replace)
    return allow


def press_ctrl_c() -> None:
    signal.raise_signal(signal.SIGINT)


def metrics_of(folder: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / METRICS_FILE).read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in MEASURED} for line in lines]


def outcome(folder: Path) -> tuple[bytes, list[dict[str, Any]], list[str]]:
    """All that must be the same: the best weights, the metrics, and the names of the files."""
    return (folder / "model.safetensors").read_bytes(), metrics_of(folder), sorted(path.name for path in folder.iterdir())


def state_of(folder: Path) -> dict[str, Any]:
    return torch.load(folder / "training_state.pt", weights_only=True)


def assert_same_run(folder: Path, other: Path) -> None:
    assert outcome(folder) == outcome(other)
    ours, theirs = state_of(folder), state_of(other)
    assert ours["guard"] == theirs["guard"]
    # The last weights and the optimiser's, not only the best.
    assert ours["model"].keys() == theirs["model"].keys()
    assert all(torch.equal(tensor, theirs["model"][name]) for name, tensor in ours["model"].items())
    for index, moments in ours["optimiser"]["state"].items():
        assert all(torch.equal(tensor, theirs["optimiser"]["state"][index][name]) for name, tensor in moments.items())
