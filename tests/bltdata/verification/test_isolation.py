import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bltdata.verification.isolation import Lost, Tell, run_isolated

ROOT = Path(__file__).parents[3]


def work(item: str, tell: Tell) -> str:
    """What the processes of these tests do, by the name of the item."""
    tell(len(item))
    if item == "crash":
        os.kill(os.getpid(), signal.SIGABRT)
    if item == "exit":
        os._exit(3)
    if item == "hang":
        time.sleep(60)
    if item == "memory":
        bytearray(1 << 62)
    if item == "mistake":
        raise KeyError("our own mistake")
    if item == "limit":
        return str(0 < resource.getrlimit(resource.RLIMIT_AS)[0] < 2**63 - 1)
    return item.upper()


def test_what_dies_costs_its_own_item_only():
    told: list[int] = []
    items = ["a", "crash", "b", "exit", "hang", "memory", "limit", "c"]
    found = dict(run_isolated(work, items, 2, tell=told.append, stall_seconds=4))
    assert found == {
        0: "A",
        1: Lost("crashes the reader (signal 6)"),
        2: "B",
        3: Lost("crashes the reader (exit code 3)"),
        4: Lost("keeps the reader busy for more than 4 seconds"),
        5: Lost("asks for more memory than this machine has"),
        6: "True",
        7: "C",
    }
    assert sum(told) == sum(map(len, items))


def test_our_own_mistakes_are_raised():
    with pytest.raises(KeyError, match="our own mistake"):
        list(run_isolated(work, ["mistake", "a"], 1, tell=lambda amount: None))


def test_nothing_to_do_starts_nothing():
    assert list(run_isolated(work, [], 3, tell=lambda amount: None)) == []


def test_a_script_without_a_main_guard_may_use_it(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "print('started')\n"
        "from bltdata.verification.isolation import run_isolated\n"
        "from tests.bltdata.verification.test_isolation import work\n"
        "print(list(run_isolated(work, ['a'], 1, tell=print)))\n"
    )
    path = os.pathsep.join([str(ROOT), *filter(None, sys.path)])
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, env=os.environ | {"PYTHONPATH": path})
    assert (done.stdout, done.stderr) == ("started\n1\n[(0, 'A')]\n", "")
