"""What general-purpose compressors need for documents: the yardstick beside a model's bits per byte."""

import bz2
import lzma
import zlib
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

import zstandard


class _Compressor(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...

    def flush(self) -> bytes: ...


COMPRESSORS: dict[str, Callable[[], _Compressor]] = {
    "gzip": lambda: zlib.compressobj(9, wbits=31),
    "bzip2": lambda: bz2.BZ2Compressor(9),
    "xz": lambda: lzma.LZMACompressor(preset=9 | lzma.PRESET_EXTREME),
    "zstd": lambda: zstandard.ZstdCompressor(level=19).compressobj(),
}
"""At their strongest common level; each compresses the documents of a source end to end, as one file."""


class CompressedSizes:
    """Counts the bytes that compressors need for documents, end to end, without keeping any.

    Args:
        names: which of `COMPRESSORS` to run.

    >>> sizes = CompressedSizes(["bzip2"])
    >>> sizes.add(b"a" * 1000)
    >>> sizes.add(b"a" * 1000)
    >>> sizes.finish()
    {'bzip2': 45}
    """

    def __init__(self, names: Iterable[str] = tuple(COMPRESSORS)) -> None:
        self._running = {name: COMPRESSORS[name]() for name in names}
        self._sizes = dict.fromkeys(self._running, 0)

    def add(self, data: bytes) -> None:
        """Append a document."""
        for name, compressor in self._running.items():
            self._sizes[name] += len(compressor.compress(data))

    def finish(self) -> dict[str, int]:
        """Compressor -> bytes, the end of its file among them; nothing can be added after it."""
        for name, compressor in self._running.items():
            self._sizes[name] += len(compressor.flush())
        # Some hold hundreds of megabytes.
        self._running = {}
        return self._sizes


def bits_per_raw_byte(sizes: Mapping[str, int], num_bytes: int) -> dict[str, float | None]:
    """Compressor -> bits for a raw byte; None where there are no bytes.

    >>> bits_per_raw_byte({"gzip": 50}, 100)
    {'gzip': 4.0}
    """
    return {name: 8 * size / num_bytes if num_bytes else None for name, size in sizes.items()}
