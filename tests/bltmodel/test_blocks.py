import pickle
import threading
import weakref
from collections.abc import Iterator

import numpy as np
import pytest

import bltmodel.blocks
from bltdata.errors import CorpusError, ShardError
from bltdata.shards import RowGroup, ShardDataset, open_shards
from bltmodel.blocks import KEPT_BLOCKS, Block, ShuffledBlocks, mark_starts
from bltmodel.selection import select_all
from tests.bltmodel.datasets import texts, write_dataset

SHUFFLED_BYTES = 2000


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> ShardDataset:
    """Two shards of many small row groups, one of a single long document."""
    shards = [b"", *texts(150), b""], [b"x" * 5000, *texts(100, seed=2)]
    return open_shards(write_dataset(tmp_path_factory.mktemp("blocks") / "shards", *shards))


def blocks_of(dataset: ShardDataset, keep: np.ndarray | None = None, **changes) -> ShuffledBlocks:
    settings = {"seed": 1, "shuffled_bytes": SHUFFLED_BYTES, "prefetch": False, **changes}
    return ShuffledBlocks(dataset, select_all(dataset, keep), keep=keep, **settings)


def all_of(blocks: ShuffledBlocks, epoch: int = 0) -> Iterator[Block]:
    return (blocks.block(epoch, number) for number in range(blocks.num_blocks(epoch)))


def order_of(blocks: ShuffledBlocks, epoch: int = 0) -> np.ndarray:
    return np.concatenate([block.documents for block in all_of(blocks, epoch)])


def test_a_block_holds_what_the_shards_hold(dataset):
    rows, seen = list(dataset), 0
    for block in all_of(blocks_of(dataset)):
        lengths = np.diff(block.token_ends) - 1
        for place, length, data, starts in zip(block.documents, lengths, block.data_begins, block.starts_begins, strict=True):
            assert block.data[data : data + length].tobytes() == rows[place].data
            flags = block.starts[starts : starts + length + 1]
            assert np.diff(np.flatnonzero(flags), append=length + 1).tolist() == rows[place].patch_lengths.tolist()
            seen += 1
        assert block.num_tokens == block.token_ends[-1] == (lengths + 1).sum()
    assert seen == len(rows)


def test_an_epoch_has_every_kept_document_once_in_an_order_of_its_own(dataset):
    keep = np.random.default_rng(0).random(len(dataset)) < 0.6
    orders = [order_of(blocks_of(dataset, keep, seed=seed), epoch) for seed in (1, 2) for epoch in (0, 1)]
    assert all(np.array_equal(np.sort(order), np.flatnonzero(keep)) for order in orders)
    assert len({tuple(order) for order in orders}) == 4
    np.testing.assert_array_equal(order_of(blocks_of(dataset, keep)), orders[0])


def test_a_single_row_group_has_an_order_for_each_epoch(tmp_path):
    blocks = blocks_of(open_shards(write_dataset(tmp_path / "shards", texts(20), row_group_bytes=1 << 20)))
    orders = [order_of(blocks, epoch).tolist() for epoch in range(3)]
    assert all(sorted(order) == list(range(20)) for order in orders)
    assert len(set(map(tuple, orders))) == 3


def test_a_block_is_whole_row_groups_of_about_so_many_bytes(dataset):
    blocks = blocks_of(dataset)
    group_of = np.repeat(np.arange(len(dataset.row_groups)), [group.num_documents for group in dataset.row_groups])
    seen: list[int] = []
    for block in all_of(blocks):
        groups = set(group_of[block.documents].tolist())
        assert sum(dataset.row_groups[group].num_documents for group in groups) == len(block.documents)
        sizes = [dataset.row_groups[group].num_bytes for group in groups]
        assert sum(sizes) <= SHUFFLED_BYTES + max(sizes)
        seen += groups
    assert sorted(seen) == list(range(len(dataset.row_groups)))
    assert blocks.num_blocks(0) > 3


def test_any_block_can_be_entered_first(dataset):
    expected = [block.documents.tolist() for block in all_of(blocks_of(dataset), 3)]
    for number in reversed(range(len(expected))):
        assert blocks_of(dataset).block(3, number).documents.tolist() == expected[number]


def test_how_well_an_epoch_is_shuffled():
    # As many row groups as 1 GB has, of 100 documents each; nothing is read for it.
    class Groups(ShardDataset):
        row_groups = tuple(RowGroup(0, number, 100, 4 << 20, 1) for number in range(240))

        def __init__(self) -> None:
            pass

        class manifest:
            class totals:
                num_documents, num_bytes, num_patches = 24_000, 240 * (4 << 20), 240

    blocks = ShuffledBlocks(Groups(), select_all(Groups()), 0)
    groups = [blocks._order(0)[number] for number in range(blocks.num_blocks(0))]
    assert {len(block) for block in groups[:-1]} <= {7, 8, 9}
    # The mean distance between a group's place on the disk and in the epoch is a third of all for a true permutation.
    order = np.concatenate(groups)
    assert np.abs(order - np.arange(240)).mean() / 240 == pytest.approx(1 / 3, abs=0.03)


def test_neighbours_are_from_all_of_a_block(dataset):
    group_of = np.repeat(np.arange(len(dataset.row_groups)), [group.num_documents for group in dataset.row_groups])
    for block in all_of(blocks_of(dataset, shuffled_bytes=4000)):
        groups = group_of[block.documents]
        if len(set(groups)) > 3:
            # An order of shuffled groups would change from one to the next only as often as there are groups.
            assert np.count_nonzero(np.diff(groups)) > len(groups) / 2


@pytest.mark.parametrize("prefetch", [False, True])
def test_a_pass_reads_each_row_group_once_and_holds_few_blocks(dataset, monkeypatch, prefetch):
    reads: list[tuple[int, int]] = []
    read = ShardDataset.read_row_group
    monkeypatch.setattr(ShardDataset, "read_row_group", lambda self, *at: reads.append(at[:2]) or read(self, *at))
    blocks = blocks_of(dataset, prefetch=prefetch)
    alive: list[weakref.ref[Block]] = []
    for number in range(blocks.num_blocks(0)):
        block = blocks.block(0, number)
        alive.append(weakref.ref(block))
        if number + 1 < blocks.num_blocks(0):
            blocks.expect(0, number)
        del block
        assert sum(reference() is not None for reference in alive) <= KEPT_BLOCKS
    assert len(reads) == len(set(reads)) == len(dataset.row_groups)


def test_the_next_block_is_read_in_a_thread_and_its_error_arrives(dataset, monkeypatch):
    threads = []
    read = ShuffledBlocks._read

    def fails_in_a_thread(self, key):
        threads.append(threading.current_thread())
        if threads[-1] is not threading.main_thread():
            raise ShardError("damaged")
        return read(self, key)

    monkeypatch.setattr(ShuffledBlocks, "_read", fails_in_a_thread)
    blocks = blocks_of(dataset, prefetch=True)
    blocks.block(0, 0)
    blocks.expect(0, 0)
    blocks.expect(0, 0)
    with pytest.raises(ShardError, match="damaged"):
        blocks.block(0, 1)
    assert len(threads) == 2
    # Whoever tries again reads it here.
    assert blocks.block(0, 1).num_tokens


def test_the_last_block_is_followed_by_the_next_epoch(dataset):
    blocks = blocks_of(dataset)
    last = blocks.num_blocks(0) - 1
    assert (blocks.after(0, 0), blocks.after(0, last)) == ((0, 1), (1, 0))


def test_a_copy_in_another_process_reads_the_same(dataset):
    blocks = blocks_of(dataset, prefetch=True)
    expected = order_of(blocks).tolist()
    blocks.expect(0, 0)
    assert order_of(pickle.loads(pickle.dumps(blocks))).tolist() == expected


def test_the_threads_of_a_parent_are_not_waited_for(dataset, monkeypatch):
    blocks = blocks_of(dataset, prefetch=True)
    monkeypatch.setattr(ShuffledBlocks, "_read", lambda self, key: threading.Event().wait(0.2) or "read by the parent")
    blocks.expect(0, 0)
    monkeypatch.undo()
    monkeypatch.setattr(bltmodel.blocks.os, "getpid", lambda: -1)
    assert isinstance(blocks.block(0, 1), Block)


def test_ends_of_documents_in_a_stretch(tmp_path):
    (block,) = all_of(blocks_of(open_shards(write_dataset(tmp_path / "shards", [b"abc"] * 3))))
    # Tokens 3, 7 and 11 predict an end.
    stretches = ((0, 12), (0, 3), (0, 4), (3, 4), (4, 12), (4, 7), (7, 8))
    assert [block.num_ends(np.array([begin]), end - begin) for begin, end in stretches] == [3, 0, 1, 1, 2, 0, 1]
    assert block.num_ends(np.array([0, 4, 8]), 4) == 3


def test_patches_that_do_not_add_up_are_refused(dataset, monkeypatch):
    monkeypatch.setattr(bltmodel.blocks, "list_column", lambda column: (np.array([3], dtype=np.uint32), np.array([0, 1])))
    with pytest.raises(ShardError, match=r"part-0000\d.parquet is damaged \(bytes or patches of row group \d+ are not as many"):
        blocks_of(dataset).block(0, 0)


@pytest.mark.parametrize(
    ("lengths", "positions"),
    [([2, 1, 3], [0, 2, 3]), ([6], [0]), ([3, 9], [0, 3]), ([2**32 - 1, 2**32 - 1], [0]), ([2, 2], [0, 2]), ([], []), ([6, 0], [0])],
)
def test_starts_of_patches(lengths, positions):
    memory = np.ones(8, dtype=bool)
    assert mark_starts(np.array(lengths, dtype=np.uint32), memory[:6]) == sum(lengths)
    assert np.flatnonzero(memory).tolist() == [*positions, 6, 7]


def test_nothing_to_take(dataset, tmp_path):
    for shards, keep in ((dataset, np.zeros(len(dataset), dtype=bool)), (open_shards(write_dataset(tmp_path / "none", [])), None)):
        with pytest.raises(CorpusError, match=r"^There are no documents to train on; choose others\.$"):
            blocks_of(shards, keep)
