import itertools
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bltdata.errors import ConfigError, CorpusError
from bltdata.shards import ShardDataset, open_shards
from bltdata.training.config import TrainingConfig
from bltdata.training.packing import Cursor, Packer
from bltdata.training.progress import Place
from bltdata.vocab import BYTE_OFFSET
from bltmodel.blocks import ShuffledBlocks
from bltmodel.data import ShardStore, collate
from bltmodel.masks import PackedBatch
from bltmodel.rows import RowStream
from bltmodel.selection import Selection, select_all
from tests.bltmodel.datasets import texts, write_dataset

SHUFFLED_BYTES = 1500
WEIGHTS = {"code": 1.0, "prose": 2.0, "tiny": 0.5}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of one source each, and one of several; empty documents at the borders."""
    prose = [("prose", text) for text in [b"", *texts(90), b""]]
    code = [("code", text) for text in texts(60, seed=1)]
    mixed = [*prose[:20], ("tiny", b"a tiny source"), ("tiny", b""), *code[:20], ("tiny", b"of two documents")]
    return write_dataset(tmp_path_factory.mktemp("rows") / "shards", prose, code, mixed)


@pytest.fixture(scope="module")
def dataset(folder: Path) -> ShardDataset:
    return open_shards(folder)


def stream_of(dataset: ShardDataset, row_tokens: int = 50, **changes) -> RowStream:
    return RowStream(dataset, row_tokens, **{"seed": 3, "shuffled_bytes": SHUFFLED_BYTES, "prefetch": False, **changes})


def assert_equal(one: PackedBatch, other: PackedBatch) -> None:
    for name, left, right in zip(PackedBatch._fields, one, other, strict=True):
        torch.testing.assert_close(left, right, rtol=0, atol=0, msg=name)


def joined(batches: list[PackedBatch]) -> PackedBatch:
    return PackedBatch(*(torch.cat(parts) for parts in zip(*batches, strict=True)))


def slow_rows(dataset: ShardDataset, selection: Selection, row_tokens: int, keep: np.ndarray | None, count: int) -> PackedBatch:
    """The rows of the blocks' documents, packed piece by piece, those that lie in a block in another order."""
    blocks = ShuffledBlocks(dataset, selection, 3, keep, shuffled_bytes=SHUFFLED_BYTES, prefetch=False)
    return shuffled_rows(dataset, blocks, row_tokens, count)


def shuffled_rows(dataset: ShardDataset, blocks: ShuffledBlocks, row_tokens: int, count: int) -> PackedBatch:
    def order(epoch: int) -> np.ndarray:
        return np.concatenate([blocks.block(epoch, number).documents for number in range(blocks.num_blocks(epoch))])

    # As many as lie in blocks of which the first `count` rows have one.
    numbers: list[int] = []
    epoch = number = begin = 0
    while len(numbers) < count:
        end = begin + blocks.block(epoch, number).num_tokens
        inside = range(-(-begin // row_tokens), end // row_tokens)
        # The row that goes on in this block comes first, unless it began further back.
        numbers += range(len(numbers), inside.start)
        numbers += [inside[place] for place in blocks.order_of_rows(epoch, number, len(inside))]
        (epoch, number), begin = blocks.after(epoch, number), end
    rows = list(itertools.islice(Packer(ShardStore(dataset), order, row_tokens).endless_rows(Cursor()), max(numbers) + 1))
    return collate([rows[number][0] for number in numbers[:count]], torch.device("cpu"))


# --------------------------------------------------------------------------------------------------------------- one stream


@pytest.mark.parametrize("kept", [1.0, 0.3])
@pytest.mark.parametrize("row_tokens", [9, 50, 3000])
def test_rows_are_those_of_the_packer(dataset, row_tokens, kept):
    keep = None if kept == 1.0 else np.random.default_rng(0).random(len(dataset)) < kept
    selection = select_all(dataset, keep)
    # More than two epochs, and blocks that end inside a row.
    count = 2 * selection.num_tokens // row_tokens + 2
    stream = stream_of(dataset, row_tokens, keep=keep)
    assert stream.tokens_per_epoch == selection.num_tokens
    batch, place = stream.read((), count)
    assert place[0] >= 2
    assert_equal(batch, slow_rows(dataset, selection, row_tokens, keep, count))
    assert stream.num_bytes(place) == int((batch.targets_BT >= BYTE_OFFSET).sum())


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("prefetch", [False, True])
def test_the_stream_is_the_same_however_it_is_read(dataset, weights, prefetch):
    whole, end = stream_of(dataset, weights=weights).read((), 120)
    stream, place, batches = stream_of(dataset, weights=weights, prefetch=prefetch), (), []
    for count in (1, 2, 3, 0, 7, 40, 67):
        assert stream.skip(place, count) == stream.read(place, count)[1]
        # Another one, as after a restart, in the middle of a document.
        batch, place = stream_of(dataset, weights=weights).read(place, count)
        batches.append(batch)
    assert_equal(joined(batches), whole)
    assert place == end
    assert all(isinstance(number, int) for number in place)


@settings(max_examples=8)
@given(st.lists(st.binary(max_size=12), min_size=1, max_size=8).filter(any), st.integers(2, 9), st.integers(0, 30))
def test_any_documents_in_any_rows(tmp_path_factory, documents, row_tokens, skipped):
    dataset = open_shards(write_dataset(tmp_path_factory.mktemp("any") / "shards", documents, row_group_bytes=8))
    stream = RowStream(dataset, row_tokens, seed=3, shuffled_bytes=8, prefetch=False)
    blocks = ShuffledBlocks(dataset, select_all(dataset), 3, shuffled_bytes=8, prefetch=False)
    expected = shuffled_rows(dataset, blocks, row_tokens, skipped + 10)
    assert_equal(stream.read(stream.skip((), skipped), 10)[0], PackedBatch(*(tensor[skipped:] for tensor in expected)))


def test_neighbours_in_a_document_are_none_in_a_step(tmp_path):
    documents = [bytes([97 + number]) * 400 for number in range(20)]
    dataset = open_shards(write_dataset(tmp_path / "shards", documents, row_group_bytes=1000))
    batch, _ = RowStream(dataset, 20, seed=3, prefetch=False).read((), 400)
    of_rows = batch.ids_BT.numpy().max(1)
    # In their order nearly all are together; of twenty documents, two rows have one in common by chance once in ten.
    assert (of_rows[1:] == of_rows[:-1]).sum() < 80


# ------------------------------------------------------------------------------------------------------------------- ranks


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize(("num_ranks", "micro"), [(1, None), (2, None), (3, 1), (6, None)])
def test_ranks_share_the_rows_of_one_stream_and_may_change_at_any_step(dataset, weights, num_ranks, micro):
    whole, _ = stream_of(dataset, weights=weights).read((), 30)
    config = TrainingConfig(batch_rows=6, micro_batch_rows=micro)
    alone = list(itertools.islice(stream_of(dataset, weights=weights).steps((), 6, TrainingConfig(batch_rows=6).share(1), 0), 5))
    # Two steps in one process, then three in several.
    place: Place = alone[1].cursor
    shares = [
        list(itertools.islice(stream_of(dataset, weights=weights).steps(place, 6, config.share(num_ranks), rank), 3))
        for rank in range(num_ranks)
    ]
    batches = [next(step.batches) for step in alone[:2]]
    for steps in zip(*shares, strict=True):
        batches += [batch for step in steps for batch in step.batches]
    assert_equal(joined(batches), whole)
    for steps, expected in zip(zip(*shares, strict=True), alone[2:], strict=True):
        assert {(step.num_bytes, step.cursor) for step in steps} == {(expected.num_bytes, expected.cursor)}
    targets = whole.targets_BT[12:18]
    assert alone[2].num_bytes == int((targets >= BYTE_OFFSET).sum())


# ------------------------------------------------------------------------------------------------------------------ mixing


def source_of_each(dataset: ShardDataset, stream: RowStream, place: Place, count: int) -> tuple[list[str], list[int]]:
    """The source of each row, and its raw bytes."""
    names = list(stream.shares)
    sources, sizes = [], []
    for _ in range(count):
        after = stream.skip(place, 1)
        changed = [number for number in range(len(names)) if after[5 * number : 5 * number + 5] != place[5 * number : 5 * number + 5]]
        assert len(changed) == 1
        sources.append(names[changed[0]])
        sizes.append(stream.num_bytes(after) - stream.num_bytes(place))
        place = after
    return sources, sizes


def test_every_row_is_of_one_source_and_continues_its_stream(dataset):
    stream = stream_of(dataset, weights=WEIGHTS)
    start = (0,) * 15
    sources, _ = source_of_each(dataset, stream, start, 150)
    batch, _ = stream.read((), 150)
    assert set(sources) == set(WEIGHTS)
    for number, name in enumerate(WEIGHTS):
        own = np.flatnonzero(np.array(sources) == name)
        selection = stream._sources[number].blocks.selection
        assert selection.source == name
        expected = slow_rows(dataset, selection, 50, None, len(own))
        assert_equal(PackedBatch(*(tensor[own] for tensor in batch)), expected)


@pytest.mark.parametrize("weights", [WEIGHTS, {"code": 1, "prose": 1, "tiny": 0}, {"code": 1, "prose": 1e-4, "tiny": 30}])
def test_proportions_are_exact_at_every_row(dataset, weights):
    stream = stream_of(dataset, 40, weights=weights)
    shares = {name: weight / sum(weights.values()) for name, weight in weights.items()}
    sources, sizes = source_of_each(dataset, stream, (0,) * (5 * sum(map(bool, weights.values()))), 400)
    given_bytes, num_sources = Counter[str](), sum(map(bool, weights.values()))
    for source, size in zip(sources, sizes, strict=True):
        given_bytes[source] += size
        for name, share in shares.items():
            missing = share * given_bytes.total() - given_bytes[name]
            assert -40 - 1e-6 <= missing <= (num_sources - 1) * 40 + 1e-6
    assert "tiny" in given_bytes or not weights["tiny"]


def test_a_small_source_is_repeated_in_epochs_of_its_own(dataset):
    stream = stream_of(dataset, weights=WEIGHTS)
    _, place = stream.read((), 150)
    epochs = dict(zip(WEIGHTS, place[::5], strict=True))
    assert epochs["tiny"] > 10 * epochs["prose"]
    expected = stream.epochs(stream.num_bytes(place))
    for number, name in enumerate(WEIGHTS):
        size = stream._sources[number].blocks.selection.num_bytes
        assert place[5 * number + 4] / size == pytest.approx(expected[name], rel=0.1)
        assert int(place[5 * number + 4] / size) == epochs[name]


def test_weights_count_only_against_each_other(dataset):
    one, _ = stream_of(dataset, weights=WEIGHTS).read((), 30)
    other, _ = stream_of(dataset, weights={name: 8 * weight for name, weight in reversed(WEIGHTS.items())}).read((), 30)
    assert_equal(one, other)
    assert stream_of(dataset).epochs(1000) == {}


def test_what_is_held_out_is_in_no_source(dataset):
    keep = np.array([row.source != "tiny" or row.num_bytes == 13 for row in dataset])
    stream = stream_of(dataset, 20, keep=keep, weights={"code": 0, "prose": 0, "tiny": 1})
    batch, _ = stream.read((), 3)
    assert stream.tokens_per_epoch == 14
    text = np.tile([1, *(byte + BYTE_OFFSET for byte in b"a tiny source")], 5)[:60]
    assert batch.ids_BT.flatten().tolist() == text.tolist()


def test_weights_and_documents_that_are_not_there(dataset, tmp_path):
    with pytest.raises(ConfigError, match=r"has no source 'proze' to give a weight; the nearest is 'prose'"):
        stream_of(dataset, weights={"proze": 1.0})
    with pytest.raises(CorpusError, match="There are no documents to train on"):
        stream_of(open_shards(write_dataset(tmp_path / "shards", [])))


def test_documents_that_vanish_end_the_stream(dataset):
    stream = stream_of(dataset)
    for source in stream._sources:
        source.blocks._keep = np.zeros(len(dataset), dtype=bool)
    with pytest.raises(CorpusError, match="lost its documents while it was read"):
        stream.read((), 1)
