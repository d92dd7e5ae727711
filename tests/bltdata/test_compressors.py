import bz2
import gzip
import lzma

import pytest
import zstandard

from bltdata.compressors import COMPRESSORS, CompressedSizes, bits_per_raw_byte


def in_one_go(data: bytes) -> dict[str, int]:
    return {
        "gzip": len(gzip.compress(data, 9)),
        "bzip2": len(bz2.compress(data, 9)),
        "xz": len(lzma.compress(data, preset=9 | lzma.PRESET_EXTREME)),
        # In one go, it writes down how much there is.
        "zstd": len(zstandard.ZstdCompressor(level=19, write_content_size=False).compress(data)),
    }


@pytest.mark.parametrize("documents", [[], [b""], [b"once upon a time ", b"", b"once upon a time there was a bear"] * 40])
def test_documents_are_one_file(documents):
    sizes = CompressedSizes()
    for data in documents:
        sizes.add(data)
    assert sizes.finish() == in_one_go(b"".join(documents))


def test_some_of_them():
    assert list(CompressedSizes(["xz"]).finish()) == ["xz"]
    assert CompressedSizes([]).finish() == {}
    assert list(COMPRESSORS) == list(CompressedSizes().finish())


def test_bits_are_those_of_raw_bytes():
    assert bits_per_raw_byte({"gzip": 30, "xz": 20}, 10) == {"gzip": 24.0, "xz": 16.0}
    assert bits_per_raw_byte({"gzip": 30}, 0) == {"gzip": None}
