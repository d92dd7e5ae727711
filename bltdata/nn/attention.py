"""Attention in which a query sees a window of its own document and nothing else.

One number a query says what it may see: `visible_from[i]`, the first key of its document. With the window `W` that is
all there is to a mask: query `i` sees keys `max(visible_from[i], i - W + 1) ... i`. No key after the query is ever
visible, whatever the caller passes.

A window makes the mask a band, and the band is computed block by block: `C` queries against the `W + C` keys that any
of them can see, so the work grows with `T * W`, not with `T * T`.

Letters: B rows, T queries, S keys, H heads, K head dimension, N blocks, C queries a block.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from bltdata.nn.blockwise import Block, attend_blockwise

FUSED_BLOCK = 32
"""Queries a block where a CPU's fused kernel computes it: it copies no keys, so small blocks with few masked scores win."""

PLAIN_BLOCK = 128
"""Queries a block where two matrix products compute it: smaller blocks copy each key more often, larger ones compute more
masked scores. Half the window where that is less."""

GPU_BLOCK = 256
"""Queries a block on a GPU."""

SMALLEST_BLOCKWISE = 1 << 16
"""Scores of a block, of all rows and heads, from which on a CPU trains faster on one block after the other than on all at once."""


@dataclass(frozen=True)
class AttentionMask:
    """What each query sees, laid out as the blocks in which attention is computed.

    Attributes:
        visible: bool `[B, N, 1, C, S]`, True where a query sees a key.
        bias: `[B, N, 1, C, S]`, 0 where visible and -inf elsewhere, to be added to scores; in the type of matrix products.
        window: the band's width, or None where every block holds all keys.
        num_queries: T, before it was padded to whole blocks.
        num_past: how many keys stand before the first query.
    """

    visible: Tensor
    bias: Tensor
    window: int | None
    num_queries: int
    num_past: int


def dense_mask(visible_from_BT: Tensor, num_past: int = 0) -> AttentionMask:
    """Causal attention inside documents, with no window.

    Args:
        visible_from_BT: integer `[B, T]`, for each query the index of the first key of its document, counted from the
            first past key.
        num_past: keys that stand before the first query.
    """
    num_queries = visible_from_BT.shape[1]
    key_S = torch.arange(num_past + num_queries, device=visible_from_BT.device)
    query_T = key_S[num_past:]
    # Every query sees its own key, so that no row of scores is empty.
    first_BT = torch.minimum(visible_from_BT, query_T)
    visible = (key_S <= query_T[:, None]) & (key_S >= first_BT[:, :, None])
    return _mask(visible[:, None, None], None, num_queries, num_past)


def banded_mask(visible_from_BT: Tensor, window: int, num_past: int = 0) -> AttentionMask:
    """Causal attention inside documents over the last `window` keys, the query's own among them.

    Args:
        visible_from_BT: integer `[B, T]`, for each query the index of the first key of its document, counted from the
            first past key.
        window: number of keys that a query sees at most.
        num_past: keys that stand before the first query; more than `window` are of no use.
    """
    num_queries = visible_from_BT.shape[1]
    block = min(_block_size(window, visible_from_BT.device), num_queries)
    num_blocks = -(-num_queries // block)
    # A block's first key stands `window` before its first query; what a band shows is the same in every block.
    query_C = torch.arange(window, window + block, device=visible_from_BT.device)
    key_S = torch.arange(window + block, device=visible_from_BT.device)
    in_band_CS = (key_S <= query_C[:, None]) & (key_S > query_C[:, None] - window)
    # Every query sees its own key, and padded ones no other, so that no row of scores is empty. Keys from before the past
    # are padding too, which nobody sees.
    first = functional.pad(visible_from_BT.clamp(min=0), (0, num_blocks * block - num_queries), value=num_queries + num_past)
    block_begin_N1 = torch.arange(num_blocks, device=visible_from_BT.device)[:, None] * block
    first_BNC = torch.minimum(first.unflatten(1, (num_blocks, block)) + (window - num_past) - block_begin_N1, query_C)
    visible = in_band_CS & (key_S >= first_BNC[..., None])
    return _mask(visible[:, :, None], window, num_queries, num_past)


def attend(q_BHTK: Tensor, k_BHSK: Tensor, v_BHSK: Tensor, mask: AttentionMask) -> Tensor:
    """Softmax attention under `mask`.

    Args:
        q_BHTK: queries `[B, H, T, K]`.
        k_BHSK: keys `[B, H, num_past + T, K]`.
        v_BHSK: values, like the keys.
        mask: what each query sees.

    Returns:
        `[B, H, T, K]`, in the type of the queries.
    """
    if _blockwise_wins(q_BHTK, mask):
        return attend_blockwise(q_BHTK, k_BHSK, v_BHSK, _blocks(mask, q_BHTK.dtype))
    if mask.window is None:
        q, k, v = q_BHTK[:, None], k_BHSK[:, None], v_BHSK[:, None]
    else:
        q = _query_blocks(q_BHTK, mask)
        k, v = _key_blocks(k_BHSK, mask), _key_blocks(v_BHSK, mask)
    out = _attend_blocks(q, k, v, mask)
    return out.transpose(1, 2).flatten(2, 3)[:, :, : mask.num_queries]


def _mask(visible: Tensor, window: int | None, num_queries: int, num_past: int) -> AttentionMask:
    bias = torch.zeros(visible.shape, dtype=_product_dtype(visible.device), device=visible.device).masked_fill_(~visible, -torch.inf)
    return AttentionMask(visible, bias, window, num_queries, num_past)


def _query_blocks(q_BHTK: Tensor, mask: AttentionMask) -> Tensor:
    _, num_blocks, _, block, _ = mask.visible.shape
    padded = functional.pad(q_BHTK, (0, 0, 0, num_blocks * block - mask.num_queries))
    return padded.unflatten(2, (num_blocks, block)).transpose(1, 2)


def _key_blocks(x_BHSK: Tensor, mask: AttentionMask) -> Tensor:
    """The keys (or values) of each block: `[B, N, H, C + W, K]`, a view of the padded keys."""
    _, num_blocks, _, block, span = mask.visible.shape
    window = span - block
    right = num_blocks * block - mask.num_queries
    padded = functional.pad(x_BHSK, (0, 0, window - mask.num_past, right))
    blocks: Tensor = _Overlapping.apply(padded, span, block)
    return blocks


def _block_size(window: int, device: torch.device) -> int:
    """Queries a block, for the kernel that `_attend_blocks` will take under the gradient mode and autocast of now."""
    if device.type != "cpu":
        return min(window, GPU_BLOCK)
    plain = _plain_wins(device, _product_dtype(device), torch.is_grad_enabled())
    return min(max(window // 2, 1), PLAIN_BLOCK) if plain else min(window, FUSED_BLOCK)


def _product_dtype(device: torch.device) -> torch.dtype:
    """The type that autocast gives matrix products now."""
    return torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else torch.float32


def _plain_wins(device: torch.device, dtype: torch.dtype, with_gradients: bool) -> bool:
    """Whether two plain matrix products are faster than the fused kernel (benchmarks/bench_attention.py).

    On a CPU they are in bfloat16, and with gradients, where the fused kernel's backward pass takes a mask's slow path.
    """
    return device.type == "cpu" and (with_gradients or dtype == torch.bfloat16)


def _blockwise_wins(q_BHTK: Tensor, mask: AttentionMask) -> bool:
    """Whether one block after the other is faster than all at once: on a CPU, with gradients, if blocks are large."""
    if q_BHTK.device.type != "cpu" or not (torch.is_grad_enabled() and q_BHTK.requires_grad) or torch.compiler.is_compiling():
        return False
    return q_BHTK.shape[0] * q_BHTK.shape[1] * mask.visible.shape[3] * mask.visible.shape[4] >= SMALLEST_BLOCKWISE


def _blocks(mask: AttentionMask, dtype: torch.dtype) -> list[Block]:
    """The blocks of a mask, without padding; of one without a window, `PLAIN_BLOCK` queries each and the keys up to the last of them."""
    blocks, bias = [], mask.bias.to(dtype)
    size = PLAIN_BLOCK if mask.window is None else mask.visible.shape[3]
    for begin in range(0, mask.num_queries, size):
        end = min(begin + size, mask.num_queries)
        # What the mask calls the block's first key; before 0 it is padding.
        first = 0 if mask.window is None else begin + mask.num_past - mask.window
        keys = slice(max(first, 0), mask.num_past + end)
        of_block = bias[:, 0, :, begin:end] if mask.window is None else bias[:, begin // size, :, : end - begin]
        blocks.append(Block(slice(begin, end), keys, of_block[..., keys.start - first : keys.stop - first]))
    return blocks


def _attend_blocks(q: Tensor, k: Tensor, v: Tensor, mask: AttentionMask) -> Tensor:
    """Attention of `[B, N, H, C, K]` queries over `[B, N, H, S, K]` keys; a test holds both kernels to the same numbers."""
    with_gradients = torch.is_grad_enabled() and q.requires_grad
    return _plain(q, k, v, mask) if _plain_wins(q.device, q.dtype, with_gradients) else _fused(q, k, v, mask)


def _plain(q: Tensor, k: Tensor, v: Tensor, mask: AttentionMask) -> Tensor:
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    scores += mask.bias.to(q.dtype)
    return scores.softmax(-1).to(v.dtype) @ v


def _fused(q: Tensor, k: Tensor, v: Tensor, mask: AttentionMask) -> Tensor:
    batch, num_blocks = q.shape[:2]
    bias = mask.bias.to(q.dtype).flatten(0, 1)
    out = functional.scaled_dot_product_attention(q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1), attn_mask=bias)
    return out.unflatten(0, (batch, num_blocks))


class _Overlapping(torch.autograd.Function):
    """Blocks of `span` keys, each `block` keys after the one before. The gradient is that of `Tensor.unfold`, in a quarter of its time."""

    @staticmethod
    def forward(ctx: Any, padded_BHSK: Tensor, span: int, block: int) -> Tensor:
        ctx.shape, ctx.block = padded_BHSK.shape, block
        return padded_BHSK.unfold(2, span, block).permute(0, 2, 1, 4, 3)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        # The part of each block that is `shift` blocks of queries from its beginning lies end to end with that of the next block. Each key
        # gets its blocks in their order, so that a sum has the bits that it has in `unfold`.
        parts = gradients[0].transpose(1, 2).split(ctx.block, dim=3)
        batch, heads, num_keys, head_dim = ctx.shape
        num_blocks = parts[0].shape[2]
        total = gradients[0].new_zeros(batch, heads, num_blocks + len(parts) - 1, ctx.block, head_dim)
        for shift, part in reversed(list(enumerate(parts))):
            total[:, :, shift : shift + num_blocks, : part.shape[3]] += part
        return total.flatten(2, 3)[:, :, :num_keys], None, None
