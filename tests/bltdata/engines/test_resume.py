"""How a run that was stopped goes on: the plan that it keeps to, and the shards that it need not make again."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bltdata.config import to_mapping
from bltdata.engines import open_engine
from bltdata.engines.resume import BuildReporter, agreed_plan, finish_shards
from bltdata.engines.share import WHOLE, Share
from bltdata.errors import BuildError, CorpusError
from bltdata.patching import PatchRule
from bltdata.shards import Manifest, ShardRecord, ShardWriter, open_shards
from bltdata.shards.ledger import Ledger
from bltdata.shards.schema import LEDGER_FOLDER, MANIFEST_NAME, PLAN_FILE, shard_name

RULE = PatchRule(scheme="fixed", stride=2)
ITEMS = {shard_name(index): text for index, text in enumerate([b"first", b"second", b"third"])}

# ------------------------------------------------------------------------------------------------------------ the plan

DIFFERENCES = {"corpus": "another corpus", "build": "other settings"}
WANTED = {"corpus": ["a"], "build": {"fragment_bytes": 10}, "note": "not compared"}


def agree(
    folder: Path, wanted: Mapping[str, Any] = WANTED, decide: Callable[[], Mapping[str, Any]] = lambda: {"threshold": 1.5}, **options: Any
) -> float:
    return agreed_plan(folder, "identity", wanted, DIFFERENCES, decide=decide, read=lambda plan: float(plan["threshold"]), **options)


def refuse() -> Mapping[str, Any]:
    raise AssertionError("it was decided already")


def test_a_plan_is_decided_once(tmp_path: Path) -> None:
    assert agree(tmp_path) == 1.5
    assert json.loads((tmp_path / PLAN_FILE).read_text()) == {"identity": WANTED, "threshold": 1.5}
    assert agree(tmp_path, decide=refuse) == 1.5
    # What is on the disk holds, not what would be decided now; and not what isn't compared.
    assert agree(tmp_path, {**WANTED, "note": "changed"}, lambda: {"threshold": 2.5}) == 1.5


def test_a_plan_that_cannot_be_decided_is_not_begun(tmp_path: Path) -> None:
    def fail() -> Mapping[str, Any]:
        raise CorpusError("The target can't be reached.")

    with pytest.raises(CorpusError):
        agree(tmp_path, decide=fail)
    assert list(tmp_path.iterdir()) == []
    assert agree(tmp_path) == 1.5


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"corpus": ["b"]}, "another corpus"),
        ({"build": {"fragment_bytes": 11}}, "other settings"),
        ({"corpus": ["b"], "build": {}}, "another corpus"),
    ],
)
def test_another_plan_is_named(tmp_path: Path, changes: dict[str, Any], difference: str) -> None:
    agree(tmp_path)
    before = (tmp_path / PLAN_FILE).read_bytes()
    # It may be alone: something was made.
    (tmp_path / shard_name(7)).write_bytes(b"")
    with pytest.raises(BuildError, match=f"was begun with {difference}; choose another folder, or delete this one"):
        agree(tmp_path, {**WANTED, **changes}, refuse, replaced=print)
    assert (tmp_path / PLAN_FILE).read_bytes() == before


@pytest.mark.parametrize("name", [MANIFEST_NAME, shard_name(3), f"{LEDGER_FOLDER}/part-00003.json", "a.arrow", "notes.txt"])
def test_a_plan_by_which_something_may_have_been_made_stays(tmp_path: Path, name: str) -> None:
    agree(tmp_path)
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(BuildError, match=r"was begun with another corpus; choose another folder, or delete this one to build it anew\.$"):
        agree(tmp_path, {**WANTED, "corpus": ["b"]}, refuse, replaced=print)


def test_a_plan_by_which_nothing_was_made_gives_way(tmp_path: Path) -> None:
    agree(tmp_path)
    for name in (".lock", ".lock-000001", f".{shard_name(0)}.77-0a1b.tmp"):
        (tmp_path / name).touch()
    said: list[str] = []
    other = {**WANTED, "corpus": ["b"]}
    assert agree(tmp_path, other, lambda: {"threshold": 2.5}, replaced=said.append) == 2.5
    assert said == [f"{tmp_path} was begun with another corpus, and nothing was made yet, so it is begun anew."]
    assert json.loads((tmp_path / PLAN_FILE).read_text()) == {"identity": other, "threshold": 2.5}
    # From now on it is the plan.
    assert agree(tmp_path, other, refuse, replaced=said.append) == 2.5
    assert agree(tmp_path, other, lambda: {"threshold": 3.5}, outdated=lambda plan: "a file that changed", replaced=said.append) == 3.5
    assert said[1:] == [f"{tmp_path} was begun with a file that changed, and nothing was made yet, so it is begun anew."]


def test_a_plan_is_there_until_the_next_one_is(tmp_path: Path) -> None:
    def fail() -> Mapping[str, Any]:
        raise CorpusError("The target can't be reached.")

    agree(tmp_path)
    with pytest.raises(CorpusError):
        agree(tmp_path, {**WANTED, "corpus": ["b"]}, fail, replaced=lambda text: None)
    assert agree(tmp_path, decide=refuse) == 1.5


def test_a_plan_by_which_others_may_be_at_work_stays(tmp_path: Path) -> None:
    agree(tmp_path)
    with pytest.raises(BuildError, match=r"and nothing is made yet; .* if no job is at it, run the command once with --plan-only to begin"):
        agree(tmp_path, {**WANTED, "corpus": ["b"]}, refuse)
    assert agree(tmp_path, decide=refuse) == 1.5


def test_a_plan_that_lacks_what_is_compared_is_another(tmp_path: Path) -> None:
    (tmp_path / PLAN_FILE).write_text('{"threshold": 1.5}')
    with pytest.raises(BuildError, match="was begun with another corpus"):
        agree(tmp_path)


@pytest.mark.parametrize(
    "text", ["", "{", "[1, 2]", "null", "\xff", '{"identity": {}}', '{"identity": 3, "threshold": 1}', '{"threshold": "x"}']
)
def test_a_damaged_plan(tmp_path: Path, text: str) -> None:
    (tmp_path / PLAN_FILE).write_bytes(text.encode("latin-1"))
    with pytest.raises(BuildError, match=r"plan\.json is damaged; choose another folder, or delete this one to build again"):
        agree(tmp_path)


@pytest.mark.parametrize("name", [MANIFEST_NAME, shard_name(0), shard_name(7)])
def test_shards_without_a_plan_are_left_alone(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"somebody's")
    with pytest.raises(BuildError, match=r"holds shards but no plan\.json, so nobody can tell what made them"):
        agree(tmp_path, decide=refuse)
    assert [path.name for path in tmp_path.iterdir()] == [name]


# ---------------------------------------------------------------------------------------------------------- the shards


class Run:
    """One run of a build in a folder, and what it did."""

    def __init__(self, folder: Path, *, plan: str = "plan 1", stop_at: bytes | None = None, share: Share = WHOLE) -> None:
        self.folder, self.plan, self.stop_at, self.share = folder, plan, stop_at, share
        self.made: list[bytes] = []
        self.said: list[str] = []
        self.planned: list[float | None] = []
        self.built: list[str] = []
        self.listed_while_made: list[list[str]] = []

    def job(self, text: bytes) -> ShardRecord:
        if text == self.stop_at:
            raise CorpusError("The disk is full.")
        assert not (self.folder / MANIFEST_NAME).exists(), "a dataset with a shard missing doesn't look finished"
        self.listed_while_made.append([name for name in ITEMS if Ledger(self.folder).path(name).exists()])
        name = next(name for name, item in ITEMS.items() if item == text)
        with ShardWriter(self.folder / name, {"plan": self.plan}) as writer:
            entropies = np.ones(len(text) + 1, dtype=np.float16)
            lengths = RULE.lengths(text)
            writer.add(doc_id=text.decode(), source="test", data=text, entropy_nats=entropies, patch_lengths=lengths, nll_nats=1.0)
        self.made.append(text)
        return writer.record

    def publish(self, records: list[ShardRecord]) -> Manifest:
        manifest = Manifest.create(
            entropy_model={"fingerprint": "none"}, patch_rule=to_mapping(RULE), entropy_precision="grid", corpus={}, shards=records
        )
        manifest.write(self.folder)
        return manifest

    def __call__(self) -> Manifest | None:
        return finish_shards(
            self.folder,
            self.job,
            ITEMS,
            self.plan,
            share=self.share,
            engine=open_engine("local", 1),
            reporter=BuildReporter(said=self.said.append, planned=self.planned.append, built=lambda record: self.built.append(record.file)),
            num_bytes=lambda texts: float(sum(map(len, texts))),
            publish=self.publish,
        )


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith(".")}


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    Run(tmp_path)()
    return tmp_path


def test_a_run_from_the_start(tmp_path: Path) -> None:
    run = Run(tmp_path)
    manifest = run()
    assert manifest is not None
    assert run.made == list(ITEMS.values())
    assert run.built == [record.file for record in manifest.shards] == list(ITEMS)
    assert (run.said, run.planned) == ([], [16.0])
    # Listed one by one, so that a kill loses no more than the shard under way.
    assert run.listed_while_made == [list(ITEMS)[:count] for count in range(3)]
    assert sorted(contents(tmp_path)) == [MANIFEST_NAME, *ITEMS]
    assert [row.data for row in open_shards(tmp_path)] == list(ITEMS.values())


def test_what_a_worker_left_that_was_killed_and_replaced_is_deleted(tmp_path: Path) -> None:
    class Replaced(Run):
        def job(self, text: bytes) -> ShardRecord:
            (self.folder / f".{shard_name(1)}.123-abcd.tmp").write_bytes(b"PAR1")
            return super().job(text)

    Replaced(tmp_path)()
    assert not list(tmp_path.glob(".*.tmp"))


@pytest.mark.parametrize("stop_at", ITEMS.values())
def test_a_stopped_run_goes_on_and_ends_as_if_it_had_not_stopped(tmp_path: Path, stop_at: bytes) -> None:
    texts = list(ITEMS.values())
    done = texts.index(stop_at)
    stopped = Run(tmp_path / "stopped", stop_at=stop_at)
    stopped.folder.mkdir()
    with pytest.raises(CorpusError, match="The disk is full"):
        stopped()
    assert not (stopped.folder / MANIFEST_NAME).exists()

    again = Run(stopped.folder)
    again()
    assert again.made == texts[done:]
    assert again.planned == [float(sum(map(len, texts[done:])))]
    assert again.said == ([f"{stopped.folder} has {done} of 3 shards already; {3 - done} to go."] if done else [])
    uninterrupted = tmp_path / "uninterrupted"
    uninterrupted.mkdir()
    Run(uninterrupted)()
    assert contents(stopped.folder) == contents(uninterrupted)


def test_a_finished_run_makes_nothing(finished: Path) -> None:
    before = contents(finished)
    again = Run(finished)
    again()
    assert (again.made, again.planned) == ([], [0.0])
    assert contents(finished) == before


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("damage", [flip_a_bit, cut_short, Path.unlink], ids=["flipped bit", "cut short", "deleted"])
def test_a_shard_that_is_not_what_was_listed_is_made_again(finished: Path, damage: Callable[[Path], None]) -> None:
    before = contents(finished)
    damage(finished / shard_name(1))
    again = Run(finished)
    again()
    assert again.made == [b"second"]
    assert contents(finished) == before


def test_a_shard_that_was_not_listed_is_made_again(finished: Path) -> None:
    # As after a kill between publishing the third and listing it; and a disk that lost what lists the second.
    before = contents(finished)
    ledger = Ledger(finished)
    ledger.reopen([shard_name(2)])
    ledger.path(shard_name(1)).write_bytes(b'{"file": ')
    assert not (finished / MANIFEST_NAME).exists()
    again = Run(finished)
    again()
    assert again.made == [b"second", b"third"]
    assert contents(finished) == before


def test_shards_of_another_plan_are_made_again(finished: Path) -> None:
    again = Run(finished, plan="plan 2")
    again()
    assert again.made == list(ITEMS.values())


def test_a_manifest_that_could_not_be_written_leaves_the_shards_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Run(tmp_path)

    def fail(records: list[ShardRecord]) -> Manifest:
        raise OSError("No space left on device")

    monkeypatch.setattr(first, "publish", fail)
    with pytest.raises(OSError, match="No space left"):
        first()
    again = Run(tmp_path)
    manifest = again()
    assert manifest is not None
    assert again.made == []
    assert [record.file for record in manifest.shards] == list(ITEMS)
    assert not (tmp_path / LEDGER_FOLDER).exists()


def test_jobs_that_share_a_folder_make_each_their_own(tmp_path: Path) -> None:
    first = Run(tmp_path / "shared", share=Share(index=0, count=2))
    second = Run(tmp_path / "shared", share=Share(index=1, count=2))
    first.folder.mkdir()
    assert first() is None
    assert "of all 3 shards are made; whichever job makes the last one writes manifest.json" in first.said[-1]
    assert second() is not None
    assert sorted(first.made + second.made) == sorted(ITEMS.values())
    assert first.made
    assert second.made
    alone = tmp_path / "alone"
    alone.mkdir()
    Run(alone)()
    assert contents(first.folder) == contents(alone)
