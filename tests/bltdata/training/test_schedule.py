import math

import hypothesis.strategies as st
import pytest
from hypothesis import given

from bltdata.training.config import TrainingConfig
from bltdata.training.schedule import learning_rate_at
from tests.bltdata.small import training


def test_learning_rate_by_hand():
    config = training(steps=11, warmup_steps=4, learning_rate=2.0, final_learning_rate_ratio=0.1)
    assert [learning_rate_at(step, config) for step in range(4)] == pytest.approx([0.5, 1.0, 1.5, 2.0])
    # Steps 4 to 10 are half a cosine from the peak to a tenth of it.
    expected = [0.2 + 1.8 * (1 + math.cos(math.pi * k / 6)) / 2 for k in range(7)]
    assert [learning_rate_at(step, config) for step in range(4, 11)] == pytest.approx(expected)
    assert learning_rate_at(10, config) == pytest.approx(0.2)


@pytest.mark.parametrize("changes", [{"steps": 1, "warmup_steps": 0}, {"steps": 3, "warmup_steps": 10}, {"steps": 5, "warmup_steps": 5}])
def test_learning_rate_of_odd_runs(changes):
    config = training(learning_rate=1.0, **changes)
    rates = [learning_rate_at(step, config) for step in range(config.steps)]
    assert all(0 < rate <= 1 for rate in rates)


def test_wsd_by_hand():
    config = training(steps=12, warmup_steps=3, learning_rate=3.0, final_learning_rate_ratio=0.0, schedule="wsd", decay_share=0.25)
    rates = [learning_rate_at(step, config) for step in range(12)]
    assert rates == pytest.approx([1.0, 2.0, 3.0, 3.0, 3.0, 3.0, 3.0, 3.0, 3.0, 2.0, 1.0, 0.0])


@given(
    steps=st.integers(1, 60),
    warmup_steps=st.integers(0, 80),
    decay_share=st.floats(0.01, 1),
    floor=st.floats(0, 1),
    schedule=st.sampled_from(["cosine", "wsd"]),
)
def test_it_rises_never_falls_too_early_and_ends_where_it_should(steps, warmup_steps, decay_share, floor, schedule):
    share = {"decay_share": decay_share} if schedule == "wsd" else {}
    config = TrainingConfig(
        steps=steps, warmup_steps=warmup_steps, learning_rate=1.0, final_learning_rate_ratio=floor, schedule=schedule, **share
    )
    rates = [learning_rate_at(step, config) for step in range(steps)]
    rise, rest = rates[:warmup_steps], rates[warmup_steps:]
    assert rise == sorted(rise)
    assert rest == sorted(rest, reverse=True)
    assert all(floor * (1 - 1e-9) <= rate <= 1 for rate in rest)
    if len(rest) > 1:
        assert rest[-1] == pytest.approx(floor)
    if schedule == "wsd":
        num_below = sum(rate < 1 for rate in rest)
        assert num_below <= max(1, round(decay_share * steps))
