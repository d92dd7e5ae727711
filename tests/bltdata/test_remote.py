import errno
import functools
import pickle
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import given
from hypothesis import strategies as st

from bltdata.address import check_url, is_url, redacted
from bltdata.atomic import remove_leftovers, write_json
from bltdata.errors import BltError, ConfigError, RemoteError
from bltdata.remote import RemotePath, as_path, asking, file_sizes, published
from tests.bltdata.conftest import SECRET


@pytest.fixture(params=["memory", "s3"])
def folder(request: pytest.FixtureRequest) -> RemotePath:
    found = as_path(request.getfixturevalue(request.param) + "/folder")
    assert isinstance(found, RemotePath)
    return found


# ----------------------------------------------------------------------------------------------------------- addresses


def test_what_is_an_address():
    assert as_path("runs/shards") == Path("runs/shards")
    assert as_path(Path("runs")) == Path("runs")
    assert as_path("file:///tmp/a%20b") == Path("/tmp/a b")
    assert as_path("s3://bucket/a/") == RemotePath("s3://bucket/a")
    assert as_path(RemotePath("s3://bucket/a")) == RemotePath("s3://bucket/a")
    assert not is_url("C:/x")
    assert not is_url(Path("s3://bucket"))


def test_parts_of_an_address():
    path = as_path("s3://bucket/a") / "b.tar.gz"
    assert str(path) == "s3://bucket/a/b.tar.gz"
    assert (path.name, path.suffix, str(path.parent)) == ("b.tar.gz", ".gz", "s3://bucket/a")
    assert path.resolve() == pickle.loads(pickle.dumps(path)) == path


@pytest.mark.parametrize(
    "address",
    [
        "s3://someone:hush@bucket/a",
        "s3://hush@bucket/a",
        "https://hush@host/a",
        "sftp://someone:hush@host/a",
        "https://host/a.jsonl?X-Amz-Signature=hush&X-Amz-Date=1",
        "s3://bucket/a?token=hush",
        "abfs://container:hush@account.dfs.core.windows.net/a",
    ],
)
def test_credentials_in_an_address_are_refused_and_not_repeated(address):
    for use in (as_path, check_url):
        with pytest.raises(ConfigError, match=r"in the environment") as caught:
            use(address)
        assert "hush" not in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "address", ["abfs://container@account.dfs.core.windows.net/a", "sftp://me@host/a", "s3://bucket/part-?.txt", "s3://b/a@b"]
)
def test_what_is_no_credential(address):
    assert str(as_path(address)) == address


def test_a_chain_of_file_systems_is_refused():
    with pytest.raises(ConfigError, match="chains several"):
        as_path("simplecache://x::s3://bucket/a")


def test_an_address_that_was_made_a_path_is_refused():
    with pytest.raises(ConfigError, match="eats one of its slashes"):
        as_path(Path("s3://bucket/a"))


def test_an_unknown_kind_of_address_is_one_sentence():
    with pytest.raises(ConfigError, match=r"nosuch://a can't be used.*check how the address begins\."):
        RemotePath("nosuch://a").exists()


def test_a_missing_package_is_named(monkeypatch):
    def missing(*_: Any, **__: Any) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec.core, "url_to_fs", missing)
    with pytest.raises(ConfigError, match=r"install blt-toolkit\[s3\] with pip"):
        RemotePath("s3://bucket/a").exists()


def test_secrets_are_taken_out_of_messages(monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI")
    monkeypatch.setenv("HOME_OF_NOTHING", "harmless-text")
    said = redacted("denied wJalrXUtnFEMI at http://me:pw@host/?AWSAccessKeyId=AKIA&x=1 harmless-text")
    assert said == "denied *** at http://***@host/?AWSAccessKeyId=***&x=1 harmless-text"


def test_a_secret_in_an_error_is_not_kept_as_its_cause(monkeypatch):
    monkeypatch.setenv("SOME_TOKEN", "hush-hush")
    with pytest.raises(RemoteError) as caught, asking("s3://bucket/a"):
        raise RuntimeError("no hush-hush here")
    assert str(caught.value).startswith("s3://bucket/a can't be used: no *** here; check the network")
    assert caught.value.__cause__ is None
    assert isinstance(caught.value, BltError)
    # A worker's error reaches its parent.
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


# --------------------------------------------------------------------------------------------------------------- files


def test_what_is_written_is_read_back(folder):
    data = bytes(range(256)) * 5000
    path = folder / "a.bin"
    assert not path.exists()
    assert folder.listing() == {}
    path.write_bytes(data)
    assert path.read_bytes() == data
    assert path.size_bytes() == len(data)
    assert path.is_file()
    assert not path.is_dir()
    assert folder.is_dir()
    with path.open() as file:
        assert file.readline() == data[:11]
        assert file.read(20) == data[11:31]
    with path.open_ranges() as file:
        assert file.seek(-3, 2) == len(data) - 3
        assert file.read() == data[-3:]
        file.seek(1000)
        assert file.read(7) == data[1000:1007]
    (folder / "below" / "b.txt").write_bytes(b"")
    write_json(str(folder / "c.json"), {"a": 1})
    assert folder.listing() == {"a.bin": len(data), "below": None, "c.json": 13}
    assert [path.name for path in folder.iterdir()] == ["a.bin", "below", "c.json"]
    assert [path.name for path in folder.glob("*.json")] == ["c.json"]
    assert file_sizes(folder, ["a.bin", "below", "d"]) == {"a.bin": len(data)}
    path.unlink()
    assert not path.exists()
    path.unlink(missing_ok=True)
    with pytest.raises(FileNotFoundError):
        path.read_bytes()
    remove_leftovers(folder)


def test_one_of_several_creates_a_file(folder):
    path = folder / "lock"
    assert path.create(b"first")
    assert not path.create(b"second")
    assert path.read_bytes() == b"first"


def test_a_failed_block_publishes_nothing(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def write() -> None:
        with published(folder / "a") as local:
            local.write_bytes(b"half")
            raise OSError(errno.ENOSPC, "full")

    with pytest.raises(OSError, match="full"):
        write()
    assert not (folder / "a").exists()
    assert list(tmp_path.iterdir()) == []


def test_a_local_file_is_written_where_it_is(tmp_path):
    with published(tmp_path / "a") as local:
        assert local == tmp_path / "a"


def test_what_arrives_otherwise_is_noticed(memory, monkeypatch):
    def put(self: MemoryFileSystem, local: str, remote: str, **_: Any) -> None:
        data = bytearray(Path(local).read_bytes())
        data[2] ^= 1
        self.pipe_file(remote, bytes(data))

    monkeypatch.setattr(MemoryFileSystem, "put_file", put)
    with pytest.raises(RemoteError, match="what arrived is not what was sent"):
        (as_path(memory) / "a").write_bytes(b"abcdef")


def test_large_files_are_sent_in_parts_and_compared(s3, monkeypatch):
    path = as_path(s3) / "big"
    files, _ = path.store()
    # S3 allows parts of 5 MB and more.
    monkeypatch.setattr(files, "put_file", functools.partial(files.put_file, chunksize=5 << 20))
    data = bytes(11 << 20)
    path.write_bytes(data)
    assert path.information()["ETag"].endswith('-3"')
    assert path.read_bytes() == data


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
