"""A cluster of this machine, started once: that takes seconds."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bltdata.engines.ray import MAX_TRIES, run_ray
from bltdata.errors import BuildError, CorpusError

ray = pytest.importorskip("ray", reason="Ray isn't installed; it is the extra [ray]")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    yield
    ray.shutdown()


def square(number: int) -> int:
    return number * number


def place_of(number: int) -> tuple[int, str]:
    time.sleep(0.05)
    return os.getpid(), os.getcwd()


def fail_at_three(item: tuple[int, str]) -> int:
    number, folder = item
    (Path(folder) / str(number)).touch()
    if number == 3:
        raise CorpusError("The third is missing; look for it.")
    if number > 3:
        # The other worker goes on until the failure has come through, which takes a busy machine a while.
        time.sleep(1)
    return number


def die_once(item: tuple[int, str]) -> int:
    number, folder = item
    witness = Path(folder) / str(number)
    if not witness.exists():
        witness.touch()
        if number in (0, 4, 5):
            os.kill(os.getpid(), signal.SIGKILL)
    return number


def die_always(item: tuple[int, str]) -> int:
    number, folder = item
    if number == 3:
        with (Path(folder) / "tries").open("a") as file:
            file.write("x")
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def begin(item: tuple[int, str]) -> int:
    number, folder = item
    (Path(folder) / str(number)).touch()
    return number


def test_every_item_once():
    assert list(run_ray(square, [], 2)) == []
    assert sorted(run_ray(square, range(11), 2)) == [number * number for number in range(11)]
    # As many workers as there are cores.
    assert sorted(run_ray(square, range(3), None)) == [0, 1, 4]


def test_a_worker_keeps_its_process_and_is_where_the_work_was_asked_for():
    places = list(run_ray(place_of, range(12), 2))
    assert {folder for _, folder in places} == {os.getcwd()}
    pids = {pid for pid, _ in places}
    assert len(pids) == 2
    assert os.getpid() not in pids


def test_no_more_is_begun_than_there_are_workers(tmp_path):
    results = run_ray(begin, [(number, str(tmp_path)) for number in range(100)], 2)
    for given in range(1, 6):
        next(results)
        time.sleep(0.2)
        assert len(list(tmp_path.iterdir())) <= given + 2
    results.close()


def test_a_failure_is_that_of_the_function(tmp_path):
    given = []
    with pytest.raises(CorpusError, match=r"^The third is missing; look for it\.$") as caught:
        given.extend(run_ray(fail_at_three, [(number, str(tmp_path)) for number in range(100)], 2))
    assert type(caught.value) is CorpusError
    begun = {int(path.name) for path in tmp_path.iterdir()}
    assert set(given) == begun - {3}
    assert len(begun) < 8


def test_a_worker_that_dies_is_replaced_and_its_item_done_again(tmp_path):
    assert sorted(run_ray(die_once, [(number, str(tmp_path)) for number in range(9)], 2)) == list(range(9))


def test_an_item_that_kills_whoever_does_it(tmp_path):
    given = []
    with pytest.raises(BuildError, match=r"^A Ray worker died 3 times at the same fragment, perhaps for want of memory \(.+\): ") as caught:
        given.extend(run_ray(die_always, [(number, str(tmp_path)) for number in range(20)], 2))
    assert "\n" not in str(caught.value)
    assert (tmp_path / "tries").read_text() == "x" * MAX_TRIES
    assert set(given) >= {0, 1, 2}


def test_closing_stops_the_workers():
    results = run_ray(place_of, range(1000), 2)
    pid, _ = next(results)
    results.close()
    deadline = time.monotonic() + 20
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{pid}").exists()
    # The cluster is somebody else's, and stays.
    assert ray.is_initialized()
