"""The finished shards of a build that isn't finished: what the manifest will list, until it does.

A shard counts as finished when it is listed here or in the manifest and is still, to the last bit, what was listed. One that
was published and not listed, because the build was killed in between, is built again.
"""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Self

from bltdata import atomic, config
from bltdata.errors import ConfigError, ShardError
from bltdata.shards.manifest import Manifest
from bltdata.shards.record import ShardRecord

LEDGER_NAME = "built.jsonl"


class Ledger:
    """The ledger of a build; only the folder's one writer may use it."""

    def __init__(self, folder: Path) -> None:
        """Use `Ledger.begin`."""
        self._path = folder / LEDGER_NAME

    @classmethod
    def begin(cls, folder: Path, records: Iterable[ShardRecord]) -> Self:
        """Write a ledger that lists `records` and nothing else."""
        ledger = cls(folder)
        atomic.write_bytes(ledger._path, b"".join(map(_line, records)))
        return ledger

    def add(self, record: ShardRecord) -> None:
        """List a shard that was just published, and wait until that is on the disk."""
        with self._path.open("ab") as file:
            file.write(_line(record))
            file.flush()
            os.fsync(file.fileno())

    def close(self) -> None:
        """Delete the ledger: the manifest is written."""
        self._path.unlink()


def listed_shards(folder: Path) -> dict[str, ShardRecord]:
    """File name -> record of the shards that the manifest of `folder`, or else the ledger, lists."""
    try:
        records: Iterable[ShardRecord] = Manifest.read(folder).shards
    except ShardError:
        records = _read(folder / LEDGER_NAME)
    return {record.file: record for record in records}


def _line(record: ShardRecord) -> bytes:
    return json.dumps(config.to_mapping(record)).encode() + b"\n"


def _read(path: Path) -> list[ShardRecord]:
    records = []
    for line in path.read_bytes().splitlines() if path.exists() else []:
        try:
            records.append(config.from_mapping(ShardRecord, json.loads(line), str(path)))
        except (ValueError, TypeError, AttributeError, ConfigError):
            # The process was killed while it wrote this line: what it would have listed is built again.
            break
    return records
