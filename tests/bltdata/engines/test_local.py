import importlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from bltdata.engines import open_engine, run_local
from bltdata.errors import BuildError, ConfigError, CorpusError
from bltdata.usage import num_cores

ROOT = Path(__file__).parents[3]
WORK_SECONDS = 60

# Workers find these by the name of this module.


def square(number: int) -> int:
    return number * number


def process_of(number: int) -> int:
    time.sleep(0.05)
    return os.getpid()


def fail_at_three(item: tuple[int, str]) -> int:
    number, folder = item
    (Path(folder) / str(number)).touch()
    if number == 3:
        raise CorpusError("The third is missing; look for it.")
    if number > 3:
        # The other worker goes on until the failure has come through, which takes a busy machine a while.
        time.sleep(0.3)
    return number


def fail_early_and_go_on(item: tuple[int, str]) -> int:
    number, folder = item
    if number == 0:
        wait_until(lambda: (Path(folder) / "1").exists())
        raise CorpusError("The first is missing.")
    (Path(folder) / str(number)).touch()
    time.sleep(0.3)
    return number


def visible_gpus(number: int) -> str | None:
    time.sleep(0.1)
    return os.environ.get("CUDA_VISIBLE_DEVICES")


def die_at_three(number: int) -> int:
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def sleep_long(folder: str) -> None:
    (Path(folder) / str(os.getpid())).touch()
    time.sleep(WORK_SECONDS)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A child that has ended and that nobody has asked after yet.
    status = Path(f"/proc/{pid}/stat")
    return not (status.exists() and status.read_text().rpartition(")")[2].split()[0] == "Z")


def wait_until(condition, seconds: float = 20) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("count", [0, 1, 2, 11])
def test_every_item_once(workers, count):
    assert sorted(run_local(square, range(count), workers)) == [number * number for number in range(count)]


def test_one_worker_is_this_process_and_takes_the_items_in_order():
    assert list(run_local(square, [3, 1, 2], workers=1)) == [9, 1, 4]
    assert set(run_local(process_of, range(3), workers=1)) == {os.getpid()}


def test_workers_are_other_processes():
    pids = list(run_local(process_of, range(12), workers=2))
    assert os.getpid() not in pids
    assert len(set(pids)) == 2
    assert wait_until(lambda: not any(map(is_alive, set(pids))))


@pytest.mark.parametrize("workers", [1, 2])
def test_a_failure_is_that_of_the_function(tmp_path, workers):
    items = [(number, str(tmp_path)) for number in range(100)]
    with pytest.raises(CorpusError, match=r"^The third is missing; look for it\.$"):
        list(run_local(fail_at_three, items, workers))
    # What had not begun by then is not begun.
    assert len(list(tmp_path.iterdir())) < 20


def test_what_is_running_when_another_fails_is_given(tmp_path):
    results = run_local(fail_early_and_go_on, [(number, str(tmp_path)) for number in range(50)], workers=2)
    given = []
    with pytest.raises(CorpusError, match=r"^The first is missing\.$"):
        given.extend(results)
    assert sorted(given) == sorted(int(path.name) for path in tmp_path.iterdir())
    assert 1 <= len(given) < 10


@pytest.mark.parametrize(("listed", "seen"), [(None, {"0", "1"}), ("3,5", {"3", "5"})])
def test_every_worker_sees_one_gpu(monkeypatch, listed, seen):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if listed is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", listed)
    monkeypatch.setattr("bltdata.engines.local._count_gpus", lambda: 2)
    # As many workers as there are GPUs.
    assert set(run_local(visible_gpus, range(12), None, gpu=True)) == seen


def test_as_many_workers_as_cores():
    assert len(set(run_local(process_of, range(20), None))) == max(1, min(num_cores(), 20))


def test_a_worker_that_is_killed():
    with pytest.raises(BuildError, match=r"^A worker process was killed, perhaps for want of memory: what was finished is kept"):
        list(run_local(die_at_three, range(10), workers=2))


def test_ctrl_c_stops_the_workers(tmp_path):
    # Everything that builds shards imports Polars, which changes what Ctrl-C does to a thread that waits.
    importlib.import_module("polars")

    def press_ctrl_c_once_both_work() -> None:
        wait_until(lambda: len(list(tmp_path.iterdir())) == 2)
        # To the thread that waits, as a terminal's goes: another one would take the signal and leave it asleep.
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    user = threading.Thread(target=press_ctrl_c_once_both_work)
    user.start()
    begin = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        next(run_local(sleep_long, [str(tmp_path)] * 5, workers=2))
    user.join()
    # Nobody waited for what they were doing.
    assert time.monotonic() - begin < WORK_SECONDS - 10
    assert not any(is_alive(int(path.name)) for path in tmp_path.iterdir())


def test_closing_stops_the_workers(tmp_path):
    results = run_local(process_of, range(1000), workers=2)
    pid = next(results)
    results.close()
    assert not is_alive(pid)


def test_workers_die_with_their_parent(tmp_path):
    script = "import sys; from tests.bltdata.engines.test_local import *; list(run_local(sleep_long, [sys.argv[1]] * 2, workers=2))"
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], cwd=ROOT) as parent:
        assert wait_until(lambda: len(list(tmp_path.iterdir())) == 2)
        parent.kill()
    pids = [int(path.name) for path in tmp_path.iterdir()]
    assert wait_until(lambda: not any(map(is_alive, pids)))


def test_engines_by_name(monkeypatch):
    assert list(open_engine("local", 1)(square, [3, 1])) == [9, 1]
    with pytest.raises(ConfigError, match=r"^The number of workers is 0; it must be at least 1\.$"):
        open_engine("local", 0)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"^Ray is not installed; run pip install 'blt-toolkit\[ray\]', or choose --engine local\.$"):
        open_engine("ray", 1)
