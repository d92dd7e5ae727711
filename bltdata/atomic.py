"""Files, and folders of files, that are either whole or not there.

A file is written under a temporary name in its own folder, flushed to the disk, and renamed; the folder entry is
flushed too. A crash, a full disk or Ctrl-C before the rename leaves the old file, or none, and never half of one.
A remote file is sent whole instead (`bltdata.remote`).
"""

import contextlib
import json
import os
import secrets
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from bltdata.errors import ConfigError
from bltdata.remote import AnyPath, RemotePath, as_path

TEMPORARY_SUFFIX = ".tmp"
PARTIAL_SUFFIX = ".partial"


@contextlib.contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """A temporary path to write to, which becomes `path` when the block ends well and vanishes when it doesn't.

    Raises:
        ConfigError: there can be no file there.
    """
    path = Path(path)
    with _making(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    # Not the process's number alone: writers on two machines can have the same.
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}{TEMPORARY_SUFFIX}")
    try:
        with _making(path):
            temporary.touch()
        # Some writers (safetensors) put a file that only its owner may read in this one's place.
        mode = temporary.stat().st_mode
        yield temporary
        temporary.chmod(mode)
        _flush(temporary)
        os.replace(temporary, path)
        _flush(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def atomic_folder(folder: Path | str) -> Iterator[Path]:
    """A temporary folder to write files to, which becomes `folder` when the block ends well and vanishes when it doesn't.

    Args:
        folder: must not exist or be empty: nothing is ever replaced.

    Raises:
        ConfigError: there is something at `folder`, before the block or after it.
    """
    folder = Path(folder).resolve()
    _check_free(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}{PARTIAL_SUFFIX}")
    temporary.mkdir()
    try:
        yield temporary
        for path in (*temporary.iterdir(), temporary):
            _flush(path)
        _check_free(folder)
        # Takes the place of an empty folder, and of no other.
        os.rename(temporary, folder)
        _flush(folder.parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def write_bytes(path: AnyPath | str, data: bytes) -> None:
    """Write `data` to `path`, whole or not at all."""
    path = as_path(path)
    if isinstance(path, RemotePath):
        path.write_bytes(data)
        return
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_json(path: AnyPath | str, value: Any) -> None:
    """Write `value` as indented JSON to `path`, whole or not at all."""
    write_bytes(path, (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode())


def remove_leftovers(folder: AnyPath | str, files: Collection[str] | None = None) -> None:
    """Delete the temporary files of writers that were killed.

    Args:
        folder: where they are; a remote one has none.
        files: what they would have become, to be written by nobody but the caller; None for all, where the caller is the folder's
            one writer.
    """
    folder = as_path(folder)
    if isinstance(folder, RemotePath):
        return
    for leftover in folder.glob(f".*{TEMPORARY_SUFFIX}"):
        # `.NAME.WRITER.tmp`
        if files is None or leftover.name[1:].removesuffix(TEMPORARY_SUFFIX).rpartition(".")[0] in files:
            leftover.unlink(missing_ok=True)


@contextlib.contextmanager
def _making(path: Path) -> Iterator[None]:
    """A block that makes a file, or the folders that it is to be in; that there are none yet can't be what is wrong."""
    try:
        yield
    except FileNotFoundError as error:
        raise ConfigError(f"Nothing can be written to {path}; give another path.") from error


def _check_free(folder: Path) -> None:
    if folder.exists() and not (folder.is_dir() and next(folder.iterdir(), None) is None):
        what = "isn't empty" if folder.is_dir() else "is a file"
        raise ConfigError(f"{folder} {what}; give a folder that doesn't exist or is empty.")


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
