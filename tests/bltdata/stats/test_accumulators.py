from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bltdata.stats import accumulators
from bltdata.stats.accumulators import EntropyHistogram, ExactSum, ExactSums, IntegerHistogram
from bltdata.stats.summary import Summary

entropies = st.lists(st.floats(0, 5.5625, width=16), min_size=1, max_size=50).map(lambda values: np.array(values, dtype=np.float16))
lengths = st.lists(st.integers(0, 6000), min_size=1, max_size=50).map(np.array)


def assert_describes(summary: Summary, values: np.ndarray) -> None:
    values = values.astype(np.float64)
    assert summary.total == len(values)
    assert summary.mean == pytest.approx(values.mean(), rel=1e-12, abs=1e-12)
    assert summary.std == pytest.approx(values.std(ddof=0), rel=1e-9, abs=1e-12)
    assert (summary.minimum, summary.maximum) == (values.min(), values.max())
    assert summary.median == pytest.approx(np.median(values), rel=1e-12)
    for fraction in (0, 0.01, 0.05, 0.25, 1 / 3, 0.5, 0.95, 0.99, 1):
        assert summary.quantile(fraction) == pytest.approx(np.quantile(values, fraction), rel=1e-12, abs=1e-12)
    distinct, counts = np.unique(values, return_counts=True)
    assert summary.most_common == distinct[np.argmax(counts)]
    assert summary.share_of(float(distinct[0])) == counts[0] / len(values)


@given(entropies)
def test_entropies_are_described_as_numpy_does(values: np.ndarray) -> None:
    histogram = EntropyHistogram()
    histogram.add(values)
    assert_describes(histogram.summary(), values)
    assert histogram.num_impossible == 0


@given(lengths)
def test_lengths_are_described_as_numpy_does(values: np.ndarray) -> None:
    histogram = IntegerHistogram()
    histogram.add(values.astype(np.uint32))
    assert_describes(histogram.summary(), values)


@given(st.lists(entropies, max_size=4), st.randoms())
def test_entropies_add_up_in_any_order(parts: list[np.ndarray], random: Any) -> None:
    together = EntropyHistogram()
    together.add(np.concatenate([np.zeros(0, np.float16), *parts]))
    random.shuffle(parts)
    merged = EntropyHistogram()
    for part in parts:
        one = EntropyHistogram()
        one.add(part)
        merged += one
    assert np.array_equal(merged.counts, together.counts)


@given(st.lists(lengths, max_size=4), st.randoms())
def test_lengths_add_up_in_any_order(parts: list[np.ndarray], random: Any) -> None:
    together = IntegerHistogram()
    together.add(np.concatenate([np.zeros(0, np.int64), *parts]))
    random.shuffle(parts)
    merged = IntegerHistogram()
    for part in parts:
        one = IntegerHistogram()
        one.add(part)
        merged += one
    assert np.array_equal(merged.dense, together.dense)
    assert merged.sparse == together.sparse


@given(st.lists(st.floats(0, 1e12), max_size=20), st.randoms())
def test_sums_do_not_depend_on_the_order(values: list[float], random: Any) -> None:
    one, other = ExactSum(), ExactSum()
    one.add(np.array(values))
    random.shuffle(values)
    for value in values:
        part = ExactSum()
        part.add(np.array([value]))
        other += part
    assert one.value == other.value == pytest.approx(sum(values), rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("make", [EntropyHistogram, IntegerHistogram])
def test_no_values_have_no_statistics(make: Callable[[], EntropyHistogram | IntegerHistogram]) -> None:
    summary = make().summary()
    assert summary.total == 0
    assert [summary.mean, summary.std, summary.median, summary.minimum, summary.maximum] == [None] * 5
    assert [summary.quantile(0.9), summary.most_common, summary.share_of(1.0)] == [None] * 3
    assert ExactSum().value == 0.0


def test_impossible_values_are_counted_and_seen() -> None:
    histogram = EntropyHistogram()
    histogram.add(np.array([1, 5.5625, 5.56640625, 20.77, -0.5, np.nan, np.inf], dtype=np.float16))
    assert histogram.num_impossible == 5
    summary = histogram.summary()
    assert summary.total == 5
    assert summary.maximum == pytest.approx(20.77, abs=0.01)
    assert summary.minimum == -0.5


def test_both_zeros_are_one_value() -> None:
    histogram = EntropyHistogram()
    histogram.add(np.array([-0.0, 0.0, 1.0], dtype=np.float16))
    assert histogram.summary().counts.tolist() == [2, 1]


def test_blocks_and_strides_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).integers(0, 9000, 1000)
    whole, blocks = IntegerHistogram(), IntegerHistogram()
    halves, strided = EntropyHistogram(), EntropyHistogram()
    whole.add(values)
    halves.add((values % 5).astype(np.float16))
    monkeypatch.setattr(accumulators, "BLOCK", 7)
    blocks.add(values)
    strided.add(np.repeat(values % 5, 2).astype(np.float16)[::2])
    assert np.array_equal(whole.dense, blocks.dense)
    assert whole.sparse == blocks.sparse
    assert np.array_equal(halves.counts, strided.counts)


def test_a_length_of_a_gigabyte_takes_one_entry() -> None:
    histogram = IntegerHistogram()
    histogram.add(np.array([1, 10**9 + 1], dtype=np.uint32))
    assert histogram.sparse == {10**9 + 1: 1}
    assert histogram.summary().maximum == 10**9 + 1


@given(st.lists(st.tuples(st.integers(-(2**63), 2**63 - 1), st.integers(-(2**40), 2**40)), max_size=20), st.integers(0, 20))
def test_sums_side_by_side_are_those_of_unlimited_integers(pairs: list[tuple[int, int]], split: int) -> None:
    left, right = ExactSums((2,)), ExactSums((2,))
    for index, pair in enumerate(pairs):
        (left if index < split else right).add(np.array(pair, dtype=np.int64))
    left += right
    assert left.integers() == [sum(pair[0] for pair in pairs), sum(pair[1] for pair in pairs)]
