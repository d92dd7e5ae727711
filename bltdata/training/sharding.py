"""A model whose parts are shared out among the processes, so that it needn't fit into the memory of one of them.

Each process keeps its rows of every matrix and vector, with their gradients and what the optimiser remembers of them. Before a
transformer block is computed its weights are gathered from all processes, and they are dropped after it (FSDP2). What stands outside of
these blocks is gathered once a pass, and kept until its backward pass is over. Tables with sparse gradients stand whole in every
process: their gradients are the rows that were read, which are sent as they are without sharding. Weights are gathered in float32, so
the numbers are those of one process; with bfloat16 products, what a backward pass needs of them is kept in bfloat16.

Processes talk to each other in the middle of a step. So one that fails can't wait for the others to say so: it leaves, and its end is
what wakes those that wait for it (`Processes.together`). For the same reason no step begins again with smaller micro-batches.

Source: ZeRO stage 3, arXiv:1910.02054, section 5; FSDP, arXiv:2304.11277, section 3.
"""

import contextlib
import math
import secrets
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, Shard, distribute_tensor, empty

from bltdata.atomic import atomic_folder
from bltdata.nn import TransformerBlock
from bltdata.training.config import TrainingConfig
from bltdata.training.optimiser import Optimiser, gradient_values, prepare_tables, scale_down
from bltdata.training.placement import Placement
from bltdata.training.sharded_muon import ShardedMuon
from bltdata.training.sharded_states import listed, read_shards, split, write_shards
from bltdata.training.state_files import SHARDS, shards_name
from bltdata.training.states import save_state
from bltdata.training.world import World


class Sharded(Placement):
    """A model whose parameters, but for tables with sparse gradients, are shared out.

    Args:
        model: stands on the CPU, or on the device where it trains; is changed.
        config: says which tables give sparse gradients.
        world: the processes that train it.
        mesh: the same processes, as `World.mesh` gives them.
        device: where it trains.
    """

    is_shared_out = True
    muon = ShardedMuon

    def __init__(self, model: nn.Module, config: TrainingConfig, world: World, mesh: DeviceMesh, device: torch.device) -> None:
        super().__init__(model, world)
        self._mesh = mesh
        self._tables = prepare_tables(model, config)
        for table in self._tables:
            table.data = table.data.to(device)
        blocks = [module for module in model.modules() if isinstance(module, TransformerBlock)]
        for module in (*blocks, model):
            # Each moves what it shares out, so at no time does a device hold more than a block that is whole.
            fully_shard(module, mesh=mesh, ignored_params=set(self._tables))
        for module in model.modules():
            if isinstance(module, FSDPModule):
                # Losses are parts of a sum, so their gradients are to be added up, and not averaged.
                module.set_gradient_divide_factor(1.0)
                module.set_force_sum_reduction_for_comms(True)
        # Of keys and values, which training has no use for.
        warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
        self._shared_out = [parameter for parameter in model.parameters() if isinstance(parameter, DTensor)]

    def sum_gradients(self, nats: Tensor) -> Tensor:
        """Sum what the backward passes haven't: the gradients of tables, and `nats`."""
        return self.world.sum_gradients(self._tables, nats)

    def clip_gradients(self, max_norm: float) -> Tensor:
        """Clip by the norm of the whole gradient; see `Placement.clip_gradients`."""
        of_tables, own = gradient_values(self._tables), gradient_values(self._shared_out)
        norms = [float(nn.utils.get_total_norm(of_tables)), *self.world.gather(float(nn.utils.get_total_norm(own)))]
        # Not `hypot`, which makes infinity of infinity and NaN.
        norm = torch.tensor(math.sqrt(sum(norm * norm for norm in norms)), device=self._shared_out[0].device)
        scale_down([*of_tables, *own], norm, max_norm)
        return norm

    def step(self, optimiser: Optimiser) -> None:
        """Change the weights; Muon asks the other processes for what it needs of a matrix."""
        with self.world.together(talks=True):
            optimiser.step()

    @contextlib.contextmanager
    def whole_model(self) -> Iterator[None]:
        """Gather the weights in the memory of the first process's CPU; see `Placement.whole_model`."""
        with self.world.together(talks=True):
            whole = get_model_state_dict(self.model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
        handle = self.model.register_state_dict_post_hook(lambda module, state, prefix, metadata: state.update(whole))
        try:
            yield
        finally:
            handle.remove()

    def save(self, folder: Path, step: int, state: dict[str, Any], keep_last: int) -> None:
        """Write a state whose large tensors are in a folder of their own, to which each process writes its share."""
        rest, tensors = split(state)
        with contextlib.ExitStack() as publication:
            shards: Path | None = None
            own: Path | None = None
            with self.world.together():
                if self.world.is_first:
                    # A name that was never used: the state of the same step may be there, and is to stay until this one is whole.
                    shards = folder / shards_name(step, secrets.token_hex(4))
                    own = publication.enter_context(atomic_folder(shards))
            temporary = self.world.gather(own)[0]
            assert temporary is not None
            with self.world.together(talks=True):
                write_shards(temporary, tensors, self.world)
            with self.world.together():
                publication.close()
                if shards is not None:
                    save_state(folder, step, {**rest, SHARDS: listed(shards)}, keep_last)

    def restored(self, folder: Path, state: dict[str, Any]) -> dict[str, Any]:
        """A state whose tensors are this process's parts; what was written whole is cut, what was written in parts is put together."""
        if SHARDS in state:
            return read_shards(folder, state, self._empty)
        own = self.model.state_dict()
        return {**state, "model": {name: self._part_of(tensor, own.get(name)) for name, tensor in state["model"].items()}}

    def settle(self, optimiser: Optimiser) -> None:
        """Cut what was written whole; see `Placement.settle`."""
        for parameter, moments in optimiser.remembered():
            for name, value in moments.items():
                if isinstance(value, Tensor):
                    moments[name] = self._part_of(value, parameter)

    def _part_of(self, whole: Tensor, like: Tensor | None) -> Tensor:
        """This process's part of a tensor that stands for, or beside, the parameter `like`."""
        if not isinstance(like, DTensor) or isinstance(whole, DTensor) or whole.shape != like.shape:
            return whole
        # All have the whole of it, so nothing is sent.
        return distribute_tensor(whole.to(like.device), self._mesh, like.placements, src_data_rank=None)

    def _empty(self, size: torch.Size, *, dtype: torch.dtype) -> Tensor:
        return empty(size, dtype=dtype, device_mesh=self._mesh, placements=[Shard(0)])
