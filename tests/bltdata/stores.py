"""Stores of remote files for tests: one that fails when it is told to, and one that kills whoever writes to it.

    python -m tests.bltdata.stores build-shards ... --out dying://FOLDER

runs the command again and again; its first life dies in the middle of the first file that it sends, its second in the second, and so on,
until one ends by itself.
"""

import importlib
import itertools
import os
import signal
import subprocess
import sys
from typing import Any, ClassVar

import fsspec
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from tests.bltdata import killing


class FailingFileSystem(MemoryFileSystem):
    """Memory, in which the so-many-th file that is sent arrives by half, and then the store is gone."""

    protocol = "failing"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    fail_at: ClassVar[int | None] = None
    sent: ClassVar[list[str]] = []
    is_gone: ClassVar[bool] = False

    @classmethod
    def reset(cls, fail_at: int | None = None, *, forget: bool = False) -> None:
        cls.fail_at, cls.is_gone = fail_at, False
        cls.sent.clear()
        if forget:
            cls.store.clear()

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return "/" + path.removeprefix("failing://").strip("/")

    def put_file(self, lpath: str, rpath: str, *arguments: Any, **options: Any) -> None:
        if self.is_gone:
            raise RuntimeError("the store is gone; key=AKIA0123456789")
        # Not the lock, which is written when its time has come.
        if "/.lock-" not in rpath:
            self.sent.append(rpath)
        if len(self.sent) == self.fail_at:
            type(self).is_gone = True
            with open(lpath, "rb") as file:
                data = file.read()
            self.pipe_file(rpath, data[: len(data) // 2])
            raise RuntimeError("the store is gone; key=AKIA0123456789")
        super().put_file(lpath, rpath, *arguments, **options)


class DyingFileSystem(LocalFileSystem):
    """A folder of the disk. The process dies in the middle of the so-many-th file that it sends."""

    protocol = "dying"
    die_at: ClassVar[int | None] = None
    num_sent: ClassVar[int] = 0

    @classmethod
    def _strip_protocol(cls, path: Any) -> str:
        return "/" + str(path).removeprefix("dying://").strip("/")

    def put_file(self, lpath: str, rpath: str, *arguments: Any, **options: Any) -> None:
        os.makedirs(os.path.dirname(rpath), exist_ok=True)
        if "/.lock-" not in rpath:
            type(self).num_sent += 1
        if self.num_sent == self.die_at:
            with open(lpath, "rb") as source, open(rpath, "wb") as target:
                data = source.read()
                target.write(data[: len(data) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        super().put_file(lpath, rpath, *arguments, **options)

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **options: Any) -> None:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        super().pipe_file(path, value, mode, **options)


fsspec.register_implementation("failing", FailingFileSystem, clobber=True)
fsspec.register_implementation("dying", DyingFileSystem, clobber=True)


def run_dying(*arguments: Any) -> list[str]:
    """Run a command until it ends by itself, and return what each life ended with."""
    command = [sys.executable, "-m", "tests.bltdata.stores", *map(str, arguments)]
    done = subprocess.run(command, cwd=killing.ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


def main() -> None:
    # As a module of that name it is what fsspec knows.
    stores = importlib.import_module("tests.bltdata.stores")
    for slow in killing.SLOW_IMPORTS:
        importlib.import_module(slow)
    for life in itertools.count(1):
        child = os.fork()
        if child == 0:
            stores.DyingFileSystem.die_at = life
            os._exit(killing.live(sys.argv[1:]))
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status):
            print(f"exit {os.WEXITSTATUS(status)}")
            sys.exit(os.WEXITSTATUS(status))
        print(f"file {life}", flush=True)


if __name__ == "__main__":
    main()
