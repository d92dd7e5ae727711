import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from bltdata.training.muon import Muon, orthogonalised

SHAPES = [(5, 9), (9, 5), (7, 7), (1, 4)]


def take_steps(optimiser: torch.optim.Optimizer, matrices: list[Tensor], numbers: range) -> None:
    for number in numbers:
        generator = torch.Generator().manual_seed(number)
        for matrix in matrices:
            matrix.grad = torch.randn(matrix.shape, generator=generator)
        optimiser.step()


def matrices() -> list[Tensor]:
    generator = torch.Generator().manual_seed(99)
    return [torch.randn(shape, generator=generator, requires_grad=True) for shape in SHAPES]


OPTIONS = {"lr": 0.1, "weight_decay": 0.3}


def test_in_bfloat16_its_steps_and_states_are_torchs():
    ours, torchs = matrices(), matrices()
    own = Muon(ours, torch.bfloat16, **OPTIONS)
    other = torch.optim.Muon(torchs, adjust_lr_fn="match_rms_adamw", **OPTIONS)
    take_steps(own, ours, range(3))
    take_steps(other, torchs, range(3))
    assert all(torch.equal(a, b) for a, b in zip(ours, torchs, strict=True))
    # A run that was begun with torch's goes on.
    again = Muon(torchs, torch.bfloat16, **OPTIONS)
    again.load_state_dict(other.state_dict())
    take_steps(own, ours, range(3, 5))
    take_steps(again, torchs, range(3, 5))
    assert all(torch.equal(a, b) for a, b in zip(ours, torchs, strict=True))


def test_in_float32_its_steps_are_exact():
    ours, exact = matrices(), [matrix.detach().double().requires_grad_() for matrix in matrices()]
    take_steps(Muon(ours, torch.float32, **OPTIONS), ours, range(3))
    optimiser = Muon(exact, torch.float64, **OPTIONS)
    for number in range(3):
        generator = torch.Generator().manual_seed(number)
        for matrix in exact:
            matrix.grad = torch.randn(matrix.shape, generator=generator).double()
        optimiser.step()
    for one, other in zip(ours, exact, strict=True):
        torch.testing.assert_close(one, other.float(), atol=1e-5, rtol=0)


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32), st.floats(1e-5, 1e5))
def test_singular_values_come_near_one_and_directions_stay(rows, columns, seed, scale):
    matrix = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    result = orthogonalised(matrix * scale, torch.float64)
    in_its_directions = left.T @ result @ right.T
    torch.testing.assert_close(in_its_directions, in_its_directions.diag().diag(), atol=1e-6, rtol=0)
    of_one = values / values.square().sum().sqrt()
    near = in_its_directions.diag()[of_one > 0.002]
    assert ((near > 0.68) & (near < 1.21)).all()


def test_no_gradient_makes_no_step_and_zeros_only_decay():
    first, second = matrices()[:2]
    before = first.detach().clone(), second.detach().clone()
    second.grad = torch.zeros_like(second)
    Muon([first, second], torch.float32, **OPTIONS).step()
    assert torch.equal(first, before[0])
    torch.testing.assert_close(second.detach(), before[1] * 0.97)


@pytest.mark.parametrize("shape", [(2, 3), (3, 2)])
def test_what_is_orthogonalised_is_left_as_it_is(shape):
    matrix = torch.ones(shape)
    orthogonalised(matrix, matrix.dtype)
    assert torch.equal(matrix, torch.ones(shape))
