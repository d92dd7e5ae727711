"""Processes that may die: a file that crashes the reader costs one answer and not the run.

Parquet's reader is C++, and some damaged footers make it abort. So whatever may be damaged is read in a process of its own,
which is replaced when it dies, is killed when it gives no sign of life, and cannot take more memory than the machine has.
"""

import os
import pickle
import resource
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

Tell = Callable[[int], object]
"""Called by a function that runs apart, with an amount of work that it has done."""

STALL_SECONDS = 600.0
"""A process that hasn't told anything for so long is taken to hang; a row group of a gigabyte is done in a tenth of that."""

_WAKE_SECONDS = 1.0

# Not multiprocessing's own start: that runs the caller's main script once more, which not every script is prepared for.
_CHILD = "import sys; sys.path[:] = sys.argv[2:]; from bltdata.verification.isolation import serve; serve(int(sys.argv[1]))"


@dataclass(frozen=True)
class Lost:
    """What there is instead of a result: the end of the process that should have given it."""

    reason: str
    """Such as `crashed the reader (signal 6)`."""


def run_isolated(
    function: Callable[[Item, Tell], Result], items: Sequence[Item], workers: int, *, tell: Tell, stall_seconds: float = STALL_SECONDS
) -> Iterator[tuple[int, Result | Lost]]:
    """Apply `function` to every item, each in a process that may die.

    Args:
        function: is pickled by its name; gets an item and a function to tell of progress.
        items: what to do.
        workers: processes at a time.
        tell: gets what the functions tell.
        stall_seconds: how long a process may be silent.

    Yields:
        Index and result of each item, as they are finished.

    Raises:
        Exception: what `function` raised first.
    """
    waiting = deque(enumerate(items))
    idle: list[_Worker] = []
    busy: dict[Connection, _Worker] = {}
    try:
        while waiting or busy:
            while waiting and len(busy) < workers:
                worker = idle.pop() if idle else _Worker()
                worker.begin(*waiting.popleft(), function)
                busy[worker.connection] = worker
            ready = wait(list(busy), timeout=_WAKE_SECONDS)
            for connection, worker in list(busy.items()):
                answer = worker.answer(tell) if connection in ready else worker.stalled(stall_seconds)
                if answer is not None:
                    del busy[connection]
                    if worker.is_alive:
                        idle.append(worker)
                    yield worker.index, answer.value
    finally:
        for worker in [*idle, *busy.values()]:
            worker.end()


def serve(descriptor: int) -> None:
    """What a process does: answer until the other end is closed."""
    # Ctrl-C reaches the whole process group; the parent alone decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (memory if hard == resource.RLIM_INFINITY else min(memory, hard), hard))
    connection = Connection(descriptor)
    while True:
        try:
            function, item = connection.recv()
        except EOFError:
            return
        try:
            connection.send(("done", function(item, lambda amount: connection.send(("told", amount)))))
        except MemoryError:
            connection.send(("done", Lost("asks for more memory than this machine has")))
        except BrokenPipeError:
            return
        except Exception as error:
            connection.send(("failed", error))


@dataclass(frozen=True)
class _Answer:
    value: Any


class _Worker:
    """A process, and the item that it is at."""

    def __init__(self) -> None:
        self.connection, theirs = Pipe()
        command = [sys.executable, "-c", _CHILD, str(theirs.fileno()), *sys.path]
        # What a crash prints is not for the user: that it crashed is reported.
        quiet = subprocess.DEVNULL
        self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=quiet, stdout=quiet, stderr=quiet)
        theirs.close()
        self.is_alive = True
        self.index = -1

    def begin(self, index: int, item: object, function: Callable[..., object]) -> None:
        """Hand over an item."""
        self.index, self._heard = index, time.monotonic()
        try:
            self.connection.send((function, item))
        except BrokenPipeError:
            # Reading its answer will tell.
            return

    def answer(self, tell: Tell) -> _Answer | None:
        """Read a message: an answer, a process's last words, or None if it has only told of progress."""
        self._heard = time.monotonic()
        try:
            kind, value = self.connection.recv()
        except (EOFError, OSError, pickle.UnpicklingError):
            self.end()
            code = self._process.returncode
            return _Answer(Lost(f"crashes the reader ({f'signal {-code}' if code < 0 else f'exit code {code}'})"))
        if kind == "told":
            tell(value)
            return None
        if kind == "failed":
            raise value
        return _Answer(value)

    def stalled(self, stall_seconds: float) -> _Answer | None:
        """Kill a process that has been silent for too long."""
        if time.monotonic() - self._heard < stall_seconds:
            return None
        self._process.kill()
        self.end()
        return _Answer(Lost(f"keeps the reader busy for more than {stall_seconds:.0f} seconds"))

    def end(self) -> None:
        """Close the connection and see the process end."""
        self.is_alive = False
        self.connection.close()
        try:
            # It ends by itself when the connection is closed, unless it is still at work.
            self._process.wait(timeout=0.2)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
