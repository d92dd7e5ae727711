"""Cross-attention between the bytes and the patches of a row.

Letters: D model dimension, H heads, K head dimension.
"""

from collections.abc import Callable

from torch import Tensor, nn

from bltdata.nn import RMSNorm
from bltdata.nn.recompute import Recomputable


class CrossAttention(Recomputable):
    """`2 * x + attention(norm(x), norm(y))`: the residual counts twice, as in the released weights.

    There are no positions and no biases; one norm feeds keys and values.

    Source: arXiv:2412.09871, sections 3.2.2 and 3.3.1.

    Args:
        dim: model dimension of both sides.
        num_heads: heads of `dim / num_heads` each.
        norm_eps: epsilon of both norms.
    """

    def __init__(self, dim: int, num_heads: int, norm_eps: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query_norm = RMSNorm(dim, norm_eps)
        self.key_norm = RMSNorm(dim, norm_eps)
        self.q_proj = nn.Linear(dim, dim, bias=False)
        self.k_proj = nn.Linear(dim, dim, bias=False)
        self.v_proj = nn.Linear(dim, dim, bias=False)
        self.o_proj = nn.Linear(dim, dim, bias=False)

    def forward(self, x: Tensor, y: Tensor, attend: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Tensor:
        """Let `x` look at `y`.

        Args:
            x: what asks, `[..., D]`.
            y: what is looked at, `[..., D]`.
            attend: says who sees what: from queries, keys and values `[..., H, K]` to what the queries get, `[..., H, K]`.

        Returns:
            A tensor like `x`.
        """
        normed = self.key_norm(y)
        q = self._heads(self.q_proj(self.query_norm(x)))
        return 2 * x + self.o_proj(attend(q, self._heads(self.k_proj(normed)), self._heads(self.v_proj(normed))).flatten(-2))

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.num_heads, -1))
