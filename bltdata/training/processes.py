"""Several processes that train one model, as `torchrun` starts them, with gloo on CPUs and NCCL on GPUs.

Each learns from its share of a step's rows; then the gradients are summed, in one message as long as the model (but for
tables with sparse gradients, of which the rows that were read are sent, table by table). That is a manual step and not
`DistributedDataParallel`: since the sum comes after all that can go wrong in a process (reading, memory), the processes
agree before it whether all came so far, and so a failure ends all of them in the same step, with one sentence and nobody
left waiting. What it costs is that sending doesn't overlap with the backward pass.

The small messages in which processes agree go through gloo everywhere, so they don't wait for what a GPU still computes.
A process that died closes its connections, which the others notice at once; the timeouts are for machines that vanish
without a word.
"""

import contextlib
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.nn import functional

from bltdata.errors import BuildError, ConfigError
from bltdata.nn.machine import resolve_device
from bltdata.training.world import PeerFailedError, World

T = TypeVar("T")

TIMEOUT = timedelta(minutes=30)
"""How long a process waits for the others: they take as long for a step, an evaluation or a checkpoint as it does."""

LONG_TIMEOUT = timedelta(days=1)
"""How long it waits while the first of them copies a whole corpus."""

_INTERRUPTED = 0


@contextlib.contextmanager
def joined() -> Iterator[World]:
    """Join the processes that `torchrun` started with this one; without it, the world is this process alone.

    While they are joined, SIGTERM is a Ctrl-C: that is how `torchrun` passes on that one of the others has ended.

    Raises:
        ConfigError: the environment is half of what `torchrun` sets.
        BuildError: the processes don't find each other.
    """
    if os.environ.get("WORLD_SIZE", "1") == "1":
        yield World()
        return
    missing = [name for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if missing:
        raise ConfigError(f"WORLD_SIZE is {os.environ['WORLD_SIZE']} but {missing[0]} isn't set; start the processes with torchrun.")
    try:
        dist.init_process_group("gloo", timeout=TIMEOUT)
        patient = dist.new_group(backend="gloo", timeout=LONG_TIMEOUT)
    except (RuntimeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise BuildError(f"The processes don't find each other ({reason}); start all of them with torchrun.") from error
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    world = Processes(dist.get_rank(), dist.get_world_size(), int(os.environ["LOCAL_RANK"]), patient)
    try:
        yield world
    except BaseException:
        # This process is about to end, perhaps with something to say, and needn't be told to.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        world.leave(in_peace=False)
        raise
    signal.signal(signal.SIGTERM, previous)
    world.leave(in_peace=True)


class Processes(World):
    """This process among several; see `World`.

    Args:
        rank: which one it is, from 0.
        size: how many there are.
        local_rank: which one of its machine, from 0.
        patient: the group that waits for long.
    """

    def __init__(self, rank: int, size: int, local_rank: int, patient: dist.ProcessGroup | None) -> None:
        self.rank = rank
        self.size = size
        self._local_rank = local_rank
        self._patient = patient
        self._gradients: dist.ProcessGroup | None = None
        """None is the group that all joined, which is gloo."""
        self._inside: dist.ProcessGroup | None = None
        self._failures = ""
        """The name under which the store has what failed first, of the processes that share a model."""
        self._buffer = torch.empty(0)

    def device(self, name: str) -> torch.device:
        """The device of this process; all of them ask at the same time."""
        with self.together():
            device = _own_device(name, self._local_rank)
        if device.type == "cuda":
            torch.cuda.set_device(device)
            self._gradients = dist.new_group(backend="nccl", timeout=TIMEOUT)
        return device

    def mesh(self, device: torch.device) -> DeviceMesh:
        """The processes as those that a model can be shared out among; see `World.mesh`."""
        # Messages of a block must not be taken for those by which processes agree at its end.
        self._inside = dist.new_group(backend="gloo", timeout=TIMEOUT)
        self._failures = f"first failure/{self._inside.group_name}"
        group = self._inside if device.type == "cpu" else self._gradients
        assert group is not None
        return DeviceMesh.from_group(group, device.type)

    @property
    def inside(self) -> dist.ProcessGroup | None:
        """The group for small messages inside of blocks; see `World.inside`."""
        return self._inside

    def leave(self, *, in_peace: bool) -> None:
        """Leave the others; `in_peace` where they leave too, having finished."""
        # After a failure NCCL would wait for what the others never send.
        if in_peace or self._gradients is None:
            dist.destroy_process_group()

    @contextlib.contextmanager
    def together(self, *, takes_long: bool = False, talks: bool = False) -> Iterator[None]:
        """A block that all processes finish, or none; see `World.together`."""
        problem: BaseException | None = None
        try:
            yield
        except BaseException as error:
            if talks:
                # The others may be waiting in the block, so there is nobody to agree with: this process's end wakes them.
                failure = self._lost() if _is_of_a_message(error) else self._first_failure(error)
                if failure is error:
                    raise
                raise failure from error
            problem = error
        lowest = self._lowest(self._code(problem), self._patient if takes_long else None)
        if lowest == _INTERRUPTED:
            raise KeyboardInterrupt from problem
        if lowest <= self.size:
            # Of several that failed one speaks.
            if problem is not None and lowest == self._code(problem):
                raise problem
            raise self._peer_failed(lowest) from problem

    def found_by_all(self, error: BuildError) -> BuildError:
        """The error in the first process; see `World.found_by_all`."""
        return error if self.is_first else PeerFailedError(str(error))

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in one of the processes."""
        return self._lowest(0 if flag else 1) == 0

    def gather(self, value: T) -> list[T]:
        """The value of each process, by rank."""
        values: list[Any] = [None] * self.size
        self._talk(lambda: dist.all_gather_object(values, value))
        return values

    def sum_gradients(self, parameters: Iterable[nn.Parameter], nats: Tensor) -> Tensor:
        """Sum gradients over the processes; see `World.sum_gradients`.

        Dense ones are views of one buffer afterwards. Of sparse ones, which are sparse in all processes, only the rows are sent.
        """
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        dense = []
        for parameter in trained:
            if parameter.grad is not None and parameter.grad.is_sparse:
                parameter.grad = self._sum_rows(parameter.grad)
            else:
                dense.append(parameter)
        return self._sum_dense(dense, nats)

    def _sum_dense(self, trained: list[nn.Parameter], nats: Tensor) -> Tensor:
        gradients = [parameter.grad if parameter.grad is not None else torch.zeros_like(parameter) for parameter in trained]
        flat = [*(gradient.flatten() for gradient in gradients), nats.reshape(1)]
        if self._buffer.numel() == sum(part.numel() for part in flat):
            torch.cat(flat, out=self._buffer)
        else:
            self._buffer = torch.cat(flat)
        self._talk(lambda: dist.all_reduce(self._buffer, group=self._gradients))
        parts = self._buffer.split([*(parameter.numel() for parameter in trained), 1])
        for parameter, part in zip(trained, parts, strict=False):
            parameter.grad = part.view_as(parameter)
        return parts[-1].reshape(())

    def _sum_rows(self, gradient: Tensor) -> Tensor:
        """The sum of a sparse gradient over the processes, coalesced. All add the same list, by rank, so all have the same bits."""
        gradient = gradient.coalesce()
        rows_R, values_RD = gradient.indices()[0], gradient.values()
        # Messages must be of one length: that of the process with the most rows.
        counts = self.gather(len(rows_R))
        missing = max(counts) - len(rows_R)
        rows = self._gather_tensors(functional.pad(rows_R, (0, missing)))
        values = self._gather_tensors(functional.pad(values_RD, (0, 0, 0, missing)))
        all_rows = torch.cat([part[:count] for part, count in zip(rows, counts, strict=True)])
        all_values = torch.cat([part[:count] for part, count in zip(values, counts, strict=True)])
        return torch.sparse_coo_tensor(all_rows[None], all_values, gradient.shape, check_invariants=False).coalesce()

    def _gather_tensors(self, tensor: Tensor) -> list[Tensor]:
        """The tensor of each process, all of one shape, by rank."""
        parts = [torch.empty_like(tensor) for _ in range(self.size)]
        self._talk(lambda: dist.all_gather(parts, tensor, group=self._gradients))
        return parts

    def _code(self, problem: BaseException | None) -> int:
        """How a block ended in this process: the lower, the more it matters to all."""
        if problem is None:
            return self.size + 1
        return _INTERRUPTED if isinstance(problem, KeyboardInterrupt) else self.rank + 1

    def _lowest(self, number: int, group: dist.ProcessGroup | None = None) -> int:
        message = torch.tensor(number)
        self._talk(lambda: dist.all_reduce(message, op=dist.ReduceOp.MIN, group=group))
        return int(message)

    def _talk(self, exchange: Callable[[], object]) -> None:
        try:
            exchange()
        except RuntimeError as error:
            raise self._lost() from error

    def _lost(self) -> BaseException:
        """What to raise where another process doesn't answer."""
        return self._first_failure(
            BuildError(
                f"Process {self.rank} lost another of the {self.size} that train together; run the same command again to go on "
                "from the last checkpoint."
            ),
            is_of_another=True,
        )

    def _first_failure(self, error: BaseException, *, is_of_another: bool = False) -> BaseException:
        """What to raise for an error: itself, or where another process failed before, that this one ends because of it.

        Args:
            error: what happened here.
            is_of_another: it can't be the first, but what was may not be known.
        """
        if self._inside is None:
            return error
        own = str(self._code(error))
        try:
            everybody = dist.group.WORLD
            assert everybody is not None
            store = everybody.get_group_store()
            if not is_of_another and not isinstance(error, PeerFailedError):
                first = store.compare_set(self._failures, "", own).decode()
            else:
                first = store.get(self._failures).decode() if store.check([self._failures]) else own
        except RuntimeError:
            # Whoever had the store is gone.
            return error
        if first == own:
            return error
        return KeyboardInterrupt() if first == str(_INTERRUPTED) else self._peer_failed(int(first))

    def _peer_failed(self, code: int) -> PeerFailedError:
        return PeerFailedError(f"Process {code - 1} of {self.size} failed; see what it says.")


def _is_of_a_message(error: BaseException) -> bool:
    """Whether it was a message that failed, because of who should have sent or received it. Those of gloo have no class of their own."""
    return isinstance(error, dist.DistError) or (type(error) is RuntimeError and "gloo" in str(error))


def _own_device(name: str, local_rank: int) -> torch.device:
    """The device of the `local_rank`-th process of this machine."""
    if name in ("auto", "cuda") and torch.cuda.is_available():
        num_gpus = torch.cuda.device_count()
        if local_rank >= num_gpus:
            raise ConfigError(
                f"This is process {local_rank + 1} of this machine, which has {num_gpus} GPUs; start no more, or give --device cpu."
            )
        # Not by `resolve_device`, which would try the first GPU in every process.
        return torch.device("cuda", local_rank)
    device = resolve_device(name)
    if device.type != "cpu":
        raise ConfigError(f"Several processes can't share the device {name!r}; give --device cuda, which is a GPU for each, or cpu.")
    return device
