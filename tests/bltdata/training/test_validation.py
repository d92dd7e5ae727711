"""What a model is judged on: as many bytes as were asked for, from everywhere, however long documents are."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from bltdata.errors import CorpusError
from bltdata.nn.loss import IGNORED_TARGET
from bltdata.training.packing import Piece
from bltdata.training.validation import NUM_EXCERPTS, WHOLE_BYTES, ValidationRows, spread_excerpts
from bltdata.vocab import BOE_ID, BOS_ID, BYTE_OFFSET, EOS_ID, encode
from tests.bltdata.small import Documents

LENGTHS = st.lists(st.integers(0, 30) | st.integers(0, 5 * WHOLE_BYTES), min_size=1, max_size=60).filter(any)
DOCUMENTS = st.lists(st.binary(max_size=12), min_size=1, max_size=6).filter(any)
EVERYTHING = 1 << 30


def num_bytes_of(excerpts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    document, begin, end = excerpts.T
    return np.minimum(end, lengths[document]) - begin


@given(LENGTHS, st.integers(1, 100_000))
def test_as_many_bytes_as_are_wanted_or_all_there_are(lengths, num_bytes):
    lengths = np.array(lengths)
    excerpts = spread_excerpts(lengths, num_bytes)
    assert num_bytes_of(excerpts, lengths).sum() == min(num_bytes, lengths.sum())
    document, begin, end = excerpts.T
    assert (begin >= 0).all()
    assert (begin < end).all()
    assert (end <= lengths[document] + 1).all()
    # In order, and nothing twice. What adjoins is one.
    assert ((np.diff(document) > 0) | (begin[1:] > end[:-1])).all()
    if num_bytes >= lengths.sum():
        assert excerpts.tolist() == [[index, 0, length + 1] for index, length in enumerate(lengths)]


def test_one_short_document_and_many_that_are_longer_than_all_that_is_judged():
    lengths = np.array([30] + [300_000] * 200)
    excerpts = spread_excerpts(lengths, 262_144)
    sizes = num_bytes_of(excerpts, lengths)
    assert sizes.sum() == 262_144
    assert len(set(excerpts[:, 0].tolist())) >= NUM_EXCERPTS
    assert sizes.max() <= 262_144 / NUM_EXCERPTS
    # From all parts of the documents, and not what they begin with.
    places = excerpts[:, 1] / lengths[excerpts[:, 0]]
    assert np.histogram(places, bins=4, range=(0, 1))[0].min() >= 4


def test_a_single_long_document():
    excerpts = spread_excerpts(np.array([10_000_000]), 320_000)
    assert len(excerpts) >= NUM_EXCERPTS
    assert np.histogram(excerpts[:, 1], bins=8, range=(0, 10_000_000))[0].min() >= 3


def test_each_byte_has_the_same_chance_where_lengths_have_a_heavy_tail():
    # So the share of the long documents among what is judged is, on average, their share of the bytes.
    judged, expected = [], []
    for seed in range(50):
        lengths = (300 * np.random.default_rng(seed).pareto(1.1, 20_000)).astype(np.int64)
        is_long = lengths > 1 << 15
        excerpts = spread_excerpts(lengths, 1 << 20)
        judged.append(num_bytes_of(excerpts, lengths)[is_long[excerpts[:, 0]]].sum() / (1 << 20))
        expected.append(lengths[is_long].sum() / lengths.sum())
    assert np.mean(judged) == pytest.approx(np.mean(expected), rel=0.05)


@given(st.integers(2, 2000), st.integers(1, 2000), st.data())
def test_it_is_from_everywhere(count, wanted, draw):
    taken = spread_excerpts(np.full(count, 7), 7 * wanted)[:, 0]
    assert len(taken) == min(count, wanted)
    # Whatever part of the dataset a source is, its share of what is taken is that of its documents.
    begin, end = sorted((draw.draw(st.integers(0, count)), draw.draw(st.integers(0, count))))
    found = ((taken >= begin) & (taken < end)).sum()
    assert abs(found - len(taken) * (end - begin) / count) < 4


def test_a_dataset_of_two_sources_is_judged_on_both():
    taken = spread_excerpts(np.concatenate((np.full(900, 5), np.full(100, 50))), 1000)[:, 0]
    assert (taken < 900).sum() == pytest.approx(9 * (taken >= 900).sum(), abs=10)


@given(LENGTHS, st.integers(1, 100_000), st.data())
def test_only_some_documents_to_choose_from(lengths, num_bytes, draw):
    among = np.array(draw.draw(st.lists(st.booleans(), min_size=len(lengths), max_size=len(lengths))))
    lengths = np.array(lengths)
    if not lengths[among].any():
        with pytest.raises(CorpusError, match="no bytes to judge"):
            spread_excerpts(lengths, num_bytes, among)
        return
    expected = spread_excerpts(lengths[among], num_bytes)
    expected[:, 0] = np.flatnonzero(among)[expected[:, 0]]
    assert spread_excerpts(lengths, num_bytes, among).tolist() == expected.tolist()


@pytest.mark.parametrize("lengths", [[], [0], [0, 0]])
def test_nothing_to_judge_on(lengths):
    with pytest.raises(CorpusError, match=r"^The validation documents have no bytes to judge a model on; choose others\.$"):
        spread_excerpts(np.array(lengths, dtype=np.int64), 10)


# ------------------------------------------------------------------------------------------------------------------ as rows


def test_the_last_row_is_padded():
    (row,) = ValidationRows(Documents([b"ab", b""]), EVERYTHING, row_tokens=7)
    assert row.ids.tolist()[3:] == [BOS_ID, BOE_ID, BOE_ID, BOE_ID]
    assert row.targets.tolist()[3:] == [EOS_ID, IGNORED_TARGET, IGNORED_TARGET, IGNORED_TARGET]
    # Padding sees itself only.
    assert row.visible_from.tolist() == [0, 0, 0, 3, 4, 5, 6]
    assert row.pieces == (Piece(0, 0, 3, 0), Piece(1, 0, 1, 3))
    assert row.num_bytes == 2


def test_rows_that_are_full_have_no_padding():
    rows = list(ValidationRows(Documents([b"abc", b"abcdefg"]), EVERYTHING, row_tokens=4))
    assert len(rows) == 3
    assert all(IGNORED_TARGET not in row.targets for row in rows)


def test_a_part_of_a_document_predicts_no_end_but_its_own():
    data = np.random.default_rng(0).integers(0, 256, 3 * WHOLE_BYTES, dtype=np.uint8).tobytes()
    rows = ValidationRows(Documents([data]), 2000, row_tokens=5000)
    (row,) = rows
    first, second = row.pieces
    assert (first.begin, first.end) == (0, WHOLE_BYTES)
    truth = encode(data, bos=True, eos=True)
    for _, begin, end, at in row.pieces:
        assert row.ids[at : at + end - begin].tolist() == truth[begin:end].tolist()
        assert row.targets[at : at + end - begin].tolist() == truth[begin + 1 : end + 1].tolist()
        # It sees nothing of the part before it.
        assert (row.visible_from[at : at + end - begin] == at).all()
    assert second.end - second.begin == 2000 - WHOLE_BYTES
    assert EOS_ID not in row.targets


@given(DOCUMENTS, st.integers(2, 20))
def test_every_document_is_there_once(documents, row_tokens):
    rows = list(ValidationRows(Documents(documents), EVERYTHING, row_tokens))
    targets = np.concatenate([row.targets for row in rows])
    assert targets[targets != IGNORED_TARGET].tolist() == [token for data in documents for token in encode(data, eos=True).tolist()]
    assert (targets == IGNORED_TARGET).sum() < row_tokens
    ids = np.concatenate([row.ids for row in rows])
    assert np.array_equal(ids == BOE_ID, targets == IGNORED_TARGET)
    assert all(row.num_bytes == (row.targets >= BYTE_OFFSET).sum() for row in rows)
