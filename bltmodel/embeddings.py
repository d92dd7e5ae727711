"""What the local encoder reads: each byte's embedding plus those of the n-grams that end with it.

Letters: B rows, T tokens, D local dimension, N = B * T, G n-gram tables.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from bltdata.nn import truncated_normal_
from bltdata.vocab import VOCAB_SIZE
from bltmodel.config import BLTConfig
from bltmodel.hashing import last_ngram_rows, ngram_rows


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
        rows_NG, table = rows_BTG.flatten(0, 1), self.ngrams.weight
        ngrams_ND = _SumOfRows.apply(table, rows_NG) if self.ngrams.sparse else self.ngrams(rows_NG)
        return self.tokens(ids_BT) + ngrams_ND.view(*ids_BT.shape, -1)

    def of_last(self, ids_BN: Tensor) -> Tensor:
        """Embeddings `[B, 1, D]` of the last of a few tokens.

        Args:
            ids_BN: int64 `[B, N]`, the token and those before it, as many as the longest n-gram has; id 0 before the document.
        """
        config = self.config
        rows_BG = last_ngram_rows(ids_BN, config.ngram_sizes, config.hash_functions, config.hash_rows)
        return (self.tokens(ids_BN[:, -1]) + self.ngrams(rows_BG))[:, None]


class _SumOfRows(torch.autograd.Function):
    """What a sparse `EmbeddingBag` computes, with a gradient that names each row once.

    The gradient of a row is the sum of those of the tokens that read it, which is a bag of tokens: it is summed where it is read. The
    bag's own gradient has a row for each n-gram of each token, `G` times the tokens' gradient in memory, to be added up later.
    """

    @staticmethod
    def forward(ctx: Any, table: Tensor, rows_NG: Tensor) -> Tensor:
        ctx.save_for_backward(rows_NG)
        ctx.table_shape = table.shape
        return functional.embedding_bag(rows_NG, table, mode="sum")

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (rows_NG,) = ctx.saved_tensors
        # Stable, so that the order of a sum, and with it its bits, is always the same.
        rows, order = rows_NG.flatten().sort(stable=True)
        rows_R, counts_R = rows.unique_consecutive(return_counts=True)
        tokens, begins_R = order // rows_NG.shape[1], counts_R.cumsum(0) - counts_R
        values_RD = functional.embedding_bag(tokens, gradients[0], begins_R, mode="sum")
        gradient = torch.sparse_coo_tensor(rows_R[None], values_RD, ctx.table_shape, is_coalesced=True, check_invariants=False)
        return gradient, None
