import itertools
import weakref
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import bltmodel.blocks
from bltdata.errors import ShardError
from bltdata.nn.loss import IGNORED_TARGET
from bltdata.patching import PatchRule
from bltdata.shards import open_shards
from bltdata.training.packing import Cursor, Packer, shuffled_order
from bltdata.training.validation import ValidationRows
from bltdata.vocab import BYTE_OFFSET, EOS_ID, encode
from bltmodel.data import KEPT_GROUPS, ShardStore, collate
from bltmodel.masks import PackedBatch, patch_layout
from tests.bltmodel.datasets import opinionated_blt, texts, write_dataset

CPU = torch.device("cpu")
EVERYTHING = 1 << 30
"""Bytes to judge on."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three shards of many small row groups, with empty documents at the borders."""
    shards = [b"", *texts(90), b""], texts(60, seed=1), [b"", b"x", *texts(50, longest=600, seed=2)]
    return write_dataset(tmp_path_factory.mktemp("data") / "shards", *shards)


@pytest.fixture
def store(folder: Path) -> ShardStore:
    return ShardStore(open_shards(folder))


# ------------------------------------------------------------------------------------------------------------- the store


def test_documents_and_starts_are_the_rows_of_the_shards(folder, store):
    rows = list(open_shards(folder))
    assert len(store.dataset.row_groups) > 20
    assert (store.lengths.dtype, store.lengths.tolist()) == (np.int64, [row.num_bytes for row in rows])
    # Back and forth between the row groups.
    for index in np.random.default_rng(0).permutation(len(rows)).tolist():
        data, starts = store.document(index), store.starts(index)
        assert (data.dtype, data.tobytes()) == (np.uint8, rows[index].data)
        assert (starts.dtype, len(starts)) == (np.bool_, len(data) + 1)
        assert np.diff(np.flatnonzero(starts), append=len(starts)).tolist() == rows[index].patch_lengths.tolist()


def test_a_dataset_without_documents_is_refused(tmp_path):
    with pytest.raises(ShardError, match="has no documents; build shards of a corpus that has some"):
        ShardStore(open_shards(write_dataset(tmp_path / "shards", [], [])))


def test_documents_in_order_decode_each_row_group_once_and_keep_few(store, monkeypatch):
    alive: list[weakref.ref[np.ndarray]] = []
    counts = []

    def tracked(column):
        flat, offsets = bytes_column(column)
        counts.append(1 + sum(reference() is not None for reference in alive))
        alive.append(weakref.ref(offsets))
        return flat, offsets

    bytes_column = bltmodel.blocks.bytes_column
    monkeypatch.setattr(bltmodel.blocks, "bytes_column", tracked)
    for row in ValidationRows(store, EVERYTHING, 64):
        collate([row], CPU)
    assert len(counts) == len(store.dataset.row_groups)
    assert max(counts) == KEPT_GROUPS


# ---------------------------------------------------------------------------------------------------------------- packing


def test_worked_example(tmp_path):
    rule = PatchRule(scheme="fixed", stride=2)
    store = ShardStore(open_shards(write_dataset(tmp_path / "shards", [b"abc", b"defg"], rule=rule)))
    assert [store.starts(index).tolist() for index in (0, 1)] == [[True, False, True, False], [True, False, True, False, True]]
    rows = list(ValidationRows(store, EVERYTHING, 6))
    batch = collate(rows, CPU)
    a, b, c, d, e, f, g = (byte + BYTE_OFFSET for byte in b"abcdefg")
    assert batch.ids_BT.tolist() == [[1, a, b, c, 1, d], [e, f, g, 0, 0, 0]]
    assert batch.targets_BT.tolist() == [[a, b, c, 2, d, e], [f, g, 2, -1, -1, -1]]
    assert batch.visible_from_BT.tolist() == [[0, 0, 0, 0, 4, 4], [0, 0, 0, 3, 4, 5]]
    # Whether a patch starts at what a token predicts; of padding it is never asked.
    assert batch.next_starts_BT[0].tolist() == [True, False, True, False, True, False]
    assert batch.next_starts_BT[1, :3].tolist() == [True, False, True]
    # BOS, `ab`, `c` and the end; BOS, `d`. Where the document goes on, `e` is a patch of its own, as BOS would be, then `fg`.
    layout = patch_layout(batch)
    assert layout.own_BT.tolist() == [[0, 1, 1, 2, 3, 4], [0, 1, 1, 2, 2, 2]]
    assert layout.complete_BT[0].tolist() == [0, 0, 1, 1, 3, 3]
    assert layout.complete_BT[1, :3].tolist() == [0, 0, 1]


@pytest.mark.parametrize(("data", "at_the_end"), [(b"abc", False), (b"abcd", True), (b"", True)])
def test_the_last_byte_knows_the_flag_of_the_end(tmp_path, data, at_the_end):
    rule = PatchRule(scheme="fixed", stride=2)
    store = ShardStore(open_shards(write_dataset(tmp_path / "shards", [data, b"another"], rule=rule)))
    batch = collate(list(ValidationRows(store, EVERYTHING, 20)), CPU)
    assert batch.targets_BT[0, len(data)] == EOS_ID
    assert bool(batch.next_starts_BT[0, len(data)]) == at_the_end


def test_every_byte_and_every_end_is_predicted_once(store):
    among = np.random.default_rng(3).random(len(store.lengths)) < 0.6
    for row_tokens in (2, 7, 64, 5000):
        predicted: Counter[tuple[int, int]] = Counter()
        num_targets = 0
        for row in ValidationRows(store, EVERYTHING, row_tokens, among):
            batch = collate([row], CPU)
            assert batch.ids_BT.shape == (1, row_tokens)
            num_targets += int((batch.targets_BT != IGNORED_TARGET).sum())
            for document, begin, end, at in row.pieces:
                truth = encode(store.document(document).tobytes(), bos=True, eos=True)
                assert batch.ids_BT[0, at : at + end - begin].tolist() == truth[begin:end].tolist()
                assert batch.targets_BT[0, at : at + end - begin].tolist() == truth[begin + 1 : end + 1].tolist()
                assert batch.next_starts_BT[0, at : at + end - begin].tolist() == store.starts(document)[begin:end].tolist()
                predicted.update((document, position) for position in range(begin, end))
        assert predicted == Counter((int(document), i) for document in np.flatnonzero(among) for i in range(store.lengths[document] + 1))
        assert num_targets == predicted.total()


def test_epochs_follow_one_another_without_padding(store):
    packer = Packer(store, shuffled_order(len(store.lengths), 0), 50)
    num_rows = -(-2 * packer.tokens_per_epoch // 50)
    predicted: Counter[int] = Counter()
    for row, _ in itertools.islice(packer.endless_rows(Cursor()), num_rows):
        assert (collate([row], CPU).targets_BT != IGNORED_TARGET).all()
        for piece in row.pieces:
            predicted[piece.document] += piece.end - piece.begin
    surplus = {document: predicted[document] - 2 * (length + 1) for document, length in enumerate(store.lengths.tolist())}
    assert min(surplus.values()) == 0
    assert sum(surplus.values()) == num_rows * 50 - 2 * packer.tokens_per_epoch


class OnlySlices:
    """An array that nobody can copy whole."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array
        self.num_taken = 0

    def __getitem__(self, place: slice) -> np.ndarray:
        taken = self.array[place]
        self.num_taken += len(taken)
        return taken


def test_a_row_costs_what_it_holds_of_a_document():
    length = 10_000

    class LongDocument:
        lengths = np.array([length])
        bytes_of = OnlySlices(np.arange(length).astype(np.uint8))
        starts_of = OnlySlices(np.arange(length + 1) % 3 == 0)

        def document(self, index: int) -> OnlySlices:
            return self.bytes_of

        def starts(self, index: int) -> OnlySlices:
            return self.starts_of

    store = LongDocument()
    for row in ValidationRows(store, EVERYTHING, 100):
        collate([row], CPU)
    assert store.bytes_of.num_taken == 2 * length
    assert store.starts_of.num_taken == length + 1


def piece_alone(store: ShardStore, document: int, begin: int, end: int) -> PackedBatch:
    """A piece as a row of its own, the slow and obvious way."""
    ids = encode(store.document(document).tobytes(), bos=True, eos=True)
    starts = [True, *store.starts(document).tolist()]
    columns = (ids[begin:end], ids[begin + 1 : end + 1], [0] * (end - begin), starts[begin:end], starts[begin + 1 : end + 1])
    return PackedBatch(*(torch.tensor(np.array(column))[None] for column in columns))


def test_packed_documents_get_the_logits_that_they_get_alone(folder, store):
    # In float64 only norms, rotations and the weights of cross-attention round to float32: by 4e-6 here, not by 2e-5.
    packer = Packer(store, shuffled_order(len(store.lengths), 2), 150)
    model, rows = opinionated_blt().double(), [row for row, _ in itertools.islice(packer.endless_rows(Cursor()), 12)]
    lengths = [row.patch_lengths for row in open_shards(folder)]
    num_whole = num_cut = 0
    with torch.no_grad():
        logits = model(collate(rows, CPU))
        for row, logits_TV in zip(rows, logits, strict=True):
            for piece in row.pieces:
                document, begin, end, at = piece
                here = logits_TV[at : at + end - begin]
                close(here, model(piece_alone(store, *piece[:3]))[0])
                if begin == 0:
                    close(here, model.logits(store.document(document).tobytes(), lengths[document])[:end])
                num_whole += (begin, end) == (0, store.lengths[document] + 1)
                num_cut += begin > 0
    assert num_whole > 10
    assert num_cut > 3


def close(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
