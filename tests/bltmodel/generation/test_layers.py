"""The products of generation are those of the model's modules."""

import pytest
import torch
from torch import nn

from bltdata.nn import RMSNorm
from bltmodel.cross_attention import CrossAttention
from bltmodel.generation.layers import Asking, Product


@pytest.fixture
def norm() -> RMSNorm:
    norm = RMSNorm(12, eps=1e-5)
    nn.init.uniform_(norm.weight, 0.5, 2.0)
    return norm


# With small inputs it is the norm's epsilon that counts, which must also be there for none at all.
@pytest.mark.parametrize("size", [1.0, 1e-3, 0.0])
def test_several_linear_layers_after_a_norm_are_one_product(norm, size):
    layers, x = [nn.Linear(12, size, bias=False) for size in (5, 1, 7)], size * torch.randn(2, 3, 12)
    found = Product(layers, norm)(x)
    torch.testing.assert_close(found, torch.cat([layer(norm(x)) for layer in layers], dim=-1), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("weights", "precision", "expected"), [
    (torch.float32, torch.float32, torch.float32),
    (torch.float32, torch.bfloat16, torch.bfloat16),
    (torch.bfloat16, torch.float32, torch.bfloat16),
])  # fmt: skip
def test_types(norm, weights, precision, expected):
    layer, x = nn.Linear(12, 5, bias=False), torch.randn(3, 12)
    found = Product([layer.to(weights)], norm, precision)(x)
    assert found.dtype == expected
    torch.testing.assert_close(found.float(), layer.float()(norm(x)), atol=0.05, rtol=0)


def test_later_changes_of_the_model_are_not_seen_and_it_is_not_changed(norm):
    layer, x = nn.Linear(12, 5, bias=False), torch.randn(3, 12)
    before = layer.weight.detach().clone()
    product = Product([layer], norm)
    expected = product(x)
    assert torch.equal(layer.weight, before)
    nn.init.zeros_(layer.weight)
    assert torch.equal(product(x), expected)


def test_asking_is_cross_attention():
    module = CrossAttention(12, num_heads=3, norm_eps=1e-5)
    for norm in (module.query_norm, module.key_norm):
        nn.init.uniform_(norm.weight, 0.5, 2.0)
    x, y = torch.randn(2, 1, 2, 12), torch.randn(2, 5, 12)

    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        weights = torch.einsum("bpqhk,bthk->bpqht", q, k).softmax(-1)
        return torch.einsum("bpqht,bthk->bpqhk", weights, v)

    torch.testing.assert_close(Asking(module, torch.float32)(x, y, attend), module(x, y, attend), atol=1e-5, rtol=0)
