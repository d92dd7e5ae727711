import numpy as np
import pyarrow as pa
import pytest

from bltdata.errors import PatchingError, ShardError
from bltdata.patching import PatchRule
from bltdata.patching.sources import SourceRules
from bltdata.shards import ShardWriter, open_shards, read_record, schema
from bltdata.shards.batches import cut_again, document_batches

RULES = [
    SourceRules(default=PatchRule(threshold=1.0)),
    SourceRules(default=PatchRule(scheme="space")),
    SourceRules(default=PatchRule(threshold=1.0), by_source={"code": PatchRule(scheme="fixed", stride=3)}),
    SourceRules(default=PatchRule(scheme="byte"), by_source={"code": PatchRule(threshold=2.0), "news": PatchRule(scheme="space")}),
    SourceRules(default=PatchRule(scheme="byte"), by_source={"other": PatchRule(threshold=2.0)}),
]


def replaced(table: pa.Table, column: str, values: pa.Array) -> pa.Table:
    return table.set_column(schema.COLUMNS.index(column), schema.SCHEMA.field(column), values)


@pytest.mark.parametrize("rules", RULES, ids=lambda rules: f"{len(rules.by_source)}-{rules.default.scheme}")
def test_a_row_group_is_cut_like_its_documents(dataset_folder, rows, row, rules):
    dataset = open_shards(dataset_folder([*rows(40), row("empty", b"", "code")], rows(9, seed=1, sources=["news"])))
    for table in dataset.iter_row_groups():
        again = cut_again(table, rules)
        assert again.schema.equals(schema.SCHEMA)
        for column in set(schema.COLUMNS) - {schema.PATCH_LENGTHS, schema.NUM_PATCHES}:
            assert again[column].equals(table[column])
        for document in again.to_pylist():
            expected = rules.rule_for(document["source"]).lengths(document["data"], np.array(document["entropy_nats"], dtype=np.float16))
            assert document["patch_lengths"] == expected.tolist()
            assert document["num_patches"] == len(expected)


@pytest.mark.parametrize("needs_bytes", [False, True])
def test_batches_have_all_documents(dataset_folder, rows, needs_bytes):
    dataset = open_shards(dataset_folder(rows(40), rows(20, seed=1)))
    done: list[int] = []
    found = []
    for batch in document_batches(dataset, needs_bytes=needs_bytes, progress=done.append):
        assert (batch.data is not None) == needs_bytes
        for index in range(batch.num_documents):
            begin, end = batch.data_offsets[index : index + 2]
            data = batch.data[begin:end].tobytes() if needs_bytes else end - begin
            entropies = batch.entropy_nats[batch.bounds[index] : batch.bounds[index + 1]]
            found.append((batch.names[index], batch.source, data, entropies.tolist()))
    expected = [
        (f"document {row.doc_id!r}", row.source, row.data if needs_bytes else row.num_bytes, row.entropy_nats.tolist()) for row in dataset
    ]
    assert sorted(found) == sorted(expected)
    assert (sum(done), len(done)) == (dataset.manifest.totals.num_bytes, len(dataset.row_groups))


def test_columns_that_contradict_each_other(dataset_folder, rows):
    (table, *_) = open_shards(dataset_folder(rows(5))).iter_row_groups()
    sizes = table[schema.NUM_BYTES].to_numpy()
    wrong = replaced(table, schema.NUM_BYTES, pa.array([sizes[0] + 1, *sizes[1:]], pa.int64()))
    with pytest.raises(ShardError, match="another number of entropies than its documents have positions"):
        cut_again(wrong, RULES[0])
    with pytest.raises(ShardError, match="documents of another length than it says"):
        cut_again(replaced(table, schema.DATA, pa.array([b"x"] * table.num_rows, pa.binary())), RULES[0])


def test_an_error_names_the_document(dataset_folder, rows):
    (table, *_) = open_shards(dataset_folder(rows(5))).iter_row_groups()
    entropies = [np.array(values, dtype=np.float16) for values in table[schema.ENTROPY_NATS].to_pylist()]
    entropies[2][3] = np.nan
    kind = schema.SCHEMA.field(schema.ENTROPY_NATS).type
    for rules in (RULES[0], RULES[3]):
        broken = table if rules is RULES[0] else replaced(table, schema.SOURCE, pa.array(["code"] * 5).dictionary_encode())
        with pytest.raises(PatchingError, match="The entropy at position 3 of document 'doc-0-2' is nan"):
            cut_again(replaced(broken, schema.ENTROPY_NATS, pa.array(entropies, kind)), rules)


def test_a_row_group_is_written_as_its_rows_were(dataset_folder, rows, tmp_path):
    dataset = open_shards(dataset_folder(rows(30)))
    with ShardWriter(tmp_path / "part-00000.parquet", {"patch_rule": 1}) as writer:
        writer.add(**rows(1, seed=9)[0])
        for table in dataset.iter_row_groups():
            writer.add_row_group(table)
    assert writer.record == read_record(tmp_path / "part-00000.parquet")
    assert writer.record.num_documents == 31


@pytest.mark.parametrize("lengths", [[[4, 3], [2]], [[4, 4], []], [[0, 8], [1]], [[8], [2]], [[4, 5], [1]]])
def test_patch_lengths_that_are_none(tmp_path, row, lengths, dataset_folder):
    (table,) = open_shards(dataset_folder([row("a", b"1234567"), row("b", b"")])).iter_row_groups()
    wrong = replaced(table, schema.PATCH_LENGTHS, pa.array(lengths, schema.SCHEMA.field(schema.PATCH_LENGTHS).type))
    wrong = replaced(wrong, schema.NUM_PATCHES, pa.array([len(values) for values in lengths], pa.int64()))
    with pytest.raises(ShardError, match="don't sum to the bytes"), ShardWriter(tmp_path / "x.parquet", {}) as writer:
        writer.add_row_group(wrong)
    assert not (tmp_path / "x.parquet").exists()


def test_other_columns(tmp_path, rows, dataset_folder):
    (table, *_) = open_shards(dataset_folder(rows(3))).iter_row_groups([schema.DATA])
    with pytest.raises(ShardError, match="has other columns than a shard"), ShardWriter(tmp_path / "x.parquet", {}) as writer:
        writer.add_row_group(table)
