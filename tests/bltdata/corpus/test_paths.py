import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bltdata.corpus.paths import find_files, fixed_part, name_path, path_name, printable
from bltdata.errors import CorpusError


def names(location, *arguments):
    return [entry.name for entry in find_files(str(location), *arguments).entries]


TREE = {"b.txt": b"1", "a.txt": b"22", "sub/a.txt": b"", "sub/deep/c.TXT.gz": b"333", ".hidden": b"4", ".git/x.txt": b"5", "z.md": b"6"}


def test_a_folder_is_every_file_below_it_sorted(files):
    found = find_files(str(files(TREE)))
    assert [(entry.name, entry.size_bytes) for entry in found.entries] == [
        ("a.txt", 2),
        ("b.txt", 1),
        ("sub/a.txt", 0),
        ("sub/deep/c.TXT.gz", 3),
        ("z.md", 1),
    ]
    assert all(entry.modified_ns == os.stat(found.path(entry.name)).st_mtime_ns for entry in found.entries)


def test_endings_and_skipped_folders(files):
    folder = files(TREE)
    assert names(folder, (".txt", ".txt.gz")) == ["a.txt", "b.txt", "sub/a.txt", "sub/deep/c.TXT.gz"]
    assert names(folder, (".txt",), {"sub"}) == ["a.txt", "b.txt"]


def test_a_file_is_named_as_in_its_folder(files):
    assert names(files(TREE) / "sub" / "a.txt") == ["a.txt"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.txt", ["a.txt", "b.txt"]),
        ("*", ["a.txt", "b.txt", "z.md"]),
        ("**/*.txt", ["a.txt", "b.txt", "sub/a.txt"]),
        ("s*/[a-c].txt", ["sub/a.txt"]),
        ("sub/*.txt", ["a.txt"]),
    ],
)
def test_names_are_below_the_fixed_part_of_a_pattern(files, pattern, expected):
    assert names(files(TREE) / pattern) == expected


def test_relative_locations(files, monkeypatch):
    monkeypatch.chdir(files(TREE))
    assert names(".") == names("../pages")
    assert names("*.txt") == names("./*.txt") == names("../pages/*.txt") == ["a.txt", "b.txt"]
    # The files are found again from anywhere, as worker processes need.
    found = find_files("*.txt")
    monkeypatch.chdir("/")
    assert os.path.getsize(found.path("a.txt")) == 2


def test_home(files, monkeypatch):
    monkeypatch.setenv("HOME", str(files(TREE).parent))
    assert names("~/pages/*.txt") == ["a.txt", "b.txt"]


def test_a_file_name_that_looks_like_a_pattern(files):
    folder = files({"a[1].txt": b"", "a1.txt": b""})
    assert names(folder / "a[1].txt") == ["a[1].txt"]


def test_links_are_followed_and_a_circle_ends(files, tmp_path):
    folder = files({"a/x.txt": b"1"})
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "y.txt").write_bytes(b"2")
    (folder / "b").symlink_to(outside)
    (folder / "a" / "up").symlink_to(folder)
    (folder / "z.txt").symlink_to(outside / "y.txt")
    assert names(folder) == ["a/x.txt", "b/y.txt", "z.txt"]


def test_the_longest_literal_folder():
    assert fixed_part("a/b.txt") == "a/b.txt"
    assert fixed_part("a/b*/c") == "a"
    assert fixed_part("*.txt") == "."
    assert fixed_part("/*/b") == "/"


@given(st.lists(st.binary(min_size=1, max_size=6).filter(lambda part: b"\0" not in part and b"/" not in part), min_size=1, max_size=3))
def test_names_lead_back_to_any_path(parts):
    path = os.fsdecode(b"/".join(parts))
    name = path_name(path)
    assert name_path(name) == path
    assert json.loads(json.dumps(name, ensure_ascii=False).encode()) == name


def test_no_file_name_imitates_an_escape():
    assert path_name(os.fsdecode(b"\xff")) == r"\xff"
    assert path_name(r"\xff") == r"\\xff"


def test_printable():
    assert printable(os.fsdecode("a/\xe9 ".encode() + b"\xff")) == "a/\xe9 \\xff"


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("nothing.txt", r"There is no '.*/pages/nothing\.txt'; give a file, a folder, a pattern"),
        ("a.txt/b.txt", r"There is no '.*a\.txt/b\.txt'"),
        ("*.csv", r"There is no file in '.*\*\.csv'; check the path or the pattern"),
        ("empty", r"There is no file in '.*empty'"),
        ("\0", r"can't be read: embedded null"),
    ],
)
def test_nothing_there(files, location, message):
    folder = files(TREE)
    (folder / "empty").mkdir()
    with pytest.raises(CorpusError, match=message):
        find_files(f"{folder}/{location}")


def test_no_file_with_the_ending(files):
    with pytest.raises(CorpusError, match=r"There is no file that ends with \.jsonl, \.ndjson in '.*pages'"):
        find_files(str(files(TREE)), (".jsonl", ".ndjson"))


def test_a_broken_link_is_not_passed_over(files):
    folder = files(TREE)
    (folder / "gone.txt").symlink_to(folder / "nowhere")
    with pytest.raises(CorpusError, match=r"gone\.txt can't be read: No such file or directory"):
        find_files(str(folder))


def test_a_pipe_is_refused_before_it_blocks(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(CorpusError, match=r"pipe is a pipe or a device, which can't be read twice"):
        find_files(str(tmp_path))


def test_a_folder_that_may_not_be_listed(files, monkeypatch):
    folder = files(TREE)
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("sub"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(CorpusError, match=r"sub can't be read: Permission denied; check the path and its permissions"):
        find_files(str(folder))
