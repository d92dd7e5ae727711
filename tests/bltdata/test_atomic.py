import errno
import json
import os

import pytest

from bltdata.atomic import atomic_path, remove_leftovers, write_bytes, write_json


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_file_appears_when_the_block_ends(tmp_path):
    path = tmp_path / "new" / "file.bin"
    with atomic_path(path) as temporary:
        temporary.write_bytes(b"content")
        assert not path.exists()
        # Beside it: a rename between file systems wouldn't be atomic.
        assert temporary.parent == path.parent
    assert path.read_bytes() == b"content"
    assert names(path.parent) == ["file.bin"]


@pytest.mark.parametrize("error", [ValueError("a mistake"), KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")])
def test_an_exception_leaves_the_old_file_and_nothing_else(tmp_path, error):
    path = tmp_path / "file.bin"
    path.write_bytes(b"old")

    def fail_halfway():
        with atomic_path(path) as temporary:
            temporary.write_bytes(b"half of the n")
            raise error

    with pytest.raises(type(error)):
        fail_halfway()
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file.bin"]


def test_an_exception_before_anything_was_written(tmp_path):
    with pytest.raises(ZeroDivisionError), atomic_path(tmp_path / "file.bin"):
        raise ZeroDivisionError
    assert names(tmp_path) == []


def test_a_disk_that_is_full_at_the_flush_publishes_nothing(tmp_path, monkeypatch):
    def no_space(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    write_bytes(tmp_path / "file.bin", b"old")
    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(OSError, match="No space left"):
        write_bytes(tmp_path / "file.bin", b"new")
    assert (tmp_path / "file.bin").read_bytes() == b"old"
    assert names(tmp_path) == ["file.bin"]


def test_write_bytes_replaces(tmp_path):
    for data in (b"one", b"", b"three"):
        write_bytes(tmp_path / "file.bin", data)
        assert (tmp_path / "file.bin").read_bytes() == data


def test_write_json(tmp_path):
    value = {"\xe9": [1, None, 0.5], "a": {}}
    write_json(tmp_path / "value.json", value)
    text = (tmp_path / "value.json").read_text(encoding="utf-8")
    assert json.loads(text) == value
    assert text.endswith("}\n")


@pytest.mark.parametrize("value", [{"rate": float("nan")}, {"rate": float("inf")}])
def test_write_json_refuses_what_json_cannot_say(tmp_path, value):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "value.json", value)
    assert names(tmp_path) == []


def test_remove_leftovers_spares_what_was_published(tmp_path):
    write_bytes(tmp_path / "part.bin", b"done")
    (tmp_path / "notes.tmp").write_bytes(b"somebody's own")
    with atomic_path(tmp_path / "killed.bin") as temporary:
        leftover = tmp_path / temporary.name.replace(str(os.getpid()), "999999")
        leftover.write_bytes(b"half")
        temporary.write_bytes(b"")
    remove_leftovers(tmp_path)
    assert names(tmp_path) == ["killed.bin", "notes.tmp", "part.bin"]


def test_remove_leftovers_of_a_folder_that_is_not_there(tmp_path):
    remove_leftovers(tmp_path / "nothing")
