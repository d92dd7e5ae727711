"""The running quantile: how near every document comes to its mean length."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bltdata.errors import PatchingError
from bltdata.patching import PatchRule, calibrate
from bltdata.patching.quantile import QUANTILE_STEP_NATS, quantile_flags

MAX_NATS = 5.5625


def mean_length(rule: PatchRule, entropies: np.ndarray) -> float:
    return entropies.size / rule.lengths(bytes(entropies.size - 1), entropies.astype(np.float16)).size


def skewed(size: int, seed: int = 0) -> np.ndarray:
    return np.minimum(np.random.default_rng(seed).gamma(1.3, 1.0, size), 5.5)


@given(
    st.lists(st.tuples(st.floats(0, 5.5), st.floats(0, 5.5), st.integers(1, 200)), min_size=1, max_size=8),
    st.floats(1, 20),
    st.floats(0, 5.5),
)
@settings(max_examples=500)
def test_any_document_is_within_the_bound(parts: list[tuple[float, float, int]], target: float, threshold: float) -> None:
    # Ramps and plateaus: as unlike a steady source as entropies can be.
    entropies = np.concatenate([np.linspace(*part, dtype=np.float32) for part in parts]).clip(0, 5.5)
    starts = int(quantile_flags(entropies, target, threshold).sum())
    # Position 0 starts a patch whatever its entropy, and may lift the threshold once where nothing else would.
    assert abs(starts - entropies.size / target) <= (MAX_NATS + 2 * QUANTILE_STEP_NATS) / QUANTILE_STEP_NATS


@pytest.mark.parametrize("target", [2.0, 4.5, 8.0])
@pytest.mark.parametrize("scale", [0.3, 1.0, 2.0])
@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_documents_of_any_level_have_the_mean(target: float, scale: float, shift: float) -> None:
    entropies = (scale * skewed(8192) + shift).clip(0, 5.5)
    assert mean_length(PatchRule(scheme="quantile", target_length=target), entropies) == pytest.approx(target, rel=0.03)


def test_where_one_threshold_is_far_off() -> None:
    easy, hard = 0.4 * skewed(8192), (1.0 + 1.2 * skewed(8192)).clip(0, 5.5)
    fixed, held = PatchRule(threshold=1.8), PatchRule(scheme="quantile", target_length=4.5)
    assert mean_length(fixed, easy) > 3 * mean_length(fixed, hard)
    assert mean_length(held, easy) == pytest.approx(mean_length(held, hard), rel=0.05)


def test_a_document_that_drifts_has_the_mean_all_along() -> None:
    entropies = (skewed(32768) * np.linspace(1.5, 0.3, 32768)).clip(0, 5.5)
    flags = quantile_flags(entropies.astype(np.float16), 4.5)
    for quarter in np.split(flags, 4):
        assert 8192 / quarter.sum() == pytest.approx(4.5, rel=0.03)


def test_the_mean_is_held_under_limits() -> None:
    for limits in ({"max_length": 8}, {"min_length": 3}, {"min_length": 2, "max_length": 6}):
        rule = PatchRule(scheme="quantile", target_length=4.5, **limits)  # type: ignore[arg-type]
        assert mean_length(rule, skewed(16384)) == pytest.approx(4.5, rel=0.03)


@pytest.mark.parametrize("level", [0.0, 1.0, MAX_NATS])
def test_entropies_that_say_nothing(level: float) -> None:
    rule = PatchRule(scheme="quantile", target_length=4.0)
    assert mean_length(rule, np.full(8192, level)) == pytest.approx(4.0, rel=0.05)
    assert mean_length(PatchRule(scheme="quantile", target_length=1.0), np.full(8192, level)) == pytest.approx(1.0, rel=0.05)


def test_a_target_that_a_limit_forbids_ends_at_the_limit() -> None:
    assert mean_length(PatchRule(scheme="quantile", target_length=9, max_length=4), skewed(8192)) == pytest.approx(4, rel=0.05)
    assert mean_length(PatchRule(scheme="quantile", target_length=2, min_length=4), skewed(8192)) == pytest.approx(4, rel=0.1)


def test_it_needs_no_calibration() -> None:
    rule = PatchRule(scheme="quantile", target_length=4.5)
    assert rule.is_calibrated
    with pytest.raises(PatchingError, match="'quantile' has no threshold to calibrate"):
        calibrate([(b"abc", [1.0] * 4)], rule, 4.5)
    with pytest.raises(PatchingError, match="position 1 of the document is nan"):
        rule.lengths(b"ab", [1.0, math.nan, 1.0])
