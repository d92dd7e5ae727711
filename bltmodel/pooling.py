"""What patches make of their bytes and bytes of their patches, without a table of bytes by patches.

A token belongs to one patch, so all that is summed, maximised or attended over a patch is a sum over a segment of the row,
and all that a byte takes from a patch is a row of a table. The work grows with the number of bytes alone.

Letters: B rows, T tokens, P patches, D any dimension, Q queries a patch, H heads, K head dimension.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from bltmodel.config import Pooling

EXTREMES: Mapping[Pooling, str] = {"max": "amax", "min": "amin"}
"""What torch calls the reduction."""


def flat_patches(patches_BT: Tensor, num_patches: int) -> Tensor:
    """Patches counted through all rows: row `b`'s patch `p` is `b * num_patches + p`. int64 `[B * T]`."""
    first_of_row_B1 = torch.arange(len(patches_BT), device=patches_BT.device)[:, None] * num_patches
    return (patches_BT + first_of_row_B1).flatten()


def pool(x_BTD: Tensor, own_BT: Tensor, num_patches: int, pooling: Pooling = "max") -> Tensor:
    """The largest, the mean or the smallest value of each channel among the bytes of each patch.

    Bytes that tie for an extreme share its gradient evenly.

    Args:
        x_BTD: byte states.
        own_BT: int64, the patch that each byte belongs to.
        num_patches: patches a row.
        pooling: which of the three.

    Returns:
        `[B, P, D]`, of the type of `x_BTD`; 0 for a patch without bytes.
    """
    x_ND, flat, num_segments = x_BTD.flatten(0, 1), flat_patches(own_BT, num_patches), len(x_BTD) * num_patches
    pooled: Tensor
    if pooling == "mean":
        pooled = _segment_mean(x_ND, flat, num_segments)
    else:
        pooled = _ExtremePool.apply(x_ND, flat, num_segments, EXTREMES[pooling])
    return pooled.view(len(x_BTD), num_patches, -1)


def attend_over_bytes(q_BPQHK: Tensor, k_BTHK: Tensor, v_BTHK: Tensor, own_BT: Tensor) -> Tensor:
    """Attention of each patch's queries over the patch's own bytes.

    Args:
        q_BPQHK: queries of each patch.
        k_BTHK: keys of each byte.
        v_BTHK: values, like the keys.
        own_BT: int64, the patch that each byte belongs to.

    Returns:
        `[B, P, Q, H, K]`, of the type of the queries; 0 for a patch without bytes.
    """
    batch, num_patches = q_BPQHK.shape[:2]
    flat = flat_patches(own_BT, num_patches)
    q_NQHK = q_BPQHK.flatten(0, 1).index_select(0, flat)
    k_N1HK, v_N1HK = k_BTHK.flatten(0, 1)[:, None], v_BTHK.flatten(0, 1)[:, None]
    scores_NQH = (q_NQHK * k_N1HK).sum(-1, dtype=torch.float32) * q_NQHK.shape[-1] ** -0.5
    with torch.no_grad():
        largest = _segment_extreme(scores_NQH.flatten(1), flat, batch * num_patches, "amax").index_select(0, flat)
    weights_NQH = (scores_NQH - largest.view_as(scores_NQH)).exp()
    totals = _segment_sum(weights_NQH, flat, batch * num_patches)
    sums = _segment_sum(weights_NQH[..., None] * v_N1HK, flat, batch * num_patches)
    # A total is at least 1, the weight of the largest score, except where there is no byte.
    return (sums / totals.clamp(min=1)[..., None]).view(q_BPQHK.shape).to(q_BPQHK.dtype)


def attend_over_queries(q_BTHK: Tensor, k_BPQHK: Tensor, v_BPQHK: Tensor, patches_BT: Tensor) -> Tensor:
    """Attention of each byte over the `Q` vectors of one patch.

    Args:
        q_BTHK: a query for each byte.
        k_BPQHK: keys of each patch's vectors.
        v_BPQHK: values, like the keys.
        patches_BT: int64, the patch that each byte attends to.

    Returns:
        `[B, T, H, K]`, of the type of the queries.
    """
    if k_BPQHK.shape[1] == 1:
        k_BTQHK, v_BTQHK = k_BPQHK, v_BPQHK
    else:
        flat = flat_patches(patches_BT, k_BPQHK.shape[1])
        k_BTQHK, v_BTQHK = (x.flatten(0, 1).index_select(0, flat).unflatten(0, patches_BT.shape) for x in (k_BPQHK, v_BPQHK))
    scores_BTQH = (q_BTHK[:, :, None] * k_BTQHK).sum(-1, dtype=torch.float32) * q_BTHK.shape[-1] ** -0.5
    weights_BTQH = scores_BTQH.softmax(2)
    return (weights_BTQH[..., None] * v_BTQHK).sum(2).to(q_BTHK.dtype)


def _segment_sum(x: Tensor, flat: Tensor, num_segments: int) -> Tensor:
    return x.new_zeros(num_segments, *x.shape[1:]).index_add(0, flat, x)


def _segment_mean(x_ND: Tensor, flat: Tensor, num_segments: int) -> Tensor:
    # In float32, so that the mean of a long patch doesn't depend on the order in which a narrower type rounds it.
    sums = _segment_sum(x_ND.to(torch.promote_types(x_ND.dtype, torch.float32)), flat, num_segments)
    counts_N1 = _segment_sum(sums.new_ones(len(flat), 1), flat, num_segments)
    return (sums / counts_N1.clamp(min=1)).to(x_ND.dtype)


def _segment_extreme(x_ND: Tensor, flat: Tensor, num_segments: int, reduce: str) -> Tensor:
    target = x_ND.new_zeros(num_segments, x_ND.shape[1])
    return target.scatter_reduce(0, flat[:, None].expand_as(x_ND), x_ND, reduce, include_self=False)


class _ExtremePool(torch.autograd.Function):
    """Maximum or minimum of each segment. The gradient is that of `scatter_reduce` itself, at half its cost on a CPU."""

    @staticmethod
    def forward(ctx: Any, x_ND: Tensor, flat: Tensor, num_segments: int, reduce: str) -> Tensor:
        pooled = _segment_extreme(x_ND, flat, num_segments, reduce)
        ctx.save_for_backward(x_ND, flat, pooled)
        return pooled

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        x_ND, flat, pooled = ctx.saved_tensors
        wins_ND = (x_ND == pooled.index_select(0, flat)).to(gradients[0].dtype)
        winners = _segment_sum(wins_ND, flat, len(pooled)).clamp(min=1)
        return wins_ND * (gradients[0] / winners).index_select(0, flat), None, None, None
