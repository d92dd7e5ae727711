"""How many documents two datasets share, against sets of bytes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bltdata.errors import ShardError
from bltdata.shards import open_shards
from bltdata.stats import Overlap
from bltdata.verification.overlap import content_digests, find_overlap

MakeRow = Callable[..., dict[str, Any]]
MakeDataset = Callable[..., Path]


def test_names_and_copies_and_nothing(dataset_folder: MakeDataset, row: MakeRow) -> None:
    one = open_shards(
        dataset_folder([row("a", b"same"), row("b", b"own"), row("c", b"same")], [row("d", b""), row("e", b"sam")], name="one")
    )
    other = open_shards(dataset_folder([row("a", b"other"), row("x", b"same"), row("d", b"")], name="other"))
    # Each copy counts, a name says nothing, and the empty document is anybody's.
    assert find_overlap(one, other) == Overlap(other=str(other.folder), num_shared=2, num_documents=5)
    assert find_overlap(other, one) == Overlap(other=str(one.folder), num_shared=1, num_documents=3)


@pytest.mark.parametrize("seed", range(3))
def test_it_is_what_sets_say(dataset_folder: MakeDataset, row: MakeRow, seed: int) -> None:
    rng = np.random.default_rng(seed)
    drawn = [[rng.integers(97, 99, int(rng.integers(0, 6)), dtype=np.uint8).tobytes() for _ in range(40)] for _ in range(2)]
    folders = [
        dataset_folder(rows[:25], [], rows[25:], name=f"{index}", row_group_bytes=30)
        for index, rows in enumerate([[row(f"{i}", data) for i, data in enumerate(each)] for each in drawn])
    ]
    found = find_overlap(*map(open_shards, folders))
    theirs = set(drawn[1]) - {b""}
    assert (found.num_shared, found.num_documents) == (sum(data in theirs for data in drawn[0]), 40)
    assert 0 < found.num_shared < 40


def test_no_documents_share_nothing(dataset_folder: MakeDataset, row: MakeRow) -> None:
    nothing, one = open_shards(dataset_folder([], name="nothing")), open_shards(dataset_folder([row("a", b"x")], name="one"))
    assert content_digests(nothing).shape == (0, 2)
    pairs = [(nothing, one), (one, nothing), (nothing, nothing)]
    assert [(find_overlap(*pair).num_shared, find_overlap(*pair).num_documents) for pair in pairs] == [(0, 0), (0, 1), (0, 0)]


def test_a_damaged_shard_is_no_overlap_of_nothing(dataset_folder: MakeDataset, row: MakeRow) -> None:
    folder = dataset_folder([row("a", b"x" * 1000)])
    dataset = open_shards(folder)
    (folder / "part-00000.parquet").unlink()
    with pytest.raises(ShardError, match="is missing"):
        find_overlap(dataset, dataset)
