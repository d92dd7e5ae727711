"""Finding files, and naming them the same way on every machine.

A name is the path below the corpus's own folder, with `/` between its parts. File names are bytes on Unix and needn't be UTF-8;
names are text that can be written anywhere, and lead back to the file.
"""

import dataclasses
import fnmatch
import glob
import os
import re
import stat
from collections.abc import Container, Iterator, Sequence

from bltdata.address import is_url
from bltdata.errors import CorpusError

_ESCAPE = re.compile(rb"\\(?:(\\)|x([0-9a-f]{2}))")


@dataclasses.dataclass(frozen=True, slots=True)
class FileEntry:
    """A file of a corpus, as it was when the corpus was opened."""

    name: str
    """Its path below the corpus's folder, as `path_name` writes it."""
    size_bytes: int
    modified_ns: int | None = None
    """Time of the last change, in nanoseconds since 1970; None for a remote file."""
    version: str | None = None
    """Of a remote file, what its store changes with it: its ETag, or the time of its last change; None where there is neither."""


@dataclasses.dataclass(frozen=True, slots=True)
class FileSet:
    """The files of a corpus, sorted by name."""

    folder: str
    """Absolute, or an address; names are below it."""
    entries: tuple[FileEntry, ...]

    def path(self, name: str) -> str:
        """The path of the file with this name, or its address."""
        if is_url(self.folder):
            return f"{self.folder}/{remote_key(name)}"
        return os.path.join(self.folder, name_path(name))


def find_files(location: str, endings: tuple[str, ...] = (), skipped_folders: Container[str] = ()) -> FileSet:
    """List the files that a location stands for.

    Args:
        location: a file; a folder, which stands for every file below it; or a pattern with `*`, `?`, `[...]` and `**`. In folders
            and patterns, as in a shell, names that begin with a dot aren't meant. Links are followed, each folder once.
        endings: in a folder, take files with these endings only.
        skipped_folders: in a folder, names of folders below it not to look into.

    Raises:
        CorpusError: nothing is there, or it can't be listed.
    """
    location = os.path.expanduser(location)
    status = _status(location)
    if status is None:
        folder = os.path.abspath(fixed_part(location))
        # A pattern may be relative; what it matches is looked for where it was typed.
        paths = [os.path.abspath(path) for path in glob.glob(location, recursive=True)] if glob.has_magic(location) else None
    elif stat.S_ISDIR(status.st_mode):
        folder = os.path.abspath(location)
        paths = [path for path in _walk(folder, skipped_folders) if not endings or path.lower().endswith(endings)]
    else:
        folder, paths = os.path.dirname(os.path.abspath(location)), [os.path.abspath(location)]
    if paths is None:
        raise CorpusError(
            f"There is no {location!r}; give a file, a folder, a pattern such as 'notes/*.txt', or hf:NAME for a dataset of the hub."
        )
    entries = sorted((entry for path in paths if (entry := _entry(path, folder)) is not None), key=lambda entry: entry.name)
    if not entries:
        wanted = f" that ends with {', '.join(endings)}" if endings else ""
        raise CorpusError(f"There is no file{wanted} in {location!r}; check the path or the pattern.")
    return FileSet(folder, tuple(entries))


def fixed_part(location: str) -> str:
    """The folder that a pattern starts from; a location without wildcards is returned whole.

    >>> fixed_part("pages/2024-*/part-?.txt")
    'pages'
    """
    if not glob.has_magic(location) or os.path.exists(location):
        return location
    parts = location.split(os.sep)
    return os.sep.join(parts[: _first_magic(parts)]) or (os.sep if location.startswith(os.sep) else os.curdir)


def matches(parts: Sequence[str], location: str) -> bool:
    """Whether a pattern finds what has this path below its `fixed_part`.

    >>> matches(["2024", "a.txt"], "pages/**/*.txt"), matches(["2024", "a.txt"], "pages/*.txt"), matches([".new", "a.txt"], "pages/*/*")
    (True, False, False)
    """
    pattern = location.split(os.sep)
    return _matches(parts, pattern[_first_magic(pattern) :])


def _matches(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    if not parts or not pattern:
        return not parts and all(part == "**" for part in pattern)
    if pattern[0] == "**":
        return _matches(parts, pattern[1:]) or (not parts[0].startswith(".") and _matches(parts[1:], pattern))
    is_seen = pattern[0].startswith(".") or not parts[0].startswith(".")
    return is_seen and fnmatch.fnmatchcase(parts[0], pattern[0]) and _matches(parts[1:], pattern[1:])


def _first_magic(parts: Sequence[str]) -> int:
    return next(index for index, part in enumerate(parts) if glob.has_magic(part))


def path_name(path: str) -> str:
    r"""Write a relative path as a name: valid Unicode, and different for different paths.

    Bytes that aren't UTF-8 become `\xNN`, and so that no file name can imitate that, a backslash is doubled.

    >>> path_name(os.fsdecode(b"a/\xff.txt"))
    'a/\\xff.txt'
    """
    data = os.fsencode(path.replace(os.sep, "/")).replace(b"\\", b"\\\\")
    return data.decode("utf-8", "backslashreplace")


def name_path(name: str) -> str:
    """The path that `path_name` wrote as `name`."""
    data = _ESCAPE.sub(lambda match: match[1] or bytes.fromhex(match[2].decode()), name.encode())
    return os.fsdecode(data).replace("/", os.sep)


def key_name(key: str) -> str:
    r"""Write a key of an object store, which is text already, as a name.

    >>> key_name("a\\b.txt"), remote_key(key_name("a\\b.txt")) == "a\\b.txt"
    ('a\\\\b.txt', True)
    """
    return key.replace("\\", "\\\\")


def remote_key(name: str) -> str:
    """The key that `key_name` wrote as `name`."""
    return name.replace("\\\\", "\\")


def printable(text: str) -> str:
    """A text with a path in it, made fit for JSON and messages: what isn't Unicode is spelled out."""
    return os.fsencode(text).decode("utf-8", "backslashreplace")


def _status(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error


def _entry(path: str, folder: str) -> FileEntry | None:
    try:
        status = os.stat(path)
    except OSError as error:
        raise _unreadable(path, error) from error
    if stat.S_ISDIR(status.st_mode):
        return None
    if not stat.S_ISREG(status.st_mode):
        raise CorpusError(f"{printable(path)} is a pipe or a device, which can't be read twice; copy it into a file.")
    return FileEntry(path_name(os.path.relpath(path, folder)), status.st_size, status.st_mtime_ns)


def _walk(folder: str, skipped_folders: Container[str]) -> Iterator[str]:
    seen = set()
    for parent, folders, files in os.walk(folder, followlinks=True, onerror=_raise):
        status = os.stat(parent)
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in skipped_folders)
        yield from (os.path.join(parent, name) for name in files if not name.startswith("."))


def _raise(error: OSError) -> None:
    raise _unreadable(error.filename, error) from error


def _unreadable(path: str, error: Exception) -> CorpusError:
    reason = error.strerror if isinstance(error, OSError) else str(error)
    return CorpusError(f"{printable(path)} can't be read: {reason}; check the path and its permissions.")
