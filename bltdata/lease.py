"""Who may write to a folder of an object store, where no lock goes away with the process that held it.

A lock there is an object that only one process can create, and it must be renewed: one that isn't, for `STALE_SECONDS`, is taken over. Each
holder creates the object with the next number (`.lock-000007`), and nobody ever deletes the one with the highest, so two who find the
same stale lock can't both get the next. No clock is compared with another: whoever finds a lock watches whether it changes.
"""

import contextlib
import dataclasses
import json
import os
import platform
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bltdata.errors import BuildError
from bltdata.remote import RemotePath

LEASE_PREFIX = ".lock-"
RENEW_SECONDS = 10.0
STALE_SECONDS = 45.0
"""Longer than any pause that a process which lives can be expected to make."""

_LOOK_SECONDS = 3.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Holder:
    """What a lock says."""

    machine: str
    """Names the machine since its start, and the container."""
    process: int
    started: str
    """When the process was started, in the machine's own measure: numbers of processes are used again."""
    token: str
    beat: int = 0
    """How often it was renewed."""
    released: bool = False

    def encode(self) -> bytes:
        return json.dumps(dataclasses.asdict(self)).encode()


class Lease:
    """A lock that is held; `hold` gives it.

    Attributes:
        lost: whether another process has taken it over.
    """

    def __init__(self, folder: RemotePath, number: int, holder: _Holder) -> None:
        self.lost = False
        self._folder, self._number, self._holder = folder, number, holder
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._renew, name=f"lease of {folder}", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Refuse to go on without the lock.

        Raises:
            BuildError: another process has taken it over, because this one did not renew it in time.
        """
        if self.lost:
            raise BuildError(
                f"This process was silent for so long that another one took over writing to {self._folder}; what was finished is kept."
            )

    def release(self) -> None:
        """Let others have it at once."""
        self._over.set()
        self._thread.join()
        if not self.lost:
            _path(self._folder, self._number).write_bytes(dataclasses.replace(self._holder, released=True).encode())

    def _renew(self) -> None:
        while not self._over.wait(RENEW_SECONDS):
            # A store that can't be reached for a moment takes nothing away; who finds it taken over says so.
            with contextlib.suppress(OSError):
                if _newest(self._folder) != self._number:
                    self.lost = True
                    return
                self._holder = dataclasses.replace(self._holder, beat=self._holder.beat + 1)
                _path(self._folder, self._number).write_bytes(self._holder.encode())


_held: dict[str, Lease] = {}


@contextlib.contextmanager
def hold(folder: RemotePath, waiting: Callable[[str], None] = lambda text: None) -> Iterator[Lease]:
    """A block in which this process alone writes to `folder`.

    Args:
        folder: of the object store.
        waiting: is told why it takes a while, where another process had the lock and it must be seen whether it lives.

    Raises:
        BuildError: another process is writing to it.
        RemoteError: the store can't be reached.
    """
    lease = _acquire(folder, waiting)
    _held[folder.url] = lease
    try:
        yield lease
    finally:
        del _held[folder.url]
        # A lock that can't be given back is taken over; how the block ended is more worth telling.
        with contextlib.suppress(OSError):
            lease.release()


def check_held(folder: RemotePath | Path) -> None:
    """Refuse to go on writing to a folder whose lock was lost; a local one's can't be.

    Raises:
        BuildError: another process has taken it over.
    """
    lease = _held.get(folder.url) if isinstance(folder, RemotePath) else None
    if lease is not None:
        lease.check()


def _acquire(folder: RemotePath, waiting: Callable[[str], None]) -> Lease:
    machine, started = _machine(), _start_of(os.getpid())
    holder = _Holder(machine=machine, process=os.getpid(), started=started, token=secrets.token_hex(8))
    number = _newest(folder)
    if number:
        _check_abandoned(folder, number, waiting)
    own = _path(folder, number + 1)
    # The second look is for one who was asleep between the first and the creation, while others came, went, and tidied up.
    # What stands there counts, and not what the creation said: an answer that got lost makes a store say that it is there already.
    own.create(holder.encode())
    if _read(own) != holder.encode() or _newest(folder) != number + 1:
        raise _taken(folder)
    for older in _numbers(folder):
        if older <= number:
            _path(folder, older).unlink(missing_ok=True)
    return Lease(folder, number + 1, holder)


def _check_abandoned(folder: RemotePath, number: int, waiting: Callable[[str], None]) -> None:
    """Return if nobody holds the lock of this number any more.

    Raises:
        BuildError: somebody does.
    """
    path = _path(folder, number)
    begin = time.monotonic()
    first = _read(path)
    try:
        holder = _Holder(**json.loads(first))
    except (ValueError, TypeError):
        # Half-written, where a store shows such things: it will be whole soon, or nobody is there.
        holder = _Holder(machine="", process=0, started="", token="")
    if holder.released or _is_dead(holder):
        return
    if _lives_here(holder):
        # This very process may have lost the store before it could give the lock back.
        if holder.process == os.getpid() and folder.url not in _held:
            return
        raise _taken(folder)
    waiting(f"Another process was writing to {folder}; watching for {STALE_SECONDS:.0f} seconds whether it still does.")
    while time.monotonic() - begin < STALE_SECONDS:
        time.sleep(min(_LOOK_SECONDS, STALE_SECONDS))
        if _read(path) != first:
            raise _taken(folder)


def _read(path: RemotePath) -> bytes:
    """A lock, or nothing if a later holder has tidied it up."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def _path(folder: RemotePath, number: int) -> RemotePath:
    return folder / f"{LEASE_PREFIX}{number:06d}"


def _numbers(folder: RemotePath) -> list[int]:
    endings = [name.removeprefix(LEASE_PREFIX) for name in folder.listing() if name.startswith(LEASE_PREFIX)]
    return sorted(int(ending) for ending in endings if ending.isdigit())


def _newest(folder: RemotePath) -> int:
    return max(_numbers(folder), default=0)


def _machine() -> str:
    """Empty where the system doesn't tell: then no process is taken for one of this machine."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{platform.node()} {boot} {os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return ""


def _start_of(process: int) -> str:
    """When a process of this machine was started; empty if there is none, or nobody knows."""
    try:
        # The name, in parentheses, may hold anything.
        state, *others = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        return "" if state == "Z" else others[18]
    except (OSError, IndexError):
        return ""


def _is_dead(holder: _Holder) -> bool:
    return bool(holder.machine) and holder.machine == _machine() and _start_of(holder.process) != holder.started


def _lives_here(holder: _Holder) -> bool:
    return bool(holder.machine) and holder.machine == _machine() and _start_of(holder.process) == holder.started


def _taken(folder: RemotePath) -> BuildError:
    return BuildError(f"Another process is writing to {folder}; wait until it ends, or choose another folder.")
