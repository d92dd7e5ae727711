"""A state of a run in progress as a file, `training_state.pt` or one with a step's number, and the folder beside it.

A state is a file that is published whole or not at all. What is shared out among processes (`sharded_states`) is in a folder beside it,
which the file names.
"""

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch

from bltdata.atomic import atomic_path
from bltdata.training.memory import is_out_of_memory

STATE_FILE = "training_state.pt"
FORMAT_VERSION = 1

SHARDS = "shards"
"""What a state has of the folder with its tensors: `folder`, its name, and `files`, name -> size in bytes."""

_NEEDED = ("identity", "progress", "model", "optimiser")


def write_state(path: Path, state: dict[str, Any]) -> None:
    """Publish a state: tensors, numbers, strings, lists and dicts.

    Raises:
        OSError: it can't be written, because the disk is full, say.
    """
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        # Given a path, torch forgets what the system said.
        try:
            torch.save({"format_version": FORMAT_VERSION, **state}, file)
        except RuntimeError as error:
            raise why_unwritten(error) from None


def why_unwritten(error: BaseException) -> BaseException:
    """What the system said where torch couldn't write to a file of Python's: its own error, which comes after that, is of its archive."""
    return error.__context__ if isinstance(error.__context__, OSError) else error


def read_state(path: Path) -> tuple[dict[str, Any] | None, str | None]:
    """A state, or what is wrong with it, as an error goes on after its name."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        if error.errno == errno.EINVAL:
            # What torch says of an archive that is cut short near its beginning.
            return None, "is damaged, so the run can't go on from it"
        return None, f"can't be read ({error.strerror or error})"
    except Exception as error:
        # A sound state must not be called damaged, and then be deleted, because it doesn't fit into memory.
        if is_out_of_memory(error):
            raise
        # Bytes that are no state make the unpickler raise whatever it comes across: KeyError, IndexError, UnicodeDecodeError ...
        return None, "is damaged, so the run can't go on from it"
    if not isinstance(state, dict) or "format_version" not in state:
        return None, "isn't the state of a training run"
    version = state.pop("format_version")
    if not isinstance(version, int):
        return None, "isn't the state of a training run"
    if version != FORMAT_VERSION:
        return None, f"has format version {version}, and this version of the toolkit reads {FORMAT_VERSION}"
    missing = [name for name in _NEEDED if name not in state]
    if missing:
        return None, f"isn't the state of a training run: it has no {missing[0]}"
    if wrong := _of_the_wrong_type(state):
        return None, f"isn't the state of a training run: its {wrong} is something else"
    if SHARDS in state:
        return _with_shards(state, path.parent)
    return state, None


def kept_path(folder: Path, step: int) -> Path:
    """Where the state of a step is, if more than the last one are kept."""
    # Digits that sort by name, too.
    return folder / f"training_state-{step:08d}.pt"


def kept_states(folder: Path) -> dict[int, Path]:
    """Step -> file, of the states that have one of their own."""
    numbers = ((path.stem.rpartition("-")[2], path) for path in folder.glob("training_state-*.pt"))
    return {int(number): path for number, path in numbers if number.isdecimal()}


def shards_of(state: dict[str, Any]) -> str | None:
    """The name of the folder with tensors of a state; None where it has none."""
    return state[SHARDS]["folder"] if SHARDS in state else None


def shards_name(step: int, token: str) -> str:
    """The name of a folder with tensors of the state of a step; with another token it is another folder."""
    return f"training_state-{step:08d}-{token}.shards"


def shards_folders(folder: Path) -> dict[Path, int]:
    """Folder with tensors -> step."""
    numbers = ((path, path.stem.split("-")) for path in folder.glob("training_state-*-*.shards"))
    return {path: int(parts[1]) for path, parts in numbers if parts[1].isdecimal()}


def publish_again(path: Path, other: Path) -> None:
    """Publish a file under another name, unless it has it already."""
    if other.exists() and other.samefile(path):
        return
    with atomic_path(other) as temporary:
        temporary.unlink()
        try:
            os.link(path, temporary)
        except OSError:
            # A file system without links.
            shutil.copyfile(path, temporary)


def _of_the_wrong_type(state: dict[str, Any]) -> str | None:
    """The name of something in a state that a run can't go on from, whatever it is; None where there is nothing."""
    progress, shards = state["progress"], state.get(SHARDS, {"folder": "", "files": {}})
    fits = {
        "identity": isinstance(state["identity"], str) and _is_json_object(state["identity"]),
        "progress": isinstance(progress, dict) and type(progress.get("step")) is int,
        "model": isinstance(state["model"], dict),
        "optimiser": isinstance(state["optimiser"], dict),
        "guard": isinstance(state.get("guard", {}), dict),
        SHARDS: isinstance(shards, dict) and isinstance(shards.get("folder"), str) and isinstance(shards.get("files"), dict),
    }
    return next((name for name, does_fit in fits.items() if not does_fit), None)


def _is_json_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def _with_shards(state: dict[str, Any], folder: Path) -> tuple[dict[str, Any] | None, str | None]:
    """The same where the folder that a state names has the files that it lists."""
    shards = folder / state[SHARDS]["folder"]
    for name, size in state[SHARDS]["files"].items():
        path = shards / name
        if not path.is_file():
            return None, f"needs {path}, which is missing, so the run can't go on from it"
        if path.stat().st_size != size:
            return None, f"needs {path}, which is damaged, so the run can't go on from it"
    return state, None
