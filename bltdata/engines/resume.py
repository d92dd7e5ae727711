"""Making a folder of shards so that a run which was stopped, however that happened, goes on where it was.

The plan of a folder is written before its first shard and says what all of them will be; every shard says which plan it belongs to. A
shard that belongs to the plan, was listed, and is still what was listed is finished. The manifest comes last.
"""

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from bltdata.atomic import write_json
from bltdata.config import fingerprint
from bltdata.engines.local import run_local
from bltdata.errors import BuildError, ShardError
from bltdata.shards import Manifest, ShardRecord, read_metadata, read_record
from bltdata.shards.ledger import Ledger, listed_shards
from bltdata.shards.schema import MANIFEST_NAME

PLAN_FILE = "plan.json"

Item = TypeVar("Item")
T = TypeVar("T")


@dataclass(frozen=True)
class BuildReporter:
    """Who is told how a build goes. The default tells nobody."""

    said: Callable[[str], None] = lambda text: None
    """A sentence for the user."""

    planned: Callable[[float | None], None] = lambda num_bytes: None
    """About how many raw bytes there are to do, before the first shard; None where nobody knows."""

    built: Callable[[ShardRecord], None] = lambda record: None
    """A shard was finished."""


def agreed_plan(
    folder: Path,
    key: str,
    wanted: Mapping[str, Any],
    differences: Mapping[str, str],
    *,
    decide: Callable[[], Mapping[str, Any]],
    read: Callable[[Mapping[str, Any]], T],
) -> T:
    """Read the plan in `folder`, or write one; only the folder's one writer may call this.

    Args:
        folder: gets `plan.json`.
        key: where the plan has what identifies it.
        wanted: what identifies the plan that is wanted.
        differences: for each key of `wanted`, what an error calls a folder that was begun with another value, e.g. `other settings`.
        decide: the rest of a new plan, such as a threshold that takes time to find.
        read: makes of a plan what the caller needs.

    Raises:
        BuildError: the folder has a plan that is damaged or another one, or shards and no plan.
    """
    path = folder / PLAN_FILE
    if path.exists():
        try:
            plan = json.loads(path.read_text(encoding="utf-8"))
            result = read(plan)
            found = dict(plan.get(key, {}))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BuildError(f"{path} is damaged; choose another folder, or delete this one to build again.") from error
        for name, difference in differences.items():
            if fingerprint(found.get(name)) != fingerprint(wanted[name]):
                raise BuildError(f"{folder} was begun with {difference}; choose another folder, or delete this one to build it anew.")
        return result
    if (folder / MANIFEST_NAME).exists() or any(folder.glob("part-*.parquet")):
        raise BuildError(f"{folder} holds shards but no {PLAN_FILE}, so nobody can tell what made them; choose another folder.")
    plan = {key: wanted, **decide()}
    write_json(path, plan)
    return read(plan)


def finish_shards(
    folder: Path,
    job: Callable[[Item], ShardRecord],
    items: Mapping[str, Item],
    plan: str,
    *,
    workers: int,
    reporter: BuildReporter,
    num_bytes: Callable[[list[Item]], float | None],
    publish: Callable[[list[ShardRecord]], Manifest],
) -> Manifest:
    """Make the shards that are missing, and publish the dataset; only the folder's one writer may call this.

    Args:
        folder: gets the shards.
        job: makes the shard of an item; pickles.
        items: file name of each shard -> its item.
        plan: the fingerprint that a shard of this plan has as `plan` in its metadata.
        workers: processes.
        reporter: who is told how it goes.
        num_bytes: about how many raw bytes items have.
        publish: writes the manifest of the records, which come in the order of `items`.
    """
    finished = dict(_finished(folder, items, plan))
    missing = {name: item for name, item in items.items() if name not in finished}
    if finished:
        reporter.said(f"{folder} has {len(finished)} of {len(items)} shards already; {len(missing)} to go.")
    ledger = Ledger.begin(folder, finished.values())
    if missing:
        # Not finished any more, should a manifest say so.
        (folder / MANIFEST_NAME).unlink(missing_ok=True)
    reporter.planned(num_bytes(list(missing.values())))
    # Closed before the lock is given up: then no worker writes any more.
    with contextlib.closing(run_local(job, list(missing.values()), workers)) as records:
        for record in records:
            finished[record.file] = record
            ledger.add(record)
            reporter.built(record)
    manifest = publish([finished[name] for name in items])
    ledger.close()
    return manifest


def _finished(folder: Path, names: Mapping[str, object], plan: str) -> Iterator[tuple[str, ShardRecord]]:
    """The shards of this plan that are listed and still what was listed. Anything else under their names is made again."""
    listed = listed_shards(folder)
    for name in names:
        record = listed.get(name)
        # The record has the checksum of every bit, so one that flipped on the disk gets into no manifest.
        with contextlib.suppress(ShardError):
            if record is not None and read_metadata(folder / name).get("plan") == plan and read_record(folder / name) == record:
                yield name, record
