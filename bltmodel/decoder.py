"""The local decoder: from byte states and the latent patch that each byte may know to states that predict the next byte.

Letters: B rows, T tokens, P patches, D local dimension, L latent dimension, Q queries a patch.
"""

from torch import Tensor, nn

from bltdata.nn import AttentionMask, RMSNorm, TransformerBlock
from bltmodel.config import BLTConfig
from bltmodel.cross_attention import CrossAttention
from bltmodel.pooling import attend_over_queries


class LocalDecoder(nn.Module):
    """Before each transformer block over bytes, every byte asks the vectors of one patch.

    Source: arXiv:2412.09871, section 3.3.

    Args:
        config: the architecture.
    """

    def __init__(self, config: BLTConfig) -> None:
        super().__init__()
        dim, heads, eps = config.local_dim, config.local_heads, config.norm_eps
        self.queries_per_patch = config.queries_per_patch
        self.patch_proj = nn.Linear(config.latent_dim, config.patch_dim, bias=False)
        self.cross_attentions = nn.ModuleList(CrossAttention(dim, heads, eps) for _ in range(config.decoder_layers))
        self.layers = nn.ModuleList(TransformerBlock(dim, heads, config.local_ffn_dim, eps) for _ in range(config.decoder_layers))
        self.norm = RMSNorm(dim, eps)

    def forward(self, x_BTD: Tensor, latents_BPL: Tensor, rope: Tensor, mask: AttentionMask, complete_BT: Tensor) -> Tensor:
        """Decode byte states.

        Args:
            x_BTD: byte states of the encoder.
            latents_BPL: latent states of the patches.
            rope: angles of the `T` positions.
            mask: which bytes a byte sees.
            complete_BT: int64 `[B, T]`, the last patch that is complete when each byte predicts.

        Returns:
            Normalised states `[B, T, D]`, for the head.
        """
        patches_BPQD = self.patch_proj(latents_BPL).unflatten(-1, (self.queries_per_patch, -1))
        for cross_attention, layer in zip(self.cross_attentions, self.layers, strict=True):
            x_BTD = cross_attention(x_BTD, patches_BPQD, lambda q, k, v: attend_over_queries(q, k, v, complete_BT))
            x_BTD, _ = layer(x_BTD, rope, mask)
        return self.norm(x_BTD)
