"""Tensors of a state that are written in parts; `tests/bltmodel/test_sharding.py` has the runs of several processes."""

import errno
import io
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp

from bltdata.errors import BuildError, CheckpointError
from bltdata.training.sharded_states import _Unpickler, listed, read_shards, split
from bltdata.training.state_files import shards_name

TENSORS = {"model/a": torch.arange(6.0).reshape(3, 2), "optimiser/0": torch.ones(4, dtype=torch.bfloat16)}
STATE = {
    "progress": {"step": 3, "metrics": [{"loss": 1.5}]},
    "model": {"a": {"tensor in shards": "model/a"}, "b": torch.zeros(2)},
    "optimiser": {0: {"tensor in shards": "optimiser/0"}},
}


def written(folder: Path) -> dict[str, Any]:
    """A state whose tensors are in a folder of `folder`."""
    path = folder / shards_name(3, "a")
    with pytest.warns(UserWarning, match="assuming the intent is to save in a single process"):
        dcp.save(TENSORS, storage_writer=dcp.FileSystemWriter(path), no_dist=True)
    return {**STATE, "shards": listed(path)}


def error_of(folder: Path, state: dict[str, Any]) -> str:
    with pytest.raises(CheckpointError) as caught:
        read_shards(folder, state, torch.empty)
    return str(caught.value)


def test_tensors_are_put_back(tmp_path):
    state = read_shards(tmp_path, written(tmp_path), torch.empty)
    assert list(state) == list(STATE)
    assert state["progress"] == STATE["progress"]
    assert torch.equal(state["model"]["a"], TENSORS["model/a"])
    assert state["model"]["b"] is STATE["model"]["b"]
    assert state["optimiser"][0].dtype == torch.bfloat16


def test_what_is_whole_stays():
    state = {"model": {"a": torch.ones(2)}, "optimiser": {0: [1, 2]}}
    assert split(state) == (state, {})


def test_the_folder_of_another_run(tmp_path):
    state = written(tmp_path)
    state["model"]["a"] = {"tensor in shards": "model/c"}
    damaged = f"{tmp_path / shards_name(3, 'a')} is damaged, so the run can't go on from it; start it again with --no-resume."
    assert error_of(tmp_path, state) == damaged


def test_a_share_that_another_process_wrote_elsewhere(tmp_path):
    written(tmp_path)
    path = tmp_path / shards_name(3, "a")
    (path / "__0_0.distcp").rename(tmp_path / "on another disk")
    with pytest.raises(
        BuildError, match=r"__0_0\.distcp of another process isn't in .*; choose a folder on a disk that all processes share"
    ):
        listed(path)


@pytest.mark.parametrize(
    ("error", "raised", "message"),
    [
        (torch.OutOfMemoryError("no memory"), torch.OutOfMemoryError, "no memory"),
        (MemoryError(), MemoryError, "^$"),
        (KeyboardInterrupt(), KeyboardInterrupt, "^$"),
        (PermissionError(13, "Permission denied"), CheckpointError, "can't be read \\(Permission denied\\), so"),
        (OSError(errno.EIO, "Input/output error"), CheckpointError, "can't be read \\(Input/output error\\), so"),
        (OSError(errno.EINVAL, "Invalid argument"), CheckpointError, "is damaged, so"),
        (ValueError("nonsense"), CheckpointError, "is damaged, so"),
    ],
)
def test_what_went_wrong_is_what_is_said(tmp_path, monkeypatch, error, raised, message):
    state = written(tmp_path)

    def read_data(*_: Any) -> None:
        raise error

    monkeypatch.setattr(dcp.FileSystemReader, "read_data", read_data)
    with pytest.raises(raised, match=message):
        read_shards(tmp_path, state, torch.empty)


class Code:
    """What runs where it is unpickled."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self._reduced = function, arguments

    def __reduce__(self) -> Any:
        return self._reduced


@pytest.mark.parametrize("function", [os.mkdir, torch.load, dcp.load])
def test_it_runs_no_code(tmp_path, function):
    state = written(tmp_path)
    made = tmp_path / "made by it"
    path = tmp_path / shards_name(3, "a") / ".metadata"
    path.write_bytes(pickle.dumps(Code(function, str(made))))
    assert "is damaged" in error_of(tmp_path, state)
    assert not made.exists()


@pytest.mark.parametrize(
    ("module", "name"),
    [
        # A dot leads from an innocent module to whatever it imports.
        ("torch.distributed.checkpoint.metadata", "os.mkdir"),
        ("torch.distributed.checkpoint.metadata", "os"),
        ("torch.distributed.checkpoint.filesystem", "pickle"),
        ("torch", "load"),
        ("builtins", "eval"),
    ],
)
def test_names_that_metadata_have_no_use_for(module, name):
    with pytest.raises(pickle.UnpicklingError, match="is no part of metadata"):
        _Unpickler(io.BytesIO()).find_class(module, name)
