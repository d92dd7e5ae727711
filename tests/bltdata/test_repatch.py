import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from bltdata import repatch
from bltdata.build import BuildConfig, build_shards
from bltdata.corpus import Corpus, open_corpus
from bltdata.errors import BuildError, ConfigError, PatchingError, ShardError
from bltdata.lock import exclusive
from bltdata.patching import PatchRule
from bltdata.patching.sources import SourceRules
from bltdata.repatch import BuildReporter, RepatchConfig, repatch_shards
from bltdata.shards import Manifest, ShardRecord, open_shards, read_metadata
from tests.bltdata.killing import run_killed
from tests.bltdata.small import opinionated_model, random_documents, write_lines

FIRST = PatchRule(threshold=4.4)
SECOND = PatchRule(threshold=4.0, max_length=5)
LEFT = PatchRule(relative_threshold=0.1)


@dataclasses.dataclass(frozen=True)
class Made:
    corpus: Corpus
    model: Path
    shards: Path

    def build(self, rule: PatchRule, folder: Path) -> Manifest:
        return build_shards(self.corpus, self.model, BuildConfig(rule=rule, fragment_bytes=400), folder)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A dataset of five or so shards with documents of the sources `left` and `right`; tests read it and change nothing."""
    folder = tmp_path_factory.mktemp("made")
    opinionated_model(num_layers=1).save(folder / "model")
    specs = []
    for number, source in enumerate(("left", "right")):
        documents = [b"%d " % line + data for line, data in enumerate(random_documents(30, 60, seed=number))]
        path = write_lines(folder / f"{source}.txt", documents)
        specs.append(f"files:{path}#document=line&source={source}")
    made = Made(open_corpus(specs), folder / "model", folder / "shards")
    made.build(FIRST, made.shards)
    return made


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def config(rule: PatchRule = SECOND, **settings: Any) -> RepatchConfig:
    return RepatchConfig(rule=rule, **settings)


@pytest.fixture
def stopped_after(made: Made, tmp_path: Path) -> Callable[[int], Path]:
    """Begins to cut the dataset again, and stops after so many shards."""

    def begin(count: int) -> Path:
        built: list[ShardRecord] = []

        def note(record: ShardRecord) -> None:
            built.append(record)
            if len(built) == count:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            repatch_shards(made.shards, config(), tmp_path / "stopped", reporter=BuildReporter(built=note))
        return tmp_path / "stopped"

    return begin


# -------------------------------------------------------------------------------------------------------- what it makes


@pytest.mark.parametrize(
    "rule", [SECOND, LEFT, PatchRule(scheme="space"), PatchRule(scheme="fixed", stride=4), PatchRule(scheme="byte")], ids=str
)
def test_it_is_what_a_build_would_have_made(made, tmp_path, rule):
    made.build(rule, tmp_path / "built")
    repatch_shards(made.shards, config(rule), tmp_path / "again")
    built, again = contents(tmp_path / "built"), contents(tmp_path / "again")
    plans = [json.loads(files.pop("plan.json")) for files in (built, again)]
    assert again == built
    # The plan says in addition what was cut again.
    assert plans[1].pop("repatch")["dataset"] == Manifest.read(made.shards).fingerprint
    assert plans[0] == plans[1]
    open_shards(tmp_path / "again").verify_checksums()


def test_there_and_back_again(made, tmp_path):
    repatch_shards(made.shards, config(), tmp_path / "there")
    repatch_shards(tmp_path / "there", config(FIRST), tmp_path / "back")
    before, after = contents(made.shards), contents(tmp_path / "back")
    assert {name for name in before if before[name] != after[name]} == {"plan.json"}


def test_workers_make_no_difference(made, tmp_path):
    repatch_shards(made.shards, config(), tmp_path / "one")
    repatch_shards(made.shards, config(), tmp_path / "two", workers=2)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_rules_by_source(made, tmp_path):
    rules = SourceRules(default=SECOND, by_source={"left": LEFT})
    manifest = repatch_shards(made.shards, config(source_rules={"left": LEFT}), tmp_path / "again")
    dataset = open_shards(tmp_path / "again")
    assert manifest == dataset.manifest
    assert SourceRules.from_mapping({"patch_rule": manifest.patch_rule, "source_rules": manifest.source_rules}) == rules
    for old, row in zip(open_shards(made.shards), dataset, strict=True):
        assert (row.doc_id, row.source, row.data, row.nll_nats) == (old.doc_id, old.source, old.data, old.nll_nats)
        assert np.array_equal(row.entropy_nats, old.entropy_nats)
        assert row.patch_lengths.tolist() == rules.rule_for(row.source).lengths(row.data, row.entropy_nats).tolist()
        assert row.num_patches == len(row.patch_lengths)
    assert {row.source for row in dataset} == {"left", "right"}
    assert read_metadata(dataset.paths[0])["source_rules"] == manifest.source_rules
    # Its name isn't that of a dataset with one rule, and a build doesn't take it for its own.
    plain = repatch_shards(made.shards, config(), tmp_path / "plain")
    assert manifest.fingerprint != plain.fingerprint
    with pytest.raises(BuildError, match="was begun with other settings"):
        made.build(SECOND, tmp_path / "again")
    # One rule for all makes a plain dataset of it again.
    repatch_shards(tmp_path / "again", config(), tmp_path / "back")
    assert contents(tmp_path / "back")["manifest.json"] == contents(tmp_path / "plain")["manifest.json"]


def test_calibration_by_source(made, tmp_path):
    said: list[str] = []
    wanted = RepatchConfig(rule=PatchRule(), target_patch_length=2.5, by_source=True)
    manifest = repatch_shards(made.shards, wanted, tmp_path / "again", reporter=BuildReporter(said=said.append))
    assert list(manifest.source_rules) == ["left", "right"]
    assert said[0].startswith("Calibrated on 60 documents (")
    assert " of 2 sources: threshold " in said[0]
    rows = list(open_shards(tmp_path / "again"))
    for source in manifest.source_rules:
        of_source = [row for row in rows if row.source == source]
        assert sum(row.num_bytes + 1 for row in of_source) / sum(row.num_patches for row in of_source) == pytest.approx(2.5, rel=0.02)


def test_calibration_of_all(made, tmp_path):
    said: list[str] = []
    wanted = RepatchConfig(rule=PatchRule(max_length=8), target_patch_length=2.5)
    manifest = repatch_shards(made.shards, wanted, tmp_path / "again", reporter=BuildReporter(said=said.append))
    assert manifest.totals.mean_patch_length == pytest.approx(2.5, rel=0.01)
    assert (manifest.source_rules, manifest.patch_rule["max_length"]) == ({}, 8)
    assert said[0].endswith(f" gives patches of {manifest.totals.mean_patch_length:.3f} bytes.")
    with pytest.raises(PatchingError, match="nearest mean that can be reached"):
        repatch_shards(made.shards, RepatchConfig(rule=PatchRule(), target_patch_length=500.0), tmp_path / "never")
    assert [path.name for path in (tmp_path / "never").iterdir()] == [".lock"]


def test_a_dataset_without_its_plan(dataset_folder, rows, tmp_path):
    folder = dataset_folder(rows(20), rows(20, seed=1), [])
    manifest = repatch_shards(folder, config(), tmp_path / "again")
    for old, row in zip(open_shards(folder), open_shards(tmp_path / "again"), strict=True):
        assert (row.doc_id, row.source, row.data) == (old.doc_id, old.source, old.data)
        assert row.patch_lengths.tolist() == SECOND.lengths(row.data, row.entropy_nats).tolist()
    before = Manifest.read(folder)
    assert manifest.totals.left_out == before.totals.left_out == {"too short": 3}
    assert (manifest.entropy_model, manifest.corpus) == (before.entropy_model, before.corpus)
    # Row groups are those of the old shards.
    for old_path, path in zip(open_shards(folder).paths, open_shards(tmp_path / "again").paths, strict=True):
        assert pq.read_metadata(path).num_row_groups == pq.read_metadata(old_path).num_row_groups
    # A plan that isn't its own changes nothing.
    (folder / "plan.json").write_text(json.dumps({"identity": {"build": {}}, "patch_rule": {}}))
    assert repatch_shards(folder, config(), tmp_path / "other") == manifest


# ----------------------------------------------------------------------------------------------- stopped, damaged, changed


def test_it_goes_on_where_it_stopped(made, tmp_path, stopped_after):
    repatch_shards(made.shards, config(), tmp_path / "undisturbed")
    folder = stopped_after(2)
    assert not (folder / "manifest.json").exists()
    (folder / ".part-00003.parquet.77.tmp").write_bytes(b"half")
    built: list[ShardRecord] = []
    repatch_shards(made.shards, config(), folder, reporter=BuildReporter(built=built.append))
    assert "part-00000.parquet" not in [record.file for record in built]
    assert contents(folder) == contents(tmp_path / "undisturbed")
    # And again there is nothing to do.
    built.clear()
    repatch_shards(made.shards, config(), folder, reporter=BuildReporter(built=built.append))
    assert built == []


def test_a_resumed_run_keeps_its_calibration(made, tmp_path, monkeypatch):
    wanted = RepatchConfig(rule=PatchRule(), target_patch_length=2.5)
    repatch_shards(made.shards, wanted, tmp_path / "again")
    before = contents(tmp_path / "again")
    (tmp_path / "again" / "part-00001.parquet").unlink()
    monkeypatch.setattr(repatch, "calibrate_shards", lambda *_: pytest.fail("it has been calibrated"))
    repatch_shards(made.shards, wanted, tmp_path / "again")
    assert contents(tmp_path / "again") == before


def test_deaths_make_no_difference(made, tmp_path):
    repatch_shards(made.shards, config(), tmp_path / "undisturbed")
    ends = run_killed(
        0, 6, "repatch", "--shards", made.shards, "--threshold", "4.0", "--max-length", "5", "--workers", "1", "--out", tmp_path / "out"
    )
    assert ends[-1] == "exit 0"
    assert contents(tmp_path / "out") == contents(tmp_path / "undisturbed")


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 4
    path.write_bytes(data)


def test_a_damaged_shard_is_refused(made, tmp_path):
    folder = tmp_path / "shards"
    folder.mkdir()
    for name, data in contents(made.shards).items():
        (folder / name).write_bytes(data)
    damage(folder / "part-00001.parquet")
    with pytest.raises(ShardError, match=r"part-00001\.parquet differs from its checksum; delete it and run build-shards again\.$"):
        repatch_shards(folder, config(), tmp_path / "again")
    assert not (tmp_path / "again" / "manifest.json").exists()
    (folder / "part-00001.parquet").unlink()
    with pytest.raises(ShardError, match=r"part-00001\.parquet is missing"):
        repatch_shards(folder, config(), tmp_path / "again")
    (folder / "manifest.json").unlink()
    with pytest.raises(ShardError, match="the build did not finish"):
        repatch_shards(folder, config(), tmp_path / "again")


def test_a_damaged_result_is_made_again(made, tmp_path):
    repatch_shards(made.shards, config(), tmp_path / "again")
    before = contents(tmp_path / "again")
    damage(tmp_path / "again" / "part-00001.parquet")
    repatch_shards(made.shards, config(), tmp_path / "again")
    assert contents(tmp_path / "again") == before


def test_folders_that_hold_something_else(made, tmp_path):
    with pytest.raises(BuildError, match="is the folder of the shards themselves; choose another one"):
        repatch_shards(made.shards, config(), made.shards / ".." / "shards")
    with pytest.raises(BuildError, match="lies in the folder of the shards; choose another one"):
        repatch_shards(made.shards, config(), made.shards / "new")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "todo.txt").write_text("mine")
    with pytest.raises(BuildError, match=r"notes holds other things already \(todo\.txt\)"):
        repatch_shards(made.shards, config(), tmp_path / "notes")
    assert [path.name for path in (tmp_path / "notes").iterdir()] == ["todo.txt"]
    repatch_shards(made.shards, config(), tmp_path / "again")
    for wanted in (config(FIRST), config(source_rules={"left": LEFT}), RepatchConfig(rule=PatchRule(), target_patch_length=2.5)):
        with pytest.raises(BuildError, match="was begun with another rule; choose another folder"):
            repatch_shards(made.shards, wanted, tmp_path / "again")
    repatch_shards(tmp_path / "again", config(), tmp_path / "third")
    with pytest.raises(BuildError, match="was begun with other shards; choose another folder"):
        repatch_shards(made.shards, config(), tmp_path / "third")
    made.build(SECOND, tmp_path / "built")
    with pytest.raises(BuildError, match="was begun with other shards"):
        repatch_shards(made.shards, config(), tmp_path / "built")
    (tmp_path / "again" / "plan.json").write_text("{}")
    with pytest.raises(BuildError, match=r"plan\.json is damaged"):
        repatch_shards(made.shards, config(), tmp_path / "again")
    (tmp_path / "again" / "plan.json").unlink()
    with pytest.raises(BuildError, match=r"holds shards but no plan\.json"):
        repatch_shards(made.shards, config(), tmp_path / "again")
    with exclusive(tmp_path / "fifth"), pytest.raises(BuildError, match="Another process is writing to"):
        repatch_shards(made.shards, config(), tmp_path / "fifth")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rule": PatchRule()}, "The rule 'entropy' has no threshold: give --threshold"),
        ({"rule": PatchRule(threshold=1.0), "target_patch_length": 4.5}, "Both a threshold (1) and a target patch length"),
        ({"rule": PatchRule(scheme="space"), "target_patch_length": 4.5}, "has no threshold to calibrate"),
        ({"rule": FIRST, "by_source": True}, "--by source is given, but nothing to calibrate to"),
        ({"rule": PatchRule(), "target_patch_length": 4.5, "source_rules": {"a": FIRST}}, "Both rules by source and a target"),
    ],
)
def test_settings_that_make_no_sense(settings, message):
    with pytest.raises(ConfigError) as caught:
        RepatchConfig(**settings)
    assert message in str(caught.value)
    assert str(caught.value).endswith(".")


def test_no_workers(made, tmp_path):
    with pytest.raises(ConfigError, match=r"^The number of workers is 0; it must be at least 1\.$"):
        repatch_shards(made.shards, config(), tmp_path / "again", workers=0)
