"""The latent transformer: the large model, which runs once a patch.

Letters: B rows, P patches, E size of an encoded patch, L latent dimension.
"""

from torch import Tensor, nn

from bltdata.nn import AttentionMask, TransformerBlock
from bltmodel.config import BLTConfig


class LatentTransformer(nn.Module):
    """Causal transformer blocks over the patches of a document.

    Source: arXiv:2412.09871, section 3.1. Encoded patches are projected only where their size isn't the latent dimension,
    and no norm follows the last block, as in the released weights.

    Args:
        config: the architecture.
    """

    def __init__(self, config: BLTConfig) -> None:
        super().__init__()
        dim = config.latent_dim
        self.patch_proj = nn.Identity() if config.patch_dim == dim else nn.Linear(config.patch_dim, dim, bias=False)
        self.layers = nn.ModuleList(
            TransformerBlock(dim, config.latent_heads, config.latent_ffn_dim, config.norm_eps) for _ in range(config.latent_layers)
        )

    def forward(self, patches_BPE: Tensor, rope: Tensor, mask: AttentionMask) -> Tensor:
        """Latent states `[B, P, L]` of encoded patches.

        Args:
            patches_BPE: what the encoder made of each patch.
            rope: angles of the `P` positions.
            mask: which patches a patch sees.
        """
        x_BPL = self.patch_proj(patches_BPE)
        for layer in self.layers:
            x_BPL, _ = layer(x_BPL, rope, mask)
        return x_BPL
