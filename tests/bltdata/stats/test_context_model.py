import math
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bltdata.stats.context_model import ContextModel
from tests.bltdata.stats.contexts import context_bits


def slow_bits(documents: list[bytes]) -> list[float]:
    """The definition: counts in dictionaries, the shorter context for what is new in a longer one."""
    counts: dict[tuple[int, ...], Counter[int]] = defaultdict(Counter)
    bits = [0.0, 0.0, 0.0]
    for document in documents:
        before = [10, 10]
        for symbol in [*document, 256]:
            total = sum(counts[()].values())
            chance = (counts[()][symbol] + 0.5) / (total + 0.5 * 257)
            bits[0] -= math.log2(chance)
            for order in (1, 2):
                found = counts[tuple(before[-order:])]
                if found:
                    chance = (found[symbol] + len(found) * chance) / (sum(found.values()) + len(found))
                bits[order] -= math.log2(chance)
            for order in (0, 1, 2):
                counts[tuple(before[2 - order :])][symbol] += 1
            before = [before[1], symbol]
    return bits


@given(st.lists(st.binary(max_size=30) | st.text("ab", max_size=60).map(str.encode), max_size=4))
@settings(max_examples=15)
def test_bits_are_those_of_the_definition(documents: list[bytes]) -> None:
    assert context_bits(documents) == pytest.approx(slow_bits(documents), rel=1e-9)


def test_the_first_byte_costs_what_any_would() -> None:
    model = ContextModel()
    assert model.bits == (0.0, 0.0, 0.0)
    model.add(b"")
    assert model.bits == pytest.approx([math.log2(257)] * 3)


def test_what_is_learned_is_paid_for() -> None:
    rng = np.random.default_rng(0)
    # Nothing can be learned of these, and believing otherwise costs more than eight bits.
    assert all(bits / 20_000 >= 7.99 for bits in context_bits([rng.bytes(20_000)]))
    none, first, second = context_bits([b"abcdefgh" * 2000])
    assert (none / 16_000, first < 1000, second < 1500) == (pytest.approx(3, abs=0.1), True, True)
