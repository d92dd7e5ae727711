"""Making a folder of shards so that a run which was stopped, however that happened, goes on where it was.

The plan of a folder is written before its first shard and says what all of them will be; every shard says which plan it belongs to. A
shard that belongs to the plan, was listed, and is still what was listed is finished. The manifest comes last: who finds all shards
listed writes it, so jobs that share the work need not know of each other.
"""

import contextlib
import json
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from bltdata.atomic import remove_leftovers, write_json
from bltdata.config import fingerprint
from bltdata.engines import Engine
from bltdata.engines.share import WHOLE, Share
from bltdata.errors import BuildError, ShardError
from bltdata.lease import check_held
from bltdata.remote import AnyPath, RemotePath, file_sizes
from bltdata.shards import Manifest, ShardRecord, read_metadata
from bltdata.shards.folder import others_in
from bltdata.shards.ledger import Ledger, listed_shards
from bltdata.shards.record import file_checksum
from bltdata.shards.schema import MANIFEST_NAME, PLAN_FILE

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
    folder: AnyPath,
    key: str,
    wanted: Mapping[str, Any],
    differences: Mapping[str, str],
    *,
    decide: Callable[[], Mapping[str, Any]],
    read: Callable[[Mapping[str, Any]], T],
    outdated: Callable[[Mapping[str, Any]], str | None] = lambda plan: None,
    replaced: Callable[[str], None] | None = None,
) -> T:
    """Read the plan in `folder`, or write one; only the folder's one writer may call this.

    A plan that nothing was made by yet may have been a mistake, such as a column that the corpus hasn't; it gives way to another one.

    Args:
        folder: gets `plan.json`.
        key: where the plan has what identifies it.
        wanted: what identifies the plan that is wanted.
        differences: for each key of `wanted`, what an error calls a folder that was begun with another value, e.g. `other settings`.
        decide: the rest of a new plan, such as a threshold that takes time to find; it may say more under `key`, too.
        read: makes of a plan what the caller needs.
        outdated: what else differs from what is wanted now, in the words of `differences`; None if nothing does.
        replaced: is told that another plan gives way to the wanted one; None where other jobs may be at work by it, so that it stays.

    Raises:
        BuildError: the folder has a plan that is damaged, or another one that stays, or shards and no plan.
    """
    path = folder / PLAN_FILE
    if path.exists():
        try:
            plan = json.loads(path.read_text(encoding="utf-8"))
            result = read(plan)
            found = dict(plan.get(key, {}))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise damaged_plan(folder) from error
        others = (said for name, said in differences.items() if fingerprint(found.get(name)) != fingerprint(wanted[name]))
        difference = next(others, None) or outdated(plan)
        if difference is None:
            return result
        _check_replaceable(folder, difference, replaced)
    elif (folder / MANIFEST_NAME).exists() or any(folder.glob("part-*.parquet")):
        raise BuildError(f"{folder} holds shards but no {PLAN_FILE}, so nobody can tell what made them; choose another folder.")
    plan = {key: wanted, **decide()}
    check_held(folder)
    write_json(path, plan)
    return read(plan)


def _check_replaceable(folder: AnyPath, difference: str, replaced: Callable[[str], None] | None) -> None:
    """Refuse to replace a plan by which something was made, or others may be making something."""
    if others_in(folder, lambda name: name == PLAN_FILE):
        raise BuildError(f"{folder} was begun with {difference}; choose another folder, or delete this one to build it anew.")
    if replaced is None:
        raise BuildError(
            f"{folder} was begun with {difference}, and nothing is made yet; choose another folder, or, if no job is at it, "
            "run the command once with --plan-only to begin it anew."
        )
    replaced(f"{folder} was begun with {difference}, and nothing was made yet, so it is begun anew.")


def plan_fingerprint(plan: Mapping[str, Any]) -> str:
    """What the shards of a plan call it, be it that of a build, of a `repatch` or of a conversion.

    Raises:
        KeyError: it is none of these.
    """
    rules = {name: plan[name] for name in ("patch_rule", "source_rules") if name == "patch_rule" or plan.get(name)}
    if "from_arrow" in plan:
        return fingerprint([plan["from_arrow"], rules, plan["fragments"]])
    return fingerprint([plan["identity"], *rules.values()])


def damaged_plan(folder: AnyPath) -> BuildError:
    """The error of a plan that makes no sense."""
    return BuildError(f"{folder / PLAN_FILE} is damaged; choose another folder, or delete this one to build again.")


def finish_shards(
    folder: AnyPath,
    job: Callable[[Item], ShardRecord],
    items: Mapping[str, Item],
    plan: str,
    *,
    engine: Engine,
    reporter: BuildReporter,
    num_bytes: Callable[[list[Item]], float | None],
    publish: Callable[[list[ShardRecord]], Manifest],
    share: Share = WHOLE,
) -> Manifest | None:
    """Make the shards of a share that are missing, and publish the dataset if no other is; for the share's one writer.

    Args:
        folder: gets the shards.
        job: makes the shard of an item; pickles.
        items: file name of each shard -> its item; those of all shares.
        plan: the fingerprint that a shard of this plan has as `plan` in its metadata.
        engine: what runs `job`.
        reporter: who is told how it goes.
        num_bytes: about how many raw bytes items have.
        publish: writes the manifest of the records, which come in the order of `items`.
        share: which shards to make.

    Returns:
        The manifest, or None where shards of other shares are missing.
    """
    ledger = Ledger(folder)
    own = share.of(list(items))
    whole = share.count == 1
    remove_leftovers(folder, None if whole else own)
    remove_leftovers(ledger.folder, None if whole else [ledger.path(name).name for name in own])
    finished = dict(_finished(folder, own, plan))
    missing = {name: items[name] for name in own if name not in finished}
    if finished or not whole:
        which = "" if whole else f" of job {share.index} of {share.count}"
        reporter.said(f"{folder} has {len(finished)} of {len(own)} shards{which} already; {len(missing)} to go.")
    if missing:
        with share.turn(folder):
            ledger.reopen(missing)
    reporter.planned(num_bytes(list(missing.values())))
    # Closed before the lock is given up: then no worker writes any more.
    with contextlib.closing(engine(job, list(missing.values()))) as records:
        for record in records:
            check_held(folder)
            finished[record.file] = record
            ledger.add(record)
            reporter.built(record)
    # A worker that died and was replaced has left its temporary file.
    remove_leftovers(folder, own)
    with share.turn(folder):
        there = finished | _of_others(folder, [name for name in items if name not in finished])
        if len(there) < len(items):
            reporter.said(f"{len(there)} of all {len(items)} shards are made; whichever job makes the last one writes {MANIFEST_NAME}.")
            return None
        check_held(folder)
        manifest = publish([there[name] for name in items])
        ledger.close()
    return manifest


def _finished(folder: AnyPath, names: Collection[str], plan: str) -> Iterator[tuple[str, ShardRecord]]:
    """The shards of this plan that are listed and still what was listed. Anything else under their names is made again."""
    listed = listed_shards(folder, names)
    sizes = file_sizes(folder, listed)
    for name in names:
        record = listed.get(name)
        if record is None or sizes.get(name) != record.size_bytes:
            continue
        with contextlib.suppress(ShardError, FileNotFoundError):
            if _is_unchanged(folder / name, record) and read_metadata(folder / name).get("plan") == plan:
                yield name, record


def _is_unchanged(path: AnyPath, record: ShardRecord) -> bool:
    """Whether a shard of the right size is what was listed.

    The record has the checksum of every bit, so one that flipped on the disk gets into no manifest; and it is compared first, because
    Parquet's reader can crash on what is damaged. A remote shard was compared when it was sent, and stores keep checksums of their own:
    to read all of them back would cost more than many a build has left to do.
    """
    return isinstance(path, RemotePath) or file_checksum(path) == record.checksum


def _of_others(folder: AnyPath, names: Collection[str]) -> dict[str, ShardRecord]:
    """The shards that other jobs list. Their every bit is for those jobs to check; that they are there is checked here, too."""
    listed = listed_shards(folder, names)
    sizes = file_sizes(folder, listed)
    return {name: record for name, record in listed.items() if sizes.get(name) == record.size_bytes}
