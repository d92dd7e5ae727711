import os
from pathlib import Path

import pytest

from bltdata.cli.outputs import check_file, check_folder
from bltdata.errors import ConfigError


def test_what_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "old.html").write_text("old")
    monkeypatch.chdir(tmp_path)
    for path in (None, tmp_path / "old.html", tmp_path / "new" / "deep" / "page.html", Path("page.html"), Path("new/page.html")):
        check_file(path, "the page")
    for path in (None, tmp_path, tmp_path / "new" / "deep", Path("pictures"), Path()):
        check_folder(path, "the pictures")
    assert [path.name for path in tmp_path.iterdir()] == ["old.html"]


def test_what_cannot(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file")
    (tmp_path / "link").symlink_to(tmp_path)
    is_below = f"{tmp_path / 'file'} is a file, and so it can't be written below it; give another path."
    for check, path, message in [
        (check_file, tmp_path, f"{tmp_path} is a folder; give a file to write it to."),
        (check_file, tmp_path / "link", f"{tmp_path / 'link'} is a folder; give a file to write it to."),
        (check_folder, tmp_path / "file", f"{tmp_path / 'file'} is a file; give a folder to write it to."),
        (check_file, tmp_path / "file" / "a" / "b", is_below),
        (check_folder, tmp_path / "file" / "a", is_below),
    ]:
        with pytest.raises(ConfigError) as caught:
            check(path, "it")
        assert str(caught.value) == message


def test_what_may_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Not by the mode of a folder, which means nothing to a superuser.
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
    for check in (check_file, check_folder):
        with pytest.raises(ConfigError, match=f"^Not allowed to write it to {tmp_path}: check who owns it and its permissions"):
            check(tmp_path / "new" / "deep", "it")
    check_file(tmp_path.parent / "page.html", "the page")
