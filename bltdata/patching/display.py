"""Patches as text, in a terminal's colours, and as HTML: pure functions from `Patches` to strings.

Whatever the document holds, only printable characters and our own line breaks, colours and tags come out: what isn't printable is
shown as an escape, so a document can neither steer a terminal nor put anything into a page.

A page colours a patch by the entropy at its first byte, draws a line before it, and has the numbers under the pointer. A terminal has
no lines to draw: there each character has the colour of its own entropy, and the first of a patch is underlined.
"""

import dataclasses
import html
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from rich.cells import cell_len

from bltdata.config import number_of
from bltdata.patching.settings import RuleSettings

if TYPE_CHECKING:
    from bltdata.patching.patches import Patches

STEP_NATS = 0.5
"""A terminal has few colours that can be told apart, so each stands for a step of entropy."""

TERMINAL_COLOURS = (250, 187, 222, 221, 220, 214, 208, 202, 196)
"""Backgrounds of the 256-colour palette for 0, 0.5, 1, ... nats: from grey over yellow to red, black text being readable on all."""

FULL_COLOUR_NATS = STEP_NATS * (len(TERMINAL_COLOURS) - 1)
"""From here on colours don't get stronger: 4 nats are as uncertain as 55 equally likely bytes."""

NEWLINE_SIGN = "\N{RETURN SYMBOL}"
END_SIGN = "\N{END OF PROOF}"
"""Where the end of the document starts a patch of its own, which has no bytes."""
PART_SIGN = "\N{WHITE BULLET}"
"""The first bytes of a character that a later patch completes, which is where it is shown: half a character can't be read."""
REST_SIGN = "..."
MARKS = ("|", "\N{BOX DRAWINGS LIGHT VERTICAL}", "\N{BROKEN BAR}", "\N{DOUBLE VERTICAL LINE}")
"""What separates patches where there is no colour; the first that the text hasn't."""

_UNKNOWN_COLOURS = (252, 246)
"""Turn and turn about, where there are no entropies."""
_RESET = "\x1b[0m"
_ESCAPED_BYTES = range(0xDC80, 0xDD00)
"""What the `surrogateescape` handler makes of bytes that are no UTF-8."""


class Piece(NamedTuple):
    r"""What is shown without being split: a character, an escape such as `\x1b`, or a sign and a line break for a newline."""

    text: str
    num_bytes: int
    """How many bytes of its part it stands for."""


class Segment(NamedTuple):
    """A patch as it is shown."""

    start: int
    length: int
    """Positions, as in `Patches.lengths`, whatever part of them is shown."""
    entropy_nats: list[float] | None
    """At each of the positions that are shown, and at the start in any case."""
    pieces: list[Piece]
    """What is shown; none for the end of the document alone."""


_END = Piece(END_SIGN, 1)


def segments(patches: "Patches", num_shown: int | None = None) -> Iterator[Segment]:
    """The patches to show.

    Args:
        patches: a document cut into patches.
        num_shown: leave out all that starts at this byte or later; None for the whole document and its end.
    """
    limit = len(patches.data) if num_shown is None else min(num_shown, len(patches.data))
    starts = patches.starts
    count = len(starts) if num_shown is None else int(np.searchsorted(starts, limit))
    starts, lengths = starts[:count].tolist(), patches.lengths[:count].tolist()
    ends = [min(start + length, limit) for start, length in zip(starts, lengths, strict=True)]
    entropies = None if patches.entropy_nats is None else patches.entropy_nats[: limit + 1].tolist()
    for start, length, end, pieces in zip(starts, lengths, ends, printable_parts(patches.data[:limit], ends), strict=True):
        yield Segment(start, length, None if entropies is None else entropies[start : max(end, start + 1)], pieces)


def printable_parts(data: bytes, ends: Iterable[int]) -> Iterator[list[Piece]]:
    r"""What is shown of each of the parts that bytes are cut into.

    Bytes that are no UTF-8 are escaped one by one. A character that is cut stands in the part that has its last byte, and a sign in
    those before.

    Args:
        data: any bytes.
        ends: where each part ends, rising; the last is the number of bytes.

    >>> for pieces in printable_parts(b"a\x1b\xff" + "\u00e9".encode(), [2, 4, 5]):
    ...     print([(ascii(piece.text), piece.num_bytes) for piece in pieces])
    [("'a'", 1), ("'\\\\x1b'", 1)]
    [("'\\\\xff'", 1), ("'\\u25e6'", 1)]
    [("'\\xe9'", 1)]
    """
    begin = 0
    done = 0
    characters = _characters(data)
    character = next(characters, None)
    for end in ends:
        pieces = []
        while character is not None and begin + character.num_bytes <= end:
            begin += character.num_bytes
            pieces.append(Piece(character.text, begin - done))
            done = begin
            character = next(characters, None)
        if begin < end:
            pieces.append(Piece(PART_SIGN, end - done))
            done = end
        yield pieces


class _Character(NamedTuple):
    num_bytes: int
    text: str


def _characters(data: bytes) -> Iterator[_Character]:
    for character in data.decode("utf-8", errors="surrogateescape"):
        code = ord(character)
        num_bytes = 1 if code < 0x80 or code in _ESCAPED_BYTES else 2 if code < 0x800 else 3 if code < 0x10000 else 4
        yield _Character(num_bytes, _shown(character) + ("\n" if character == "\n" else ""))


def printable_line(text: str) -> str:
    """A text that stands beside a document, such as its name, in one line and with nothing in it that can't be printed."""
    return "".join(map(_shown, text))


def _shown(character: str) -> str:
    if character.isprintable():
        return character
    code = ord(character)
    if character == "\n":
        return NEWLINE_SIGN
    if code in _ESCAPED_BYTES:
        return f"\\x{code - _ESCAPED_BYTES.start + 0x80:02x}"
    # Never the \xa0 of Python for a character of two bytes: that would look like the one byte.
    return f"\\u{code:04x}" if 0x80 <= code < 0x100 else character.encode("unicode_escape").decode("ascii")


def whole_characters(data: bytes, limit: int) -> int:
    r"""The largest number of bytes up to `limit` that doesn't end inside of a UTF-8 character, where there is one.

    >>> [whole_characters("a\u00e9b".encode(), limit) for limit in range(6)]
    [0, 1, 1, 3, 4, 4]
    """
    if limit >= len(data):
        return len(data)
    end = limit
    while end > max(limit - 3, 0) and data[end] & 0xC0 == 0x80:
        end -= 1
    return end if end > 0 and data[end] >= 0xC0 else limit


def level(entropy_nats: float) -> int:
    """Which of `TERMINAL_COLOURS` stands for an entropy.

    >>> [level(nats) for nats in (0.0, 0.49, 0.5, 3.99, 4.0, 5.56)]
    [0, 0, 1, 7, 8, 8]
    """
    return min(int(entropy_nats / STEP_NATS), len(TERMINAL_COLOURS) - 1)


def level_names() -> list[str]:
    """The least entropy of each of `TERMINAL_COLOURS`, in nats."""
    names = [f"{number * STEP_NATS:g}" for number in range(len(TERMINAL_COLOURS))]
    return [*names[:-1], names[-1] + "+"]


def strength(entropy_nats: float | None) -> float:
    """How strong the colour of an entropy is on a page, from 0 to 1; 0 where there is none."""
    return 0.0 if entropy_nats is None else min(max(entropy_nats, 0.0) / FULL_COLOUR_NATS, 1.0)


# ------------------------------------------------------------------------------------------------------------- as text


def marked_text(patches: "Patches", width: int | None = None, num_shown: int | None = None) -> str:
    """The document without colours, a mark between each two patches.

    Args:
        patches: a document cut into patches.
        width: cells of a line, after which it is wrapped; None for never. A character or escape is never split.
        num_shown: leave out all that starts at this byte or later.
    """
    mark = mark_for(patches.data)

    def pieces() -> Iterator[tuple[str, str]]:
        for segment in segments(patches, num_shown):
            if segment.start:
                yield "", mark
            yield from (("", piece.text) for piece in segment.pieces or [_END])
        yield from _rest(num_shown)

    return _wrapped(pieces(), width)


def mark_for(data: bytes) -> str:
    """The first of `MARKS` that the document hasn't, so that a mark is never part of the text; the last if it has all."""
    return next((mark for mark in MARKS if mark.encode() not in data), MARKS[-1])


def coloured_text(patches: "Patches", width: int | None = None, num_shown: int | None = None) -> str:
    """The document in the colours of a terminal; arguments as for `marked_text`.

    A character has the colour of the highest entropy among its bytes, and the first of each patch is underlined. Without entropies
    two greys take turns, a patch each.
    """

    def pieces() -> Iterator[tuple[str, str]]:
        for number, segment in enumerate(segments(patches, num_shown)):
            begin = 0
            for piece in segment.pieces or [_END]:
                entropy_nats = None if segment.entropy_nats is None else max(segment.entropy_nats[begin : begin + piece.num_bytes])
                yield _style(_colour(entropy_nats, number), is_first=begin == 0), piece.text
                begin += piece.num_bytes
        yield from _rest(num_shown)

    return _wrapped(pieces(), width)


def coloured_piece(text: str, entropy_nats: float | None, patch: int, *, is_first: bool) -> str:
    """One character in the colours of `coloured_text`, for a document that is shown while it grows.

    Args:
        text: that of a `Piece`.
        entropy_nats: the highest among its bytes'; None where nobody knows it.
        patch: which patch of the document it belongs to.
        is_first: whether the patch begins with it.
    """
    shown, newline, _ = text.partition("\n")
    return f"{_style(_colour(entropy_nats, patch), is_first=is_first)}{shown}{_RESET}{newline}"


def coloured_legend(width: int | None = None) -> str:
    """Which colour stands for which entropy, in the colours of a terminal."""
    swatches = [(_style(colour), f" {name} ") for name, colour in zip(level_names(), TERMINAL_COLOURS, strict=True)]
    return _wrapped([("", "nats"), ("", " "), *swatches], width)


def _colour(entropy_nats: float | None, patch: int) -> int:
    return _UNKNOWN_COLOURS[patch % 2] if entropy_nats is None else TERMINAL_COLOURS[level(entropy_nats)]


def _style(colour: int, *, is_first: bool = False) -> str:
    """Black on a colour, bold and underlined at the start of a patch. Each style begins with a reset, so that they replace each other."""
    return f"\x1b[0;{'1;4;' if is_first else ''}38;5;16;48;5;{colour}m"


def _rest(num_shown: int | None) -> Iterator[tuple[str, str]]:
    if num_shown is not None:
        yield "", REST_SIGN


def _wrapped(pieces: Iterable[tuple[str, str]], width: int | None) -> str:
    """Styled pieces as one string, in lines of at most `width` cells, each with its styles closed before the line break.

    A terminal would paint the rest of a line in a style that is still open. A piece that is wider than a line has one of its own.
    """
    written: list[str] = []
    style, column = "", 0

    def switch(wanted: str) -> None:
        nonlocal style
        if style != wanted:
            written.append(wanted or _RESET)
            style = wanted

    for wanted, piece in pieces:
        text, newline, _ = piece.partition("\n")
        cells = cell_len(text)
        if width is not None and column and cells and column + cells > width:
            switch("")
            written.append("\n")
            column = 0
        switch(wanted)
        written.append(text)
        column += cells
        if newline:
            switch("")
            written.append("\n")
            column = 0
    switch("")
    return "".join(written)


# ------------------------------------------------------------------------------------------------------------- as HTML


def html_fragment(patches: "Patches", num_shown: int | None = None) -> str:
    """A `<div>` with the patches side by side and a hint with position, length and entropy over each.

    The higher the entropy, the stronger the colour; colours are translucent over the page's own, light or dark.
    """
    spans = "".join(_span(segment, len(patches.data)) for segment in segments(patches, num_shown))
    rest = "" if num_shown is None else REST_SIGN
    return f'<div style="font-family:monospace;white-space:pre-wrap;overflow-wrap:anywhere;line-height:1.7">{spans}{rest}</div>'


def html_page(patches: "Patches", title: str, notes: Iterable[str], num_shown: int | None = None) -> str:
    """A whole page that needs nothing else: title, notes, legend, patches.

    Args:
        patches: a document cut into patches.
        title: any text.
        notes: any texts, a line each.
        num_shown: leave out all that starts at this byte or later.
    """
    name = html.escape(printable_line(title))
    lines = "".join(f"<p>{html.escape(printable_line(note))}</p>\n" for note in notes)
    legend = ""
    if patches.entropy_nats is not None:
        swatches = "".join(
            f'<span style="{_background(number * STEP_NATS)};padding:.1em .5em">{name}</span>' for number, name in enumerate(level_names())
        )
        legend = f"<p>nats at the first byte of a patch: {swatches}</p>\n"
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        # Whatever a document holds is escaped; and were it not, nothing would run or be fetched.
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n<meta name="color-scheme" content="light dark">\n'
        f"<title>{name}</title>\n"
        "<style>:root{color-scheme:light dark}body{font-family:system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
        "h1{font-size:1.2rem;overflow-wrap:anywhere}p{font-size:.9rem;opacity:.8;margin:.3rem 0}h1~div{margin-top:1rem}</style>\n"
        f"</head>\n<body>\n<h1>{name}</h1>\n{lines}{legend}{html_fragment(patches, num_shown)}\n</body>\n</html>\n"
    )


def _span(segment: Segment, num_bytes: int) -> str:
    title = f"position {segment.start}, " + (f"length {segment.length}" if segment.start < num_bytes else "the end of the document")
    entropy_nats = None if segment.entropy_nats is None else segment.entropy_nats[0]
    if entropy_nats is not None:
        title += f", {entropy_nats:.3f} nats"
    style = f"{_background(entropy_nats)};border-left:1px solid rgba(128,128,128,.8)"
    return f'<span title="{title}" style="{style}">{html.escape("".join(piece.text for piece in segment.pieces))}</span>'


def _background(entropy_nats: float | None) -> str:
    return f"background:rgba(235,110,20,{0.65 * strength(entropy_nats):.3f})"


# ------------------------------------------------------------------------------------------------------------ in words


def rule_in_words(rule: RuleSettings) -> str:
    """A rule and the settings that it doesn't have anyway.

    >>> rule_in_words(RuleSettings(threshold=1.3351, max_length=8))
    'rule entropy, threshold 1.3351, max_length 8'
    """
    fields = [field for field in dataclasses.fields(rule) if field.name != "scheme" and getattr(rule, field.name) != field.default]
    return ", ".join([f"rule {rule.scheme}", *(f"{field.name} {_value(getattr(rule, field.name))}" for field in fields)])


def summary(patches: "Patches", num_shown: int | None = None) -> str:
    """Patches, what is in them, and their mean length, as a part of a sentence.

    Args:
        patches: a document cut into patches, the last of which ends with the document.
        num_shown: count the patches that begin before this byte, and the bytes before it, alone; None for the whole document.

    >>> from bltdata.patching import PatchRule, patch
    >>> patches = patch(b"hello world, foo", None, PatchRule(scheme="space"))
    >>> summary(patches)
    '3 patches of 16 bytes and the end, 5.67 positions on average'
    >>> summary(patches, 8)
    '2 patches in the first 8 bytes, 4.00 bytes on average'
    """
    if num_shown is None:
        counts = f"{number_of(len(patches), 'patch', 'patches')} of {number_of(len(patches.data), 'byte')}"
        return f"{counts} and the end, {patches.mean_length:.2f} positions on average"
    num_bytes = min(num_shown, len(patches.data))
    count = int(np.searchsorted(patches.starts, num_bytes))
    mean = f", {num_bytes / count:.2f} bytes on average" if count else ""
    return f"{number_of(count, 'patch', 'patches')} in the first {number_of(num_bytes, 'byte')}{mean}"


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}" if isinstance(value, float) else str(value)
