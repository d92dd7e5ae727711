"""The local encoder: from bytes to byte states, and from these to patches.

Letters: B rows, T tokens, P patches, D local dimension, Q queries a patch.
"""

from typing import cast

from torch import Tensor, nn

from bltdata.nn import AttentionMask, TransformerBlock
from bltmodel.config import BLTConfig
from bltmodel.cross_attention import CrossAttention
from bltmodel.pooling import attend_over_bytes, pool


class LocalEncoder(nn.Module):
    """Transformer blocks over bytes; then each patch asks its own bytes, with queries pooled from them.

    It asks after the last block, or after each. What it asks first is made of the bytes' states there; later queries are the patch as it
    is by then.

    Source: arXiv:2412.09871, section 3.2.

    Args:
        config: the architecture.
    """

    def __init__(self, config: BLTConfig) -> None:
        super().__init__()
        dim, heads, eps = config.local_dim, config.local_heads, config.norm_eps
        self.queries_per_patch = config.queries_per_patch
        self.pooling = config.pooling
        self.layers = nn.ModuleList(TransformerBlock(dim, heads, config.local_ffn_dim, eps) for _ in range(config.encoder_layers))
        self.patch_proj = nn.Linear(dim, config.patch_dim, bias=False)
        # That of the last layer stands apart, so that a model with this one alone has the names it always had.
        earlier = config.encoder_cross_attentions - 1
        self.earlier_cross_attentions = nn.ModuleList(CrossAttention(dim, heads, eps) for _ in range(earlier))
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
        patches_BPQD = None
        for index, layer in enumerate(self.layers):
            x_BTD, _ = layer(x_BTD, rope, mask)
            cross_attention = self.cross_attention_after(index)
            if cross_attention is not None:
                if patches_BPQD is None:
                    patches_BPQD = self.queries(x_BTD, own_BT, num_patches)
                patches_BPQD = cross_attention(patches_BPQD, x_BTD, lambda q, k, v: attend_over_bytes(q, k, v, own_BT))
        assert patches_BPQD is not None
        return x_BTD, patches_BPQD.flatten(2)

    def cross_attention_after(self, layer: int) -> CrossAttention | None:
        """With what patches ask their bytes after a layer, counted from 0; None where they don't."""
        if layer == len(self.layers) - 1:
            return self.cross_attention
        return cast(CrossAttention, self.earlier_cross_attentions[layer]) if len(self.earlier_cross_attentions) else None

    def queries(self, x_BTD: Tensor, own_BT: Tensor, num_patches: int) -> Tensor:
        """What patches ask first, made of their bytes' states.

        Nothing but a patch's own bytes matters to it, here and when it asks, so patches can be encoded one by one as they become complete.

        Args:
            x_BTD: byte states after the layer that they first ask after.
            own_BT: int64 `[B, T]`, the patch that each byte belongs to.
            num_patches: patches a row, P.

        Returns:
            `[B, P, Q, D]`.
        """
        pooled_BPD = pool(x_BTD, own_BT, num_patches, self.pooling)
        return self.patch_proj(pooled_BPD).unflatten(-1, (self.queries_per_patch, -1))
