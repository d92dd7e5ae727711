"""Where a command's results go, looked at before the work: what took hours to compute must not be lost to a path that was mistyped."""

import os
from pathlib import Path

from bltdata.errors import ConfigError


def check_file(path: Path | None, what: str) -> None:
    """Refuse a path that no file can be written to.

    Args:
        path: of an option; None where it wasn't given. What is there already will be replaced.
        what: is to be written there, such as `the page`.

    Raises:
        ConfigError: it is a folder, or there can be no file there.
    """
    if path is None:
        return
    if path.is_dir():
        raise ConfigError(f"{path} is a folder; give a file to write {what} to.")
    _check_place(path, what)


def check_folder(path: Path | None, what: str) -> None:
    """Refuse a path that no folder of files can be written to; see `check_file`.

    Raises:
        ConfigError: it is a file, or there can be no folder there.
    """
    if path is None:
        return
    if path.exists() and not path.is_dir():
        raise ConfigError(f"{path} is a file; give a folder to write {what} to.")
    _check_place(path / what, what)


def _check_place(path: Path, what: str) -> None:
    """See that the folders that `path` lies in are there or can be made."""
    nearest = next(parent for parent in path.absolute().parents if parent.exists())
    if not nearest.is_dir():
        raise ConfigError(f"{nearest} is a file, and so {what} can't be written below it; give another path.")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise ConfigError(f"Not allowed to write {what} to {nearest}: check who owns it and its permissions, or give another path.")
