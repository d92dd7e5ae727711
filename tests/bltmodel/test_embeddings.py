import pytest
import torch

from bltmodel.embeddings import ByteEmbedding
from tests.bltmodel.documents import tiny_config


@pytest.mark.parametrize("changes", [{}, {"hash_functions": 2, "ngram_sizes": (1, 4)}, {"hash_rows": 3}])
def test_the_sparse_gradient_is_the_dense_one(changes):
    embedding = ByteEmbedding(tiny_config(**changes)).requires_grad_()
    embedding.initialise(torch.Generator().manual_seed(0))
    ids = torch.randint(0, 260, (3, 20), generator=torch.Generator().manual_seed(1)) % 5
    visible_from = torch.tensor([0] * 12 + [12] * 8).expand(3, -1)
    weights = torch.randn(3, 20, 16, generator=torch.Generator().manual_seed(2))
    results = []
    for sparse in (False, True):
        embedding.ngrams.sparse = sparse
        embedding.zero_grad()
        embedded = embedding(ids, visible_from)
        (embedded * weights).sum().backward()
        results.append((embedded, embedding.ngrams.weight.grad, embedding.tokens.weight.grad))
    (dense, expected, tokens), (sparse, gradient, same_tokens) = results
    assert torch.equal(sparse, dense)
    assert torch.equal(tokens, same_tokens)
    # Each row once.
    assert gradient._nnz() == int((expected != 0).any(1).sum())
    torch.testing.assert_close(gradient.to_dense(), expected)
    rows, values = gradient.coalesce().indices(), gradient.coalesce().values()
    torch.sparse_coo_tensor(rows, values, gradient.shape, check_invariants=True)


def test_gradients_of_micro_batches_add_up():
    embedding = ByteEmbedding(tiny_config())
    embedding.initialise(torch.Generator().manual_seed(0))
    ids, visible_from = torch.randint(4, 260, (4, 9)), torch.zeros(4, 9, dtype=torch.int64)
    gradients = []
    for parts in (1, 2):
        embedding.ngrams.sparse = parts > 1
        embedding.zero_grad()
        for part in ids.chunk(parts):
            embedding(part, visible_from[: len(part)]).square().sum().backward()
        gradients.append(embedding.ngrams.weight.grad.to_dense())
    torch.testing.assert_close(*gradients)
