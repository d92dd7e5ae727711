"""Entropy thresholds: ours are compared with entropies as shards store them, transformers' with entropies as they are computed.

So that both start the same patches, a threshold is translated: rounding never changes the order of entropies, so what is above ours
once it is rounded is all that is above some other number before it is.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from bltdata.errors import ConfigError
from bltdata.patching import PatchRule
from bltdata.patching.sources import SourceRules
from bltdata.shards import EntropyContext, round_entropies
from bltdata.shards.precision import MAX_STORED_NATS, Precision

PRECISIONS: tuple[Precision, ...] = ("grid", "float16")


def unrounded_threshold(threshold: float, precision: Precision) -> float:
    """The number that entropies are above before they are rounded, if and only if they are above `threshold` afterwards.

    Args:
        threshold: nats, from 0 to ln 260.
        precision: how entropies are rounded.

    Returns:
        A float32, in nats; for every float32 entropy the two comparisons agree.

    >>> unrounded_threshold(1.5, "grid") * 256  # 385 is the first step above, and half a step before it is rounded up to it
    384.5
    """
    # Bit patterns of floats that are not negative are ordered as the floats are.
    below, above = 0, int(np.float32(MAX_STORED_NATS).view(np.uint32)) + 1
    while above - below > 1:
        middle = (below + above) // 2
        entropy = np.array([middle], dtype=np.uint32).view(np.float32)
        is_above = np.float32(round_entropies(entropy, precision)[0]) > np.float32(threshold)
        below, above = (below, middle) if is_above else (middle, above)
    return float(np.uint32(below).view(np.float32))


def beyond_a_threshold(rules: SourceRules, entropy_model: Mapping[str, Any]) -> str | None:
    """How shards were cut if not by an entropy threshold alone, which is all that transformers does as we do.

    It knows a longest patch too, but with one the last position of a text may see other patches than it sees in a longer text.

    Args:
        rules: of the shards.
        entropy_model: what their manifest says of it.

    Returns:
        What goes behind "were cut"; None where a threshold is all.
    """
    rule = rules.default
    if rules.by_source:
        return "by a rule for each source"
    if rule.scheme != "entropy":
        return f"by the rule {rule.scheme!r}"
    if EntropyContext.of(entropy_model).reset_at_newline:
        return "by entropies that know no line before their own"
    for field in dataclasses.fields(rule):
        if field.name not in ("scheme", "threshold") and getattr(rule, field.name) != field.default:
            return f"with a {field.name} of {getattr(rule, field.name)}"
    return None


def rule_of_threshold(threshold: float, max_length: int | None, where: str) -> tuple[PatchRule, Precision]:
    """The rule that starts the patches which transformers starts, and how entropies are to be rounded for it.

    Where `threshold` is one that `unrounded_threshold` gave, the rule is exactly that. Any other is taken as it is, with entropies in
    float16, whose steps are below 0.1 % of a value: a patch may start elsewhere where an entropy is that close to the threshold.
    With `max_length` the last position of a text may see other patches there (see `beyond_a_threshold`).

    Args:
        threshold: nats, what transformers compares entropies with.
        max_length: no patch is longer.
        where: how an error names the place of both.

    Raises:
        ConfigError: one of them is out of range.
    """
    try:
        rule = PatchRule(threshold=threshold, max_length=max_length)
        for precision in PRECISIONS:
            rounded = float(round_entropies(np.array([threshold], dtype=np.float32), precision)[0])
            if unrounded_threshold(rounded, precision) == threshold:
                return PatchRule(threshold=rounded, max_length=max_length), precision
    except ConfigError as error:
        raise ConfigError(f"{where} makes no patch rule: {error}") from error
    return rule, "float16"
