"""The states of a run in progress: `training_state.pt`, the last one, and if more are kept, one for each step of those.

A state is a file that is published whole or not at all, the last one first. With several, it has two names, and where the file system
can, it is still one file. What is shared out among processes (`sharded_states`) is in a folder beside it, which the file names.
"""

import contextlib
import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch

from bltdata.atomic import PARTIAL_SUFFIX, atomic_path
from bltdata.errors import CheckpointError
from bltdata.training.checkpoint import CONFIG_FILE, WEIGHTS_FILE
from bltdata.training.memory import is_out_of_memory
from bltdata.training.metrics import METRICS_FILE, TENSORBOARD_FOLDER, remove_events

STATE_FILE = "training_state.pt"
FORMAT_VERSION = 1

LAST_FOLDER = "last"
"""The model as it was after the last step, beside the best one."""

SHARDS = "shards"
"""What a state has of the folder with its tensors: `folder`, its name, and `files`, name -> size in bytes."""

_NEEDED = ("identity", "progress", "model", "optimiser")


def save_state(folder: Path, step: int, state: dict[str, Any], keep_last: int = 1) -> None:
    """Write the state of a run in progress, and delete those that needn't be kept.

    Args:
        folder: the run's.
        step: the steps taken so far.
        state: tensors, numbers, strings, lists and dicts.
        keep_last: states to keep. One that is of a later step belongs to a future that won't be, and goes too, as do models of later
            steps.

    Raises:
        OSError: it can't be written, because the disk is full, say.
    """
    with atomic_path(folder / STATE_FILE) as temporary, temporary.open("wb") as file:
        # Given a path, torch forgets what the system said.
        try:
            torch.save({"format_version": FORMAT_VERSION, **state}, file)
        except RuntimeError as error:
            raise why_unwritten(error) from None
    if keep_last > 1:
        keep_the_last(folder, step)
    remove_surplus(folder, step, shards_of(state), keep_last)


def remove_surplus(folder: Path, step: int, own: str | None, keep_last: int | None) -> None:
    """Delete the states, with their folders, and the models that there is no need for once the last state is there.

    Args:
        folder: the run's.
        step: the last state's.
        own: the name of the folder with its tensors; None where it has none.
        keep_last: states to keep; None for all but those of later steps.
    """
    kept = _kept_states(folder)
    needed = sorted(number for number in kept if number <= step)
    if keep_last is not None:
        needed = needed[-keep_last:] if keep_last > 1 else []
    for number in kept.keys() - set(needed):
        kept[number].unlink(missing_ok=True)
    for shards, number in _shards_folders(folder).items():
        if shards.name != own and (number == step or number not in needed):
            shutil.rmtree(shards)
    for models in (folder, folder / LAST_FOLDER):
        if step_of_model(models) > step:
            # The description first: without it nobody takes what is left for a model.
            (models / CONFIG_FILE).unlink(missing_ok=True)
            (models / WEIGHTS_FILE).unlink(missing_ok=True)


def shards_of(state: dict[str, Any]) -> str | None:
    """The name of the folder with tensors of a state; None where it has none."""
    return state[SHARDS]["folder"] if SHARDS in state else None


def why_unwritten(error: BaseException) -> BaseException:
    """What the system said where torch couldn't write to a file of Python's: its own error, which comes after that, is of its archive."""
    return error.__context__ if isinstance(error.__context__, OSError) else error


def shards_name(step: int, token: str) -> str:
    """The name of a folder with tensors of the state of a step; with another token it is another folder."""
    return f"training_state-{step:08d}-{token}.shards"


def remove_partial_shards(folder: Path) -> None:
    """Delete what was left of such folders by processes that were killed while they wrote them."""
    for path in folder.glob(f".training_state-*.shards.*{PARTIAL_SUFFIX}"):
        shutil.rmtree(path)


def load_state(folder: Path, resume_from: int | None = None) -> dict[str, Any] | None:
    """Read a state of the run in a folder; None where there is none.

    Args:
        folder: the run's.
        resume_from: the step whose state is wanted; None for the last. It is the last as well where the run went back to that step
            before and came further since: a command that is run again mustn't lose what it did.

    Raises:
        CheckpointError: it isn't there, it is damaged, it is no state, or another version wrote it. The error names the last state
            that can be read, but never is another one read than the one that was asked for. Or there is none, but a trained model.
    """
    path = folder / STATE_FILE
    if resume_from is not None:
        return _state_since(path, resume_from) or _state_of_step(folder, resume_from)
    if not path.exists():
        if not _kept_states(folder):
            _check_no_model(folder)
            return None
        raise CheckpointError(f"{path} is missing, so the run can't go on from it; {way_out(folder)}")
    state, problem = _read(path)
    if problem:
        raise CheckpointError(f"{path} {problem}; {way_out(folder, but=path)}")
    return state


def go_back_to(folder: Path, step: int) -> None:
    """Make the kept state of a step the last one."""
    path = kept_path(folder, step)
    # Where it has no file of its own, it is the last one.
    if path.exists():
        _publish_again(path, folder / STATE_FILE)


def keep_the_last(folder: Path, step: int) -> None:
    """Give the last state, that of a step, the name of a kept one as well."""
    _publish_again(folder / STATE_FILE, kept_path(folder, step))


def step_of_model(folder: Path) -> int:
    """The step after which a model was saved; 0 where there is none, or none of a run."""
    try:
        about = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
        return int(about["validation"]["step"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def remove_run(folder: Path) -> None:
    """Delete a run's states and models, so that none is taken for that of the run that begins."""
    for path in _kept_states(folder).values():
        path.unlink(missing_ok=True)
    for path in _shards_folders(folder):
        shutil.rmtree(path)
    for name in (STATE_FILE, CONFIG_FILE, WEIGHTS_FILE):
        (folder / name).unlink(missing_ok=True)
        (folder / LAST_FOLDER / name).unlink(missing_ok=True)
    remove_events(folder / TENSORBOARD_FOLDER)
    for inner in (LAST_FOLDER, TENSORBOARD_FOLDER):
        # Somebody else's files keep a folder.
        with contextlib.suppress(OSError):
            (folder / inner).rmdir()


def way_out(folder: Path, but: Path | None = None) -> str:
    """What to do when a state can't be read: the end of an error."""
    for number, path in sorted(_kept_states(folder).items(), reverse=True):
        if path != but and _read(path)[0] is not None:
            return f"go on from the state of step {number} with --resume-from {number}, or start the run again with --no-resume."
    return "start it again with --no-resume."


def kept_path(folder: Path, step: int) -> Path:
    """Where the state of a step is, if more than the last one are kept."""
    # Digits that sort by name, too.
    return folder / f"training_state-{step:08d}.pt"


def _check_no_model(folder: Path) -> None:
    """Refuse to begin a run over a model that somebody trained, or copied there."""
    metrics = folder / METRICS_FILE
    if metrics.exists() and not metrics.stat().st_size:
        # A run was begun there, and was killed in its first evaluation, which leaves a model before there is a state.
        return
    for models in (folder, folder / LAST_FOLDER):
        if (models / CONFIG_FILE).exists() or (models / WEIGHTS_FILE).exists():
            raise CheckpointError(
                f"{models} holds a trained model, but there is no state of a run to go on from; choose another folder, or start over there "
                "with --no-resume, which deletes the model."
            )


def _kept_states(folder: Path) -> dict[int, Path]:
    """Step -> file, of the states that have one of their own."""
    numbers = ((path.stem.rpartition("-")[2], path) for path in folder.glob("training_state-*.pt"))
    return {int(number): path for number, path in numbers if number.isdecimal()}


def _shards_folders(folder: Path) -> dict[Path, int]:
    """Folder with tensors -> step."""
    numbers = ((path, path.stem.split("-")) for path in folder.glob("training_state-*-*.shards"))
    return {path: int(parts[1]) for path, parts in numbers if parts[1].isdecimal()}


def _publish_again(path: Path, other: Path) -> None:
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


def _state_since(path: Path, step: int) -> dict[str, Any] | None:
    """The last state, where it is one of a run that went back to a step."""
    state, _ = _read(path)
    return state if state is not None and state["progress"].get("went_back_to") == step else None


def _state_of_step(folder: Path, step: int) -> dict[str, Any]:
    path = kept_path(folder, step)
    if path.exists():
        state, problem = _read(path)
        if state is None:
            raise CheckpointError(f"{path} {problem}; {way_out(folder, but=path)}")
        return state
    state, _ = _read(folder / STATE_FILE)
    if state is not None and state["progress"]["step"] == step:
        return state
    steps = _readable_steps(folder)
    there = f"it has those of {', '.join(map(str, steps))}" if steps else "it has none that can be read"
    raise CheckpointError(f"{folder} has no state of step {step}; {there}; runs keep several with --keep-last.")


def _readable_steps(folder: Path) -> list[int]:
    # One at a time: a state is three times as large as its model.
    states = (_read(path)[0] for path in (folder / STATE_FILE, *_kept_states(folder).values()))
    return sorted({int(state["progress"]["step"]) for state in states if state})


def _read(path: Path) -> tuple[dict[str, Any] | None, str | None]:
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
