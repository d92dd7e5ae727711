from pathlib import Path

import pytest

from bltdata.shards import ShardRecord
from bltdata.shards.ledger import LEDGER_NAME, Ledger, listed_shards


def record(number: int) -> ShardRecord:
    counts = {"num_documents": number, "num_bytes": 10, "num_patches": 3, "size_bytes": 100}
    return ShardRecord(file=f"part-{number:05}.parquet", checksum="ab", left_out={"too short": 1}, **counts)


def test_what_is_listed_is_read(tmp_path):
    assert listed_shards(tmp_path) == {}
    ledger = Ledger.begin(tmp_path, [record(3)])
    ledger.add(record(1))
    assert listed_shards(tmp_path) == {"part-00003.parquet": record(3), "part-00001.parquet": record(1)}
    # What is not taken over is not listed any more.
    Ledger.begin(tmp_path, [record(1)]).add(record(2))
    assert list(listed_shards(tmp_path)) == ["part-00001.parquet", "part-00002.parquet"]
    ledger.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("cut", range(1, 120, 13))
def test_a_line_that_is_cut_off_lists_nothing(tmp_path, cut):
    Ledger.begin(tmp_path, [record(1), record(2)])
    path = tmp_path / LEDGER_NAME
    path.write_bytes(path.read_bytes()[:-cut])
    # Only the end of the line may be missing.
    assert list(listed_shards(tmp_path)) == ["part-00001.parquet", "part-00002.parquet"][: 2 if cut == 1 else 1]


def test_the_manifest_wins(dataset_folder, rows):
    folder: Path = dataset_folder(rows(3), rows(4, seed=1))
    Ledger.begin(folder, [record(7)])
    assert list(listed_shards(folder)) == ["part-00000.parquet", "part-00001.parquet"]
    (folder / "manifest.json").write_text("{")
    assert list(listed_shards(folder)) == ["part-00007.parquet"]
