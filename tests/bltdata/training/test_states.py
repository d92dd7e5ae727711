"""The states of a run: which are kept, and what is said of one that can't be gone on from."""

import contextlib
import errno
import json
import os
import re
import resource
import shutil
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

from bltdata.errors import CheckpointError, ConfigError
from bltdata.training.keeping import Keeping
from bltdata.training.state_files import STATE_FILE, shards_name
from bltdata.training.states import load_state, prepare_folder, remove_run, remove_surplus, save_state, settle_folder
from tests.bltdata.small import training
from tests.bltdata.training.runs import (
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

EVENTS = "tensorboard/events.out.tfevents.1"


def state_at(step: int, **more: Any) -> dict[str, Any]:
    return {"identity": "{}", "progress": {"step": step}, "model": {"tensor": torch.arange(3.0)}, "optimiser": {}, **more}


def steps_kept(folder: Path) -> list[int]:
    return sorted(int(path.stem.rpartition("-")[2]) for path in folder.glob("training_state-*.pt"))


def error_of(folder: Path, resume_from: int | None = None) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_state(folder, resume_from)
    message = str(caught.value)
    assert message.count(". ") == 0
    assert message.endswith(".")
    return message


def cut(path: Path, kept: int = 300) -> None:
    """Cut a file short, as if it had been copied half, and leave other names of it alone."""
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data[:kept])


def cannot_link(*_: Any) -> None:
    raise OSError(95, "Operation not supported")


def test_a_state(tmp_path):
    assert load_state(tmp_path) is None
    state = state_at(3, number=1, text="a", list=[1, {"b": 2.5}], nothing=None)
    save_state(tmp_path, 3, state)
    loaded = load_state(tmp_path)
    assert torch.equal(loaded.pop("model")["tensor"], state.pop("model")["tensor"])
    assert loaded == state
    assert [path.name for path in tmp_path.iterdir()] == [STATE_FILE]


@pytest.mark.parametrize("can_link", [True, False])
def test_the_last_ones_are_kept(tmp_path, monkeypatch, can_link):
    if not can_link:
        monkeypatch.setattr(os, "link", cannot_link)
    for step in (10, 20, 30, 40):
        save_state(tmp_path, step, state_at(step), keep_last=3)
        assert load_state(tmp_path)["progress"]["step"] == step
    assert steps_kept(tmp_path) == [20, 30, 40]
    assert [load_state(tmp_path, step)["progress"]["step"] for step in (20, 30, 40)] == [20, 30, 40]
    assert (tmp_path / STATE_FILE).samefile(tmp_path / "training_state-00000040.pt") == can_link
    # Fewer are asked for.
    save_state(tmp_path, 50, state_at(50), keep_last=2)
    assert steps_kept(tmp_path) == [40, 50]
    save_state(tmp_path, 60, state_at(60))
    assert steps_kept(tmp_path) == []
    assert load_state(tmp_path)["progress"]["step"] == 60


def test_going_back_drops_the_future_once_something_is_saved(tmp_path):
    for step in (10, 20, 30):
        save_state(tmp_path, step, state_at(step), keep_last=3)
    settle_folder(tmp_path, Keeping(keep_last=3, resume_from=10), 10, None, finished=False)
    assert load_state(tmp_path)["progress"]["step"] == 10
    assert steps_kept(tmp_path) == [10, 20, 30]
    settle_folder(tmp_path, Keeping(keep_last=3, resume_from=10), 10, None, finished=False)
    save_state(tmp_path, 15, state_at(15), keep_last=3)
    assert steps_kept(tmp_path) == [10, 15]
    assert load_state(tmp_path)["progress"]["step"] == 15


def test_a_save_that_dies_leaves_a_state(tmp_path, monkeypatch):
    for step in (10, 20):
        save_state(tmp_path, step, state_at(step), keep_last=2)
    allow = die_at_renames(monkeypatch)
    for published, last in ((0, 20), (1, 30)):
        allow(published)
        with pytest.raises(Killed):
            save_state(tmp_path, 30, state_at(30), keep_last=2)
        assert load_state(tmp_path)["progress"]["step"] == last
        assert steps_kept(tmp_path) == [10, 20]
    assert load_state(tmp_path, 30)["progress"]["step"] == 30
    allow(2)
    save_state(tmp_path, 30, state_at(30), keep_last=2)
    assert steps_kept(tmp_path) == [20, 30]
    assert load_state(tmp_path)["progress"]["step"] == 30


def onto_a_full_disk(path: Path) -> contextlib.nullcontext[Path]:
    return contextlib.nullcontext(Path("/dev/full"))


# What fits into a buffer fails when the file is closed, what doesn't while torch writes.
@pytest.mark.parametrize("size", [10, 100_000])
def test_the_disk_is_full(tmp_path, monkeypatch, size):
    save_state(tmp_path, 1, state_at(1))
    monkeypatch.setattr("bltdata.training.state_files.atomic_path", onto_a_full_disk)
    with pytest.raises(OSError, match="No space left on device") as caught:
        save_state(tmp_path, 2, {**state_at(2), "model": torch.zeros(size)})
    assert caught.value.errno == errno.ENOSPC
    assert load_state(tmp_path)["progress"]["step"] == 1


def test_the_system_takes_no_more_in_the_middle_of_a_file(tmp_path):
    save_state(tmp_path, 1, state_at(1))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            save_state(tmp_path, 2, {**state_at(2), "model": torch.zeros(100_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert load_state(tmp_path)["progress"]["step"] == 1
    assert [path.name for path in tmp_path.iterdir()] == [STATE_FILE]


def test_what_torch_cannot_write_stays_an_error_of_its_own(tmp_path, monkeypatch):
    def save(*_: Any) -> None:
        raise RuntimeError("an archive's")

    monkeypatch.setattr(torch, "save", save)
    with pytest.raises(RuntimeError, match=r"^an archive's$"):
        save_state(tmp_path, 1, state_at(1))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kept", [0, 1, 300, -1])
def test_it_is_damaged(tmp_path, kept):
    save_state(tmp_path, 1, state_at(1))
    cut(tmp_path / STATE_FILE, kept)
    assert error_of(tmp_path) == f"{tmp_path / STATE_FILE} is damaged, so the run can't go on from it; start it again with --no-resume."


def test_it_cannot_be_read(tmp_path):
    (tmp_path / STATE_FILE).mkdir()
    assert error_of(tmp_path) == f"{tmp_path / STATE_FILE} can't be read (Is a directory); start it again with --no-resume."


@given(data=st.binary(max_size=60) | st.binary(max_size=60).map(lambda data: b"PK\x03\x04" + data))
def test_any_other_bytes(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("bytes")
    (folder / STATE_FILE).write_bytes(data)
    assert "training_state.pt is damaged" in error_of(folder) or "isn't the state" in error_of(folder)


@pytest.mark.parametrize("kept", [0, 10, 4300, 5000, -1])
def test_it_is_cut_short_anywhere(tmp_path, kept):
    save_state(tmp_path, 10, {**state_at(10), "model": {f"w{number}": torch.zeros(100, 100) for number in range(20)}})
    path = tmp_path / STATE_FILE
    path.write_bytes(path.read_bytes()[:kept])
    assert error_of(tmp_path) == f"{path} is damaged, so the run can't go on from it; start it again with --no-resume."


def test_it_runs_no_code(tmp_path):
    # What an attacker, or a careless colleague, put there.
    torch.save({"format_version": 1, "path": Path("a")}, tmp_path / STATE_FILE)
    assert "training_state.pt is damaged" in error_of(tmp_path)


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ({"format_version": 0, **state_at(1)}, "has format version 0, and this version of the toolkit reads 1"),
        ({"format_version": 2}, "has format version 2, and this version of the toolkit reads 1"),
        ({}, "isn't the state of a training run"),
        ([1], "isn't the state of a training run"),
        ({"format_version": 1, "identity": "{}"}, "isn't the state of a training run: it has no progress"),
        ({"format_version": torch.arange(2)}, "isn't the state of a training run"),
        *(
            ({"format_version": 1, **state_at(1), name: value}, f"isn't the state of a training run: its {name} is something else")
            for name, values in {
                "identity": (None, 3, {}, "", "{", "[]", "[" * 100_000),
                "progress": (None, [1], {}, {"step": None}, {"step": True}, {"step": "1"}),
                "model": (None, [torch.zeros(1)]),
                "optimiser": (None, "adamw"),
                "guard": (None, [1.0]),
                "shards": (None, "folder", {"folder": "a"}, {"folder": 1, "files": {}}, {"folder": "a", "files": ["b"]}),
            }.items()
            for value in values
        ),
    ],
)
def test_it_is_foreign_or_of_another_version(tmp_path, value, problem):
    torch.save(value, tmp_path / STATE_FILE)
    assert error_of(tmp_path) == f"{tmp_path / STATE_FILE} {problem}; start it again with --no-resume."


def test_the_last_good_one_is_named_and_never_taken_unasked(tmp_path):
    for step in (10, 20, 30):
        save_state(tmp_path, step, state_at(step), keep_last=3)
    way_out = "go on from the state of step {0} with --resume-from {0}, or start the run again with --no-resume."
    cut(tmp_path / STATE_FILE)
    assert error_of(tmp_path).endswith(f"is damaged, so the run can't go on from it; {way_out.format(30)}")
    cut(tmp_path / "training_state-00000030.pt")
    assert error_of(tmp_path).endswith(way_out.format(20))
    assert error_of(tmp_path, 30).startswith(f"{tmp_path / 'training_state-00000030.pt'} is damaged")
    assert error_of(tmp_path, 30).endswith(way_out.format(20))
    (tmp_path / STATE_FILE).unlink()
    assert error_of(tmp_path) == f"{tmp_path / STATE_FILE} is missing, so the run can't go on from it; {way_out.format(20)}"
    expected = f"{tmp_path} has no state of step 15; it has those of 10, 20; runs keep several with --keep-last."
    assert error_of(tmp_path, 15) == expected
    remove_run(tmp_path)
    assert "it has none that can be read" in error_of(tmp_path, 10)


def test_remove_run(tmp_path):
    for step in (10, 20):
        save_state(tmp_path, step, state_at(step), keep_last=2)
    for name in (
        "other",
        "last/config.json",
        "last/model.safetensors",
        "config.json",
        "model.safetensors",
        "tensorboard/events.out.tfevents.1",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    remove_run(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["other"]
    (tmp_path / "last").mkdir()
    (tmp_path / "last" / "mine").touch()
    remove_run(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last", "other"]


@pytest.mark.parametrize(("name", "value"), [("keep_last", 0), ("resume_from", 0)])
def test_settings_out_of_range(name, value):
    with pytest.raises(ConfigError, match=f"^{name} is {value}; it must be at least 1"):
        Keeping(**{name: value})


def save_with_shards(folder: Path, step: int, token: str, keep_last: int) -> Path:
    """A state as several processes write it: first the folder, then the file that names it."""
    shards = folder / shards_name(step, token)
    shards.mkdir()
    (shards / "part").write_bytes(b"123")
    save_state(folder, step, state_at(step, shards={"folder": shards.name, "files": {"part": 3}}), keep_last)
    return shards


def test_folders_with_tensors_live_as_long_as_their_states(tmp_path):
    folders = [save_with_shards(tmp_path, step, "a", 2) for step in (10, 20, 30)]
    assert [folder.exists() for folder in folders] == [False, True, True]
    # The same step once more, after one went back; what is of its first time goes, and what was of a later step.
    again = save_with_shards(tmp_path, 20, "b", 2)
    assert list(tmp_path.glob("*.shards")) == [again]
    assert load_state(tmp_path)["shards"]["folder"] == again.name
    # A run that goes on without sharding has no folder.
    save_state(tmp_path, 40, state_at(40), keep_last=2)
    assert list(tmp_path.glob("*.shards")) == [again]
    save_state(tmp_path, 50, state_at(50))
    assert [path.name for path in tmp_path.iterdir()] == [STATE_FILE]


def test_what_a_kill_left_beside_the_last_state(tmp_path):
    folders = {step: save_with_shards(tmp_path, step, "a", 9) for step in (10, 20, 30)}
    # The process died when the state of step 30 was there, before it cleaned up; one of step 15 had had a file, too.
    (tmp_path / shards_name(15, "a")).mkdir()
    (tmp_path / shards_name(30, "b")).mkdir()
    remove_surplus(tmp_path, 30, folders[30].name, None)
    assert sorted(tmp_path.glob("*.shards")) == list(folders.values())
    assert steps_kept(tmp_path) == [10, 20, 30]
    remove_surplus(tmp_path, 30, folders[30].name, 2)
    assert sorted(tmp_path.glob("*.shards")) == [folders[20], folders[30]]
    assert steps_kept(tmp_path) == [20, 30]
    assert load_state(tmp_path, 20)["progress"]["step"] == 20


def test_a_finished_run_keeps_its_states_when_nobody_says_how_many(undisturbed, tmp_path):
    shutil.copytree(undisturbed, tmp_path / "run")
    train(tmp_path / "run", CONFIG)
    assert steps_kept(tmp_path / "run") == [4, 6, 8]


def test_what_is_left_of_folders_with_tensors(tmp_path):
    shards = save_with_shards(tmp_path, 10, "a", 1)
    partial = tmp_path / f".{shards_name(20, 'b')}.123.partial"
    for folder in (partial, tmp_path / "other.shards", tmp_path / "training_state-mine.shards"):
        folder.mkdir()
    prepare_folder(tmp_path, resume=True)
    assert not partial.exists()
    (shards / "part").write_bytes(b"12")
    assert error_of(tmp_path).startswith(f"{tmp_path / STATE_FILE} needs {shards / 'part'}, which is damaged")
    shutil.rmtree(shards)
    assert error_of(tmp_path).startswith(f"{tmp_path / STATE_FILE} needs {shards / 'part'}, which is missing")
    save_with_shards(tmp_path, 20, "c", 1)
    remove_run(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other.shards", "training_state-mine.shards"]


# ------------------------------------------------------------------------------------------------------------------ in runs

CONFIG = training(steps=8, evaluate_every=2)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    train(folder, CONFIG, keeping=Keeping(keep_last=3))
    return folder


def test_keeping_changes_nothing_else(undisturbed, tmp_path):
    assert steps_kept(undisturbed) == [4, 6, 8]
    train(tmp_path, CONFIG)
    assert steps_kept(tmp_path) == []
    assert metrics_of(tmp_path) == metrics_of(undisturbed)
    assert (tmp_path / "model.safetensors").read_bytes() == (undisturbed / "model.safetensors").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("can_link", [True, False])
def test_a_kill_between_any_two_files_of_several_states(tmp_path, monkeypatch, can_link):
    if not can_link:
        monkeypatch.setattr(os, "link", cannot_link)
    config, keeping = training(steps=6, evaluate_every=2), Keeping(keep_last=2)
    train(tmp_path / "undisturbed", config, keeping=keeping)
    allow, kills, is_finished = die_at_renames(monkeypatch), 0, False
    while not is_finished:
        allow(kills)
        folder = tmp_path / str(kills)
        try:
            train(folder, config, keeping=keeping)
            is_finished = True
        except Killed:
            kills += 1
            allow(1000)
            train(folder, config, keeping=keeping)
        assert_same_run(folder, tmp_path / "undisturbed")
    # Three evaluations of metrics and a state with two names, at least.
    assert kills >= 9


def test_the_state_that_is_there_is_kept_once_several_are(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, CONFIG, stepped=at_step(3, press_ctrl_c))
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, CONFIG, keeping=Keeping(keep_last=3), stepped=at_step(5, press_ctrl_c))
    assert steps_kept(tmp_path) == [3, 4, 5]


def test_a_run_goes_on_from_an_older_state(undisturbed, tmp_path):
    keeping = Keeping(keep_last=3)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, CONFIG, keeping=keeping, stepped=at_step(7, press_ctrl_c))
    assert steps_kept(tmp_path) == [4, 6, 7]
    cut(tmp_path / STATE_FILE)
    cut(tmp_path / "training_state-00000007.pt")
    with pytest.raises(CheckpointError, match=r"--resume-from 6, or"):
        train(tmp_path, CONFIG, keeping=keeping)
    said: list[str] = []
    with pytest.raises(Killed):
        train(tmp_path, CONFIG, keeping=Keeping(keep_last=3, resume_from=4), said=said.append, stepped=at_step(5, kill))
    assert said == [f"Going on: {tmp_path} holds this run at step 4 of 8."]
    assert [line["step"] for line in metrics_of(tmp_path)] == [2, 4]
    # From there on it is the last.
    assert state_of(tmp_path)["progress"]["step"] == 4
    train(tmp_path, CONFIG, keeping=keeping)
    assert_same_run(tmp_path, undisturbed)


def test_the_command_that_went_back_goes_on_when_it_is_run_again(undisturbed, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, CONFIG, keeping=Keeping(keep_last=3), stepped=at_step(7, press_ctrl_c))
    back = Keeping(keep_last=2, resume_from=4)
    said: list[str] = []
    # Until it has a state of its own it begins at the one it went back to, and then never again, also when that is gone.
    for step, stop, error in ((5, kill, Killed), (5, press_ctrl_c, KeyboardInterrupt), (7, press_ctrl_c, KeyboardInterrupt)):
        with pytest.raises(error):
            train(tmp_path, CONFIG, keeping=back, said=said.append, stepped=at_step(step, stop))
    assert steps_kept(tmp_path) == [6, 7]
    train(tmp_path, CONFIG, keeping=back, said=said.append)
    train(tmp_path, CONFIG, keeping=back, said=said.append)
    begin, since = f": {tmp_path} holds this run at step", ", to which it came since it went back to step 4."
    assert said == [
        f"Going on{begin} 4 of 8.", f"Going on{begin} 4 of 8.", f"Going on{begin} 5 of 8{since}", f"Going on{begin} 7 of 8{since}",
        f"It had finished already{begin} 8 of 8{since}",
    ]  # fmt: skip
    assert metrics_of(tmp_path) == metrics_of(undisturbed)
    assert outcome(tmp_path)[0] == outcome(undisturbed)[0]
    # To another step it does go back.
    with pytest.raises(Killed):
        train(tmp_path, CONFIG, keeping=Keeping(keep_last=2, resume_from=7), stepped=at_step(8, kill))
    assert state_of(tmp_path)["progress"]["step"] == 7


def test_models_of_a_future_that_will_not_be_are_replaced(undisturbed, tmp_path):
    keeping = Keeping(keep_last=3)
    train(tmp_path, CONFIG, keeping=keeping)
    best = json.loads((tmp_path / "config.json").read_text())["validation"]["step"]
    assert best > 4
    with pytest.raises(Killed):
        train(tmp_path, CONFIG, keeping=Keeping(keep_last=3, resume_from=4), stepped=at_step(5, kill))
    # Nothing is lost before there is something in its place.
    assert json.loads((tmp_path / "config.json").read_text())["validation"]["step"] == best
    assert train(tmp_path, CONFIG, keeping=Keeping(keep_last=3, resume_from=8))["step"] == best
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, CONFIG, keeping=Keeping(keep_last=3, resume_from=4), stepped=at_step(5, press_ctrl_c))
    assert not list(tmp_path.rglob("config.json"))
    assert not list(tmp_path.rglob("model.safetensors"))
    # Also when the run is started once more, it leaves a best model, which is the one it left before.
    assert train(tmp_path, CONFIG, keeping=keeping)["step"] == best
    assert outcome(tmp_path)[:2] == outcome(undisturbed)[:2]
    # A best model that is older than the state stays.
    before = (tmp_path / "config.json").stat().st_mtime_ns
    train(tmp_path, CONFIG, keeping=Keeping(keep_last=3, resume_from=8))
    assert (tmp_path / "config.json").stat().st_mtime_ns == before
    assert (tmp_path / "last" / "config.json").exists()


def test_a_best_model_that_is_gone_is_not_said_to_be_there(tmp_path):
    # At this rate the first evaluation is the best.
    config = training(steps=8, evaluate_every=2, learning_rate=3.0, warmup_steps=6)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, config, stepped=at_step(5, press_ctrl_c))
    (tmp_path / "config.json").unlink()
    best = train(tmp_path, config)
    assert best["step"] == json.loads((tmp_path / "config.json").read_text())["validation"]["step"] > 4
    assert min(metrics_of(tmp_path), key=lambda line: line["loss"])["step"] <= 4


def test_a_state_that_is_not_there(undisturbed):
    with pytest.raises(CheckpointError, match=re.escape("has no state of step 2; it has those of 4, 6, 8;")):
        train(undisturbed, CONFIG, keeping=Keeping(resume_from=2))
    with pytest.raises(ConfigError, match=r"^--no-resume deletes the state of step 4; leave it or --resume-from out\.$"):
        train(undisturbed, CONFIG, resume=False, keeping=Keeping(resume_from=4))
    assert steps_kept(undisturbed) == [4, 6, 8]


def test_a_state_of_an_older_toolkit_has_no_guard_and_one_of_another_model_does_not_fit(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, CONFIG, stepped=at_step(3, press_ctrl_c))
    state = state_of(tmp_path)
    del state["guard"], state["progress"]["rows_at_once"]
    torch.save(state, tmp_path / STATE_FILE)
    train(tmp_path, CONFIG)
    # Somebody else's program may call its things alike.
    torch.save({**state, "progress": {"step": 3}, "guard": {}}, tmp_path / STATE_FILE)
    with pytest.raises(CheckpointError, match=r"^The state in .* is of another version of the toolkit"):
        train(tmp_path, CONFIG)
    state["model"]["norm.weight"] = torch.zeros(99)
    torch.save(state, tmp_path / STATE_FILE)
    with pytest.raises(CheckpointError, match=r"^The state in .* is of another version of the toolkit, whose models or optimisers differ"):
        train(tmp_path, CONFIG)
