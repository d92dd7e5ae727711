"""The corpus that every Python brings along: its language reference and the sources of its standard library.

About 12 MB of English and Python, offline and free. It differs from one Python version to another, so the version is part of
its description, and where a distribution left out parts of the library, they are missing here too.
"""

import functools
import importlib
import platform
import sys
import sysconfig
from collections import Counter
from collections.abc import Iterator
from typing import Any

from bltdata.config import fingerprint
from bltdata.corpus.document import Record
from bltdata.corpus.files import WholeFileSource
from bltdata.corpus.fragments import Piece
from bltdata.corpus.paths import FileSet, find_files
from bltdata.corpus.spec import CorpusSpec
from bltdata.remote import AnyPath

_SKIPPED_FOLDERS = frozenset({"__pycache__", "dist-packages", "idle_test", "site-packages", "test", "tests"})
# It holds the topics, which are documents of their own: a topic must not stand in two splits.
_LEFT_OUT_FILES = frozenset({"pydoc_data/topics.py"})


class PythonDocsSource(WholeFileSource):
    """First the topics of `pydoc_data`, as `topics/NAME`, then the library's modules without their tests, by path; each a document."""

    def __init__(self, spec: CorpusSpec) -> None:
        """Find the modules.

        Raises:
            CorpusError: this Python comes without sources.
        """
        self.spec = spec
        files = find_files(sysconfig.get_paths()["stdlib"], (".py",), _SKIPPED_FOLDERS)
        self.files = FileSet(files.folder, tuple(entry for entry in files.entries if _is_library_module(entry.name)))

    def pieces(self, target_bytes: int) -> Iterator[Piece]:
        """Each topic and each module."""
        for name, text in _topics().items():
            yield Piece(name=f"topics/{name}", size_bytes=len(text))
        yield from super().pieces(target_bytes)

    def read(self, piece: Piece, left_out: Counter[str]) -> Iterator[Record]:
        """The topic or module."""
        # A topic is no file; that also tells it from a module of that name.
        if piece.file_bytes is None:
            yield piece.name, _topics()[piece.name.removeprefix("topics/")]
        else:
            yield from super().read(piece, left_out)

    def would_read(self, path: AnyPath) -> bool:
        """Never: it is Python's own files."""
        return False

    def describe(self) -> dict[str, Any]:
        """The version of Python, and the topics and files it brought."""
        topics = _topics()
        return {
            "python_version": platform.python_version(),
            "python_implementation": platform.python_implementation(),
            "num_topics": len(topics),
            "topics_fingerprint": fingerprint([[name, len(text)] for name, text in topics.items()]),
            **super().describe(),
        }


@functools.cache
def _topics() -> dict[str, bytes]:
    try:
        topics = importlib.import_module("pydoc_data.topics").topics
    except ImportError:
        # Some distributions put it in a package of its own.
        return {}
    return {name: topics[name].encode() for name in sorted(topics)}


def _is_library_module(name: str) -> bool:
    # What administrators and build systems put beside the library isn't part of it, and differs between machines.
    return name.partition("/")[0].removesuffix(".py") in sys.stdlib_module_names and name not in _LEFT_OUT_FILES
