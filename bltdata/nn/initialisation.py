"""Initial weights: normal, cut off at three standard deviations, as the released models were started.

A model is built without weights first: those that torch would draw come from the global random state, and would be written over. Then it is
given some: drawn ones, or those of a file.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from bltdata.nn.norm import RMSNorm

SLICE = 1 << 20
"""Weights that are drawn at a time."""


@torch.no_grad()
def truncated_normal_(weight: Tensor, std: float, generator: torch.Generator | None = None) -> Tensor:
    """Fill `weight` in place from a normal distribution of deviation `std` that is cut off at `3 * std`.

    Weights beyond that, 0.3 %, are drawn again. (torch's own function draws all of them again, several times, which for a table takes four
    times its memory.)

    Args:
        weight: contiguous; one without memory (`meta`) stays as it is.
        std: of the whole normal distribution.
        generator: what draws; None for the global one.
    """
    if weight.is_meta:
        return weight
    for part in weight.view(-1).split(SLICE):
        part.normal_(0.0, std, generator=generator)
        while len(beyond := torch.nonzero(part.abs() > 3 * std)[:, 0]):
            part[beyond] = part.new_empty(len(beyond)).normal_(0.0, std, generator=generator)
    return weight


def initialise_linear(module: nn.Module, generator: torch.Generator | None = None) -> None:
    """Give every linear layer of `module` weights of deviation `in_features ** -0.5`, in place."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            truncated_normal_(layer.weight, layer.in_features**-0.5, generator)


@contextlib.contextmanager
def without_weights() -> Iterator[None]:
    """A block in which modules are built on `meta`: with shapes, without memory, and nothing is drawn for them."""
    with torch.device("meta"), _NothingDrawn():
        yield


def draw_weights(model: nn.Module, seed: int, draw_tables: Callable[[torch.Generator], object]) -> None:
    """Give a model that was built without weights its initial ones, on torch's default device; where that is `meta` it stays without.

    They are drawn on the CPU and by a generator of their own: a seed gives the same ones whatever the device, and the global random state
    is neither read nor changed.

    Args:
        model: of linear layers, norms, and tables.
        seed: of the generator.
        draw_tables: fills the tables, after the linear layers.
    """
    device = torch.get_default_device()
    if device.type == "meta":
        return
    model.load_state_dict(_room_for(model, torch.device("cpu")), assign=True)
    generator = torch.Generator().manual_seed(seed)
    initialise_linear(model, generator)
    draw_tables(generator)
    for module in model.modules():
        if isinstance(module, RMSNorm):
            nn.init.ones_(module.weight)
    model.to(device)


def take_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Give a model that was built without weights those that are there, on torch's default device.

    They are copied, in the model's own types: tensors of an opened file lie in it at odd addresses, where a CPU's product with a single
    vector rounds otherwise.

    Args:
        model: the architecture.
        weights: name -> tensor, for all that it has.
    """
    room = _room_for(model, torch.get_default_device())
    assert room.keys() == weights.keys(), "the weights are the model's"
    for name, tensor in room.items():
        tensor.copy_(weights[name])
    model.load_state_dict(room, assign=True)


def _room_for(model: nn.Module, device: torch.device) -> dict[str, Tensor]:
    """Memory for each tensor of a model. `to_empty` would do it too, but imports a part of torch's compiler for it."""
    return {name: torch.empty(tensor.shape, dtype=tensor.dtype, device=device) for name, tensor in model.state_dict().items()}


class _NothingDrawn(TorchFunctionMode):
    """Leaves out what `torch.nn.init` would do. On `meta` that is nothing, but torch imports its compiler to find out."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return None if getattr(func, "__module__", None) == nn.init.__name__ else func(*args, **(kwargs or {}))
