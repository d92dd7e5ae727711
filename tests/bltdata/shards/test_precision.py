import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bltdata.errors import ConfigError, ShardError
from bltdata.shards.precision import MAX_STORED_CODE, MAX_STORED_NATS, TOLERANCE_NATS, check_stored, round_entropies
from bltdata.vocab import MAX_ENTROPY_NATS

LARGEST = float(np.float32(MAX_ENTROPY_NATS))
entropies = st.lists(st.floats(0, LARGEST, width=32), min_size=1).map(lambda values: np.array(values, dtype=np.float32))
precisions = st.sampled_from(["grid", "float16"])


@given(entropies)
def test_the_grid_is_never_further_than_half_a_step(values: np.ndarray) -> None:
    stored = round_entropies(values)
    assert np.abs(stored.astype(np.float64) - values).max() <= 1 / 512
    assert np.array_equal(stored.astype(np.float64) * 256, np.rint(stored.astype(np.float64) * 256))


@given(entropies)
def test_float16_is_the_nearest_float16(values: np.ndarray) -> None:
    assert np.array_equal(round_entropies(values, "float16"), values.astype(np.float16))


@given(entropies, precisions)
def test_rounding_twice_changes_nothing(values: np.ndarray, precision: str) -> None:
    once = round_entropies(values, precision)
    assert np.array_equal(round_entropies(once, precision).view(np.uint16), once.view(np.uint16))
    check_stored(once, "The rounded values")


@given(entropies, precisions)
def test_rounding_keeps_order(values: np.ndarray, precision: str) -> None:
    stored = round_entropies(np.sort(values), precision)
    assert (np.diff(stored.view(np.uint16).astype(int)) >= 0).all()


@pytest.mark.parametrize("precision", ["grid", "float16"])
def test_rounding_noise_at_the_borders_is_moved_inside(precision: str) -> None:
    values = np.array([-TOLERANCE_NATS / 2, -0.0, MAX_ENTROPY_NATS + TOLERANCE_NATS / 2], dtype=np.float32)
    assert round_entropies(values, precision).view(np.uint16).tolist() == [0, 0, MAX_STORED_CODE]
    assert MAX_STORED_NATS == 5.5625


@pytest.mark.parametrize(
    ("value", "text"), [(5.57, "5.57"), (20.77, "20.77"), (-0.01, "-0.01"), (np.nan, "nan"), (np.inf, "inf"), (-np.inf, "-inf")]
)
def test_an_impossible_entropy_is_named_with_its_position(value: float, text: str) -> None:
    values = np.ones(9, dtype=np.float32)
    values[[4, 7]] = value
    with pytest.raises(ShardError, match=r"at position 4 is .* 0 \.\.\. 5\.5607 \(ln 260\)") as error:
        round_entropies(values)
    assert f"is {text}" in str(error.value)
    with pytest.raises(ShardError, match=r"^Document 'a' has an entropy of .* at position 4; it must lie in"):
        check_stored(values.astype(np.float16), "Document 'a'")


def test_an_unknown_precision_and_no_values() -> None:
    with pytest.raises(ConfigError, match="'grid' or 'float16'"):
        round_entropies(np.zeros(1), "bfloat16")  # type: ignore[arg-type]
    assert round_entropies(np.zeros(0)).shape == (0,)
