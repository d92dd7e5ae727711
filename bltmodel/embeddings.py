"""What the local encoder reads: each byte's embedding plus those of the n-grams that end with it.

Letters: B rows, T tokens, D local dimension.
"""

import torch
from torch import Tensor, nn

from bltdata.nn import truncated_normal_
from bltdata.vocab import VOCAB_SIZE
from bltmodel.config import BLTConfig
from bltmodel.hashing import ngram_rows


class ByteEmbedding(nn.Module):
    """The sum of a byte's embedding and of its hashed n-grams' embeddings.

    Source: arXiv:2412.09871, section 3.2.1.

    Args:
        config: the architecture.
    """

    def __init__(self, config: BLTConfig) -> None:
        super().__init__()
        self.config = config
        self.tokens = nn.Embedding(VOCAB_SIZE, config.local_dim)
        self.ngrams = nn.EmbeddingBag(config.num_hash_tables * config.hash_rows, config.local_dim, mode="sum")

    def initialise(self, generator: torch.Generator) -> None:
        """Draw the weights of all tables, in place."""
        for table in (self.tokens, self.ngrams):
            truncated_normal_(table.weight, self.config.local_dim**-0.5, generator)

    def forward(self, ids_BT: Tensor, visible_from_BT: Tensor) -> Tensor:
        """Embeddings `[B, T, D]` of tokens.

        Args:
            ids_BT: int64 `[B, T]`.
            visible_from_BT: int64 `[B, T]`, where in the row each token's document begins; n-grams don't reach beyond it.
        """
        config = self.config
        rows_BTG = ngram_rows(ids_BT, visible_from_BT, config.ngram_sizes, config.hash_functions, config.hash_rows)
        return self.tokens(ids_BT) + self.ngrams(rows_BTG.flatten(0, 1)).view(*ids_BT.shape, -1)
