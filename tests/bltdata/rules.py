"""Patch rules of any kind that can be followed byte by byte."""

from typing import Any

from hypothesis import strategies as st

from bltdata.patching import PatchRule


@st.composite
def rules(draw: st.DrawFn) -> PatchRule:
    """A rule of any incremental scheme with any settings that it reads."""
    scheme = draw(st.sampled_from(["entropy", "entropy", "entropy", "space", "quantile", "quantile", "fixed", "byte"]))
    if scheme == "fixed":
        return PatchRule(scheme="fixed", stride=draw(st.integers(1, 9)))
    if scheme == "byte":
        return PatchRule(scheme="byte")
    min_length = draw(st.integers(1, 5))
    limits: dict[str, Any] = {"min_length": min_length, "max_length": draw(st.none() | st.integers(min_length, 9))}
    if scheme == "space":
        return draw(
            st.sampled_from([PatchRule(scheme="space", **limits), PatchRule(scheme="space", characters=True, min_length=min_length)])
        )
    if scheme == "quantile":
        first = draw(st.none() | st.sampled_from([0.0, 1.0, 5.5]))
        return PatchRule(scheme="quantile", target_length=draw(st.floats(1, 12)), threshold=first, **limits)
    threshold = draw(st.none() | st.sampled_from([0.0, 0.25, 0.3, 1.0, 5.5]) | st.floats(0, 5.5))
    relative = draw((st.none() if threshold is not None else st.nothing()) | st.sampled_from([-0.25, 0.0, 0.25]) | st.floats(-6, 6))
    return PatchRule(threshold=threshold, relative_threshold=relative, reset_at_newline=draw(st.booleans()), **limits)
