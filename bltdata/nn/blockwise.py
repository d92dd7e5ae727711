"""Attention that takes the blocks of a mask one after the other, with a backward pass of its own: how a CPU trains fastest.

All blocks at once need keys and values once for each block that sees them, and padding where a block reaches beyond the row. One after the
other they need neither: each takes a slice of the keys that are there, so those at the beginning of a row compute few scores, and their
gradients are added to a slice of the keys' gradients.

Letters: B rows, T queries, S keys, H heads, K head dimension, C queries a block, N = B * H.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class Block(NamedTuple):
    """Some queries, and all keys that any of them may see.

    Attributes:
        queries: which.
        keys: which.
        bias: `[B, 1, C, keys]`, added to scores.
    """

    queries: slice
    keys: slice
    bias: Tensor


def attend_blockwise(q_BHTK: Tensor, k_BHSK: Tensor, v_BHSK: Tensor, blocks: Sequence[Block]) -> Tensor:
    """Softmax attention, block by block.

    Args:
        q_BHTK: queries.
        k_BHSK: keys, of the type of the queries.
        v_BHSK: values, like the keys.
        blocks: all queries, each once.

    Returns:
        `[B, H, T, K]`, in the type of the queries.
    """
    out: Tensor = _Blockwise.apply(q_BHTK, k_BHSK, v_BHSK, blocks)
    return out


class _Blockwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q_BHTK: Tensor, k_BHSK: Tensor, v_BHSK: Tensor, blocks: Sequence[Block]) -> Tensor:
        q, k, v = (x.flatten(0, 1) for x in (q_BHTK * q_BHTK.shape[-1] ** -0.5, k_BHSK, v_BHSK))
        out, weights = torch.empty_like(q), []
        # Types are the caller's: they must be the same in the backward pass, which autocast doesn't reach.
        with torch.autocast(q.device.type, enabled=False):
            for queries, keys, bias in blocks:
                scores_NCS = torch.bmm(q[:, queries], k[:, keys].transpose(1, 2))
                scores_NCS.unflatten(0, q_BHTK.shape[:2]).add_(bias)
                weights.append(scores_NCS.softmax(-1))
                out[:, queries] = torch.bmm(weights[-1], v[:, keys])
        ctx.save_for_backward(q, k, v, *weights)
        ctx.places = [(queries, keys) for queries, keys, _ in blocks]
        ctx.rows_and_heads = q_BHTK.shape[:2]
        return out.unflatten(0, ctx.rows_and_heads)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        q, k, v, *weights = ctx.saved_tensors
        of_out = gradients[0].flatten(0, 1)
        of_q, of_k, of_v = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        for (queries, keys), weights_NCS in zip(ctx.places, weights, strict=True):
            of_block = of_out[:, queries]
            of_v[:, keys] += torch.bmm(weights_NCS.transpose(1, 2), of_block)
            of_weights = torch.bmm(of_block, v[:, keys].transpose(1, 2))
            of_scores = torch._softmax_backward_data(of_weights, weights_NCS, -1, weights_NCS.dtype)
            of_q[:, queries] = torch.bmm(of_scores, k[:, keys])
            of_k[:, keys] += torch.bmm(of_scores.transpose(1, 2), q[:, queries])
        of_q *= q.shape[-1] ** -0.5
        shaped_q, shaped_k, shaped_v = (x.unflatten(0, ctx.rows_and_heads) for x in (of_q, of_k, of_v))
        return shaped_q, shaped_k, shaped_v, None
