import itertools
import json
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bltdata.entropy.reliability import Bin, Reliability, mean_gap_nats
from bltdata.entropy.scoring import entropy_and_nll
from bltdata.vocab import MAX_ENTROPY_NATS

positions = st.lists(st.tuples(st.floats(0, float(np.float32(MAX_ENTROPY_NATS)), width=32), st.floats(0, 30, width=32)), max_size=60)


def of(values: list[tuple[float, float]]) -> Reliability:
    reliability = Reliability()
    reliability.add(*np.array(values, dtype=np.float32).reshape(-1, 2).T)
    return reliability


def slowly(values: list[tuple[float, float]], bin_of: Callable[[float], int]) -> dict[int, tuple[int, float, float]]:
    """Bin -> count and means, position by position."""
    groups: dict[int, list[tuple[float, float]]] = {}
    for entropy, nll in values:
        groups.setdefault(bin_of(entropy), []).append((entropy, nll))
    return {key: (len(group), *np.mean(group, axis=0).tolist()) for key, group in sorted(groups.items())}


def check(bins: list[Bin], expected: dict[int, tuple[int, float, float]]) -> None:
    assert [found.count for found in bins] == [each[0] for each in expected.values()]
    assert [found.mean_entropy_nats for found in bins] == pytest.approx([each[1] for each in expected.values()])
    assert [found.mean_nll_nats for found in bins] == pytest.approx([each[2] for each in expected.values()])
    assert [found.gap_nats for found in bins] == pytest.approx([each[2] - each[1] for each in expected.values()], abs=1e-9)


@given(positions)
def test_bins_are_those_of_a_loop(values):
    reliability = of(values)
    expected = slowly(values, lambda entropy: int(entropy // 0.25))
    check(reliability.bins(), expected)
    assert [found.from_nats for found in reliability.bins()] == [key * 0.25 for key in expected]
    assert all(found.to_nats <= found.from_nats + 0.25 for found in reliability.bins())
    if values:
        gap = sum(count * abs(nll - entropy) for count, entropy, nll in expected.values()) / len(values)
        assert mean_gap_nats(reliability.bins()) == pytest.approx(gap, abs=1e-9)
        check([reliability.overall()], slowly(values, lambda entropy: 0))


@given(positions)
def test_equal_bins_hold_every_position_once(values):
    bins = of(values).equal_bins()
    assert sum(found.count for found in bins) == len(values)
    assert len(bins) <= 20
    assert all(before.to_nats <= after.from_nats for before, after in itertools.pairwise(bins))

    def bin_of(entropy: float) -> int:
        return sum(found.from_nats <= entropy for found in bins)

    check(bins, slowly(values, bin_of))


def test_equal_bins_are_equal_where_values_differ():
    entropies = np.linspace(0, 5.5, 100_000)
    reliability = Reliability()
    reliability.add(entropies, entropies)
    # A fine bin holds 71 of them.
    assert [found.count for found in reliability.equal_bins()] == pytest.approx([5000] * 20, abs=80)


@given(positions, positions)
def test_sums_of_parts_are_the_whole(first, second):
    whole, sum_of_parts = of(first + second), of(first)
    sum_of_parts += of(second)
    assert (whole.counts == sum_of_parts.counts).all()
    assert whole.report()["mean_nll_nats"] == pytest.approx(sum_of_parts.report()["mean_nll_nats"])


@pytest.mark.parametrize("values", [[], [(0.0, 0.0)], [(MAX_ENTROPY_NATS, 1.0)], [(1.0, 2.0)]])
def test_reports_are_json(values):
    report = of(values).report()
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert report["positions"] == len(values)
    if values:
        assert report["gap_nats"] == pytest.approx(values[0][1] - np.float32(values[0][0]))
        assert report["mean_absolute_gap_nats"] == report["mean_absolute_gap_nats_equal_bins"] == abs(report["gap_nats"])
    else:
        assert report["mean_absolute_gap_nats"] is report["gap_nats"] is None
        assert report["bins"] == report["equal_bins"] == []


@pytest.mark.parametrize(("scale", "sign"), [(1.0, 0), (1.5, 1), (0.6, -1)])
def test_a_gap_says_whether_a_model_is_too_sure(scale, sign):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(40_000, 260, generator=generator) * (torch.rand(40_000, 1, generator=generator) * 4)
    targets = logits.softmax(-1).multinomial(1, generator=generator)[:, 0]
    reliability = Reliability()
    reliability.add(*(values.numpy() for values in entropy_and_nll(logits * scale, targets)))
    report = reliability.report()
    if sign == 0:
        assert abs(report["gap_nats"]) < 0.02
        assert report["mean_absolute_gap_nats"] < 0.04
        assert report["mean_absolute_gap_nats_equal_bins"] < 0.04
    else:
        assert report["gap_nats"] * sign > 0.2
        # Where there is something to be wrong about, every bin is wrong in the same way.
        gaps = [found["gap_nats"] * sign for found in report["bins"] if found["count"] > 500 and 0.5 < found["mean_entropy_nats"] < 5]
        assert len(gaps) > 5
        assert min(gaps) > 0.05
        assert report["mean_absolute_gap_nats"] > 0.2
