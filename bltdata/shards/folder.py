"""What lies in a folder of shards beside them, and which folders shards may be written to."""

import re
from collections.abc import Callable
from pathlib import Path

from bltdata.atomic import TEMPORARY_SUFFIX
from bltdata.errors import BuildError
from bltdata.lease import LEASE_PREFIX
from bltdata.lock import JOBS_FOLDER, LOCK_FILE
from bltdata.remote import AnyPath, parts_below
from bltdata.shards.schema import LEDGER_FOLDER, MANIFEST_NAME, PLAN_FILE, shard_name

MADE_BY_A_BUILD = (MANIFEST_NAME, PLAN_FILE, shard_name(0), f"{LEDGER_FOLDER}/{Path(shard_name(0)).stem}.json")
"""What a build writes below its folder, one file of each kind."""

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
