"""The processes that train one model together, and what they agree on. This file is for one; `processes` has several.

Whoever trains asks its `World`, and never whether it is alone: alone, each question has its answer at once. What is in
this file imports no torch.
"""

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from bltdata.errors import BuildError
from bltdata.lock import exclusive

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
    from torch.distributed import ProcessGroup
    from torch.distributed.device_mesh import DeviceMesh

T = TypeVar("T")


class PeerFailedError(BuildError):
    """Another of the processes failed, so this one ends too. It says nothing: the other says why."""


class World:
    """One process on its own.

    Attributes:
        rank: which process this is, from 0.
        size: how many there are.
    """

    rank = 0
    size = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the one process that writes files and talks to the user."""
        return self.rank == 0

    def device(self, name: str) -> "torch.device":
        """The device of a name, see `resolve_device`; of several processes each gets a GPU of its own, and all ask at the same time."""
        from bltdata.nn.machine import resolve_device

        return resolve_device(name)

    def mesh(self, device: "torch.device") -> "DeviceMesh | None":
        """The processes as those that a model can be shared out among; all ask at the same time. None where there is one."""
        return None

    @property
    def inside(self) -> "ProcessGroup | None":
        """The group for small messages inside of blocks, once there is a mesh."""
        return None

    @contextlib.contextmanager
    def together(self, *, takes_long: bool = False, talks: bool = False) -> Iterator[None]:
        """A block of work that all processes do, or none: where one fails, all leave with an error at its end.

        Args:
            takes_long: one may be at work for hours while others wait.
            talks: in the block processes send messages to each other through the mesh; otherwise nothing in it may wait for another. One
                that fails in a block that talks has nobody to agree with: it leaves at once, and its end is what the others notice.

        Raises:
            PeerFailedError: another process failed and raises its own error.
            KeyboardInterrupt: one was interrupted.
        """
        yield

    def found_by_all(self, error: BuildError) -> BuildError:
        """What to raise for an error that every process found for itself: one of them says it, the others follow."""
        return error

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in one of the processes."""
        return flag

    def gather(self, value: T) -> list[T]:
        """The value of each process, by rank, the same list in all."""
        return [value]

    def sum_gradients(self, parameters: Iterable["nn.Parameter"], nats: "Tensor") -> "Tensor":
        """Replace each gradient by its sum over the processes.

        Args:
            parameters: what is trained.
            nats: a float32 scalar of this process.

        Returns:
            Its sum, which travels with the gradients.
        """
        return nats


@contextlib.contextmanager
def exclusive_to(world: World, folder: Path) -> Iterator[None]:
    """A block in which the processes of `world` alone write to `folder`, the first of them for all.

    Raises:
        BuildError: somebody else is writing to it.
    """
    with contextlib.ExitStack() as held:
        with world.together():
            if world.is_first:
                held.enter_context(exclusive(folder))
        yield
