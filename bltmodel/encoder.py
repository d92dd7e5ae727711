"""The local encoder: from bytes to byte states, and from these to patches.

Letters: B rows, T tokens, P patches, D local dimension, Q queries a patch.
"""

from torch import Tensor, nn

from bltdata.nn import AttentionMask, TransformerBlock
from bltmodel.config import BLTConfig
from bltmodel.cross_attention import CrossAttention
from bltmodel.pooling import attend_over_bytes, max_pool


class LocalEncoder(nn.Module):
    """Transformer blocks over bytes; then each patch asks its own bytes, with queries made of their maximum.

    Source: arXiv:2412.09871, section 3.2.

    Args:
        config: the architecture.
    """

    def __init__(self, config: BLTConfig) -> None:
        super().__init__()
        dim, heads, eps = config.local_dim, config.local_heads, config.norm_eps
        self.queries_per_patch = config.queries_per_patch
        self.layers = nn.ModuleList(TransformerBlock(dim, heads, config.local_ffn_dim, eps) for _ in range(config.encoder_layers))
        self.patch_proj = nn.Linear(dim, config.patch_dim, bias=False)
        self.cross_attention = CrossAttention(dim, heads, eps)

    def forward(self, x_BTD: Tensor, rope: Tensor, mask: AttentionMask, own_BT: Tensor, num_patches: int) -> tuple[Tensor, Tensor]:
        """Encode bytes and patches.

        Args:
            x_BTD: embeddings `[B, T, D]`.
            rope: angles of the `T` positions.
            mask: which bytes a byte sees.
            own_BT: int64 `[B, T]`, the patch that each byte belongs to.
            num_patches: patches a row, P.

        Returns:
            Byte states `[B, T, D]` and patches `[B, P, Q * D]`.
        """
        for layer in self.layers:
            x_BTD, _ = layer(x_BTD, rope, mask)
        queries = self.patch_proj(max_pool(x_BTD, own_BT, num_patches)).unflatten(-1, (self.queries_per_patch, -1))
        patches = self.cross_attention(queries, x_BTD, lambda q, k, v: attend_over_bytes(q, k, v, own_BT))
        return x_BTD, patches.flatten(2)
