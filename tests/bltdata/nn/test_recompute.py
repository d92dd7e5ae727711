import torch
from torch import Tensor, nn

from bltdata.nn import TransformerBlock, banded_mask, rotary_table
from bltdata.nn.recompute import checkpoint_activations

TOKENS, DIM, LAYERS = 24, 16, 3


def model() -> nn.ModuleList:
    torch.manual_seed(0)
    return nn.ModuleList(TransformerBlock(DIM, 2, 24) for _ in range(LAYERS))


def run(layers: nn.ModuleList, precision: torch.dtype = torch.float32) -> tuple[Tensor, list[Tensor], int]:
    """Output, gradients, and how many bytes were kept for the backward pass, the weights aside."""
    x = torch.randn(2, TOKENS, DIM, generator=torch.Generator().manual_seed(1), requires_grad=True)
    weights = {parameter.data_ptr() for parameter in layers.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in weights:
            kept[tensor.data_ptr()] = tensor.nbytes
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", precision, precision != torch.float32),
    ):
        states, mask = x, banded_mask(torch.zeros(2, TOKENS, dtype=torch.int64), 8)
        for layer in layers:
            states, _ = layer(states, rotary_table(TOKENS, DIM // 2, 1e4), mask)
        num_bytes = sum(kept.values())
    gradients = torch.autograd.grad(states.float().square().sum(), [x, *layers.parameters()])
    return states, list(gradients), num_bytes


def test_the_same_bits_for_less_memory():
    for precision in (torch.float32, torch.bfloat16):
        layers = model()
        states, gradients, num_bytes = run(layers, precision)
        checkpoint_activations(layers)
        again, gradients_again, fewer_bytes = run(layers, precision)
        assert torch.equal(states, again)
        assert all(torch.equal(one, other) for one, other in zip(gradients, gradients_again, strict=True))
        # What goes into each layer, and what all of them are given, is a small part of what they compute.
        assert fewer_bytes < num_bytes / 4


def test_it_can_be_undone_and_costs_nothing_without_gradients():
    layers = model()
    expected = run(layers)[2]
    checkpoint_activations(layers)
    checkpoint_activations(layers, False)
    assert run(layers)[2] == expected
    assert layers.state_dict().keys() == model().state_dict().keys()
