"""Where a plan runs: an engine maps a function over its items, and that is all it does, so results are the same on each.

Results come as they are finished. No more is begun than there are workers for, and a little more, so memory stays flat however many
items there are. When an item fails, what is running is finished and given, nothing else is begun, and then the failure is raised.
"""

import functools
from collections.abc import Callable, Generator, Sequence
from typing import Any, Literal

from bltdata.engines.local import run_local
from bltdata.errors import ConfigError

__all__ = ["Engine", "EngineName", "open_engine", "run_local"]

EngineName = Literal["local", "ray"]

Engine = Callable[[Callable[[Any], Any], Sequence[Any]], Generator[Any, None, None]]
"""Takes a function, which pickles, and its items; closing the generator stops the work."""


def open_engine(name: EngineName = "local", workers: int | None = 1, *, gpu: bool = False) -> Engine:
    """The engine of this name.

    Args:
        name: `local` for processes of this machine, `ray` for a Ray cluster, or for one of this machine where there is none.
        workers: how many items are worked on at once; None for as many as there is room for.
        gpu: give each worker a GPU.

    Raises:
        ConfigError: there is no such number of workers, or the engine isn't installed.
    """
    if workers is not None and workers < 1:
        raise ConfigError(f"The number of workers is {workers}; it must be at least 1.")
    if name == "local":
        return functools.partial(run_local, workers=workers, gpu=gpu)
    from bltdata.engines.ray import check_ray, run_ray

    check_ray()
    return functools.partial(run_ray, workers=workers, gpu=gpu)
