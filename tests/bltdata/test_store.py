import errno
import pickle
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import given
from hypothesis import strategies as st

from bltdata.errors import BltError, ConfigError, RemoteError
from bltdata.remote import RemotePath, as_path
from bltdata.store import asking
from tests.bltdata.conftest import SECRET


def test_an_unknown_kind_of_address_is_one_sentence():
    with pytest.raises(ConfigError, match=r"nosuch://a can't be used.*check how the address begins\."):
        RemotePath("nosuch://a").exists()


def test_a_missing_package_is_named(monkeypatch):
    def missing(*_: Any, **__: Any) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec.core, "url_to_fs", missing)
    with pytest.raises(ConfigError, match=r"install blt-toolkit\[s3\] with pip"):
        RemotePath("s3://bucket/a").exists()


def test_a_secret_in_an_error_is_not_kept_as_its_cause(monkeypatch):
    monkeypatch.setenv("SOME_TOKEN", "hush-hush")
    with pytest.raises(RemoteError) as caught, asking("s3://bucket/a"):
        raise RuntimeError("no hush-hush here")
    assert str(caught.value).startswith("s3://bucket/a can't be used: no *** here; check the network")
    assert caught.value.__cause__ is None
    assert isinstance(caught.value, BltError)
    # A worker's error reaches its parent.
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_a_file_that_ends_too_early_is_an_error(memory, monkeypatch):
    path = as_path(memory) / "a"
    path.write_bytes(b"0123456789")
    whole = MemoryFileSystem._open

    class Ending:
        def __init__(self, file: Any) -> None:
            self._file, self.size = file, 10

        def seek(self, position: int) -> None:
            self._file.seek(position)

        def read(self, count: int) -> bytes:
            return self._file.read(min(count, 4 - self._file.tell()))

        def close(self) -> None:
            pass

    monkeypatch.setattr(MemoryFileSystem, "_open", lambda *arguments, **options: Ending(whole(*arguments, **options)))
    for opened in (path.open(), path.open_ranges()):
        with opened as file, pytest.raises(RemoteError, match="it ended after 4 of 10 bytes"):
            file.read()


def test_an_unreachable_store_is_one_sentence(s3, monkeypatch):
    import s3fs

    def refuse(*_: Any, **__: Any) -> None:
        raise ConnectionRefusedError(errno.ECONNREFUSED, f"cannot connect with {SECRET}")

    monkeypatch.setattr(s3fs.S3FileSystem, "_call_s3", refuse)
    with pytest.raises(RemoteError, match=r"can't be used: cannot connect with \*\*\*; check the network") as caught:
        (as_path(s3) / "a").read_bytes()
    assert SECRET not in str(caught.value)


@given(data=st.binary(max_size=300), reads=st.lists(st.tuples(st.integers(0, 320), st.integers(0, 50)), max_size=10))
def test_ranges_are_those_of_the_file(data, reads):
    path = as_path("memory://ranges/a")
    path.write_bytes(data)
    with path.open_ranges() as file:
        for start, count in reads:
            file.seek(start)
            assert file.read(count) == data[start : start + count]
