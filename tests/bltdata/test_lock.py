import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from bltdata.errors import BuildError
from bltdata.lock import exclusive, one_of, turn

HOLDER = """
import sys, time
from bltdata.lock import exclusive
with exclusive(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


def assert_held(folder: Path) -> None:
    with pytest.raises(BuildError) as caught, exclusive(folder):
        pytest.fail("the lock was given twice")
    assert str(caught.value) == f"Another process is writing to {folder}; wait until it ends, or choose another folder."


def test_one_writer_in_a_process(tmp_path):
    folder = tmp_path / "a" / "b"
    with exclusive(folder):
        assert_held(folder)
        with exclusive(tmp_path / "a"):
            pass
    with exclusive(str(folder)):
        pass


def test_an_error_lets_go(tmp_path):
    with pytest.raises(ZeroDivisionError), exclusive(tmp_path):
        raise ZeroDivisionError
    with exclusive(tmp_path):
        pass


def test_a_process_that_is_killed_lets_go(tmp_path):
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        assert_held(tmp_path)
        holder.kill()
        holder.wait()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            with exclusive(tmp_path):
                return
        except BuildError:
            time.sleep(0.01)
    pytest.fail("the lock outlived its process")


def test_jobs_share_a_folder(tmp_path):
    folder = tmp_path / "shared"
    with one_of(folder, 0, 3), one_of(folder, 2, 3):
        assert_held(folder)
        with (
            pytest.raises(BuildError, match=r"^Another process is job 2 of 3 in .*shared already; wait until it ends\.$"),
            one_of(folder, 2, 3),
        ):
            pytest.fail("one job was given twice")
        with (
            pytest.raises(BuildError, match=r"^3 jobs are writing to .*shared, not 4; give the same count, or wait until they end\.$"),
            one_of(folder, 3, 4),
        ):
            pytest.fail("two counts at once")
        with one_of(folder, 1, 3):
            pass
    # Nobody is left who would mind.
    with one_of(folder, 3, 4):
        assert_held(folder)
    with exclusive(folder), pytest.raises(BuildError, match="Another process is writing to"), one_of(folder, 0, 3):
        pytest.fail("somebody writes alone")


def test_jobs_that_begin_at_once(tmp_path):
    begun, errors = threading.Barrier(8), []

    def job(index: int) -> None:
        try:
            with one_of(tmp_path, index, 8):
                begun.wait(timeout=20)
        except (BuildError, threading.BrokenBarrierError) as error:
            errors.append(error)

    jobs = [threading.Thread(target=job, args=(index,)) for index in range(8)]
    for each in jobs:
        each.start()
    for each in jobs:
        each.join()
    assert errors == []


def test_turns(tmp_path):
    inside, order = threading.Event(), []

    def other() -> None:
        with turn(tmp_path, waiting=inside.set):
            order.append("other")

    with turn(tmp_path):
        waits = threading.Thread(target=other)
        waits.start()
        assert inside.wait(timeout=20)
        with turn(tmp_path, "another"):
            order.append("first")
    waits.join()
    assert order == ["first", "other"]
