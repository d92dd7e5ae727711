"""One writer a folder: a lock that the system drops with the process that held it, however that ends."""

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

from bltdata.errors import BuildError

LOCK_FILE = ".lock"


@contextlib.contextmanager
def exclusive(folder: Path | str) -> Iterator[None]:
    """A block in which this process alone may write to `folder`, which is made where it doesn't exist.

    Raises:
        BuildError: another process is writing to it.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK_FILE).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BuildError(f"Another process is writing to {folder}; wait until it ends, or choose another folder.") from error
        yield
