from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from bltdata.training.row_adam import RowAdam, _update_gathered, _update_rows

ROWS, DIM = 7, 3


def gradient(rows: list[int], seed: int) -> Tensor:
    """A sparse gradient that may name a row several times."""
    values = torch.randn(len(rows), DIM, generator=torch.Generator().manual_seed(seed))
    return torch.sparse_coo_tensor(torch.tensor([rows], dtype=torch.int64), values, (ROWS, DIM), check_invariants=True)


def take(optimiser: torch.optim.Optimizer, parameter: nn.Parameter, gradients: list[Tensor]) -> None:
    for number, each in enumerate(gradients):
        parameter.grad = each
        optimiser.param_groups[0]["lr"] = 0.1 / (number + 1)
        optimiser.step()


@settings(max_examples=30)
@given(st.lists(st.lists(st.integers(0, ROWS - 1), max_size=5), max_size=8))
def test_it_is_adam_over_the_whole_table_without_a_mean(steps):
    gradients = [gradient(rows, seed) for seed, rows in enumerate(steps)]
    begin = torch.randn(ROWS, DIM, generator=torch.Generator().manual_seed(0))
    ours, theirs = nn.Parameter(begin.clone()), nn.Parameter(begin.clone())
    take(RowAdam([ours], lr=1.0, beta2=0.9), ours, gradients)
    take(torch.optim.Adam([theirs], betas=(0.0, 0.9)), theirs, [each.to_dense() for each in gradients])
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)
    untouched = [row for row in range(ROWS) if not any(row in rows for rows in steps)]
    assert torch.equal(ours[untouched], begin[untouched])


@pytest.mark.parametrize("num_rows", [0, 1, 50])
def test_loops_and_tensor_operations_change_the_same(num_rows):
    generator = torch.Generator().manual_seed(num_rows)
    tensors = [torch.rand(60, 5, generator=generator) for _ in range(2)]
    tensors.append(torch.randint(0, 4, (60,), generator=generator).float())
    copies = [tensor.clone() for tensor in tensors]
    rows, values = torch.randperm(60, generator=generator)[:num_rows], torch.randn(num_rows, 5, generator=generator)
    numbers = (4, 0.01, 0.95, 1e-8)
    _update_gathered(rows, values, *tensors, *numbers)
    _update_rows(rows.numpy(), values.numpy(), *(copy.numpy() for copy in copies), *numbers)
    for tensor, copy in zip(tensors, copies, strict=True):
        torch.testing.assert_close(tensor, copy, atol=1e-7, rtol=1e-5)
    assert int((copies[2] == 4).sum()) == num_rows


def moved(make: Callable[[nn.Parameter], torch.optim.Optimizer], *, is_sparse: bool) -> float:
    """By how many learning rates a row moves that is read a single time, late, and never again."""
    table = nn.Parameter(torch.zeros(2, 1, dtype=torch.float32))
    optimiser = make(table)
    for step in range(600):
        row = int(step == 300)
        once = torch.sparse_coo_tensor([[row]], [[1.0]], (2, 1), check_invariants=True)
        table.grad = once if is_sparse else once.to_dense()
        optimiser.step()
    return -float(table.detach()[1, 0]) / 1e-3


def test_a_row_that_is_read_once_moves_as_far_as_the_docstring_says():
    assert moved(lambda table: torch.optim.AdamW([table], lr=1e-3, betas=(0.9, 0.95), weight_decay=0.0), is_sparse=False) == pytest.approx(
        5.8, abs=0.05
    )
    assert moved(lambda table: RowAdam([table], lr=1e-3, beta2=0.95), is_sparse=True) == pytest.approx(4.5, abs=0.05)
    assert moved(lambda table: torch.optim.SparseAdam([table], lr=1e-3, betas=(0.9, 0.95)), is_sparse=True) == pytest.approx(
        0.45, abs=0.005
    )


def test_a_table_without_a_gradient_stays():
    table = nn.Parameter(torch.ones(ROWS, DIM))
    RowAdam([table], lr=1.0, beta2=0.9).step()
    assert torch.equal(table, torch.ones(ROWS, DIM))
