"""The metrics of a run for TensorBoard: the same numbers as in the JSON lines, each step once."""

import importlib.util
import json
import time
from pathlib import Path

import pytest

from bltdata.errors import ConfigError
from bltdata.training.keeping import Keeping
from bltdata.training.metrics import METRICS_FILE, MetricsFiles
from tests.bltdata.small import training
from tests.bltdata.training.runs import Killed, at_step, kill, press_ctrl_c, train

CONFIG = training(steps=8, evaluate_every=2)
TENSORBOARD = Keeping(tensorboard=True)


def events_of(folder: Path) -> list[tuple[int, str, float]]:
    """Step, name and value of every scalar, in the order in which they stand in the files."""
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    found = []
    for path in sorted((folder / "tensorboard").iterdir()):
        for event in EventFileLoader(str(path)).Load():
            found += [(event.step, value.tag, value.tensor.float_val[0]) for value in event.summary.value]
    return found


def assert_events_are_the_metrics(folder: Path) -> None:
    lines = [json.loads(line) for line in (folder / METRICS_FILE).read_text().splitlines()]
    expected = [(line["step"], name, value) for line in lines for name, value in line.items() if name != "step"]
    found = events_of(folder)
    assert [event[:2] for event in found] == [event[:2] for event in expected]
    assert [event[2] for event in found] == pytest.approx([event[2] for event in expected], rel=1e-6)


def test_a_run_that_goes_on_has_each_step_once(tmp_path):
    with pytest.raises(Killed):
        train(tmp_path, CONFIG, keeping=TENSORBOARD, stepped=at_step(5, kill))
    assert_events_are_the_metrics(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, CONFIG, keeping=TENSORBOARD, stepped=at_step(7, press_ctrl_c))
    train(tmp_path, CONFIG, keeping=TENSORBOARD)
    assert_events_are_the_metrics(tmp_path)
    assert len({event[0] for event in events_of(tmp_path)}) == 4
    # It has ended: nothing is trained, and everything still told.
    (tmp_path / "tensorboard" / "mine").touch()
    train(tmp_path, CONFIG, keeping=TENSORBOARD)
    (tmp_path / "tensorboard" / "mine").unlink()
    assert_events_are_the_metrics(tmp_path)


def test_starting_anew_leaves_no_events(tmp_path):
    train(tmp_path, CONFIG, keeping=TENSORBOARD)
    train(tmp_path, CONFIG, resume=False)
    assert not (tmp_path / "tensorboard").exists()


def times_of(folder: Path) -> list[float]:
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    return [event.wall_time for path in sorted(folder.iterdir()) for event in EventFileLoader(str(path)).Load() if event.summary.value]


@pytest.mark.parametrize("brought", [0, 2])
def test_events_are_of_when_the_run_took_them(tmp_path, monkeypatch, brought):
    lines = [{"step": step, "loss": 1.0, "seconds": 100.0 * step} for step in (1, 2, 3)]
    monkeypatch.setattr(time, "time", lambda: 5000.0)
    files = MetricsFiles(tmp_path, tensorboard=True)
    for count in range(brought, 4):
        files.write(lines[:count])
    files.close()
    assert times_of(tmp_path / "tensorboard") == [5000.0 + 100 * (step - brought) for step in (1, 2, 3) for _ in ("loss", "seconds")]


def test_without_the_package(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert not Keeping().tensorboard
    with pytest.raises(ConfigError, match=r"^TensorBoard is not installed; run pip install 'blt-toolkit\[tensorboard\]', or leave --tens"):
        Keeping(tensorboard=True)
