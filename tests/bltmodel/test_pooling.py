import pytest
import torch
from torch import Tensor

from bltmodel.pooling import attend_over_bytes, attend_over_queries, max_pool

OWN = torch.tensor([[0, 0, 1, 2, 2, 2], [0, 1, 2, 3, 3, 3]])
NUM_PATCHES = 5


def slow_max_pool(x: Tensor) -> Tensor:
    rows = [[_maximum(row[own == patch]) for patch in range(NUM_PATCHES)] for row, own in zip(x, OWN, strict=True)]
    return torch.stack([torch.stack(row) for row in rows])


def _maximum(members: Tensor) -> Tensor:
    # amax shares a gradient evenly among what ties.
    return members.amax(0) if len(members) else members.sum(0)


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


def test_max_pool_equals_a_loop():
    x = torch.randn(2, 6, 3)
    pooled = max_pool(x, OWN, NUM_PATCHES)
    assert torch.equal(pooled, slow_max_pool(x))
    assert not pooled[0, 3:].any()


def test_max_pool_shares_the_gradient_of_ties_evenly():
    x = torch.randint(-1, 2, (2, 6, 50)).float().requires_grad_()
    weights = torch.randn(2, NUM_PATCHES, 50)
    (fast,) = torch.autograd.grad((max_pool(x, OWN, NUM_PATCHES) * weights).sum(), x)
    (slow,) = torch.autograd.grad((slow_max_pool(x) * weights).sum(), x)
    torch.testing.assert_close(fast, slow)


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
