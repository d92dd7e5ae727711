"""How a model stands in the processes that train it. Here it is whole in each of them; `sharding` shares its parts out.

The loop asks its placement for all that differs: how gradients are summed, measured and used, how the whole model is had, and
what a state on disk is.
"""

import contextlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bltdata.training.muon import Muon
from bltdata.training.optimiser import Optimiser, clip_gradients
from bltdata.training.state_files import SHARDS
from bltdata.training.states import save_state
from bltdata.training.world import World


class Placement:
    """A model that stands whole in each process.

    Args:
        model: stands on the device where it trains.
        world: the processes that train it.

    Attributes:
        is_shared_out: whether processes send each other parts of the model in the middle of a step, so that they can't go back to its
            beginning when memory runs out in one of them.
        muon: what orthogonalises the gradients of matrices.
    """

    is_shared_out = False
    muon: type[Muon] = Muon

    def __init__(self, model: nn.Module, world: World) -> None:
        self.model = model
        self.world = world

    def sum_gradients(self, nats: Tensor) -> Tensor:
        """Make each gradient the sum over all processes; returns the sum of `nats`, a float32 scalar, too."""
        return self.world.sum_gradients(self.model.parameters(), nats)

    def clip_gradients(self, max_norm: float) -> Tensor:
        """Scale the gradients of all processes down to `max_norm` where together they are longer; returns the norm before, a scalar."""
        return clip_gradients(self.model.parameters(), max_norm)

    def step(self, optimiser: Optimiser) -> None:
        """Change the weights along their gradients."""
        optimiser.step()

    def is_finite(self) -> bool:
        """Whether all weights of this process are finite."""
        # Of what is shared out; asked like this, since the class takes long to import.
        own = (weight.to_local() if hasattr(weight, "to_local") else weight for weight in self.model.parameters())
        return all(bool(weight.detach().isfinite().all()) for weight in own)

    def whole_model(self) -> contextlib.AbstractContextManager[None]:
        """A block in which the first process finds all weights in the model's `state_dict`; all processes enter it."""
        return contextlib.nullcontext()

    def save(self, folder: Path, step: int, state: dict[str, Any], keep_last: int) -> None:
        """Write the state of a run; all processes do, each with what it has of it. For the arguments see `states.save_state`."""
        with self.world.together():
            if self.world.is_first:
                save_state(folder, step, state, keep_last)

    def restored(self, folder: Path, state: dict[str, Any]) -> dict[str, Any]:
        """A state as this process goes on from it.

        Args:
            folder: the run's.
            state: what `states.load_state` found there.

        Raises:
            CheckpointError: tensors that are written apart can't be read.
        """
        if SHARDS not in state:
            return state
        # Few runs need what this imports.
        from bltdata.training.sharded_states import read_shards

        return read_shards(folder, state, torch.empty)

    def settle(self, optimiser: Optimiser) -> None:
        """Bring what an optimiser remembers of a restored state to where its parameters are."""
