"""Finding the files of a corpus in an object store, or in whatever else fsspec serves, and knowing them again."""

import glob
import posixpath
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from bltdata.address import check_url
from bltdata.corpus.paths import FileEntry, FileSet, fixed_part, key_name, printable
from bltdata.errors import CorpusError, RemoteError
from bltdata.remote import RemotePath

_VERSIONS = ("ETag", "etag", "md5Hash", "LastModified", "last_modified", "Last-Modified", "mtime", "modified", "updated", "created")
"""What stores call an ETag or a time of change, the best first."""


def find_remote_files(location: str, endings: tuple[str, ...] = ()) -> FileSet:
    """List the files that an address stands for, as `find_files` does for a path.

    Args:
        location: the address of a file; of a folder, which stands for every file below it; or a pattern with `*`, `?`, `[...]` and
            `**`. In folders and patterns names that begin with a dot aren't meant.
        endings: in a folder, take files with these endings only.

    Raises:
        ConfigError: the address holds credentials, or no package knows its kind.
        CorpusError: nothing is there, or it can't be listed.
    """
    check_url(location)
    try:
        folder, entries = _matching(location) if glob.has_magic(location) else _below(location, endings)
    except (RemoteError, FileNotFoundError) as error:
        raise CorpusError(str(error) if isinstance(error, RemoteError) else _nothing(location, endings)) from error
    if not entries:
        raise CorpusError(_nothing(location, endings))
    return FileSet(folder.url, tuple(sorted(entries, key=lambda entry: entry.name)))


def check_remote_file(url: str, size_bytes: int | None, version: str | None) -> None:
    """Refuse a file that is not the one that was listed.

    Raises:
        CorpusError: its size or version is another, or it can't be asked.
    """
    try:
        information = RemotePath(url).information()
    except RemoteError as error:
        raise CorpusError(str(error)) from error
    except FileNotFoundError as error:
        raise CorpusError(f"{url} is gone; it was there when the corpus was opened.") from error
    size = information.get("size")
    if size != size_bytes:
        raise CorpusError(f"{url} has {size} bytes, but had {size_bytes} when the corpus was opened; open the corpus again.")
    if _version(information) != version:
        raise CorpusError(f"{url} was written to after the corpus was opened; open the corpus again.")


def _matching(pattern: str) -> tuple[RemotePath, list[FileEntry]]:
    folder = RemotePath(fixed_part(pattern).rstrip("/"))
    if folder.url.endswith(":"):
        raise CorpusError(f"The address {pattern!r} has a wildcard in the name of its bucket or server; spell that out.")
    takes_hidden = "/." in pattern.removeprefix(folder.url)
    return folder, _entries(folder, *folder.find(pattern), takes_hidden=takes_hidden)


def _below(location: str, endings: tuple[str, ...]) -> tuple[RemotePath, list[FileEntry]]:
    place = RemotePath(location.rstrip("/"))
    # A key may be a file and, with a slash after it, a folder too; the slash says which is meant.
    if not location.endswith("/") and place.is_file():
        return place.parent, [_entry(key_name(place.name), place.information(), place.url)]
    entries = _entries(place, *place.find(), takes_hidden=False)
    return place, [entry for entry in entries if not endings or entry.name.lower().endswith(endings)]


def _entries(folder: RemotePath, prefix: str, found: Mapping[str, Mapping[str, Any]], *, takes_hidden: bool) -> list[FileEntry]:
    keys = {name.removeprefix(prefix).lstrip("/"): information for name, information in found.items()}
    return [
        _entry(key_name(key), information, f"{folder}/{key}")
        for key, information in keys.items()
        if takes_hidden or not any(part.startswith(".") for part in key.split("/"))
    ]


def _entry(name: str, information: Mapping[str, Any], url: str) -> FileEntry:
    size = information.get("size")
    if size is None:
        raise CorpusError(f"{url} has a length that its store doesn't say, so nobody would notice if some were missing; copy it.")
    return FileEntry(name, int(size), version=_version(information))


def _version(information: Mapping[str, Any]) -> str | None:
    value = next((information[key] for key in _VERSIONS if information.get(key) is not None), None)
    if isinstance(value, datetime):
        # Listings and single files may have it in different types.
        value = value.timestamp()
    return None if value is None else str(value).strip('"')


def _nothing(location: str, endings: tuple[str, ...]) -> str:
    wanted = f" that ends with {', '.join(endings)}" if endings and not posixpath.splitext(location)[1] else ""
    return f"There is no file{wanted} at {printable(location)!r}; check the address or the pattern."
