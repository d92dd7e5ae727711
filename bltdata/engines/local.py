"""The engine of one machine: this process, or a pool of processes.

A worker starts afresh (`spawn`), so nothing of the parent's state reaches it, and dies with its parent: a killed run
leaves no process behind that goes on writing.
"""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from bltdata.errors import BuildError
from bltdata.usage import num_cores

Item = TypeVar("Item")
Result = TypeVar("Result")

_PARENT_CHECK_SECONDS = 1.0
_WAKE_SECONDS = 1.0


def run_local(
    function: Callable[[Item], Result], items: Sequence[Item], workers: int | None, *, gpu: bool = False
) -> Generator[Result, None, None]:
    """Apply `function` to every item; results come as they are finished.

    Args:
        function: is pickled where there are several workers.
        items: what to do.
        workers: processes; 1 does everything in this one, and None is one for each core, or for each GPU.
        gpu: let the workers see one GPU each, in turn.

    Raises:
        BuildError: the system killed a worker.
        Exception: what `function` raised first. What was running is finished and given by then, and what had not begun is not begun.
    """
    num_gpus = _count_gpus() if gpu else 0
    workers = workers or num_gpus or num_cores()
    if workers == 1 or len(items) <= 1:
        yield from map(function, items)
        return
    context = multiprocessing.get_context("spawn")
    numbers = context.SimpleQueue()
    for number in range(workers):
        numbers.put(number)
    pool = ProcessPoolExecutor(
        min(workers, len(items)), mp_context=context, initializer=_start_worker, initargs=(os.getpid(), numbers, num_gpus)
    )
    try:
        # A few more than there are workers, so that none waits and a failure leaves little begun.
        waiting = list(reversed(items))
        running: set[Future[Result]] = set()
        failure: BaseException | None = None
        while running or (waiting and failure is None):
            while waiting and failure is None and len(running) < 2 * workers:
                running.add(pool.submit(function, waiting.pop()))
            # Polars installs a handler of SIGINT after which a wait without end isn't ended by Ctrl-C; one with a timeout is.
            done, running = wait(running, timeout=_WAKE_SECONDS, return_when=FIRST_COMPLETED)
            for future in done:
                if (error := future.exception()) is None:
                    yield future.result()
                elif failure is None:
                    failure = error
                    running = {future for future in running if not future.cancel()}
        if failure is not None:
            raise failure
    except BrokenProcessPool as error:
        raise BuildError(
            "A worker process was killed, perhaps for want of memory: what was finished is kept; "
            "run the same command again, with fewer --workers or smaller fragments."
        ) from error
    except (KeyboardInterrupt, GeneratorExit):
        _kill(pool)
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        numbers.close()


def _count_gpus() -> int:
    # Imported here: who maps something else needs no torch.
    import torch

    return torch.cuda.device_count()


def _start_worker(parent: int, numbers: "multiprocessing.SimpleQueue[int]", num_gpus: int) -> None:
    # Ctrl-C reaches the whole process group; the parent alone decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if num_gpus > 1:
        # Before anything looks for GPUs here: each worker has one, the only one that it knows of.
        os.environ["CUDA_VISIBLE_DEVICES"] = _visible_gpu(numbers.get() % num_gpus, os.environ.get("CUDA_VISIBLE_DEVICES"))
    threading.Thread(target=_die_with, args=(parent,), daemon=True).start()


def _visible_gpu(number: int, visible: str | None) -> str:
    """What names the GPU of this number, among those that `CUDA_VISIBLE_DEVICES` lists.

    >>> _visible_gpu(1, None), _visible_gpu(1, "4,6")
    ('1', '6')
    """
    return visible.split(",")[number].strip() if visible else str(number)


def _die_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_PARENT_CHECK_SECONDS)
    os._exit(1)


def _kill(pool: ProcessPoolExecutor) -> None:
    # Not SIGTERM: a worker inherits it ignored where the parent ignores it, and then nobody could stop it.
    for process in list((pool._processes or {}).values()):
        process.kill()
