"""Asking stores: opening them by fsspec, errors that a user understands, and a file that is read by ranges.

Nothing here asks for credentials: fsspec finds them in the environment. Paths of a store are in `bltdata.remote`.
"""

import contextlib
import errno
import functools
import io
from collections.abc import Iterator, Mapping
from typing import Any

from bltdata.address import check_url, redacted
from bltdata.errors import ConfigError, RemoteError


def open_store(url: str) -> tuple[Any, str]:
    """The fsspec file system of an address, and the address as that names it.

    Raises:
        ConfigError: the address holds credentials, nobody knows such addresses, or a package is missing.
    """
    _checked(url)
    import fsspec

    try:
        # What was listed a moment ago may have changed: others write there too. The instance is fsspec's own, one for all calls.
        files, path = fsspec.core.url_to_fs(url, use_listings_cache=False)
    except ImportError as error:
        scheme = url.partition("://")[0]
        extra = "blt-toolkit[s3]" if scheme in ("s3", "s3a") else f"what fsspec needs for it ({redacted(str(error)).rstrip('.')})"
        raise ConfigError(f"{scheme}:// can't be used, as a package is missing; install {extra} with pip.") from error
    except ValueError as error:
        raise ConfigError(f"{url} can't be used: {redacted(str(error)).rstrip('.')}; check how the address begins.") from error
    return files, path


@contextlib.contextmanager
def asking(url: str) -> Iterator[None]:
    """A block that asks a store and nothing else: whatever goes wrong in it becomes a `RemoteError`.

    Raises:
        RemoteError: but a FileNotFoundError or FileExistsError stays what it is.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise FileNotFoundError(errno.ENOENT, "there is nothing of that name", url) from error
    except FileExistsError as error:
        raise FileExistsError(errno.EEXIST, "it is there already", url) from error
    except RemoteError:
        raise
    except Exception as error:
        # Every backend has errors of its own, many of them no OSError, and some are not even documented.
        reason = " ".join((getattr(error, "strerror", None) or str(error) or type(error).__name__).split()).rstrip(".")
        safe = redacted(reason)
        # A traceback shows the cause's own message.
        raise trouble(url, safe) from (error if safe == reason else None)


class StoreFile(io.RawIOBase):
    """A file of a store to read from, which never ends before its end; `options` are those of fsspec's `open`."""

    def __init__(self, url: str, **options: Any) -> None:
        self._url = url
        files, name = open_store(url)
        with asking(url):
            self._file = files.open(name, "rb", **options)
        self._size = told_size({"size": getattr(self._file, "size", None)}, url)
        self._position = 0

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def tell(self) -> int:
        """Where the next byte is read."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Read there next."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = base + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer, but for what is beyond the end."""
        view = memoryview(buffer).cast("B")
        wanted = min(len(view), self._size - self._position)
        filled = 0
        while filled < wanted:
            with asking(self._url):
                self._file.seek(self._position)
                data = self._file.read(wanted - filled)
            if not data:
                raise trouble(self._url, f"it ended after {self._position:,} of {self._size:,} bytes")
            view[filled : filled + len(data)] = data
            filled += len(data)
            self._position += len(data)
        return filled

    def close(self) -> None:
        """Give the file back."""
        if not self.closed and hasattr(self, "_file"):
            self._file.close()
        super().close()


def told_size(information: Mapping[str, Any], url: str) -> int:
    """The size that a store tells of a file.

    Raises:
        RemoteError: it doesn't.
    """
    size = information.get("size")
    if size is None:
        raise RemoteError(f"{url} can't be read safely: its store doesn't say how long it is; copy it to another place.")
    return int(size)


def trouble(url: str, reason: str) -> RemoteError:
    """The error of a store that can't be used, in one sentence."""
    return RemoteError(f"{url} can't be used: {reason}; check the network and the credentials, then run the same command again.")


@functools.lru_cache(maxsize=256)
def _checked(url: str) -> None:
    check_url(url)
