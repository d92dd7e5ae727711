import contextlib
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bltdata.errors import ShardError
from bltdata.shards import ShardWriter, open_shards, read_record, round_entropies, schema

MakeRows = Callable[..., list[dict[str, Any]]]
MakeDataset = Callable[..., Path]


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    data = draw(st.binary(max_size=30))
    cuts = sorted(draw(st.sets(st.integers(1, len(data)), max_size=len(data)))) if data else []
    entropies = draw(st.lists(st.floats(0, 5.5, width=32), min_size=len(data) + 1, max_size=len(data) + 1))
    return {
        "doc_id": draw(st.text(st.characters(exclude_categories=["Cs"]), max_size=5)),
        "source": draw(st.sampled_from(["a", "b", "\N{SNOWMAN}"])),
        "data": data,
        "entropy_nats": round_entropies(np.array(entropies, dtype=np.float32)),
        "patch_lengths": np.diff([0, *cuts, len(data) + 1]).astype(np.uint32),
        "nll_nats": draw(st.floats(0, 1e9)),
    }


def same(row: Any, expected: dict[str, Any]) -> bool:
    counts = {"num_bytes": len(expected["data"]), "num_patches": len(expected["patch_lengths"])}
    arrays = ("entropy_nats", "patch_lengths")
    scalars = {name: row[name] for name in schema.COLUMNS if name not in arrays}
    return scalars == {name: value for name, value in (expected | counts).items() if name not in arrays} and all(
        row[name].dtype == expected[name].dtype and np.array_equal(row[name], expected[name]) for name in arrays
    )


@given(st.lists(documents(), max_size=12), st.integers(1, 60))
@settings(max_examples=60)
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]], row_group_bytes: int) -> None:
    path = tmp_path_factory.mktemp("round-trip") / "part-00000.parquet"
    with ShardWriter(path, {}, row_group_bytes=row_group_bytes) as writer:
        for each in rows:
            writer.add(**each)
    assert read_record(path) == writer.record
    table = pq.read_table(path)
    assert table.schema.equals(schema.SCHEMA)
    assert len(table) == len(rows)
    for got, expected in zip(table.to_pylist(), rows, strict=True):
        assert got["data"] == expected["data"]
        assert got["entropy_nats"] == expected["entropy_nats"].tolist()
        assert got["patch_lengths"] == expected["patch_lengths"].tolist()


def test_rows_come_in_order_with_the_schemas_names(dataset_folder: MakeDataset, rows: MakeRows) -> None:
    shards = [rows(30, seed=0), [], rows(17, seed=1)]
    dataset = open_shards(dataset_folder(*shards))
    expected = [row for shard in shards for row in shard]
    assert len(dataset) == len(expected) == 47
    got = list(dataset)
    assert all(same(row, each) for row, each in zip(got, expected, strict=True))
    assert got[3].data == got[3]["data"]
    assert tuple(dict(got[0])) == schema.COLUMNS
    with pytest.raises(KeyError):
        got[0]["shape"]
    assert "47 documents" in repr(dataset)


def test_row_groups_are_known_without_reading_them(dataset_folder: MakeDataset, rows: MakeRows) -> None:
    shards = [rows(30, seed=0), [], rows(17, seed=1)]
    dataset = open_shards(dataset_folder(*shards, row_group_bytes=1500))
    assert len(dataset.row_groups) > 6
    assert {group.shard for group in dataset.row_groups} == {0, 2}
    for group in dataset.row_groups:
        table = dataset.read_row_group(group.shard, group.row_group)
        assert table.num_rows == group.num_documents
        assert sum(table["num_bytes"].to_pylist()) == group.num_bytes
        assert sum(table["num_patches"].to_pylist()) == group.num_patches
    tables = list(dataset.iter_row_groups(["patch_lengths", "doc_id"]))
    assert [len(table) for table in tables] == [group.num_documents for group in dataset.row_groups]
    assert set(tables[0].column_names) == {"patch_lengths", "doc_id"}


def test_scan_gives_the_listed_shards_only(dataset_folder: MakeDataset, rows: MakeRows) -> None:
    folder = dataset_folder(rows(20, seed=0), rows(20, seed=1))
    (folder / "part-00009.parquet").write_bytes(b"another build's")
    frame = open_shards(folder).scan()
    assert frame.collect_schema().names() == list(schema.COLUMNS)
    expected = rows(20, seed=0) + rows(20, seed=1)
    assert frame.collect()["data"].to_list() == [row["data"] for row in expected]


def test_a_dataset_without_documents(dataset_folder: MakeDataset) -> None:
    for folder in (dataset_folder([], name="one"), dataset_folder(name="none")):
        dataset = open_shards(folder)
        assert (len(dataset), list(dataset), dataset.row_groups) == (0, [], [])
        assert dataset.scan().collect().columns == list(schema.COLUMNS)
        assert dataset.manifest.totals.mean_patch_length is None


def test_a_document_larger_than_a_row_group_has_its_own(dataset_folder: MakeDataset, row: Callable[..., dict[str, Any]]) -> None:
    documents = [row("a", b"before"), row("b", bytes(schema.ROW_GROUP_BYTES + 1000)), row("c", b"after")]
    dataset = open_shards(dataset_folder(documents, row_group_bytes=schema.ROW_GROUP_BYTES))
    assert [group.num_documents for group in dataset.row_groups] == [1, 1, 1]
    assert all(same(got, expected) for got, expected in zip(dataset, documents, strict=True))


def test_a_dataset_travels_to_other_processes(dataset_folder: MakeDataset, rows: MakeRows) -> None:
    dataset = open_shards(dataset_folder(rows(5)))
    assert len(dataset.row_groups) == 1
    copy = pickle.loads(pickle.dumps(dataset))
    assert [row.doc_id for row in copy] == [row.doc_id for row in dataset]


def test_arrays_of_a_row_are_read_only(dataset_folder: MakeDataset, rows: MakeRows) -> None:
    row = next(iter(open_shards(dataset_folder(rows(5)))))
    with pytest.raises(ValueError, match="read-only"):
        row.entropy_nats[0] = 1


def one_sentence(error: pytest.ExceptionInfo[ShardError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    assert text.endswith(".")
    return text


def test_a_folder_that_is_no_dataset(tmp_path: Path, dataset_folder: MakeDataset, rows: MakeRows) -> None:
    with pytest.raises(ShardError, match=r"There is no folder .*nowhere; give the folder that build-shards wrote") as error:
        open_shards(tmp_path / "nowhere")
    one_sentence(error)
    folder = dataset_folder(rows(5))
    (folder / "manifest.json").unlink()
    with pytest.raises(ShardError, match="the build did not finish, or not all of it was copied; copy the rest, or build it anew") as error:
        open_shards(folder)
    one_sentence(error)


def test_a_missing_and_a_cut_shard(dataset_folder: MakeDataset, rows: MakeRows) -> None:
    folder = dataset_folder(rows(5), rows(5, seed=1))
    shard = folder / "part-00001.parquet"
    os.truncate(shard, shard.stat().st_size - 1)
    with pytest.raises(ShardError, match=r"part-00001.parquet has \d+ bytes instead of \d+; delete it and run build-shards again") as error:
        open_shards(folder)
    one_sentence(error)
    shard.unlink()
    with pytest.raises(ShardError, match=r"The shard .*part-00001.parquet is missing") as error:
        open_shards(folder)
    one_sentence(error)


def test_a_shard_that_vanishes_later(dataset_folder: MakeDataset, rows: MakeRows) -> None:
    dataset = open_shards(dataset_folder(rows(5)))
    dataset.paths[0].unlink()
    for read in (lambda: list(dataset), dataset.verify_checksums):
        with pytest.raises(ShardError, match="is missing; put it back"):
            read()


def test_a_flipped_bit_anywhere_is_found(dataset_folder: MakeDataset, rows: MakeRows) -> None:
    folder = dataset_folder(rows(30))
    shard = folder / "part-00000.parquet"
    good = shard.read_bytes()
    expected = list(open_shards(folder))
    read = 0
    for position in np.random.default_rng(0).integers(0, len(good), 150).tolist():
        damaged = bytearray(good)
        damaged[position] ^= 1 << (position % 8)
        shard.write_bytes(damaged)
        dataset = open_shards(folder)
        with pytest.raises(ShardError, match=r"shards that differ from their checksums \(part-00000.parquet\); delete them"):
            dataset.verify_checksums()
        with contextlib.suppress(ShardError):
            got = list(dataset)
            assert all(same(row, dict(each)) for row, each in zip(got, expected, strict=True))
            read += 1
    # Pages have checksums of their own, so what is read is right; in this small file a good part is footer, where a bit may
    # mean nothing.
    assert read < 30


def test_another_datasets_shard_of_the_same_size(dataset_folder: MakeDataset, rows: MakeRows) -> None:
    first = rows(5)
    folder = dataset_folder(first)
    other = [row | {"patch_lengths": np.array([len(row["data"]) + 1])} for row in first]
    shard = dataset_folder(other, name="other") / "part-00000.parquet"
    data = shard.read_bytes()
    manifest = (folder / "manifest.json").read_text()
    size = (folder / "part-00000.parquet").stat().st_size
    (folder / "part-00000.parquet").write_bytes(data)
    (folder / "manifest.json").write_text(manifest.replace(f'"size_bytes": {size}', f'"size_bytes": {len(data)}'))
    with pytest.raises(ShardError, match=r"part-00000.parquet is not the shard that the manifest lists \(its counts differ\)") as error:
        list(open_shards(folder))
    one_sentence(error)


def test_an_unknown_column_names_the_nearest(dataset_folder: MakeDataset, rows: MakeRows) -> None:
    with pytest.raises(ShardError, match=r"A shard has no column 'entropies'; the nearest is 'entropy_nats'"):
        open_shards(dataset_folder(rows(2))).read_row_group(0, 0, ["entropies"])


def test_other_files_are_no_shards(tmp_path: Path, dataset_folder: MakeDataset, rows: MakeRows) -> None:
    path = tmp_path / "part-00000.parquet"
    pq.write_table(pa.table({"text": ["a"]}), path)
    with pytest.raises(ShardError, match="is a Parquet file but no shard: its footer lacks the key 'blt'") as error:
        read_record(path)
    one_sentence(error)
    path.write_bytes(b"")
    with pytest.raises(ShardError, match=r"cannot be read as a shard .* no Parquet file; delete it and run build-shards again") as error:
        read_record(path)
    one_sentence(error)
    path.write_text("hello " * 100)
    with pytest.raises(ShardError, match="cannot be read as a shard"):
        read_record(path)
    with pytest.raises(ShardError, match="is missing"):
        read_record(tmp_path / "part-00001.parquet")
    with pytest.raises(ShardError, match="cannot be read as a shard"):
        read_record(dataset_folder(rows(1)))


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.9, 0.999])
def test_a_cut_file_has_no_record(dataset_folder: MakeDataset, rows: MakeRows, keep: float) -> None:
    path = dataset_folder(rows(20)) / "part-00000.parquet"
    os.truncate(path, int(path.stat().st_size * keep))
    with pytest.raises(ShardError, match=r"cannot be read as a shard .*; delete it and run build-shards again") as error:
        read_record(path)
    one_sentence(error)


def test_a_document_by_its_name(dataset_folder: MakeDataset, rows: MakeRows) -> None:
    first, second = rows(20), rows(20, seed=1)
    dataset = open_shards(dataset_folder(first, second, row_group_bytes=500))
    assert len(dataset.row_groups) > 4
    for wanted in (first[0], first[7], second[13], second[19]):
        found = dataset.document(wanted["doc_id"])
        assert (found.doc_id, found.data, found.nll_nats) == (wanted["doc_id"], wanted["data"], wanted["nll_nats"])
        assert np.array_equal(found.entropy_nats, wanted["entropy_nats"])
        assert np.array_equal(found.patch_lengths, wanted["patch_lengths"])
    with pytest.raises(ShardError, match="has no document 'nothing'; the first one is 'doc-0-0'"):
        dataset.document("nothing")
