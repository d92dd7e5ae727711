"""Bytes as they come, in pieces that don't end inside a UTF-8 character."""

import codecs
from collections.abc import Iterable, Iterator


def in_characters(pieces: Iterable[bytes]) -> Iterator[bytes]:
    r"""The same bytes, a character held back until it is complete; what is no UTF-8 gets through as it is.

    >>> [*in_characters([b"a\xc3", b"\xa9\xff", b"\xe2\x82"])]
    [b'a', b'\xc3\xa9\xff', b'\xe2\x82']
    """
    for text in _decoded(pieces, "surrogateescape"):
        yield text.encode(errors="surrogateescape")


def as_text(pieces: Iterable[bytes]) -> Iterator[str]:
    r"""The text that bytes are, piece by piece; what is no UTF-8 becomes U+FFFD. Together they are what `bytes.decode` gives.

    >>> [*map(ascii, as_text([b"a\xc3", b"\xa9\xff", b"\xe2\x82"]))]
    ["'a'", "'\\xe9\\ufffd'", "'\\ufffd'"]
    """
    return _decoded(pieces, "replace")


def _decoded(pieces: Iterable[bytes], errors: str) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8")(errors)
    for piece in pieces:
        if text := decoder.decode(piece):
            yield text
    if text := decoder.decode(b"", final=True):
        yield text
