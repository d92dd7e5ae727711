import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bltmodel.evaluation.calibration import NUM_BINS, Calibration

PREDICTIONS = st.lists(st.tuples(st.floats(0.00390625, 1, width=32), st.booleans()), max_size=80)


def calibration(predictions) -> Calibration:
    found = Calibration()
    found.add(
        np.array([confidence for confidence, _ in predictions], dtype=np.float32), np.array([right for _, right in predictions], dtype=bool)
    )
    return found


@given(PREDICTIONS)
def test_it_is_what_a_loop_finds(predictions):
    bins: dict[int, list[tuple[float, bool]]] = {}
    for confidence, right in predictions:
        (index,) = [i for i in range(NUM_BINS) if i < confidence * NUM_BINS <= i + 1]
        bins.setdefault(index, []).append((confidence, right))
    gaps = {i: np.mean([c for c, _ in held]) - np.mean([r for _, r in held]) for i, held in bins.items()}
    found = calibration(predictions)
    assert [(round(row["from"] * NUM_BINS), row["predictions"]) for row in found.table()] == [(i, len(bins[i])) for i in sorted(bins)]
    assert [row["gap"] for row in found.table()] == pytest.approx([gaps[i] for i in sorted(bins)])
    if predictions:
        expected = sum(abs(gaps[i]) * len(bins[i]) for i in bins) / len(predictions)
        assert found.expected_error == pytest.approx(expected)
        assert found.maximum_error == pytest.approx(max(map(abs, gaps.values())))
    else:
        assert (found.expected_error, found.maximum_error) == (None, None)


@given(PREDICTIONS, PREDICTIONS)
def test_parts_add_up(some, others):
    parts, whole = (calibration(some) + calibration(others)).table(), calibration(some + others).table()
    assert parts == [pytest.approx(row) for row in whole]


def test_a_model_that_knows_what_it_knows():
    rng = np.random.default_rng(0)
    confidence = rng.random(100_000)
    honest, boastful = Calibration(), Calibration()
    honest.add(confidence, rng.random(100_000) < confidence)
    boastful.add(confidence, rng.random(100_000) < confidence / 2)
    assert honest.expected_error < 0.01
    assert boastful.expected_error == pytest.approx(0.25, abs=0.01)
    assert all(row["gap"] > 0 for row in boastful.table())
