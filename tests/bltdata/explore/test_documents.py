from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bltdata.errors import ConfigError, ShardError
from bltdata.explore import ExplorerDocument, sample_documents, stored_document
from bltdata.explore.documents import common_limit
from bltdata.shards import open_shards

MakeRow = Callable[..., dict[str, Any]]
MakeDataset = Callable[..., Path]
MakeDocument = Callable[..., ExplorerDocument]


@given(lengths=st.lists(st.integers(0, 50), max_size=8), total=st.integers(1, 200))
def test_the_largest_common_limit(lengths: list[int], total: int) -> None:
    limit = common_limit(lengths, total)
    assert sum(min(length, limit) for length in lengths) <= total
    assert limit >= max(lengths, default=0) or sum(min(length, limit + 1) for length in lengths) > total


def test_a_sample_is_some_of_the_documents_as_they_are_stored(dataset_folder: MakeDataset, row: MakeRow) -> None:
    rows = [row(f"doc {i}", f"document {i} ".encode() * (i + 1), "code" if i % 2 else "news") for i in range(12)]
    dataset = open_shards(dataset_folder(rows[:5], rows[5:6], rows[6:], row_group_bytes=100))
    by_name = {one["doc_id"]: one for one in rows}
    sample = sample_documents(dataset, max_bytes=10_000, num_documents=7)
    names = [document.name for document in sample]
    assert len({*names}) == 7
    assert names == sorted(names, key=list(by_name).index), "in the order of the dataset"
    assert names == [document.name for document in sample_documents(dataset, max_bytes=10_000, num_documents=7)]
    for document in sample:
        stored = by_name[document.name]
        assert (document.patches.data, document.source, document.num_left_out) == (stored["data"], stored["source"], 0)
        assert document.has_stored_patches
        assert np.array_equal(document.patches.entropy_nats, stored["entropy_nats"])
        assert np.array_equal(document.patches.lengths, stored["patch_lengths"])
    assert {document.name for document in sample_documents(dataset, max_bytes=10_000, num_documents=100)} == set(by_name)


def test_a_sample_keeps_its_limit(dataset_folder: MakeDataset, row: MakeRow) -> None:
    rows = [row("short", b"abc"), row("long", b"0123456789" * 100), row("longer", b"0123456789" * 200)]
    dataset = open_shards(dataset_folder(rows))
    sample = sample_documents(dataset, max_bytes=203)
    assert [len(document.patches.data) for document in sample] == [3, 100, 100]
    assert [document.num_left_out for document in sample] == [0, 900, 1900]
    for document, stored in zip(sample, rows, strict=True):
        starts = np.cumsum([0, *stored["patch_lengths"][:-1]])
        assert document.patches.starts.tolist() == starts[starts <= len(document.patches.data)].tolist()
        assert document.patches.lengths.sum() == len(document.patches.data) + 1 == len(document.patches.entropy_nats)
    assert len(sample_documents(dataset, max_bytes=2)) == 2


def test_each_document_is_as_likely_as_any(dataset_folder: MakeDataset, row: MakeRow, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = open_shards(dataset_folder([row(str(i), b"a") for i in range(3)], [row("3", b"a" * 50)]))
    counts = dict.fromkeys("0123", 0)
    for seed in range(200):
        monkeypatch.setattr("bltdata.explore.documents.SAMPLE_SEED", seed)
        (document,) = sample_documents(dataset, max_bytes=100, num_documents=1)
        counts[document.name] += 1
    assert min(counts.values()) > 25


def test_one_document(dataset_folder: MakeDataset, row: MakeRow) -> None:
    rules = {"news": {"scheme": "entropy", "threshold": 1.75}}
    folder = dataset_folder([row("a", b"abc", "code"), row("b", "\u65e5\u672c".encode(), "news")], source_rules=rules)
    dataset = open_shards(folder)
    document = stored_document(dataset, "b", max_bytes=4)
    assert (document.patches.data, document.num_left_out, document.patches.rule.threshold) == ("\u65e5".encode(), 3, 1.75)
    with pytest.raises(ShardError, match="has no document 'c'"):
        stored_document(dataset, "c", max_bytes=4)


def test_heads_of_heads(document: MakeDocument) -> None:
    whole = document(b"0123456789", num_left_out=5)
    assert whole.head(100).num_left_out == 5
    assert whole.head(8).head(3).num_left_out == 12


def test_nothing_to_sample(dataset_folder: MakeDataset, row: MakeRow) -> None:
    with pytest.raises(ShardError, match="has no documents, so there is nothing to explore"):
        sample_documents(open_shards(dataset_folder([])), max_bytes=10)
    dataset = open_shards(dataset_folder([row("a", b"abc")], name="other"))
    with pytest.raises(ConfigError, match="max_bytes is 0; it must be at least 1"):
        sample_documents(dataset, max_bytes=0)
    with pytest.raises(ConfigError, match="num_documents is 0"):
        sample_documents(dataset, max_bytes=5, num_documents=0)
