"""Opening a file for reading, decompressed by its ending, with every failure named.

`.gz`, `.bz2` and `.xz` are read by the standard library, `.zst` by Arrow, which, unlike other readers, notices a file that was cut off.
"""

import bz2
import contextlib
import gzip
import io
import lzma
import os
import zlib
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import pyarrow as pa

from bltdata.address import is_url
from bltdata.corpus.paths import printable
from bltdata.errors import CorpusError, RemoteError
from bltdata.remote import RemotePath

_BUFFER_BYTES = 1 << 20
_TYPICAL_RATIO = 3
"""Text shrinks to about a third. A plan weighs compressed files by it: only balance depends on it, no result."""


def _open_zstd(file: BinaryIO) -> Any:
    return pa.CompressedInputStream(pa.PythonFile(file, mode="r"), "zstd")


_DECOMPRESSORS: dict[str, Callable[[BinaryIO], Any]] = {".gz": gzip.open, ".zst": _open_zstd, ".bz2": bz2.open, ".xz": lzma.open}

COMPRESSED_ENDINGS = tuple(_DECOMPRESSORS)


@contextlib.contextmanager
def open_binary(path: str) -> Iterator[BinaryIO]:
    """Open a file, local or remote, for reading its (decompressed) bytes.

    Raises:
        CorpusError: it can't be opened, or, inside the block, it is damaged or cut off.
    """
    with naming_errors(path), _open(path) as file:
        decompress = _DECOMPRESSORS.get(_ending(path))
        if decompress is None:
            yield file
        else:
            # Buffered in C: the decompressors' own readline is many times slower.
            with io.BufferedReader(decompress(file), _BUFFER_BYTES) as stream:
                yield stream


@contextlib.contextmanager
def open_ranges(path: str) -> Iterator[BinaryIO]:
    """Open a file, local or remote, for reading its bytes here and there.

    Raises:
        CorpusError: it can't be opened, or, inside the block, it is damaged or cut off.
    """
    with naming_errors(path), RemotePath(path).open_ranges() if is_url(path) else open(path, "rb") as file:
        yield file


@contextlib.contextmanager
def naming_errors(path: str) -> Iterator[None]:
    """Turn what can go wrong in the block while reading `path` into a CorpusError that names it."""
    try:
        yield
    except RemoteError as error:
        raise CorpusError(str(error)) from error
    except (OSError, EOFError, lzma.LZMAError, zlib.error, pa.ArrowException) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
        advice = "check its permissions" if isinstance(error, PermissionError) else "it may be damaged or cut off"
        raise CorpusError(f"{printable(path)} can't be read: {' '.join(reason.split()).rstrip('.')}; {advice}.") from error


def is_compressed(path: str) -> bool:
    """Whether the bytes of a file are found by reading it from its start only."""
    return _ending(path) in _DECOMPRESSORS


def estimate_raw_bytes(path: str, size_bytes: int) -> int:
    """About how many bytes come out of a file of this size."""
    return size_bytes * _TYPICAL_RATIO if is_compressed(path) else size_bytes


def _open(path: str) -> BinaryIO:
    return RemotePath(path).open() if is_url(path) else open(path, "rb")


def _ending(path: str) -> str:
    return os.path.splitext(path)[1].lower()
