"""What a shard says about itself: one JSON object in its Parquet footer.

It holds the versions, everything the builder said about how the shard was made, and its counts, so that a shard that lost its
manifest still tells what it is. Its own fingerprint guards it; the counts are also compared with Parquet's.
"""

import contextlib
import dataclasses
import json
import math
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bltdata import config
from bltdata.errors import BltError, ConfigError, ShardError
from bltdata.remote import AnyPath, as_path, parquet_source
from bltdata.shards.folder import run_again
from bltdata.shards.schema import ENTROPY_NATS, FORMAT_VERSION, METADATA_KEY, PATCH_LENGTHS, SCHEMA

_DEEPEST_NESTING = 64
_TOO_DEEP = f"it is nested more than {_DEEPEST_NESTING} levels deep"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Footer:
    """A shard's description of itself."""

    format_version: int
    """Version of the columns and of this footer."""
    tool_version: str
    """Version of the package that wrote the shard."""
    metadata: dict[str, Any]
    """What the builder said: entropy model, context policy, patch rule, precision, corpus, fragment."""
    num_documents: int
    """Rows."""
    num_bytes: int
    """Raw bytes, ends of documents not counted."""
    num_patches: int
    """Patches; their lengths sum to `num_bytes + num_documents`."""
    left_out: dict[str, int]
    """Documents of the fragment that are not in the shard, by reason."""

    def encode(self) -> bytes:
        """The JSON text to store under `METADATA_KEY`; equal footers give equal bytes."""
        mapping = config.to_mapping(self)
        mapping["fingerprint"] = config.fingerprint(mapping)
        return json.dumps(mapping, sort_keys=True, allow_nan=False).encode()

    @staticmethod
    def decode(text: bytes, path: AnyPath) -> "Footer":
        """Read what `encode` wrote.

        Raises:
            ShardError: another format version, or a damaged text.
        """
        try:
            mapping = decode_json(text)
            if not isinstance(mapping, dict):
                raise ConfigError(f"The description in {path} is not a table")
            check_format_version(mapping, path)
            fingerprint = mapping.pop("fingerprint", None)
            footer = config.from_mapping(Footer, mapping, f"The description in {path}")
        except ShardError:
            raise
        except ValueError as error:
            raise ShardError(f"{path} is damaged ({_one_line(error)}); delete it and {run_again(path.parent)}.") from error
        if fingerprint != config.fingerprint(mapping):
            raise ShardError(f"{path} is damaged (its description does not match its fingerprint); delete it and {run_again(path.parent)}.")
        return footer


def read_footer(path: AnyPath | str) -> tuple[Footer, pq.FileMetaData]:
    """Read a shard's footer and check it, without reading a row.

    Returns:
        The shard's description, and Parquet's index of its row groups.

    Raises:
        ShardError: the file is missing, damaged, cut short, no shard, or of another format version.
    """
    path = as_path(path)
    with reading(path), parquet_source(path) as source, pq.ParquetFile(source) as file:
        metadata = file.metadata
        text = (metadata.metadata or {}).get(METADATA_KEY)
        if text is None:
            raise ShardError(f"{path} is a Parquet file but no shard: its footer lacks the key {METADATA_KEY.decode()!r}; remove it.")
        footer = Footer.decode(text, path)
        if not file.schema_arrow.equals(SCHEMA):
            raise ShardError(f"{path} is damaged (its columns are not those of a shard); delete it and {run_again(path.parent)}.")
        _check_counts(footer, metadata, path)
    return footer, metadata


def count_values(metadata: pq.FileMetaData, row_group: int) -> tuple[int, int, int]:
    """Documents, raw bytes and patches of a row group, from the footer alone.

    Every document has an entropy for each byte and one more, and no list is empty, so Parquet's value counts are ours.
    """
    group = metadata.row_group(row_group)
    values = {group.column(i).path_in_schema.split(".")[0]: group.column(i).num_values for i in range(group.num_columns)}
    return group.num_rows, values[ENTROPY_NATS] - group.num_rows, values[PATCH_LENGTHS]


def decode_json(text: bytes) -> Any:
    """Read JSON that may be damaged.

    Raises:
        ValueError: it is no JSON, has numbers that JSON hasn't (NaN, infinities), or is nested deeper than anything that we write.
    """
    try:
        value = json.loads(text, parse_constant=_finite, parse_float=_finite)
    except RecursionError as error:
        raise ValueError(_TOO_DEEP) from error
    level = [value] if isinstance(value, (dict, list)) else []
    for _ in range(_DEEPEST_NESTING):
        level = [inner for outer in level for inner in (outer.values() if isinstance(outer, dict) else outer)]
        level = [inner for inner in level if isinstance(inner, (dict, list))]
    if level:
        raise ValueError(_TOO_DEEP)
    return value


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"it has the number {text}, which JSON has not")
    return value


def check_format_version(mapping: dict[str, Any], path: AnyPath) -> None:
    """Raise a `ShardError` unless `mapping`, read from `path`, is of the format version that this tool reads."""
    version = mapping.get("format_version")
    if version != FORMAT_VERSION:
        raise ShardError(
            f"{path} has format version {version!r}, and this tool reads version {FORMAT_VERSION}: "
            f"use the tool that wrote it (version {mapping.get('tool_version', 'unknown')}) or {run_again(path.parent)}."
        )


def escaped(text: str) -> str:
    r"""A text out of a damaged file, fit for a terminal.

    >>> escaped("an \x1b and a line\nfeed")
    'an \\x1b and a line\\nfeed'
    """
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


@contextlib.contextmanager
def reading(path: AnyPath) -> Iterator[None]:
    """Turn whatever goes wrong while the shard at `path` is read into one sentence."""
    try:
        yield
    except BltError:
        raise
    except FileNotFoundError as error:
        raise ShardError(f"The shard {path} is missing; put it back or {run_again(path.parent)}.") from error
    except (pa.ArrowException, OSError, ValueError, LookupError) as error:
        raise ShardError(
            f"{path} cannot be read as a shard ({_one_line(error)}): it is damaged, cut short, or no Parquet file; "
            f"delete it and {run_again(path.parent)}."
        ) from error


def _check_counts(footer: Footer, metadata: pq.FileMetaData, path: AnyPath) -> None:
    counted = [sum(column) for column in zip(*(count_values(metadata, i) for i in range(metadata.num_row_groups)), strict=True)]
    if [footer.num_documents, footer.num_bytes, footer.num_patches] != (counted or [0, 0, 0]):
        raise ShardError(f"{path} is damaged (its counts disagree with its row groups); delete it and {run_again(path.parent)}.")


def _one_line(error: Exception) -> str:
    return escaped((str(error) or type(error).__name__).splitlines()[0].rstrip("."))
