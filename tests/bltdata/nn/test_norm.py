import pytest
import torch
from torch.nn import functional
from transformers.models.blt.modeling_blt import BltRMSNorm

from bltdata.nn import RMSNorm


def norms(dim: int, eps: float) -> tuple[RMSNorm, BltRMSNorm]:
    ours, theirs = RMSNorm(dim, eps), BltRMSNorm(dim, eps)
    weight = torch.randn(dim)
    for norm in (ours, theirs):
        norm.weight.data.copy_(weight)
    return ours, theirs


def test_formula():
    norm = RMSNorm(2, eps=0.5)
    norm.weight.data.copy_(torch.tensor([1.0, 10.0]))
    # The mean of squares is 12.5.
    expected = torch.tensor([3.0, 40.0]) / 13**0.5
    torch.testing.assert_close(norm(torch.tensor([3.0, 4.0])), expected)


def test_same_as_in_transformers():
    ours, theirs = norms(24, 1e-5)
    x = torch.randn(3, 5, 24) * torch.logspace(-4, 4, 5)[:, None]
    torch.testing.assert_close(ours(x), theirs(x), atol=1e-5, rtol=1e-5)


def test_half_precision_is_computed_in_float32():
    ours, _ = norms(24, 1e-5)
    # Their squares overflow in float16 and lose all digits in bfloat16.
    for kind in (torch.bfloat16, torch.float16):
        x = (torch.randn(4, 24) * 1000).to(kind)
        assert ours(x).dtype == kind
        assert torch.equal(ours(x), ours(x.float()).to(kind))


@pytest.mark.parametrize("shape", [(3, 5, 24), (7, 24), (24,)])
def test_bits_and_gradients_are_those_of_torch(shape):
    ours, _ = norms(24, 1e-5)
    x = torch.randn(shape) * torch.logspace(-3, 3, 24)
    x.requires_grad_()
    out, expected = ours(x), functional.rms_norm(x, (24,), ours.weight, 1e-5)
    assert torch.equal(out, expected)
    gradient = torch.randn(shape)
    for found, wanted in zip(*(torch.autograd.grad(each, (x, ours.weight), gradient) for each in (out, expected)), strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


def test_under_autocast_the_type_is_that_of_the_products_that_follow():
    ours, _ = norms(24, 1e-5)
    x = torch.randn(4, 24)
    plain = ours(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(ours(x), plain.bfloat16())
    assert plain.dtype == torch.float32


def test_gradients_of_gradients_are_refused_and_not_wrong():
    ours, _ = norms(6, 1e-5)
    x = torch.randn(2, 6, requires_grad=True)
    (gradient,) = torch.autograd.grad(ours(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_gradients():
    ours, _ = norms(6, 1e-5)
    ours = ours.double()
    x = torch.randn(2, 6, dtype=torch.float64, requires_grad=True)
    # The computation is in float32, so the steps can't be small.
    torch.autograd.gradcheck(ours, (x,), eps=1e-2, atol=1e-2)
