"""Runs a `bltdata` command again and again, killing it at random moments, until it ends by itself.

    python -m tests.bltdata.killing SEED DEATHS build-shards ... --out FOLDER

A life is a fork of this process, which has imported all that is slow. It ends by SIGKILL, after a random time or at a random
one of the things that it does with files in FOLDER: half-written folders come from there. After so many deaths it may live on.
"""

import importlib
import itertools
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]

SLOW_IMPORTS = (
    "bltdata.build",
    "bltdata.cli.build_shards",
    "bltdata.cli.train_entropy_model",
    "bltdata.entropy.pretraining",
    "pandas",
    "torch._dynamo",
)
"""Torch imports the last of these when it makes an optimiser, pyarrow the one before when it makes an array."""

LONGEST_SECONDS = 0.25
LAST_FILE_EVENT = 70
FILE_EVENTS = ("open", "os.rename", "os.remove", "os.mkdir")


def run_killed(seed: int, deaths: int, *arguments: str | Path) -> list[str]:
    """Run a command with so many deaths, and return what each life ended with."""
    command = [sys.executable, "-m", "tests.bltdata.killing", str(seed), str(deaths), *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


def die_at_file_event(number: int, folder: str) -> None:
    """Let this process kill itself when it is about to do the so-many-th thing with a file below `folder`."""
    events = itertools.count(1)

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        is_ours = event in FILE_EVENTS and isinstance(arguments[0], str | os.PathLike) and os.fspath(arguments[0]).startswith(folder)
        if is_ours and next(events) == number:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


def live(arguments: list[str]) -> int:
    from bltdata.cli import main

    try:
        main(arguments)
    except SystemExit as exit:
        return int(exit.code or 0)
    return 0


def main() -> None:
    seed, deaths, *arguments = sys.argv[1:]
    folder = arguments[arguments.index("--out") + 1]
    for slow in SLOW_IMPORTS:
        importlib.import_module(slow)
    random_moment = random.Random(int(seed))
    for lives in itertools.count():
        mortal = lives < int(deaths)
        at_file = random_moment.random() < 0.5
        seconds, number = random_moment.uniform(0, LONGEST_SECONDS), random_moment.randint(1, LAST_FILE_EVENT)
        child = os.fork()
        if child == 0:
            if mortal and at_file:
                die_at_file_event(number, folder)
            os._exit(live(arguments))
        if mortal and not at_file:
            time.sleep(seconds)
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status):
            print(f"exit {os.WEXITSTATUS(status)}")
            sys.exit(os.WEXITSTATUS(status))
        print(f"file event {number}" if at_file else f"{seconds:.3f} s", flush=True)


if __name__ == "__main__":
    main()
