"""What identifies a run: a state is gone on from by the run that it is of, and by no other."""

import json
from pathlib import Path
from typing import Any

from bltdata.config import to_mapping
from bltdata.errors import CheckpointError
from bltdata.training.config import TrainingConfig
from bltdata.training.keeping import Keeping
from bltdata.training.states import load_state

MAY_DIFFER = ("training.micro_batch_rows",)
"""What a state says of its run and may be another when the run goes on, as the number of processes may: only rounding differs."""


def whole_identity(identity: dict[str, Any], config: TrainingConfig) -> dict[str, Any]:
    """What a state says of its run: all that was given, and the settings."""
    # As JSON gives it back, so that it compares equal to the one in a state.
    whole: dict[str, Any] = json.loads(json.dumps({**identity, "training": to_mapping(config)}))
    return whole


def state_of_run(folder: Path, identity: dict[str, Any], keeping: Keeping) -> dict[str, Any] | None:
    """The state that a run goes on from, its identity read; None where there is none.

    Args:
        folder: the run's.
        identity: what `whole_identity` gives.
        keeping: says which state.

    Raises:
        CheckpointError: the folder's state is damaged or belongs to another run, or there is a model without one.
    """
    state = load_state(folder, keeping.resume_from)
    if state is None:
        return None
    found = json.loads(state["identity"])
    check_identity(folder, found, identity)
    return {**state, "identity": found}


def check_run(folder: Path, identity: dict[str, Any], config: TrainingConfig, keeping: Keeping | None = None) -> None:
    """Refuse a folder that `TrainingRun.run` will refuse, before anything is done there. For the arguments see `TrainingRun`.

    Raises:
        CheckpointError: the folder's state is damaged or belongs to another run.
    """
    state_of_run(folder, whole_identity(identity, config), keeping or Keeping())


def check_identity(folder: Path, found: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Refuse to go on with the state of another run.

    Args:
        folder: the run's, for the error.
        found: everything that fixes the result of the run in the folder, as JSON gives it back.
        wanted: the same of the run that is to go on.

    Raises:
        CheckpointError: they differ.
    """
    there, here = _flatten(found), _flatten(wanted)
    for name in sorted((there.keys() | here.keys()) - set(MAY_DIFFER)):
        if there.get(name) != here.get(name):
            raise CheckpointError(
                f"{folder} holds another run: its {name} is {there.get(name)!r}, this one's is {here.get(name)!r}; "
                "choose another folder, or start over there with --no-resume."
            )


def _flatten(mapping: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in mapping.items():
        flat.update(_flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value})
    return flat
