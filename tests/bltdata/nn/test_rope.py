import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.overrides import TorchFunctionMode
from transformers.models.blt.configuration_blt import BltPatcherConfig
from transformers.models.blt.modeling_blt import BltRotaryEmbedding, apply_rotary_pos_emb

from bltdata.nn import rotary_table, rotate, rotations


def at(table: torch.Tensor, position: int) -> torch.Tensor:
    return table[position : position + 1]


def test_pairs_by_hand():
    # Two pairs: frequencies 1 and 100 ** -0.5 = 0.1.
    table = rotary_table(3, 4, theta=100.0)
    assert table.shape == (3, 2)
    rotated = rotate(torch.tensor([1.0, 0, 0, 2]).expand(1, 1, 3, 4), table)[0, 0]
    for position in range(3):
        fast, slow = position * 1.0, position * 0.1
        expected = [math.cos(fast), math.sin(fast), -2 * math.sin(slow), 2 * math.cos(slow)]
        assert rotated[position].tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("theta", [10_000.0, 500_000.0])
# Theirs are float32 angles, which are the worse the larger they are: at position 900 by 3e-5.
@pytest.mark.parametrize(("length", "tolerance"), [(60, 1e-5), (900, 2e-4)])
def test_same_as_in_transformers(theta, length, tolerance):
    heads, head_dim = 3, 16
    config = BltPatcherConfig(
        hidden_size=heads * head_dim, num_attention_heads=heads, rope_parameters={"rope_type": "default", "rope_theta": theta}
    )
    q, k = torch.randn(2, heads, length, head_dim), torch.randn(2, heads, length, head_dim)
    cos, sin = BltRotaryEmbedding(config)(q, torch.arange(length)[None])
    table = rotary_table(length, head_dim, theta)
    for ours, theirs in zip((rotate(q, table), rotate(k, table)), apply_rotary_pos_emb(q, k, cos, sin), strict=True):
        torch.testing.assert_close(ours, theirs, atol=tolerance, rtol=0)


@given(st.integers(0, 500), st.integers(0, 500), st.integers(0, 9000))
def test_scores_depend_on_the_distance_alone(query_at, key_at, moved_by):
    generator = torch.Generator().manual_seed(0)
    q, k = torch.randn(2, 1, 1, 1, 8, generator=generator)
    table = rotary_table(9501, 8, 10_000.0)

    def score(moved: int) -> float:
        return float((rotate(q, at(table, query_at + moved)) * rotate(k, at(table, key_at + moved))).sum())

    assert score(moved_by) == pytest.approx(score(0), abs=1e-5)


def test_a_score_does_depend_on_the_distance():
    ones = torch.ones(1, 1, 1, 8)
    table = rotary_table(10, 8, 10_000.0)
    scores = [float((rotate(ones, at(table, 0)) * rotate(ones, at(table, distance))).sum()) for distance in range(4)]
    assert scores == sorted(scores, reverse=True)
    assert len(set(scores)) == 4


def test_lengths_and_types_are_kept():
    x = torch.randn(1, 2, 30, 8)
    table = rotary_table(30, 8, 10_000.0)
    torch.testing.assert_close(rotate(x, table).norm(dim=-1), x.norm(dim=-1))
    assert torch.equal(rotate(x, table)[:, :, 0], x[:, :, 0])
    half = rotate(x.bfloat16(), table)
    assert half.dtype == torch.bfloat16
    # Computed in float32 from the rounded input, and rounded once.
    assert torch.equal(half, rotate(x.bfloat16().float(), table).bfloat16())


def test_any_positions_have_the_rotations_of_the_table():
    positions = torch.tensor([[7, 0], [4000, 7]])
    assert torch.equal(rotations(positions, 8, 5e5), rotary_table(4001, 8, 5e5)[positions])


def test_a_table_that_generation_asked_for_first_serves_training():
    with torch.inference_mode():
        table = rotary_table(7, 8, theta=12_345.0)
    assert rotary_table(7, 8, theta=12_345.0).data_ptr() == table.data_ptr()
    x = torch.randn(1, 1, 7, 8, requires_grad=True)
    rotate(x, table).sum().backward()
    assert x.grad is not None


def test_lengths_that_differ_share_a_table():
    tables = [rotary_table(num_positions, 6, theta=77.0) for num_positions in (1, 3, 100, 255, 256)]
    assert len({table.data_ptr() for table in tables}) == 1
    for num_positions in (1, 3, 100, 255, 256, 257, 700):
        table = rotary_table(num_positions, 6, theta=77.0)
        assert torch.equal(torch.view_as_real(table), torch.view_as_real(rotations(torch.arange(num_positions), 6, 77.0)))
    assert rotary_table(257, 6, theta=77.0).untyped_storage().nbytes() == 512 * 3 * 8


def test_frequencies_are_worked_out_on_the_cpu():
    made_on = []

    class Watching(TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            if func in (torch.Tensor.pow, torch.Tensor.__rpow__):
                made_on.append(out.device.type)
            return out

    with Watching():
        table = rotary_table(5, 4, theta=78.0, device=torch.device("meta"))
    assert table.is_meta
    assert made_on == ["cpu"]
