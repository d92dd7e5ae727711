"""Who may write to a folder: one process, or jobs that share the work; by locks that the system drops with the process that held them.

The locks are `flock`s, so jobs on several machines need a file system that has them for all machines (NFS 4, Lustre mounted with
`flock`, and most others do). Object stores have none; there a lock is an object that is renewed, see `bltdata.lease`.
"""

import contextlib
import fcntl
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from bltdata.errors import BuildError
from bltdata.lease import hold
from bltdata.remote import AnyPath, RemotePath, as_path

LOCK_FILE = ".lock"
JOBS_FOLDER = ".jobs"

_WAIT_SECONDS = 0.05


@contextlib.contextmanager
def exclusive(folder: AnyPath | str, waiting: Callable[[str], None] = lambda text: None) -> Iterator[None]:
    """A block in which this process alone may write to `folder`, which is made where it doesn't exist.

    Args:
        folder: what is written to.
        waiting: is told why it takes a while to begin, which happens with remote folders only.

    Raises:
        BuildError: another process is writing to it.
    """
    folder = as_path(folder)
    if isinstance(folder, RemotePath):
        with hold(folder, waiting):
            yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK_FILE).open("a") as file:
        if not _locked(file, fcntl.LOCK_EX):
            raise _taken(folder)
        yield


@contextlib.contextmanager
def one_of(folder: AnyPath | str, index: int, count: int) -> Iterator[None]:
    """A block in which this process writes to `folder` as job `index` of `count`, each of which has files of its own.

    Raises:
        BuildError: another process writes to the folder alone, as this job, or as one of another number of jobs; or the folder is
            remote.
    """
    folder = as_path(folder)
    if isinstance(folder, RemotePath):
        raise BuildError(
            f"The jobs of an array can't share the remote folder {folder}, as it has no locks for several; let them share a folder of a "
            "file system and copy it, or run one build with --workers or --engine ray."
        )
    with contextlib.ExitStack() as held:
        with turn(folder):
            lock = held.enter_context((folder / LOCK_FILE).open("a"))
            count_path = folder / JOBS_FOLDER / "count"
            if _locked(lock, fcntl.LOCK_EX):
                # Nobody is at it, and until the turn is over no other job can come.
                count_path.write_text(str(count), encoding="utf-8")
            if not _locked(lock, fcntl.LOCK_SH):
                raise _taken(folder)
            going = count_path.read_text(encoding="utf-8")
            if going != str(count):
                raise BuildError(f"{going} jobs are writing to {folder}, not {count}; give the same count, or wait until they end.")
            own = held.enter_context((folder / JOBS_FOLDER / f"{index:05d}").open("a"))
            if not _locked(own, fcntl.LOCK_EX):
                raise BuildError(f"Another process is job {index} of {count} in {folder} already; wait until it ends.")
        yield


@contextlib.contextmanager
def turn(folder: Path | str, name: str = "turn", waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """A block that no two jobs of `folder` are in at once; the others wait.

    Args:
        folder: what the jobs write to; made where it doesn't exist.
        name: of the block.
        waiting: called once if another job is in it.
    """
    jobs = Path(folder) / JOBS_FOLDER
    jobs.mkdir(parents=True, exist_ok=True)
    with (jobs / name).open("a") as file:
        if not _locked(file, fcntl.LOCK_EX):
            waiting()
            # Not by a call that blocks: Ctrl-C would not end it everywhere.
            while not _locked(file, fcntl.LOCK_EX):
                time.sleep(_WAIT_SECONDS)
        yield


def _locked(file: IO[str], kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _taken(folder: Path) -> BuildError:
    return BuildError(f"Another process is writing to {folder}; wait until it ends, or choose another folder.")
