"""What lies in a folder of shards beside them, which folders shards may be written to, and what a folder is that is no dataset."""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bltdata.atomic import TEMPORARY_SUFFIX
from bltdata.errors import BuildError
from bltdata.lease import LEASE_PREFIX
from bltdata.lock import JOBS_FOLDER, LOCK_FILE
from bltdata.remote import AnyPath, RemotePath, parts_below
from bltdata.shards.schema import LEDGER_FOLDER, MANIFEST_NAME, PLAN_FILE, shard_name

MADE_BY_A_BUILD = (MANIFEST_NAME, PLAN_FILE, shard_name(0), f"{LEDGER_FOLDER}/{Path(shard_name(0)).stem}.json")
"""What a build writes below its folder, one file of each kind."""

_MAKERS = {"repatch": "repatch", "from_arrow": "convert", "to_arrow": "convert", "identity": "build-shards"}
"""What only the plan of one command has; that of `repatch` has an identity as well."""
_MODEL_FILES = ("config.json", "model.safetensors")
_SHARD = re.compile(r"part-\d{5,}\.parquet")
_NUM_SHOWN = 3


def is_lock(name: str) -> bool:
    """Whether a file or folder of this name says who writes, or wrote, to the folder; it is no part of what was written."""
    return name in (LOCK_FILE, JOBS_FOLDER) or name.startswith(LEASE_PREFIX)


def check_out(folder: AnyPath) -> None:
    """Refuse to write shards to a folder that holds something else than a dataset, finished or not.

    One that has a plan or a manifest is ours, whatever its owner has put beside them; whether they are the right ones, and what to do
    about shards without them, is for `bltdata.engines.resume` to say.

    Raises:
        BuildError: it holds something of somebody else's, or is a file.
    """
    if not any((folder / name).exists() for name in (PLAN_FILE, MANIFEST_NAME)):
        check_holds_only(folder, lambda name: name == LEDGER_FOLDER or _SHARD.fullmatch(name) is not None)


def check_holds_only(folder: AnyPath, is_own: Callable[[str], bool]) -> None:
    """Refuse a folder with anything in it but locks, what a killed writer left, and what has a name of our own.

    Args:
        folder: needn't exist.
        is_own: whether a name is.

    Raises:
        BuildError: it has, or is a file.
    """
    if isinstance(folder, Path) and folder.exists() and not folder.is_dir():
        raise BuildError(f"{folder} is a file; give a folder that doesn't exist or is empty.")
    others = others_in(folder, is_own)
    if others:
        shown = ", ".join(others[:_NUM_SHOWN]) + (f" and {len(others) - _NUM_SHOWN:,} more" if len(others) > _NUM_SHOWN else "")
        raise BuildError(f"{folder} holds other things already ({shown}); give a folder that doesn't exist or is empty.")


def others_in(folder: AnyPath, is_own: Callable[[str], bool]) -> list[str]:
    """What is in a folder, if there is one, but locks, what a killed writer left, and what has a name of our own; sorted."""
    names = sorted(path.name for path in folder.iterdir()) if folder.exists() else []
    return [name for name in names if not (is_lock(name) or _is_leftover(name) or is_own(name))]


def maker_of(folder: AnyPath, corpus: Mapping[str, Any] | None = None) -> str:
    """The command that made, or began to make, the shards in a folder.

    Its plan says so. Without one, what the manifest says of the corpus does where it was Arrow files; else it is `build-shards`.
    """
    plan = _plan_keys(folder)
    unsaid = "convert" if "arrow" in (corpus or ()) else "build-shards"
    return next((command for key, command in _MAKERS.items() if key in plan), unsaid)


def run_again(folder: AnyPath, corpus: Mapping[str, Any] | None = None) -> str:
    """What to do to have a shard of a folder made once more, for the end of a sentence; see `maker_of`."""
    return f"run {maker_of(folder, corpus)} again"


def instead_of_dataset(folder: AnyPath) -> str:
    """What a folder without a manifest is, and what to do about it, in one sentence."""
    give = "give the folder that build-shards wrote"
    if folder.is_file():
        its_own = f"give its own, {folder.parent}" if (folder.parent / MANIFEST_NAME).exists() else give
        return f"{folder} is a file, and a dataset is a folder; {its_own}."
    if not folder.exists():
        return f"There is no folder {folder}; {give}." if isinstance(folder, Path) else f"There is nothing at {folder}; check the address."
    names = {path.name for path in folder.iterdir()}
    if PLAN_FILE in names:
        if "to_arrow" in _plan_keys(folder):
            return f"{folder} holds Arrow files and no shards; bltdata convert --arrow makes shards of them."
        return f"{folder} has no {MANIFEST_NAME}: the build did not finish; {run_again(folder)} to resume."
    if any(map(_SHARD.fullmatch, names)):
        return f"{folder} has no {MANIFEST_NAME}: the build did not finish, or not all of it was copied; copy the rest, or build it anew."
    if names.issuperset(_MODEL_FILES):
        return f"{folder} holds a model and no shards; {give}."
    datasets = [name for name in _folders_in(folder) if any((folder / name / own).exists() for own in (MANIFEST_NAME, PLAN_FILE))]
    if datasets:
        which = "the dataset" if len(datasets) == 1 else "the datasets"
        return f"{folder} holds {which} {', '.join(datasets)}; name one of them, such as {folder / datasets[0]}."
    return f"{folder} has no {MANIFEST_NAME}, so it is no dataset; {give}."


def _folders_in(folder: AnyPath) -> list[str]:
    if isinstance(folder, RemotePath):
        return [name for name, size in folder.listing().items() if size is None]
    return sorted(path.name for path in folder.iterdir() if path.is_dir())


def _plan_keys(folder: AnyPath) -> set[str]:
    try:
        plan = json.loads((folder / PLAN_FILE).read_bytes())
    except (OSError, ValueError, RecursionError):
        return set()
    return set(plan) if isinstance(plan, dict) else set()


def check_outside(folder: AnyPath, shards: AnyPath) -> None:
    """Refuse to write to the folder of the shards that are read, or below it.

    Raises:
        BuildError: it is one of these.
    """
    parts = parts_below(folder, shards)
    if parts is not None:
        what = "lies in the folder of the shards" if parts else "is the folder of the shards themselves"
        raise BuildError(f"{folder} {what}; choose another one for what is made of them.")


def _is_leftover(name: str) -> bool:
    """Whether a writer that was killed may have left it."""
    return name.startswith(".") and name.endswith(TEMPORARY_SUFFIX)
