"""Ctrl-C and SIGTERM that wait for a good moment."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType


@contextlib.contextmanager
def deferred_interrupt() -> Iterator[Callable[[], bool]]:
    """A block in which Ctrl-C and SIGTERM only set a flag, which the yielded function reads.

    A second one interrupts at once. Outside the main thread nothing changes: signals don't arrive there.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    seen = False

    def note(signal_number: int, frame: FrameType | None) -> None:
        nonlocal seen
        if seen:
            raise KeyboardInterrupt
        seen = True

    previous = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: seen
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
