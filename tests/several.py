"""Processes that find each other as those of `torchrun` do: forks of one that has imported everything, so they start at once."""

import contextlib
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.distributed import TCPStore

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(
    # Torch would import the last for its first optimiser.
    ["bltdata.cli.train_entropy_model", "bltdata.entropy.pretraining", "bltdata.training.processes", "bltdata.training.sharding",
     "bltmodel.cli.train", "bltmodel.training", "torch._dynamo"]
)  # fmt: skip

SECONDS_TO_WAIT = 120


class Outcome(NamedTuple):
    """How a function ended in a process: with a value, or with an error."""

    value: Any
    error: str | None = None
    sentence: str | None = None


class Group:
    """Processes that have joined, and do what they are told, all the same."""

    def __init__(self, pipes: list[Connection]) -> None:
        self._pipes = pipes

    def run(self, function: Callable[..., Any], *arguments: Any) -> list[Outcome]:
        """Call `function(world, *arguments)` in each process, and return how each ended, by rank.

        A process that dies has an outcome without a value and an error.
        """
        for pipe in self._pipes:
            pipe.send((function, arguments))
        return [self._outcome(pipe) for pipe in self._pipes]

    def _outcome(self, pipe: Connection) -> Outcome:
        assert pipe.poll(SECONDS_TO_WAIT), "a process hangs"
        try:
            return pipe.recv()
        except EOFError:
            return Outcome(None)


@contextlib.contextmanager
def group(size: int = 2) -> Iterator[Group]:
    """Processes that have joined."""
    with _environments(size) as environments:
        pairs = [PROCESSES.Pipe() for _ in environments]
        processes = [
            PROCESSES.Process(target=_serve, args=(environment, theirs))
            for environment, (_, theirs) in zip(environments, pairs, strict=True)
        ]
        for process, (_, theirs) in zip(processes, pairs, strict=True):
            process.start()
            theirs.close()
        try:
            yield Group([ours for ours, _ in pairs])
        finally:
            for ours, _ in pairs:
                ours.close()
            _end(processes)


class Said(NamedTuple):
    """What a command left."""

    exit_code: int
    stdout: str
    stderr: str


class Commands:
    """A command that runs in several processes."""

    def __init__(self, processes: list[Any], folder: Path) -> None:
        self.pids = [process.pid for process in processes]
        self._processes = processes
        self._folder = folder

    def wait(self) -> list[Said]:
        """What each process left, by rank, once all have ended."""
        said = []
        for rank, process in enumerate(self._processes):
            process.join(SECONDS_TO_WAIT)
            assert process.exitcode is not None, "a process hangs"
            texts = [(self._folder / f"{rank}.{name}").read_text() for name in ("stdout", "stderr")]
            said.append(Said(process.exitcode, *texts))
        return said


@contextlib.contextmanager
def commands(folder: Path, program: str | Callable[[list[str]], Any], *arguments: str | Path, size: int = 2) -> Iterator[Commands]:
    """Start a command as `torchrun` would; what it prints goes into files in `folder`.

    Args:
        folder: is made.
        program: `bltdata`, `bltmodel`, or a function that takes the arguments.
        *arguments: of the command.
        size: how many processes.
    """
    folder.mkdir()
    with _environments(size) as environments:
        processes = [
            PROCESSES.Process(target=_run_command, args=(environment, folder, program, list(map(str, arguments))))
            for environment in environments
        ]
        for process in processes:
            process.start()
        try:
            yield Commands(processes, folder)
        finally:
            _end(processes)


@contextlib.contextmanager
def _environments(size: int) -> Iterator[list[dict[str, str]]]:
    # Like torchrun, this process has the store, so no port must be guessed.
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    shared = {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port), "TORCHELASTIC_USE_AGENT_STORE": "True"}
    yield [{**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(size)]
    del store


def _end(processes: list[Any]) -> None:
    for process in processes:
        process.join(SECONDS_TO_WAIT)
        process.kill()
        process.join()


def _serve(environment: dict[str, str], pipe: Connection) -> None:
    from bltdata.training.processes import joined

    os.environ.update(environment)
    torch.set_num_threads(1)
    with joined() as world, contextlib.suppress(EOFError):
        while True:
            function, arguments = pipe.recv()
            try:
                outcome = Outcome(function(world, *arguments))
            except (Exception, KeyboardInterrupt) as error:
                outcome = Outcome(None, type(error).__name__, str(error))
            pipe.send(outcome)


def _run_command(environment: dict[str, str], folder: Path, program: str | Callable[[list[str]], Any], arguments: list[str]) -> None:
    os.environ.update(environment)
    torch.set_num_threads(1)
    for number, name in ((1, "stdout"), (2, "stderr")):
        file = os.open(folder / f"{environment['RANK']}.{name}", os.O_WRONLY | os.O_CREAT)
        os.dup2(file, number)
    # A new process of this start method has no buffers of its own until it prints.
    sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
    if callable(program):
        main = program
    elif program == "bltdata":
        from bltdata.cli import main
    else:
        from bltmodel.cli import main
    main(arguments)
