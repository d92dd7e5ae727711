import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bltmodel.evaluation.bootstrap import interval_of_ratio

USUAL = {"level": 0.95, "resamples": 1000, "seed": 0}


def slow(numerators: list[float], denominators: list[int], level: float, resamples: int, seed: int) -> tuple[float, float]:
    generator = np.random.default_rng(seed)
    ratios = []
    for _ in range(resamples):
        above = below = 0.0
        for index in generator.integers(0, len(numerators), size=len(numerators), dtype=np.int32).tolist():
            above += numerators[index]
            below += denominators[index]
        if below > 0:
            ratios.append(above / below)
    outside = 100 * (1 - level) / 2
    return np.percentile(ratios, outside), np.percentile(ratios, 100 - outside)


@given(
    st.lists(st.tuples(st.floats(0, 100), st.integers(0, 20)), min_size=2, max_size=8).filter(lambda pairs: any(b for _, b in pairs)),
    st.sampled_from([0.5, 0.9]),
    st.integers(0, 2),
)
def test_it_is_what_a_loop_finds(pairs, level, seed):
    above, below = map(list, zip(*pairs, strict=True))
    found = interval_of_ratio(np.array(above), np.array(below), level=level, resamples=100, seed=seed)
    assert found == pytest.approx(slow(above, below, level, 100, seed))


def test_it_holds_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    held = 0
    for trial in range(200):
        num_bytes = rng.integers(1, 1000, size=60)
        # 2 bits a byte, but for what is each document's own.
        bits = num_bytes * rng.normal(2.0, 0.5, size=60)
        low, high = interval_of_ratio(bits, num_bytes, level=0.9, resamples=200, seed=trial)
        held += low <= 2.0 <= high
    assert 0.82 < held / 200 < 0.96


def test_it_is_the_ratio_of_sums_and_no_mean_of_ratios():
    low, high = interval_of_ratio(np.full(1000, 10.0), np.array([1] * 500 + [9] * 500), **USUAL)
    assert low < 2.0 < high < 3
    assert np.mean(10 / np.array([1, 9])) > 5


def test_many_documents():
    low, high = interval_of_ratio(np.full(100_000, 3.0), np.ones(100_000), level=0.95, resamples=100, seed=0)
    assert (low, high) == (3.0, 3.0)


@pytest.mark.parametrize(("nats", "num_bytes"), [([], []), ([1.0], [1]), ([1.0, 2.0], [0, 0])])
def test_nobody_knows(nats, num_bytes):
    assert interval_of_ratio(np.array(nats), np.array(num_bytes), **USUAL) is None
