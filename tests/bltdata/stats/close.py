"""Comparing reports, numbers up to rounding."""

from typing import Any

import pytest


def assert_close(got: Any, expected: Any) -> None:
    """Both have the same keys and lengths at every level, and the same numbers, or None."""
    if isinstance(expected, dict):
        assert set(got) == set(expected)
        for key in expected:
            assert_close(got[key], expected[key])
    elif isinstance(expected, list):
        assert len(got) == len(expected)
        for mine, other in zip(got, expected, strict=True):
            assert_close(mine, other)
    else:
        assert got == (expected if expected is None else pytest.approx(float(expected), rel=1e-9, abs=1e-12))
