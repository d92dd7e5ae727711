from pathlib import Path

import pytest

from bltdata.shards import Manifest, ShardRecord
from bltdata.shards.ledger import Ledger, listed_shards
from bltdata.shards.schema import LEDGER_FOLDER


def name(number: int) -> str:
    return f"part-{number:05}.parquet"


def record(number: int) -> ShardRecord:
    counts = {"num_documents": number, "num_bytes": 10, "num_patches": 3, "size_bytes": 100}
    return ShardRecord(file=name(number), checksum="ab", left_out={"too short": 1}, **counts)


def listed(folder: Path, *numbers: int) -> list[str]:
    found = listed_shards(folder, [name(number) for number in numbers])
    assert all(found[file].file == file for file in found)
    return list(found)


def test_what_is_listed_is_read(tmp_path):
    assert listed(tmp_path, 1, 3) == []
    ledger = Ledger(tmp_path)
    ledger.add(record(3))
    ledger.add(record(1))
    assert listed_shards(tmp_path, [name(1), name(2), name(3)]) == {name(1): record(1), name(3): record(3)}
    assert listed(tmp_path, 1) == [name(1)]
    # Another process lists in the same folder.
    Ledger(tmp_path).add(record(2))
    assert listed(tmp_path, 1, 2, 3) == [name(1), name(2), name(3)]
    ledger.close()
    assert list(tmp_path.iterdir()) == []
    ledger.close()


def test_what_must_be_made_is_listed_no_more(tmp_path):
    ledger = Ledger(tmp_path)
    for number in (1, 2, 3):
        ledger.add(record(number))
    ledger.reopen([name(2), name(7)])
    assert listed(tmp_path, 1, 2, 3, 7) == [name(1), name(3)]


@pytest.mark.parametrize("text", [b"", b'{"file": "part', b"\xff\n", b"[1]\n", b"3\n", b"{}\n", b'{"file": "part-00001.parquet"}'])
def test_a_record_that_is_damaged_lists_nothing(tmp_path, text):
    ledger = Ledger(tmp_path)
    ledger.add(record(1))
    ledger.add(record(2))
    ledger.path(name(1)).write_bytes(text)
    assert listed(tmp_path, 1, 2) == [name(2)]


def test_a_record_under_another_name_lists_nothing(tmp_path):
    ledger = Ledger(tmp_path)
    ledger.add(record(1))
    ledger.path(name(1)).rename(ledger.path(name(2)))
    assert listed(tmp_path, 2) == []


def test_the_manifest_wins(dataset_folder, rows):
    folder: Path = dataset_folder(rows(3), rows(4, seed=1))
    Ledger(folder).add(record(7))
    assert listed(folder, 0, 1, 7) == [name(0), name(1)]
    (folder / "manifest.json").write_text("{")
    assert listed(folder, 0, 1, 7) == [name(7)]


def test_what_the_manifest_lists_is_kept_when_it_is_taken_away(dataset_folder, rows):
    folder: Path = dataset_folder(rows(3), rows(4, seed=1), rows(5, seed=2))
    records = {shard.file: shard for shard in Manifest.read(folder).shards}
    Ledger(folder).reopen([name(1)])
    assert not (folder / "manifest.json").exists()
    assert listed_shards(folder, list(records)) == {name(0): records[name(0)], name(2): records[name(2)]}
    assert (folder / LEDGER_FOLDER).is_dir()
