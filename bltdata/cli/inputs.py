"""The one document that a command looks at, wherever it is given: a text, a file, or the standard input."""

import sys
from pathlib import Path

from bltdata.cli.one_document import Beginning, first_bytes, read_file, read_text

STDIN = "-"
"""The name of a file that is the standard input."""


def read_input(text: str | None, file: Path | None, limit: int | None) -> tuple[str, Beginning]:
    """The document, and what it is called.

    Args:
        text: of `--text`.
        file: of `--file`, where no text is given.
        limit: read so many bytes of it at most; None for all.
    """
    if file is None:
        return "--text", read_text(text or "", limit)
    if str(file) == STDIN:
        return "stdin", first_bytes(sys.stdin.buffer.read(), limit)
    return str(file), read_file(file, limit)
