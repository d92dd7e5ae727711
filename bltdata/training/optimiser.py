"""The optimisers, with decay on matrices only."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from bltdata.nn.machine import resolve_precision
from bltdata.training.config import TrainingConfig
from bltdata.training.muon import Muon
from bltdata.training.row_adam import RowAdam
from bltdata.vocab import VOCAB_SIZE


class Optimiser:
    """One or several of torch's optimisers, each with parameters of its own, as if they were one.

    Args:
        parts: by the name that its state has.
    """

    def __init__(self, parts: Mapping[str, torch.optim.Optimizer]) -> None:
        self._parts = dict(parts)

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups of all parts; a part that loads a state gets new ones."""
        return [group for part in self._parts.values() for group in part.param_groups]

    def step(self) -> None:
        """Change the parameters along their gradients."""
        for part in self._parts.values():
            part.step()

    def zero_grad(self) -> None:
        """Drop the gradients."""
        for part in self._parts.values():
            part.zero_grad(set_to_none=True)

    def set_learning_rate(self, learning_rate: float) -> None:
        """Set the rate of every group."""
        for group in self.param_groups:
            group["lr"] = learning_rate

    def remembered(self) -> Iterator[tuple[Tensor, dict[str, Any]]]:
        """Each parameter with what is remembered of it, to be changed in place."""
        for part in self._parts.values():
            yield from part.state.items()

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` takes: of a single part its own state."""
        states = {name: part.state_dict() for name, part in self._parts.items()}
        return states if len(states) > 1 else next(iter(states.values()))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state of the same parts."""
        for name, part in self._parts.items():
            part.load_state_dict(state[name] if len(self._parts) > 1 else state)


def build_optimiser(model: nn.Module, config: TrainingConfig, muon: type[Muon] = Muon) -> Optimiser:
    """The optimiser of `config` over the parameters of `model`.

    The weights of linear layers decay; embeddings and norms don't: shrinking them changes scales that nothing restores. With
    `muon`, the same weights but for the head's, which is an embedding the other way round, take orthogonalised steps of the
    size that AdamW's have, so that one learning rate serves all. Tables that bags of rows are summed from (`nn.EmbeddingBag`) and that
    are to give sparse gradients go to `RowAdam`.

    Args:
        model: what is trained.
        config: how.
        muon: what makes the orthogonalised steps, with products of the type that `config.precision` is on the matrices' device.

    Source: AdamW arXiv:1711.05101, algorithm 2; Muon arXiv:2502.16982, section 2.
    """
    tables = prepare_tables(model, config)
    linear = [layer for layer in model.modules() if isinstance(layer, nn.Linear)]
    decayed = {id(layer.weight) for layer in linear}
    hidden = {id(layer.weight) for layer in linear if layer.out_features != VOCAB_SIZE} if config.optimiser == "muon" else set()
    in_tables = set(map(id, tables))
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad and id(parameter) not in in_tables]
    groups = [
        {"params": [p for p in parameters if id(p) in decayed - hidden], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if id(p) not in decayed], "weight_decay": 0.0},
    ]
    rate, betas = config.learning_rate, (config.beta1, config.beta2)
    parts: dict[str, torch.optim.Optimizer] = {"adamw": torch.optim.AdamW(groups, lr=rate, betas=betas, eps=1e-8, fused=True)}
    orthogonalised = [p for p in parameters if id(p) in hidden]
    if orthogonalised:
        dtype = resolve_precision(config.precision, orthogonalised[0].device)
        parts["muon"] = muon(orthogonalised, dtype, lr=rate, weight_decay=config.weight_decay)
    if tables:
        parts["row_adam"] = RowAdam(tables, lr=rate, beta2=config.beta2)
    return Optimiser(parts)


def prepare_tables(model: nn.Module, config: TrainingConfig) -> list[nn.Parameter]:
    """Tell all bags of `model` whether to give sparse gradients; returns the tables of those that do."""
    bags = [layer for layer in model.modules() if isinstance(layer, nn.EmbeddingBag)]
    for bag in bags:
        bag.sparse = config.table_optimiser == "row_adam"
    return [bag.weight for bag in bags if bag.sparse and isinstance(bag.weight, nn.Parameter) and bag.weight.requires_grad]


def clip_gradients(parameters: Iterable[nn.Parameter], max_norm: float) -> Tensor:
    """Scale all gradients down so that together they are no longer than `max_norm`, as `nn.utils.clip_grad_norm_` does, sparse ones too.

    Args:
        parameters: those with a gradient count; a sparse gradient is coalesced.
        max_norm: the length that is left alone.

    Returns:
        The norm before, a scalar.
    """
    values = gradient_values(parameters)
    norm = nn.utils.get_total_norm(values)
    scale_down(values, norm, max_norm)
    return norm


def gradient_values(parameters: Iterable[Tensor]) -> list[Tensor]:
    """The numbers of all gradients, to be changed in place.

    Of a sparse gradient, which is coalesced, they are those of its rows; of one that is shared out, this process's.
    """
    values = []
    for parameter in parameters:
        if parameter.grad is None:
            continue
        if parameter.grad.is_sparse:
            parameter.grad = parameter.grad.coalesce()
            values.append(parameter.grad.values())
        else:
            # Of what is shared out; asked like this, since the class takes long to import.
            values.append(parameter.grad.to_local() if hasattr(parameter.grad, "to_local") else parameter.grad)
    return values


def scale_down(values: Iterable[Tensor], norm: Tensor, max_norm: float) -> None:
    """Multiply what together has a norm, in place, so that it has `max_norm` at most."""
    scale = (max_norm / (norm + 1e-6)).clamp(max=1.0)
    for value in values:
        value.mul_(scale)
