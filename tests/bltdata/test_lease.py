import json
import os
import subprocess
import sys
import threading
import time

import pytest

from bltdata import lease
from bltdata.errors import BuildError, RemoteError
from bltdata.lock import exclusive, one_of
from bltdata.remote import RemotePath


@pytest.fixture(params=["memory", "s3"])
def folder(request: pytest.FixtureRequest) -> RemotePath:
    return RemotePath(request.getfixturevalue(request.param) + "/folder")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RENEW_SECONDS": 0.05, "STALE_SECONDS": 1.0, "_LOOK_SECONDS": 0.02}.items():
        monkeypatch.setattr(lease, name, value)


def leave(folder: RemotePath, number: int = 1, **fields: object) -> None:
    """A lock as a process leaves it that is no more, or isn't on this machine."""
    holder = {"machine": "elsewhere", "process": 7, "started": "1", "token": "x", "beat": 3, "released": False} | fields
    lease._path(folder, number).write_bytes(json.dumps(holder).encode())


def locks(folder: RemotePath) -> list[str]:
    return list(folder.listing())


def test_one_at_a_time(folder):
    with exclusive(folder), pytest.raises(BuildError, match="Another process is writing to"), exclusive(str(folder)):
        pass
    with exclusive(folder):
        assert locks(folder) == [".lock-000002"]
    # The highest stays, so that no number is ever given twice.
    assert locks(folder) == [".lock-000002"]


def test_an_error_in_the_block_gives_the_lock_back(folder):
    with pytest.raises(KeyError), exclusive(folder):
        raise KeyError
    with exclusive(folder):
        pass


def test_a_dead_process_of_this_machine_is_followed_at_once(folder):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    leave(folder, machine=lease._machine(), process=gone.pid, started="1")
    begin = time.monotonic()
    with exclusive(folder):
        assert time.monotonic() - begin < lease.STALE_SECONDS / 2


def test_a_lock_that_could_not_be_given_back_is_no_hindrance(folder, monkeypatch):
    def lose() -> None:
        with exclusive(folder), monkeypatch.context() as gone:
            gone.setattr(lease.Lease, "release", lambda self: (_ for _ in ()).throw(RemoteError("gone.")))
            raise KeyError

    with pytest.raises(KeyError):
        lose()
    with exclusive(folder):
        pass


def test_another_process_that_got_the_number_of_a_dead_one_is_not_taken_for_it(folder):
    leave(folder, machine=lease._machine(), process=os.getpid(), started="another time")
    with exclusive(folder):
        pass


def test_a_lock_that_nobody_renews_is_taken_over(folder, quick):
    leave(folder)
    said = []
    with exclusive(folder, said.append):
        assert locks(folder) == [".lock-000002"]
    assert len(said) == 1
    assert "watching for 1 seconds" in said[0]


def test_a_lock_that_somebody_renews_is_not(folder, quick, monkeypatch):
    monkeypatch.setattr(lease, "_lives_here", lambda holder: False)
    with exclusive(folder), pytest.raises(BuildError, match="Another process is writing"), exclusive(folder):
        pass


def test_a_damaged_lock_is_watched_like_any(folder, quick):
    lease._path(folder, 4).write_bytes(b"{")
    with exclusive(folder):
        assert locks(folder) == [".lock-000005"]


def test_of_many_who_find_a_stale_lock_one_gets_it(s3, quick):
    folder = RemotePath(f"{s3}/folder")
    leave(folder)
    outcomes = []
    go, done = threading.Barrier(4), threading.Barrier(4)

    def take() -> None:
        go.wait()
        try:
            got = lease._acquire(folder, lambda text: None)
        except BuildError:
            got = None
        outcomes.append(got)
        done.wait()
        if got:
            got.release()

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(got is not None for got in outcomes) == 1


def test_who_slept_while_others_came_and_went_is_refused(folder, monkeypatch):
    leave(folder, 1, released=True)
    newest = lease._newest
    seen = iter([1])
    # It saw the first lock; now there are two more, and the first and second are tidied up.
    monkeypatch.setattr(lease, "_newest", lambda folder: next(seen, None) or newest(folder))
    check = lease._check_abandoned

    def sleep(folder, number, waiting):
        check(folder, number, waiting)
        leave(folder, 3)
        lease._path(folder, 1).unlink()

    monkeypatch.setattr(lease, "_check_abandoned", sleep)
    with pytest.raises(BuildError), exclusive(folder):
        pass


def test_who_was_taken_for_dead_may_not_go_on(folder, quick):
    with lease.hold(folder) as held:
        lease.check_held(folder)
        leave(folder, 2)
        held._thread.join(timeout=20)
        with pytest.raises(BuildError, match="silent for so long"):
            lease.check_held(folder)
    # The lock isn't its own any more, so it isn't given back.
    assert locks(folder) == [".lock-000001", ".lock-000002"]
    lease.check_held(folder)


def test_jobs_of_an_array_are_refused(folder):
    with pytest.raises(BuildError, match=r"can't share the remote folder .*--workers or --engine ray\."), one_of(folder, 0, 2):
        pass


def test_an_unreachable_store_gives_no_lock(folder, monkeypatch):
    def refuse(self: RemotePath) -> None:
        raise RemoteError("no.")

    monkeypatch.setattr(RemotePath, "listing", refuse)
    with pytest.raises(RemoteError), exclusive(folder):
        pass
