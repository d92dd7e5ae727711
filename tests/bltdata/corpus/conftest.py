"""Corpora for tests: small real files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bltdata.corpus import open_corpus


@pytest.fixture
def files(tmp_path: Path) -> Callable[[dict[str, bytes]], Path]:
    """Writes files, given by name and content, below one folder and returns it."""

    def write(contents: dict[str, bytes]) -> Path:
        folder = tmp_path / "pages"
        for name, data in contents.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return folder

    return write


@pytest.fixture
def read() -> Callable[..., list[tuple[str, bytes]]]:
    """Opens a corpus and reads the ids and bytes of all its documents."""

    def read_all(*arguments: Any, **options: Any) -> list[tuple[str, bytes]]:
        return [(document.doc_id, document.data) for document in open_corpus(*arguments, **options)]

    return read_all
