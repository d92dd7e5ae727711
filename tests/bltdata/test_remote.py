import errno
import functools
import pickle
import threading
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from bltdata.address import check_url, is_url, redacted
from bltdata.atomic import remove_leftovers, write_json
from bltdata.errors import ConfigError, RemoteError
from bltdata.remote import RemotePath, as_path, file_sizes, published


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


def test_secrets_are_taken_out_of_messages(monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI")
    monkeypatch.setenv("HOME_OF_NOTHING", "harmless-text")
    said = redacted("denied wJalrXUtnFEMI at http://me:pw@host/?AWSAccessKeyId=AKIA&x=1 harmless-text")
    assert said == "denied *** at http://***@host/?AWSAccessKeyId=***&x=1 harmless-text"


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


def test_a_file_that_is_replaced_is_read_as_it_was_or_as_it_is(s3):
    # As a lock is renewed while another process looks at it.
    def whole(number: int) -> bytes:
        return f"{number:02}".encode() * 1000

    path, done = as_path(s3 + "/folder") / "renewed", threading.Event()
    path.write_bytes(whole(0))

    def renew() -> None:
        for number in range(1, 40):
            path.write_bytes(whole(number))
        done.set()

    writer = threading.Thread(target=renew)
    writer.start()
    try:
        while not done.is_set():
            data = path.read_bytes()
            assert data == whole(int(data[:2]))
    finally:
        writer.join()


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
