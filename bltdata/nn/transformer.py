"""The pre-norm transformer block of every module: RMSNorm, rotary attention, SwiGLU, no biases.

Source: arXiv:2412.09871, section 3 (which follows Llama 3); SwiGLU arXiv:2002.05202, section 2.
Letters: B rows, T tokens, S keys, D model dimension, H heads, K head dimension.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from bltdata.nn.attention import AttentionMask, attend
from bltdata.nn.norm import RMSNorm
from bltdata.nn.recompute import Recomputable
from bltdata.nn.rope import rotate


class KeysValues(NamedTuple):
    """A layer's keys, not yet rotated, and values, `[B, H, S, K]` each.

    Keys are kept unrotated so that they can be rotated to wherever they stand in the next chunk: a stream of any length
    then uses small positions only, and a score doesn't depend on how far into the stream it is.
    """

    keys: Tensor
    values: Tensor


class SelfAttention(nn.Module):
    """Multi-head self-attention with rotary positions under a mask.

    Args:
        dim: model dimension, a multiple of `num_heads`.
        num_heads: heads of `dim / num_heads` each.
    """

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q_proj = nn.Linear(dim, dim, bias=False)
        self.k_proj = nn.Linear(dim, dim, bias=False)
        self.v_proj = nn.Linear(dim, dim, bias=False)
        self.o_proj = nn.Linear(dim, dim, bias=False)

    def forward(self, x_BTD: Tensor, rope: Tensor, mask: AttentionMask, past: KeysValues | None) -> tuple[Tensor, KeysValues]:
        """Attention of `x_BTD` over the past and itself, and the keys and values of both."""
        q, k, v = self._projected(x_BTD)
        if past is not None:
            k, v = torch.cat((past.keys, k), dim=2), torch.cat((past.values, v), dim=2)
        num_past = k.shape[2] - q.shape[2]
        queries = rotate(q, rope[num_past:])
        out = attend(queries, rotate(k, rope), v, mask)
        return self._merged(out), KeysValues(k, v)

    def _projected(self, x_BTD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self._heads(self.q_proj(x_BTD)), self._heads(self.k_proj(x_BTD)), self._heads(self.v_proj(x_BTD))

    def _merged(self, out_BHTK: Tensor) -> Tensor:
        return self.o_proj(out_BHTK.transpose(1, 2).flatten(2))

    def _heads(self, x_BTD: Tensor) -> Tensor:
        return x_BTD.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)


class FeedForward(nn.Module):
    """SwiGLU: `down(silu(gate(x)) * up(x))`."""

    def __init__(self, dim: int, ffn_dim: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(dim, ffn_dim, bias=False)
        self.up_proj = nn.Linear(dim, ffn_dim, bias=False)
        self.down_proj = nn.Linear(ffn_dim, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Transform `x` `[..., dim]` position by position."""
        return self.down_proj(functional.silu(self.gate_proj(x)) * self.up_proj(x))


class TransformerBlock(Recomputable):
    """`x + attention(norm(x))`, then `x + feed_forward(norm(x))`.

    Args:
        dim: model dimension.
        num_heads: attention heads.
        ffn_dim: hidden size of the feed-forward layer.
        norm_eps: epsilon of both norms.
    """

    def __init__(self, dim: int, num_heads: int, ffn_dim: int, norm_eps: float = 1e-5) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(dim, norm_eps)
        self.attention = SelfAttention(dim, num_heads)
        self.ffn_norm = RMSNorm(dim, norm_eps)
        self.ffn = FeedForward(dim, ffn_dim)

    def forward(self, x_BTD: Tensor, rope: Tensor, mask: AttentionMask, past: KeysValues | None = None) -> tuple[Tensor, KeysValues]:
        """One layer.

        Args:
            x_BTD: hidden states `[B, T, D]`.
            rope: rotations of the `num_past + T` positions.
            mask: what each of the T tokens sees.
            past: keys and values that stand before the first token.

        Returns:
            Hidden states `[B, T, D]`, and the keys and values of past and present.
        """
        attended, keys_values = self.attention(self.attention_norm(x_BTD), rope, mask, past)
        x_BTD = x_BTD + attended
        return x_BTD + self.ffn(self.ffn_norm(x_BTD)), keys_values
