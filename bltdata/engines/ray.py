"""The engine of more than one machine: Ray actors, each of which holds what its function loads, such as a model.

Where `RAY_ADDRESS` is set, or a program is connected already, that cluster is used, and otherwise one of this machine is started for as
long as the work takes. What the function reads and writes must be visible, under the same paths, to every machine of the cluster, and
each needs this package.
"""

import contextlib
import os
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, TypeVar

from bltdata.errors import BuildError, ConfigError
from bltdata.usage import num_cores

Item = TypeVar("Item")
Result = TypeVar("Result")

MAX_TRIES = 3
"""How often a fragment is begun before its workers' deaths are taken for its fault."""

_WAKE_SECONDS = 1.0


def check_ray() -> None:
    """Import Ray.

    Raises:
        ConfigError: it isn't installed.
    """
    try:
        import ray  # noqa: F401
    except ImportError as error:
        raise ConfigError("Ray is not installed; run pip install 'blt-toolkit[ray]', or choose --engine local.") from error


def run_ray(
    function: Callable[[Item], Result], items: Sequence[Item], workers: int | None, *, gpu: bool = False
) -> Generator[Result, None, None]:
    """Apply `function` to every item; results come as they are finished.

    An actor has one item at a time. One that dies is replaced, and its item is begun again, `MAX_TRIES` times at most.

    Args:
        function: is pickled, once for each worker.
        items: what to do.
        workers: actors; None is one for each core of the cluster, or for each GPU.
        gpu: reserve a GPU for each, the only one that it sees.

    Raises:
        BuildError: the cluster can't be reached, or workers died at the same item again and again.
        Exception: what `function` raised first. What was running is finished and given by then, and what had not begun is not begun.
    """
    if not items:
        return
    with _cluster(workers):
        import ray

        if workers is None:
            workers = max(1, int(ray.cluster_resources().get("GPU" if gpu else "CPU", 1)))
        pool = _Pool(function, gpu)
        try:
            yield from pool.map(items, workers)
        finally:
            pool.close()


class _Worker:
    """What an actor is: the function, in a process of its own."""

    def __init__(self, function: Callable[[Any], Any], folder: str) -> None:
        self._function = function
        # Relative paths mean what they mean where the work was asked for.
        with contextlib.suppress(OSError):
            os.chdir(folder)

    def run(self, item: Any) -> Any:
        return self._function(item)


class _Pool:
    """The actors, and what each is doing."""

    def __init__(self, function: Callable[[Any], Any], gpu: bool) -> None:
        import ray

        self._function = ray.put(function)
        actor: Any = ray.remote(_Worker)
        self._actor = actor.options(num_cpus=1, num_gpus=int(gpu), max_restarts=0, max_task_retries=0)
        self._idle: list[Any] = []
        self._running: dict[Any, tuple[Any, int]] = {}

    def map(self, items: Sequence[Any], workers: int) -> Iterator[Any]:
        """The results, as they come."""
        import ray
        from ray.exceptions import NodeDiedError, OutOfMemoryError, RayActorError, RayTaskError, WorkerCrashedError

        waiting = deque(range(len(items)))
        tries: Counter[int] = Counter()
        failure: BaseException | None = None
        while self._running or (waiting and failure is None):
            while waiting and failure is None and len(self._running) < workers:
                self._begin(waiting.popleft(), items)
            done, _ = ray.wait(list(self._running), num_returns=1, timeout=_WAKE_SECONDS)
            for result in done:
                actor, index = self._running.pop(result)
                try:
                    value = ray.get(result)
                except (NodeDiedError, OutOfMemoryError, RayActorError, WorkerCrashedError) as error:
                    # It may only be out of reach.
                    ray.kill(actor)
                    tries[index] += 1
                    if tries[index] < MAX_TRIES:
                        waiting.appendleft(index)
                    else:
                        failure = failure or _died(error)
                except RayTaskError as error:
                    self._idle.append(actor)
                    cause = error.cause
                    failure = failure or (cause if isinstance(cause, Exception) else error)
                else:
                    self._idle.append(actor)
                    yield value
        if failure is not None:
            raise failure

    def close(self) -> None:
        """Kill the actors, whatever they are at."""
        import ray

        for actor in (*self._idle, *(actor for actor, _ in self._running.values())):
            ray.kill(actor)

    def _begin(self, index: int, items: Sequence[Any]) -> None:
        actor = self._idle.pop() if self._idle else self._actor.remote(self._function, os.getcwd())
        self._running[actor.run.remote(items[index])] = actor, index


@contextlib.contextmanager
def _cluster(workers: int | None) -> Iterator[None]:
    """A block in which this program is connected to a cluster; to its own, which ends with the block, unless there is another."""
    # Read when Ray is imported or started: nothing is sent to anybody, and the address is that of the user.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    if ray.is_initialized():
        yield
        return
    address = os.environ.get("RAY_ADDRESS")
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
    try:
        if address:
            ray.init(address=address, **quiet)
        else:
            ray.init(address="local", num_cpus=workers or num_cores(), include_dashboard=False, **quiet)
    except (ConnectionError, RuntimeError, ValueError) as error:
        where = f"the Ray cluster at {address!r}" if address else "Ray"
        advice = "check RAY_ADDRESS" if address else "choose --engine local"
        raise BuildError(f"Can't start with {where} ({_last_line(error)}); {advice}.") from error
    try:
        yield
    finally:
        ray.shutdown()


def _died(error: Exception) -> BuildError:
    return BuildError(
        f"A Ray worker died {MAX_TRIES} times at the same fragment, perhaps for want of memory ({_last_line(error)}): "
        "what was finished is kept; run the same command again, with fewer --workers or smaller fragments."
    )


def _last_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1].strip().rstrip(".")
