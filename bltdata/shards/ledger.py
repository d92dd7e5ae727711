"""The finished shards of a build that isn't finished: what the manifest will list, until it does.

Each has a record of its own, written after the shard was published, so that several jobs can write to one folder without a file
that two of them write. A shard counts as finished when it is listed here or in the manifest and is still, to the last bit, what was
listed. One that was published and not listed, because the build was killed in between, is built again.
"""

import contextlib
import json
from collections.abc import Collection, Iterable
from pathlib import Path

from bltdata import atomic, config
from bltdata.errors import ConfigError, ShardError
from bltdata.remote import AnyPath
from bltdata.shards.manifest import Manifest
from bltdata.shards.record import ShardRecord
from bltdata.shards.schema import LEDGER_FOLDER, MANIFEST_NAME


class Ledger:
    """The records of the shards of a build.

    Jobs that share a folder may all add records; `reopen` and `close` are for one at a time.
    """

    def __init__(self, folder: AnyPath) -> None:
        """The ledger of the dataset `folder`, which may have none yet."""
        self._dataset = folder
        self.folder = folder / LEDGER_FOLDER

    def add(self, record: ShardRecord) -> None:
        """List a shard that was just published, and wait until that is on the disk."""
        atomic.write_bytes(self.path(record.file), json.dumps(config.to_mapping(record)).encode() + b"\n")

    def path(self, file: str) -> AnyPath:
        """Where the record of the shard of this name is."""
        return self.folder / f"{Path(file).stem}.json"

    def reopen(self, missing: Collection[str]) -> None:
        """List what the manifest lists, but for the shards that must be made, and take the manifest away: the dataset isn't finished."""
        with contextlib.suppress(ShardError):
            for record in Manifest.read(self._dataset).shards:
                if record.file not in missing and not self.path(record.file).exists():
                    self.add(record)
        for file in missing:
            self.path(file).unlink(missing_ok=True)
        (self._dataset / MANIFEST_NAME).unlink(missing_ok=True)

    def close(self) -> None:
        """Delete the ledger: the manifest is written."""
        if self.folder.is_dir():
            for path in self.folder.iterdir():
                path.unlink()
            self.folder.rmdir()


def listed_shards(folder: AnyPath, files: Iterable[str]) -> dict[str, ShardRecord]:
    """File name -> record of those of `files` that the manifest of `folder`, or else the ledger, lists."""
    try:
        records: Iterable[ShardRecord | None] = Manifest.read(folder).shards
    except ShardError:
        ledger = Ledger(folder)
        records = (_read(ledger.path(file)) for file in files)
    wanted = set(files)
    return {record.file: record for record in records if record is not None and record.file in wanted}


def _read(path: AnyPath) -> ShardRecord | None:
    try:
        return config.from_mapping(ShardRecord, json.loads(path.read_bytes()), str(path))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, AttributeError, ConfigError):
        # Damaged: what it would have listed is built again.
        return None
