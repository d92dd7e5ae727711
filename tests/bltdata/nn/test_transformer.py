import pytest
import torch
from torch import nn

from bltdata.nn import KeysValues, TransformerBlock, banded_mask, dense_mask, rotary_table
from bltdata.nn.transformer import FeedForward

DIM, HEADS, WINDOW = 16, 2, 6


@pytest.fixture
def block() -> TransformerBlock:
    return TransformerBlock(DIM, HEADS, ffn_dim=24).eval()


def zeros(length: int) -> torch.Tensor:
    return torch.zeros(1, length, dtype=torch.int64)


def test_feed_forward_formula():
    ffn = FeedForward(2, 3)
    x = torch.randn(5, 2)
    gate = x @ ffn.gate_proj.weight.T
    expected = (gate * gate.sigmoid() * (x @ ffn.up_proj.weight.T)) @ ffn.down_proj.weight.T
    torch.testing.assert_close(ffn(x), expected)


def test_residual_path(block):
    # What the attention and the feed-forward layer add is nothing, so nothing else may reach the output.
    for projection in (block.attention.o_proj, block.ffn.down_proj):
        nn.init.zeros_(projection.weight)
    x = torch.randn(1, 4, DIM)
    out, _ = block(x, rotary_table(4, DIM // HEADS, 1e4), dense_mask(zeros(4)))
    assert torch.equal(out, x)


@pytest.mark.parametrize("split", [1, 5, 6, 7, 13])
def test_a_past_is_as_if_it_were_there(block, split):
    x = torch.randn(1, 20, DIM)
    rope = rotary_table(20, DIM // HEADS, 1e4)
    whole, keys_values = block(x, rope, banded_mask(zeros(20), WINDOW))
    first, past = block(x[:, :split], rotary_table(split, DIM // HEADS, 1e4), banded_mask(zeros(split), WINDOW))
    second, both = block(x[:, split:], rope, banded_mask(zeros(20 - split), WINDOW, num_past=split), past)
    torch.testing.assert_close(torch.cat((first, second), dim=1), whole, atol=1e-5, rtol=0)
    torch.testing.assert_close(both.keys, keys_values.keys)
    torch.testing.assert_close(both.values, keys_values.values)


@pytest.mark.parametrize("split", [9, 13])
def test_of_the_past_the_window_is_enough(block, split):
    x = torch.randn(1, 20, DIM)
    whole, _ = block(x, rotary_table(20, DIM // HEADS, 1e4), banded_mask(zeros(20), WINDOW))
    _, past = block(x[:, :split], rotary_table(split, DIM // HEADS, 1e4), banded_mask(zeros(split), WINDOW))
    past = KeysValues(past.keys[:, :, -WINDOW:], past.values[:, :, -WINDOW:])
    # Positions now count from the first key that is left: rotations are relative.
    rest = 20 - split
    rope = rotary_table(WINDOW + rest, DIM // HEADS, 1e4)
    second, _ = block(x[:, split:], rope, banded_mask(zeros(rest), WINDOW, WINDOW), past)
    torch.testing.assert_close(second, whole[:, split:], atol=1e-5, rtol=0)


def test_there_are_no_biases(block):
    assert {name.rpartition(".")[2] for name, _ in block.named_parameters()} == {"weight"}
