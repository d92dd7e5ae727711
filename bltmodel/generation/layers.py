"""Transformer blocks whose keys and values a cache keeps.

Letters: B rows, T tokens, D model dimension.
"""

from collections.abc import Iterable
from typing import Protocol

from torch import Tensor, nn

from bltdata.nn import Look, TransformerBlock


class NewTokens(Protocol):
    """Tokens that go through the layers, and that a cache remembers on their way."""

    def look(self, layer: int) -> Look:
        """The attention of one layer."""


def through(layers: Iterable[nn.Module], x_BTD: Tensor, tokens: NewTokens) -> Tensor:
    """States `[B, T, D]` of new tokens after all layers."""
    for index, layer in enumerate(layers):
        x_BTD = through_one(layer, index, x_BTD, tokens)
    return x_BTD


def through_one(layer: nn.Module, index: int, x_BTD: Tensor, tokens: NewTokens) -> Tensor:
    """States `[B, T, D]` of new tokens after one layer."""
    assert isinstance(layer, TransformerBlock)
    return layer.attending(x_BTD, tokens.look(index))
