"""Files of an object store, or of whatever else fsspec serves, behind the methods of a `Path` that folders of shards need.

An object store has no rename, and needs none: an object is there when all of it has arrived, and not before. So a file is made on the
local disk, sent whole, and compared with what arrived. Nothing here asks for credentials: fsspec finds them in the environment.
"""

import contextlib
import fnmatch
import hashlib
import io
import os
import posixpath
import re
import tempfile
import urllib.parse
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from bltdata.address import check_url, is_url
from bltdata.errors import ConfigError
from bltdata.store import StoreFile, asking, open_store, told_size, trouble

_BLOCK_BYTES = 8 << 20
"""Read ahead of who reads a file from its start: few requests, and memory stays flat."""


@dataclass(frozen=True, slots=True)
class RemotePath:
    """A file or folder of a store; `as_path` makes it, and it pickles as its address."""

    url: str
    """`SCHEME://BUCKET/KEY`, without a slash at its end."""

    def __str__(self) -> str:
        """The address."""
        return self.url

    def __truediv__(self, name: str | os.PathLike[str]) -> "RemotePath":
        """What has this name below it."""
        return RemotePath(f"{self.url}/{os.fspath(name)}")

    @property
    def name(self) -> str:
        """The last part."""
        return posixpath.basename(self.url)

    @property
    def parent(self) -> "RemotePath":
        """What it is in."""
        return RemotePath(posixpath.dirname(self.url))

    @property
    def suffix(self) -> str:
        """The ending of its name."""
        return posixpath.splitext(self.name)[1]

    def resolve(self) -> "RemotePath":
        """Itself: addresses mean the same everywhere."""
        return self

    def information(self) -> Mapping[str, Any]:
        """What the store says of a file or folder, such as `size` and `type`.

        Raises:
            FileNotFoundError: there is nothing.
            RemoteError: it can't be asked.
        """
        files, path = self.store()
        with asking(self.url):
            return dict(files.info(path))

    def exists(self) -> bool:
        """Whether there is a file or a folder."""
        try:
            self.information()
        except FileNotFoundError:
            return False
        return True

    def is_file(self) -> bool:
        """Whether there is a file."""
        return self._kind() == "file"

    def is_dir(self) -> bool:
        """Whether there is anything below it."""
        return self._kind() == "directory"

    def size_bytes(self) -> int:
        """Size of the file.

        Raises:
            FileNotFoundError: there is none.
            RemoteError: it can't be asked, or says no size.
        """
        return told_size(self.information(), self.url)

    def read_bytes(self) -> bytes:
        """The whole file, as it was or as it is where somebody replaces it meanwhile: it is asked for once."""
        files, path = self.store()
        with asking(self.url):
            return bytes(files.cat_file(path))

    def read_text(self, encoding: str = "utf-8") -> str:
        """The whole file, as a text."""
        return self.read_bytes().decode(encoding)

    def open(self, mode: str = "rb") -> io.BufferedReader:
        """The file, to be read from its start."""
        assert mode == "rb", "who writes sends a whole file"
        # The backends' own readline is in Python.
        return io.BufferedReader(StoreFile(self.url, cache_type="readahead", block_size=_BLOCK_BYTES), 1 << 20)

    def open_ranges(self) -> BinaryIO:
        """The file, to be read here and there: each read is one request for so many bytes."""
        return StoreFile(self.url, cache_type="none")  # type: ignore[return-value]

    def upload(self, local: Path) -> None:
        """Send a local file, which replaces what is here, and compare it with what arrived.

        Raises:
            RemoteError: it didn't arrive, or not as it was.
        """
        files, path = self.store()
        with asking(self.url):
            files.put_file(str(local), path)
        information = self.information()
        if told_size(information, self.url) != local.stat().st_size or not self._is_equal(local, information):
            raise trouble(self.url, "what arrived is not what was sent")

    def write_bytes(self, data: bytes) -> None:
        """Make `data` the whole file."""
        with published(self) as local:
            local.write_bytes(data)

    def create(self, data: bytes) -> bool:
        """Make `data` the whole file if there is none, and say whether it was made: of several who try, one is told so.

        S3 does this for all who ask (`If-None-Match`), and so do the other big stores. fsspec's default, which small or local stores
        have, looks first and writes then, and two can slip through at once.
        """
        files, path = self.store()
        try:
            with asking(self.url):
                files.pipe_file(path, data, mode="create")
        except FileExistsError:
            return False
        return True

    def unlink(self, missing_ok: bool = False) -> None:
        """Delete the file."""
        files, path = self.store()
        try:
            with asking(self.url):
                files.rm_file(path)
        except FileNotFoundError:
            if not missing_ok:
                raise

    def rmdir(self) -> None:
        """Delete the folder if it is empty; one of an object store is gone with its last file."""
        if self.is_dir() and not self.listing():
            files, path = self.store()
            with asking(self.url):
                files.rmdir(path)

    def listing(self) -> dict[str, int | None]:
        """Name -> size of what is in the folder, in order; None for folders, and nothing at all where there is no such folder."""
        files, path = self.store()
        with asking(self.url):
            try:
                found = files.ls(path, detail=True)
            except FileNotFoundError:
                return {}
        names = {posixpath.basename(entry["name"].rstrip("/")): entry for entry in found if entry["name"].strip("/") != path.strip("/")}
        return {name: names[name]["size"] if names[name]["type"] == "file" else None for name in sorted(names)}

    def iterdir(self) -> Iterator["RemotePath"]:
        """What is in the folder, in order."""
        return (self / name for name in self.listing())

    def glob(self, pattern: str) -> Iterator["RemotePath"]:
        """What is in the folder and has such a name."""
        return (self / name for name in self.listing() if fnmatch.fnmatchcase(name, pattern))

    def find(self, pattern: str | None = None) -> tuple[str, dict[str, Mapping[str, Any]]]:
        """The files below this folder, or those that match a pattern.

        Args:
            pattern: an address with `*`, `?`, `[...]` or `**` that begins with this one.

        Returns:
            The store's own name of this folder, and by the store's own names of the files what it says of each.
        """
        files, path = self.store()
        with asking(self.url):
            found = files.find(path, detail=True) if pattern is None else files.glob(files._strip_protocol(pattern), detail=True)
        return path, {name: dict(entry) for name, entry in found.items() if entry["type"] == "file" and not name.endswith("/")}

    def _kind(self) -> str | None:
        try:
            return str(self.information()["type"])
        except FileNotFoundError:
            return None

    def store(self) -> tuple[Any, str]:
        """The fsspec file system, and the name that it has there.

        Raises:
            ConfigError: nobody knows such addresses, or a package is missing.
        """
        return open_store(self.url)

    def _is_equal(self, local: Path, information: Mapping[str, Any]) -> bool:
        """Whether the file holds what `local` does. Of a file sent in one piece S3 tells the MD5, and else it is read back."""
        if str(information.get("ETag", "")).strip('"') == _digest(local, "md5"):
            return True
        return _digest(self, "blake2b") == _digest(local, "blake2b")


AnyPath = Path | RemotePath
"""A file or folder, of this machine or of a store."""


def as_path(place: "str | os.PathLike[str] | RemotePath") -> AnyPath:
    """A `Path` of a local path, and of what begins with `file://`; a `RemotePath` of any other address.

    Raises:
        ConfigError: the address holds credentials, or was made a `Path` before, which eats one of its slashes.
    """
    if isinstance(place, RemotePath):
        return place
    text = os.fspath(place)
    if not is_url(text):
        path = Path(text)
        first = path.parts[0] if path.parts else ""
        if not isinstance(place, str) and re.fullmatch(r"[a-z][a-z0-9+.-]+:", first) and not Path(first).exists():
            raise ConfigError(f"{text} looks like an address that was made a Path, which eats one of its slashes; give it as a text.")
        return path
    check_url(text)
    if text.startswith("file://"):
        return Path(urllib.parse.unquote(text.removeprefix("file://")))
    return RemotePath(text.rstrip("/"))


def parts_below(path: AnyPath, folder: AnyPath) -> tuple[str, ...] | None:
    """The names on the way from a folder to what lies in it, links followed; none for the folder itself, None for what lies elsewhere.

    >>> parts_below(as_path("s3://bucket/pages/new/shards"), as_path("s3://bucket/pages"))
    ('new', 'shards')
    """
    if isinstance(path, RemotePath) and isinstance(folder, RemotePath):
        rest = f"{path.url}/".removeprefix(f"{folder.url}/")
        return tuple(filter(None, rest.split("/"))) if f"{path.url}/".startswith(f"{folder.url}/") else None
    if isinstance(path, Path) and isinstance(folder, Path):
        path, folder = path.resolve(), folder.resolve()
        return path.relative_to(folder).parts if path.is_relative_to(folder) else None
    return None


@contextlib.contextmanager
def published(path: AnyPath) -> Iterator[Path]:
    """A local file to write to, which is in its place when the block ends well: `path` itself, or a temporary one that is then sent.

    Raises:
        RemoteError: it can't be sent.
    """
    if isinstance(path, Path):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="bltdata-") as folder:
        local = Path(folder) / path.name
        yield local
        path.upload(local)


@contextlib.contextmanager
def parquet_source(path: AnyPath) -> Iterator[Path | BinaryIO]:
    """What Arrow reads the Parquet file at `path` from: a local file by itself, a remote one by ranges."""
    if isinstance(path, Path):
        yield path
    else:
        with path.open_ranges() as file:
            yield file


def size_bytes(path: AnyPath) -> int:
    """Size of a file.

    Raises:
        OSError: there is none, or it can't be asked.
    """
    return path.stat().st_size if isinstance(path, Path) else path.size_bytes()


def file_sizes(folder: AnyPath, names: Iterable[str]) -> dict[str, int]:
    """Name -> size of those of the files that are in a folder; of a remote one by one listing.

    Raises:
        OSError: it can't be asked.
    """
    if isinstance(folder, RemotePath):
        listing = folder.listing()
        return {name: size for name in names if (size := listing.get(name)) is not None}
    sizes = {}
    for name in names:
        path = folder / name
        if path.is_file():
            sizes[name] = path.stat().st_size
    return sizes


def _digest(path: AnyPath, name: str) -> str:
    # MD5 is compared with what the store says, and keeps no secret.
    opened: io.BufferedReader = path.open("rb")
    with opened as file:
        return hashlib.file_digest(file, lambda: hashlib.new(name, usedforsecurity=False)).hexdigest()
