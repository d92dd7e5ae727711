import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bltdata.errors import ShardError
from bltdata.shards import Manifest, ShardRecord, open_shards, read_record

MakeRows = Callable[..., list[dict[str, Any]]]
MakeDataset = Callable[..., Path]


def record(index: int, **changes: Any) -> ShardRecord:
    values = {
        "num_documents": 2,
        "num_bytes": 10,
        "num_patches": 3,
        "size_bytes": 500,
        "checksum": f"{index:032x}",
        "left_out": {"too short": 1},
    }
    return ShardRecord(file=f"part-{index:05d}.parquet", **(values | changes))


def manifest(*shards: ShardRecord, **changes: Any) -> Manifest:
    settings: dict[str, Any] = {
        "entropy_model": {"fingerprint": "aa"},
        "patch_rule": {"scheme": "fixed", "stride": 4, "threshold": None},
        "entropy_precision": "grid",
        "corpus": {"spec": ["files:here"], "split": None},
    }
    return Manifest.create(**(settings | changes), shards=shards)


def test_a_manifest_is_read_as_written(tmp_path: Path) -> None:
    written = manifest(record(0), record(1, left_out={}), record(2, left_out={"too short": 2, "other split": 5}))
    assert written.write(tmp_path).name == "manifest.json"
    assert Manifest.read(tmp_path) == written
    totals = written.totals
    assert (totals.num_shards, totals.num_documents, totals.num_bytes, totals.num_patches) == (3, 6, 30, 9)
    assert totals.left_out == {"other split": 5, "too short": 3}
    assert totals.mean_patch_length == 36 / 9
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]


def test_the_fingerprint_names_settings_and_contents_not_places() -> None:
    name = manifest(record(0), record(1)).fingerprint
    assert manifest(record(0), record(1), corpus={"spec": ["files:elsewhere"]}).fingerprint == name
    others = [
        manifest(record(1), record(0)),
        manifest(record(0)),
        manifest(record(0), record(1, checksum="ff")),
        manifest(record(0), record(1), patch_rule={"scheme": "fixed", "stride": 5}),
        manifest(record(0), record(1), entropy_model={"fingerprint": "bb"}),
        manifest(record(0), record(1), entropy_precision="float16"),
    ]
    assert len({name, *(other.fingerprint for other in others)}) == 7


def test_rules_by_source(tmp_path: Path) -> None:
    rules = {"thai": {"scheme": "entropy", "threshold": 0.75}}
    written = manifest(record(0), source_rules=rules)
    written.write(tmp_path)
    assert Manifest.read(tmp_path) == written
    assert written.source_rules == rules
    assert len({found.fingerprint for found in (written, manifest(record(0)), manifest(record(0), source_rules={"thai": {}}))}) == 3
    mapping = json.loads((tmp_path / "manifest.json").read_text())
    mapping["source_rules"]["thai"]["threshold"] = 0.5
    (tmp_path / "manifest.json").write_text(json.dumps(mapping))
    with pytest.raises(ShardError, match="was changed after it was written"):
        Manifest.read(tmp_path)


def test_a_manifest_from_before_there_were_rules_by_source(tmp_path: Path) -> None:
    written = manifest(record(0))
    written.write(tmp_path)
    mapping = json.loads((tmp_path / "manifest.json").read_text())
    assert mapping.pop("source_rules") == {}
    (tmp_path / "manifest.json").write_text(json.dumps(mapping))
    assert Manifest.read(tmp_path) == written


def test_the_manifest_can_be_assembled_from_the_shards_alone(dataset_folder: MakeDataset, rows: MakeRows) -> None:
    folder = dataset_folder(rows(10), rows(10, seed=1), [])
    finished = Manifest.read(folder)
    records = [read_record(path) for path in sorted(folder.glob("*.parquet"))]
    assert dataclasses.replace(finished, shards=tuple(records)) == finished
    open_shards(folder).verify_checksums()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(format_version=2), "has format version 2, and this tool reads version 1: use the tool that wrote it"),
        (lambda m: m.pop("format_version"), "has format version None"),
        (lambda m: m.update(patch_rul={}), "run build-shards again: it has an unknown key 'patch_rul'; the nearest is 'patch_rule'"),
        (lambda m: m.pop("totals"), "it lacks the key 'totals'"),
        (lambda m: m.update(entropy_precision="bf16"), "is 'bf16'; it must be one of 'grid', 'float16'"),
        (lambda m: m["shards"][0].update(num_bytes="many"), "must be of type int"),
        (lambda m: m["shards"].pop(), "was changed after it was written"),
        (lambda m: m["shards"][0].update(num_bytes=1), "was changed after it was written"),
        (lambda m: m["shards"][0].update(checksum="00"), "was changed after it was written"),
        (lambda m: m["patch_rule"].update(stride=8), "was changed after it was written"),
        (lambda m: m["shards"][0].update(file="../x.parquet"), "lists the shard '../x.parquet', which is no name of its own"),
        (lambda m: m["shards"].append(m["shards"][0]), "lists the shard 'part-00000.parquet', which is no name of its own"),
    ],
)
def test_a_changed_manifest_is_refused_in_one_sentence(tmp_path: Path, change: Callable[[dict[str, Any]], Any], message: str) -> None:
    path = manifest(record(0), record(1)).write(tmp_path)
    mapping = json.loads(path.read_text())
    change(mapping)
    path.write_text(json.dumps(mapping))
    with pytest.raises(ShardError, match=message) as error:
        Manifest.read(tmp_path)
    assert "manifest.json" in str(error.value)
    assert "\n" not in str(error.value)
    assert str(error.value).endswith(".")


@pytest.mark.parametrize(("text", "message"), [("{", "is not valid JSON"), ("[]", "is no manifest"), ("\xff", "is not valid JSON")])
def test_a_file_that_is_no_manifest(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "manifest.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ShardError, match=message):
        Manifest.read(tmp_path)


def test_a_manifest_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").mkdir()
    with pytest.raises(ShardError, match=r"Cannot read .*manifest.json: Is a directory"):
        Manifest.read(tmp_path)
