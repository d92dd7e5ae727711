"""Several processes sum the gradients of tables row by row."""

import pytest
import torch
from torch import Tensor, nn

from bltdata.training.world import World
from tests.several import group

SHAPE = (50, 3)


def gradient_of(rank: int, num_rows: int) -> Tensor:
    generator = torch.Generator().manual_seed(rank)
    rows = torch.randint(0, SHAPE[0], (1, num_rows), generator=generator)
    return torch.sparse_coo_tensor(rows, torch.randn(num_rows, SHAPE[1], generator=generator), SHAPE, check_invariants=True)


def summed(world: World, num_rows: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor, bool, float]:
    """Sums of a table's gradient (rows and values) and of a matrix's, after both processes have added up theirs."""
    table, matrix = nn.Parameter(torch.zeros(SHAPE)), nn.Parameter(torch.zeros(2, 2))
    frozen = nn.Parameter(torch.zeros(2), requires_grad=False)
    table.grad, matrix.grad = gradient_of(world.rank, num_rows[world.rank]), torch.full((2, 2), float(world.rank + 1))
    nats = world.sum_gradients([table, frozen, matrix], torch.tensor(float(world.rank)))
    return table.grad.indices().clone(), table.grad.values().clone(), matrix.grad.clone(), table.grad.is_coalesced(), float(nats)


@pytest.mark.parametrize("num_rows", [(20, 20), (0, 7), (9, 1), (0, 0)])
def test_rows_of_all_processes_are_summed(num_rows):
    with group(2) as both:
        first, second = both.run(summed, num_rows)
    assert first.error is None
    rows, values, matrix, is_coalesced, nats = first.value
    expected = sum(gradient_of(rank, count).to_dense() for rank, count in enumerate(num_rows))
    torch.testing.assert_close(torch.sparse_coo_tensor(rows, values, SHAPE, check_invariants=True).to_dense(), expected)
    assert (is_coalesced, nats, matrix.tolist()) == (True, 1.0, [[3.0, 3.0], [3.0, 3.0]])
    # To the last bit, or the processes' weights would drift apart.
    assert torch.equal(rows, second.value[0])
    assert torch.equal(values, second.value[1])
