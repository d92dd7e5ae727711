import pytest
import torch
from torch import Tensor

from bltmodel.pooling import attend_over_bytes, attend_over_queries, pool

OWN = torch.tensor([[0, 0, 1, 2, 2, 2], [0, 1, 2, 3, 3, 3]])
NUM_PATCHES = 5


# amax and amin share a gradient evenly among what ties.
REDUCTIONS = {"max": lambda members: members.amax(0), "mean": lambda members: members.mean(0), "min": lambda members: members.amin(0)}


def slow_pool(x: Tensor, pooling: str) -> Tensor:
    rows = [[_reduced(row[own == patch], pooling) for patch in range(NUM_PATCHES)] for row, own in zip(x, OWN, strict=True)]
    return torch.stack([torch.stack(row) for row in rows])


def _reduced(members: Tensor, pooling: str) -> Tensor:
    return REDUCTIONS[pooling](members) if len(members) else members.sum(0)


def slow_attend_over_bytes(q: Tensor, k: Tensor, v: Tensor, own: Tensor) -> Tensor:
    out = torch.zeros_like(q)
    for b, patch in torch.cartesian_prod(torch.arange(2), torch.arange(NUM_PATCHES)):
        keys, values = k[b, own[b] == patch], v[b, own[b] == patch]
        if len(keys):
            scores = torch.einsum("qhk,thk->qht", q[b, patch], keys) / q.shape[-1] ** 0.5
            out[b, patch] = torch.einsum("qht,thk->qhk", scores.softmax(-1), values)
    return out


def slow_attend_over_queries(q: Tensor, k: Tensor, v: Tensor, patches: Tensor) -> Tensor:
    out = torch.empty_like(q)
    for b, t in torch.cartesian_prod(torch.arange(2), torch.arange(6)):
        patch = patches[b, t]
        scores = torch.einsum("hk,qhk->hq", q[b, t], k[b, patch]) / q.shape[-1] ** 0.5
        out[b, t] = torch.einsum("hq,qhk->hk", scores.softmax(-1), v[b, patch])
    return out


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("pooling", REDUCTIONS)
def test_pooling_equals_a_loop(pooling, dtype):
    x = torch.randn(2, 6, 3).to(dtype)
    pooled = pool(x, OWN, NUM_PATCHES, pooling)
    torch.testing.assert_close(pooled, slow_pool(x, pooling), rtol=0 if pooling != "mean" else None, atol=0 if pooling != "mean" else None)
    assert not pooled[0, 3:].any()


@pytest.mark.parametrize("pooling", REDUCTIONS)
def test_gradients_of_pooling_are_those_of_a_loop_and_ties_share_evenly(pooling):
    x = torch.randint(-1, 2, (2, 6, 50)).float().requires_grad_()
    weights = torch.randn(2, NUM_PATCHES, 50)
    (fast,) = torch.autograd.grad((pool(x, OWN, NUM_PATCHES, pooling) * weights).sum(), x)
    (slow,) = torch.autograd.grad((slow_pool(x, pooling) * weights).sum(), x)
    torch.testing.assert_close(fast, slow)


def test_a_long_patch_has_the_mean_of_its_bytes_in_a_narrow_type_too():
    x = torch.full((1, 4096, 1), 1.0, dtype=torch.bfloat16)
    assert pool(x, torch.zeros(1, 4096, dtype=torch.int64), 1, "mean").item() == 1


@pytest.mark.parametrize("num_queries", [1, 3])
def test_attention_over_bytes_equals_a_masked_table(num_queries):
    q, k, v = torch.randn(2, NUM_PATCHES, num_queries, 2, 4), torch.randn(2, 6, 2, 4), torch.randn(2, 6, 2, 4)
    attended = attend_over_bytes(q, k, v, OWN)
    torch.testing.assert_close(attended, slow_attend_over_bytes(q, k, v, OWN))
    assert not attended[0, 3:].any()


@pytest.mark.parametrize("num_queries", [1, 3])
def test_attention_over_queries_equals_a_loop(num_queries):
    q, k, v = torch.randn(2, 6, 2, 4), torch.randn(2, NUM_PATCHES, num_queries, 2, 4), torch.randn(2, NUM_PATCHES, num_queries, 2, 4)
    torch.testing.assert_close(attend_over_queries(q, k, v, OWN), slow_attend_over_queries(q, k, v, OWN))


@pytest.mark.parametrize(
    ("fast", "slow", "query_rows", "key_rows"),
    [
        (attend_over_bytes, slow_attend_over_bytes, (NUM_PATCHES, 2), (6,)),
        (attend_over_queries, slow_attend_over_queries, (6,), (NUM_PATCHES, 2)),
    ],
)
def test_gradients_are_those_of_the_loops(fast, slow, query_rows, key_rows):
    q, k, v = (torch.randn(2, *rows, 2, 4, requires_grad=True) for rows in (query_rows, key_rows, key_rows))
    weights = torch.randn_like(q)
    ours = torch.autograd.grad((fast(q, k, v, OWN) * weights).sum(), (q, k, v))
    theirs = torch.autograd.grad((slow(q, k, v, OWN) * weights).sum(), (q, k, v))
    for our, their in zip(ours, theirs, strict=True):
        torch.testing.assert_close(our, their)


def test_large_scores_do_not_overflow():
    q, k, v = 100 * torch.randn(2, NUM_PATCHES, 2, 2, 4), 100 * torch.randn(2, 6, 2, 4), torch.randn(2, 6, 2, 4)
    torch.testing.assert_close(attend_over_bytes(q, k, v, OWN), slow_attend_over_bytes(q, k, v, OWN))
