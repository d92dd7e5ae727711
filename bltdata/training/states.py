"""Which states and models the folder of a run keeps: `training_state.pt`, the last state, and if more are kept, one for each step of those.

The last one is published first. With several, it has two names, and where the file system can, it is still one file.
"""

import contextlib
import json
import shutil
from pathlib import Path
from typing import Any

from bltdata.atomic import PARTIAL_SUFFIX, remove_leftovers
from bltdata.errors import CheckpointError
from bltdata.training.checkpoint import CONFIG_FILE, WEIGHTS_FILE
from bltdata.training.keeping import Keeping
from bltdata.training.metrics import METRICS_FILE, TENSORBOARD_FOLDER, remove_events
from bltdata.training.state_files import (
    STATE_FILE,
    kept_path,
    kept_states,
    publish_again,
    read_state,
    shards_folders,
    shards_of,
    write_state,
)

LAST_FOLDER = "last"
"""The model as it was after the last step, beside the best one."""


def prepare_folder(folder: Path, resume: bool) -> None:
    """Make the folder of a run that begins, or goes on; what a killed one left half written is deleted.

    Args:
        folder: the run's.
        resume: leave the states, models and metrics of the run that is there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for place in (folder, folder / LAST_FOLDER):
        remove_leftovers(place)
    for path in folder.glob(f".training_state-*.shards.*{PARTIAL_SUFFIX}"):
        shutil.rmtree(path)
    if not resume:
        remove_run(folder)


def settle_folder(folder: Path, keeping: Keeping, step: int, shards: str | None, finished: bool) -> None:
    """Bring a folder to what `keeping` asks for, before the run goes on there.

    Args:
        folder: the run's.
        keeping: what it keeps.
        step: that of the state which was read; 0 where the run begins.
        shards: the name of that state's folder with tensors; None where it has none.
        finished: the run won't write another state.
    """
    if step == keeping.resume_from:
        _go_back_to(folder, step)
    if step and keeping.keep_last > 1:
        # A kill may have come between its names; or it is the first that is to be kept.
        _keep_the_last(folder, step)
    if finished:
        # As long as a run goes on, each state does this for those before it.
        remove_surplus(folder, step, shards, keeping.keep_last if keeping.keep_last > 1 else None)


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
    write_state(folder / STATE_FILE, state)
    if keep_last > 1:
        _keep_the_last(folder, step)
    remove_surplus(folder, step, shards_of(state), keep_last)


def remove_surplus(folder: Path, step: int, own: str | None, keep_last: int | None) -> None:
    """Delete the states, with their folders, and the models that there is no need for once the last state is there.

    Args:
        folder: the run's.
        step: the last state's.
        own: the name of the folder with its tensors; None where it has none.
        keep_last: states to keep; None for all but those of later steps.
    """
    kept = kept_states(folder)
    needed = sorted(number for number in kept if number <= step)
    if keep_last is not None:
        needed = needed[-keep_last:] if keep_last > 1 else []
    for number in kept.keys() - set(needed):
        kept[number].unlink(missing_ok=True)
    for shards, number in shards_folders(folder).items():
        if shards.name != own and (number == step or number not in needed):
            shutil.rmtree(shards)
    for models in (folder, folder / LAST_FOLDER):
        if step_of_model(models) > step:
            # The description first: without it nobody takes what is left for a model.
            (models / CONFIG_FILE).unlink(missing_ok=True)
            (models / WEIGHTS_FILE).unlink(missing_ok=True)


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
        if not kept_states(folder):
            _check_no_model(folder)
            return None
        raise CheckpointError(f"{path} is missing, so the run can't go on from it; {way_out(folder)}")
    state, problem = read_state(path)
    if problem:
        raise CheckpointError(f"{path} {problem}; {way_out(folder, but=path)}")
    return state


def _go_back_to(folder: Path, step: int) -> None:
    """Make the kept state of a step the last one."""
    path = kept_path(folder, step)
    # Where it has no file of its own, it is the last one.
    if path.exists():
        publish_again(path, folder / STATE_FILE)


def _keep_the_last(folder: Path, step: int) -> None:
    """Give the last state, that of a step, the name of a kept one as well."""
    publish_again(folder / STATE_FILE, kept_path(folder, step))


def step_of_model(folder: Path) -> int:
    """The step after which a model was saved; 0 where there is none, or none of a run."""
    try:
        about = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
        return int(about["validation"]["step"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def remove_run(folder: Path) -> None:
    """Delete a run's states and models, so that none is taken for that of the run that begins."""
    for path in kept_states(folder).values():
        path.unlink(missing_ok=True)
    for path in shards_folders(folder):
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
    for number, path in sorted(kept_states(folder).items(), reverse=True):
        if path != but and read_state(path)[0] is not None:
            return f"go on from the state of step {number} with --resume-from {number}, or start the run again with --no-resume."
    return "start it again with --no-resume."


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


def _state_since(path: Path, step: int) -> dict[str, Any] | None:
    """The last state, where it is one of a run that went back to a step."""
    state, _ = read_state(path)
    return state if state is not None and state["progress"].get("went_back_to") == step else None


def _state_of_step(folder: Path, step: int) -> dict[str, Any]:
    path = kept_path(folder, step)
    if path.exists():
        state, problem = read_state(path)
        if state is None:
            raise CheckpointError(f"{path} {problem}; {way_out(folder, but=path)}")
        return state
    state, _ = read_state(folder / STATE_FILE)
    if state is not None and state["progress"]["step"] == step:
        return state
    steps = _readable_steps(folder)
    there = f"it has those of {', '.join(map(str, steps))}" if steps else "it has none that can be read"
    raise CheckpointError(f"{folder} has no state of step {step}; {there}; runs keep several with --keep-last.")


def _readable_steps(folder: Path) -> list[int]:
    # One at a time: a state is three times as large as its model.
    states = (read_state(path)[0] for path in (folder / STATE_FILE, *kept_states(folder).values()))
    return sorted({int(state["progress"]["step"]) for state in states if state})
