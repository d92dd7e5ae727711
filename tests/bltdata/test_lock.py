import subprocess
import sys
import time
from pathlib import Path

import pytest

from bltdata.errors import BuildError
from bltdata.lock import exclusive

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
