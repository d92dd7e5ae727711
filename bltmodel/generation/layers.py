"""The layers of a model as generation computes them: for few tokens at a time, whose keys and values a cache keeps.

A token that goes through a model by itself spends its time on reading weights and on calls. So generation has copies of the weights:
products of the same input are one, the weights of a norm are part of the product after it, and each matrix is stored by its columns,
in which order the product of a vector streams it from memory, twice as fast on a CPU whose caches don't hold the model.

Letters: B rows, T tokens, D model dimension, H heads, K head dimension.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from bltdata.nn import RMSNorm, TransformerBlock
from bltmodel.cross_attention import CrossAttention

Look = Callable[[Tensor, Tensor, Tensor], Tensor]
"""From the queries, keys and values of some tokens, `[B, H, T, K]`, not rotated, to what the queries get, alike."""


class NewTokens(Protocol):
    """Tokens that go through the layers, and that a cache remembers on their way."""

    def look(self, layer: int) -> Look:
        """The attention of one layer."""


class Product:
    """`linear(norm(x))` of some modules side by side.

    Args:
        linears: their outputs lie end to end.
        norm: None where the input comes as it is.
        precision: type of matrix products; float32 stands for that of the weights.
    """

    def __init__(self, linears: Sequence[nn.Linear], norm: RMSNorm | None = None, precision: torch.dtype = torch.float32) -> None:
        dtype = linears[0].weight.dtype if precision == torch.float32 else precision
        weight_DO = torch.cat([linear.weight.detach() for linear in linears]).t().contiguous()
        self._least: Tensor | None = None
        if norm is not None:
            # x / sqrt(mean(x^2) + eps) is sqrt(D) * x / hypot(|x|, sqrt(D * eps)); all but the quotient goes into the weights.
            root = math.sqrt(len(weight_DO))
            self._least = torch.tensor(root * math.sqrt(norm.eps), device=weight_DO.device)
            weight_DO *= root * norm.weight.detach()[:, None]
        self._weight_OD = weight_DO.to(dtype).t()

    def __call__(self, x: Tensor) -> Tensor:
        """`[..., O]` of `[..., D]`."""
        if self._least is not None:
            x = x.float()
            x = x / torch.hypot(torch.linalg.vector_norm(x, dim=-1, keepdim=True), self._least)
        return functional.linear(x.to(self._weight_OD.dtype), self._weight_OD)


class Blocks:
    """The transformer blocks of a part of the model.

    Args:
        blocks: each a `TransformerBlock`.
        precision: type of matrix products.
    """

    def __init__(self, blocks: Iterable[nn.Module], precision: torch.dtype) -> None:
        self._blocks = [_Block(block, precision) for block in blocks]

    def __call__(self, x_BTD: Tensor, tokens: NewTokens) -> Tensor:
        """States `[B, T, D]` of new tokens after all blocks."""
        for index in range(len(self._blocks)):
            x_BTD = self.one(index, x_BTD, tokens)
        return x_BTD

    def __len__(self) -> int:
        return len(self._blocks)

    def one(self, index: int, x_BTD: Tensor, tokens: NewTokens) -> Tensor:
        """States `[B, T, D]` of new tokens after one block."""
        return self._blocks[index](x_BTD, tokens.look(index))


class _Block:
    def __init__(self, block: nn.Module, precision: torch.dtype) -> None:
        assert isinstance(block, TransformerBlock)
        attention, ffn = block.attention, block.ffn
        self._num_heads = attention.num_heads
        self._qkv = Product([attention.q_proj, attention.k_proj, attention.v_proj], block.attention_norm, precision)
        self._o = Product([attention.o_proj], precision=precision)
        self._gate_up = Product([ffn.gate_proj, ffn.up_proj], block.ffn_norm, precision)
        self._down = Product([ffn.down_proj], precision=precision)

    def __call__(self, x_BTD: Tensor, look: Look) -> Tensor:
        batch, num_tokens, _ = x_BTD.shape
        qkv = self._qkv(x_BTD).view(batch, num_tokens, 3, self._num_heads, -1)
        x_BTD = x_BTD + self._o(look(*qkv.permute(2, 0, 3, 1, 4).unbind()).transpose(1, 2).flatten(2))
        gate, up = self._gate_up(x_BTD).chunk(2, dim=-1)
        return x_BTD + self._down(functional.silu(gate) * up)


class Asking:
    """A cross-attention, whose answers can be kept apart from who asks; see `CrossAttention`.

    Args:
        module: the layer.
        precision: type of matrix products.
    """

    def __init__(self, module: nn.Module, precision: torch.dtype) -> None:
        assert isinstance(module, CrossAttention)
        self._num_heads = module.num_heads
        self._q = Product([module.q_proj], module.query_norm, precision)
        self._kv = Product([module.k_proj, module.v_proj], module.key_norm, precision)
        self._o = Product([module.o_proj], precision=precision)

    def __call__(self, x: Tensor, y: Tensor, attend: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Tensor:
        """See `CrossAttention.forward`."""
        return self.ask(x, *self.keys_values(y), attend)

    def keys_values(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """What `y` `[..., D]` shows to whoever looks at it: keys and values `[..., H, K]`, which can be kept while it is the same."""
        keys, values = self._kv(y).unflatten(-1, (2, self._num_heads, -1)).unbind(-3)
        return keys, values

    def ask(self, x: Tensor, k: Tensor, v: Tensor, attend: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Tensor:
        """Let `x` look at the keys and values of `keys_values`."""
        q = self._q(x).unflatten(-1, (self._num_heads, -1))
        return 2 * x + self._o(attend(q, k, v).flatten(-2))
