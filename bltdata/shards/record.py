"""A shard in a line: what the manifest lists of it."""

import dataclasses
import hashlib
import io
from typing import Any

from bltdata.remote import AnyPath, as_path, size_bytes
from bltdata.shards.footer import Footer, read_footer


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShardRecord:
    """Name, counts and checksum of a finished shard."""

    file: str
    """File name inside the dataset's folder."""
    num_documents: int
    """Rows."""
    num_bytes: int
    """Raw bytes, ends of documents not counted."""
    num_patches: int
    """Patches; their lengths sum to `num_bytes + num_documents`."""
    size_bytes: int
    """Size of the file."""
    checksum: str
    """BLAKE2b of the file, 16 bytes as hex digits."""
    left_out: dict[str, int]
    """Documents of the fragment that are not in the shard, by reason."""


def read_record(path: AnyPath | str) -> ShardRecord:
    """Derive the record of a finished shard from the shard alone; equal to the one its writer gave.

    Raises:
        ShardError: the file is missing, damaged, cut short, no shard, or of another format version. A flipped bit inside a
            page is found by the page's own checksum when the page is read, not here.
    """
    path = as_path(path)
    footer, _ = read_footer(path)
    return make_record(path, path.name, footer)


def read_metadata(path: AnyPath | str) -> dict[str, Any]:
    """What the builder said about how the shard at `path` was made: the `metadata` given to its writer.

    Raises:
        ShardError: as `read_record`.
    """
    return read_footer(path)[0].metadata


def make_record(path: AnyPath, file: str, footer: Footer) -> ShardRecord:
    """The record of the whole shard at `path` (perhaps under a temporary name), to be listed as `file`."""
    return ShardRecord(
        file=file,
        num_documents=footer.num_documents,
        num_bytes=footer.num_bytes,
        num_patches=footer.num_patches,
        size_bytes=size_bytes(path),
        checksum=file_checksum(path),
        left_out=footer.left_out,
    )


def file_checksum(path: AnyPath) -> str:
    """BLAKE2b of a file, 16 bytes as hex digits."""
    opened: io.BufferedReader = path.open("rb")
    with opened as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
