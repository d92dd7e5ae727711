import errno
import json
import os
from pathlib import Path

import pytest

from bltdata.atomic import atomic_folder, atomic_path, remove_leftovers, write_bytes, write_json
from bltdata.errors import ConfigError


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


@pytest.mark.parametrize("method", ["mkdir", "touch"])
def test_a_place_where_nothing_can_be_made(tmp_path, monkeypatch, method):
    # As below /proc.
    def refuse(self, *arguments, **options):
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(self))

    monkeypatch.setattr(Path, method, refuse)
    with pytest.raises(ConfigError, match=f"^Nothing can be written to {tmp_path / 'new' / 'file.bin'}; give another path"):
        write_bytes(tmp_path / "new" / "file.bin", b"new")


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


@pytest.mark.parametrize("there", [False, True])
def test_a_folder_appears_when_the_block_ends(tmp_path, there):
    folder = tmp_path / "new" / "folder"
    if there:
        folder.mkdir(parents=True)
    with atomic_folder(folder) as temporary:
        (temporary / "one").write_bytes(b"1")
        assert not (folder / "one").exists()
        assert temporary.parent == folder.parent
    assert names(folder) == ["one"]
    assert names(folder.parent) == ["folder"]


@pytest.mark.parametrize("error", [ValueError("a mistake"), KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")])
def test_an_exception_leaves_no_folder(tmp_path, error):
    def fail_halfway():
        with atomic_folder(tmp_path / "folder") as temporary:
            (temporary / "one").write_bytes(b"1")
            raise error

    with pytest.raises(type(error)):
        fail_halfway()
    assert names(tmp_path) == []


def test_a_folder_with_something_in_it_is_left_alone(tmp_path):
    write_bytes(tmp_path / "folder" / "mine", b"mine")
    with (
        pytest.raises(ConfigError, match=r"folder isn't empty; give a folder that doesn't exist or is empty\.$"),
        atomic_folder(tmp_path / "folder"),
    ):
        pytest.fail("not even begun")
    with pytest.raises(ConfigError, match=r"mine is a file; give a folder"), atomic_folder(tmp_path / "folder" / "mine"):
        pytest.fail("not even begun")
    assert names(tmp_path) == ["folder"]
    assert names(tmp_path / "folder") == ["mine"]


def test_a_folder_that_somebody_filled_meanwhile_is_left_alone(tmp_path):
    def overtaken():
        with atomic_folder(tmp_path / "folder") as temporary:
            (temporary / "one").write_bytes(b"1")
            write_bytes(tmp_path / "folder" / "mine", b"mine")

    with pytest.raises(ConfigError, match="isn't empty"):
        overtaken()
    assert names(tmp_path) == ["folder"]
    assert names(tmp_path / "folder") == ["mine"]


def test_a_link_to_an_empty_folder_is_followed(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    with atomic_folder(tmp_path / "link") as temporary:
        (temporary / "one").write_bytes(b"1")
    assert names(tmp_path / "disk") == ["one"]
    assert (tmp_path / "link").is_symlink()


def test_remove_leftovers_of_some_files(tmp_path):
    for name in ("part-1.bin", "part-11.bin"):
        (tmp_path / f".{name}.77-0a1b2c3d.tmp").write_bytes(b"half")
    remove_leftovers(tmp_path, ["part-1.bin"])
    assert names(tmp_path) == [".part-11.bin.77-0a1b2c3d.tmp"]


def test_writers_with_one_number_on_two_machines(tmp_path):
    with atomic_path(tmp_path / "file.bin") as here, atomic_path(tmp_path / "file.bin") as there:
        assert here != there
        here.write_bytes(b"same")
        there.write_bytes(b"same")
    assert names(tmp_path) == ["file.bin"]


def test_whoever_may_read_a_new_file_may_read_this(tmp_path):
    (tmp_path / "plain").touch()
    with atomic_path(tmp_path / "written") as temporary:
        # As safetensors does.
        temporary.unlink()
        os.close(os.open(temporary, os.O_CREAT | os.O_WRONLY, 0o600))
    assert (tmp_path / "written").stat().st_mode == (tmp_path / "plain").stat().st_mode
