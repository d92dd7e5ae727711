import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from bltdata.patching import Patches, PatchRule, display, patch
from bltdata.patching.display import END_SIGN, MARKS, NEWLINE_SIGN, PART_SIGN, Piece
from bltdata.patching.settings import RuleSettings

ESCAPE = re.compile(r"\x1b\[[0-9;]*m")
STYLED = re.compile(r"(\x1b\[0;[0-9;]*m)([^\x1b]*)")
HOSTILE = b"<b>&\"'\x00\x1b[31mred\x1b]0;title\x07\xff\xc2\x9b1m\xe2\x80\xae\r\t\\n|"


def cut(data: bytes, *starts: int, entropy_nats: Any = None) -> Patches:
    """Patches that start at 0 and at `starts`."""
    lengths = np.diff([0, *starts, len(data) + 1]).astype(np.uint32)
    return Patches(data=data, entropy_nats=entropy_nats, rule=PatchRule(threshold=1.0), lengths=lengths)


@st.composite
def documents(draw: st.DrawFn) -> Patches:
    text = st.text(alphabet=st.sampled_from("ab |\n\t\x1b\u00e9\u65e5\u0301\U0001f44d\u202e\u00a0"), max_size=20).map(str.encode)
    data = b"".join(draw(st.lists(text | st.binary(max_size=4), max_size=4)))
    entropies = np.random.default_rng(draw(st.integers(0, 99))).uniform(0, 5, len(data) + 1).astype(np.float16)
    return patch(data, entropies, PatchRule(threshold=draw(st.sampled_from([0.0, 2.0, 4.0]))))


def plain(data: bytes) -> str:
    """What is shown of a document that isn't cut."""
    return display.marked_text(cut(data)).removesuffix(END_SIGN if not data else "")


# ---------------------------------------------------------------------------------------------------------------- parts


def test_escapes() -> None:
    assert plain(HOSTILE) == "<b>&\"'\\x00\\x1b[31mred\\x1b]0;title\\x07\\xff\\u009b1m\\u202e\\r\\t\\n|"
    assert plain(b"a\n\nb") == f"a{NEWLINE_SIGN}\n{NEWLINE_SIGN}\nb"
    # A byte and the character of that number look different; so does what UTF-8 doesn't allow.
    assert plain(b"\xa0") == "\\xa0"
    assert plain("\u00a0\u2028\U000e0001".encode()) == "\\u00a0\\u2028\\U000e0001"
    assert plain(b"\xed\xa0\x80\xc0\x80\xf5") == "\\xed\\xa0\\x80\\xc0\\x80\\xf5"
    assert plain("d\u00e9j\u00e0 \u65e5\u672c \U0001f44d".encode()) == "d\u00e9j\u00e0 \u65e5\u672c \U0001f44d"


def test_a_character_that_is_cut_is_shown_once_where_it_is_complete() -> None:
    data = "a\u65e5b".encode()
    parts = list(display.printable_parts(data, [2, 3, 5]))
    assert parts == [[Piece("a", 1), Piece(PART_SIGN, 1)], [Piece(PART_SIGN, 1)], [Piece("\u65e5", 1), Piece("b", 1)]]
    assert display.marked_text(cut(data, 2)) == f"a{PART_SIGN}|\u65e5b"
    assert display.marked_text(cut(data, 1, 4)) == "a|\u65e5|b"
    assert display.marked_text(cut(b"\xe6\x97", 1)) == "\\xe6|\\x97"


@given(documents())
def test_parts_stand_for_every_byte_once(patches: Patches) -> None:
    shown = list(display.segments(patches))
    assert [segment.start for segment in shown] == patches.starts.tolist()
    assert [sum(piece.num_bytes for piece in segment.pieces) for segment in shown] == [len(piece) for piece in patches]
    whole = "".join(piece.text for segment in shown for piece in segment.pieces)
    assert whole.replace(PART_SIGN, "") == plain(patches.data)
    assert patches.entropy_nats is not None
    for segment, data in zip(shown, patches, strict=True):
        assert segment.entropy_nats == patches.entropy_nats[segment.start :][: max(len(data), 1)].tolist()


def test_what_is_left_out_is_not_shown_and_neither_is_the_end() -> None:
    patches = cut(b"abcdef", 2, 4, 6)
    assert display.marked_text(patches) == f"ab|cd|ef|{END_SIGN}"
    assert display.marked_text(patches, num_shown=4) == "ab|cd..."
    assert display.marked_text(patches, num_shown=3) == "ab|c..."
    assert display.marked_text(patches, num_shown=6) == "ab|cd|ef..."
    assert display.marked_text(cut(b"")) == END_SIGN


def test_a_limit_keeps_characters_whole() -> None:
    data = "\u65e5\U0001f44d\u00e9".encode()
    assert [display.whole_characters(data, limit) for limit in range(11)] == [0, 1, 2, 3, 3, 3, 3, 7, 7, 9, 9]
    assert [display.whole_characters(b"\x80" * 9, limit) for limit in (0, 4, 9)] == [0, 4, 9]


# ----------------------------------------------------------------------------------------------------------------- text


def test_the_mark_is_not_in_the_text() -> None:
    assert [display.mark_for(data) for data in (b"a", b"a|b", f"{MARKS[0]}{MARKS[1]}".encode())] == list(MARKS[:3])
    assert display.mark_for("".join(MARKS).encode()) == MARKS[-1]
    assert cut(b"a|b", 1).to_text() == f"a{MARKS[1]}|b"


@given(documents())
def test_marks_stand_where_patches_start(patches: Patches) -> None:
    mark = display.mark_for(patches.data)
    parts = display.marked_text(patches).split(mark)
    assert len(parts) == len(patches)
    assert "".join(parts).replace(PART_SIGN, "").removesuffix(END_SIGN) == plain(patches.data)


@given(documents(), st.integers(1, 30))
def test_lines_keep_to_the_width_and_split_nothing(patches: Patches, width: int) -> None:
    for text in (patches.to_text(width), ESCAPE.sub("", patches.to_ansi(width))):
        for line in text.split("\n"):
            # A piece that is wider than a line stands alone, with what takes no room.
            assert cell_len(line) <= width or re.fullmatch(r"\\(x..|u....|U.{8})[\u0300-\u036f]*", line) or cell_len(line) == 2
    own_lines = NEWLINE_SIGN + "\n"
    unwrapped = patches.to_text(width).replace(own_lines, "\0").replace("\n", "").replace("\0", own_lines)
    assert unwrapped == patches.to_text()


def test_wrapping() -> None:
    assert cut(b"abcdef", 4).to_text(3) == "abc\nd|e\nf"
    assert cut("\u65e5\u672c\u8a9e".encode()).to_text(5) == "\u65e5\u672c\n\u8a9e"
    assert cut(b"ab\xffcd").to_text(5) == "ab\n\\xffc\nd"
    assert cut(b"abc\nd").to_text(3) == f"abc\n{NEWLINE_SIGN}\nd"


# -------------------------------------------------------------------------------------------------------------- colours


@given(documents(), st.integers(1, 30))
def test_no_sequence_but_our_own_styles_reaches_a_terminal(patches: Patches, width: int) -> None:
    text = patches.to_ansi(width)
    rest = ESCAPE.sub("", text)
    assert all(character.isprintable() or character == "\n" for character in rest)
    styles = set(ESCAPE.findall(text))
    assert all(re.fullmatch(r"\x1b\[0(;(1;4;)?38;5;16;48;5;\d+)?m", style) for style in styles)
    # No line break while a colour is on: a terminal would paint the rest of the line.
    assert all(line.endswith("\x1b[0m") or not line or "\x1b" not in line for line in text.split("\n"))


def test_a_document_cannot_steer_the_terminal() -> None:
    text = cut(b"\x1b[31mred\x1b[2J", entropy_nats=np.zeros(12, dtype=np.float16)).to_ansi()
    assert "\x1b[31m" not in text
    assert ESCAPE.sub("", text) == "\\x1b[31mred\\x1b[2J"


def test_colours_are_the_entropies_and_the_first_character_is_underlined() -> None:
    entropies = np.array([4.5, 0.25, 1.5, 0.5, 0.0], dtype=np.float16)
    styled = STYLED.findall(cut(b"abcd", 2, entropy_nats=entropies).to_ansi())
    assert [text for _, text in styled] == ["a", "b", "c", "d"]
    expected = [display.TERMINAL_COLOURS[index] for index in (8, 0, 3, 1)]
    assert [style.rpartition(";")[2] for style, _ in styled] == [f"{colour}m" for colour in expected]
    assert [";4;" in style for style, _ in styled] == [True, False, True, False]


def test_a_character_has_the_colour_of_its_most_surprising_byte() -> None:
    entropies = np.array([0, 0, 3.25, 0.0], dtype=np.float32)
    assert f";{display.TERMINAL_COLOURS[6]}m\u65e5" in cut("\u65e5".encode(), entropy_nats=entropies).to_ansi()
    assert f";{display.TERMINAL_COLOURS[6]}m\u65e5" in cut("\u65e5".encode(), 2, entropy_nats=entropies).to_ansi()


def test_without_entropies_patches_take_turns() -> None:
    styled = STYLED.findall(patch(b"a b c", None, PatchRule(scheme="space")).to_ansi())
    assert [text for _, text in styled] == ["a", " ", "b", " ", "c"]
    backgrounds = [style.rpartition(";")[2] for style, _ in styled]
    assert backgrounds[0] == backgrounds[1] == backgrounds[4] != backgrounds[2] == backgrounds[3]


def test_the_legend_shows_each_colour_with_its_nats() -> None:
    shown = dict(STYLED.findall(display.coloured_legend()))
    assert [text.strip() for text in shown.values()] == ["0", "0.5", "1", "1.5", "2", "2.5", "3", "3.5", "4+"]
    for style, text in shown.items():
        assert style.endswith(f";{display.TERMINAL_COLOURS[display.level(float(text.strip().rstrip('+')))]}m")
    assert all(cell_len(ESCAPE.sub("", line)) <= 12 for line in display.coloured_legend(12).split("\n"))


@pytest.mark.parametrize(("nats", "expected"), [(None, 0.0), (0.0, 0.0), (-0.0, 0.0), (2.0, 0.5), (4.0, 1.0), (5.5625, 1.0)])
def test_strength(nats: float | None, expected: float) -> None:
    assert display.strength(nats) == expected


# ----------------------------------------------------------------------------------------------------------------- HTML


def test_a_page_is_whole_and_escaped() -> None:
    page = cut(HOSTILE, 3, entropy_nats=np.full(len(HOSTILE) + 1, 2.5, dtype=np.float16)).to_html(title="</title><script>\x1b\n")
    assert page.startswith("<!DOCTYPE html>\n")
    assert page.endswith("</html>\n")
    assert "<title>&lt;/title&gt;&lt;script&gt;\\x1b" + NEWLINE_SIGN + "</title>" in page
    assert "<script" not in page
    assert "<b>" not in page
    assert "&lt;b&gt;" in page
    assert not re.search(r"""(src|href|url|@import|http)\s*[=(:]""", page.replace('http-equiv="', ""))
    assert 'content="light dark"' in page
    assert f'title="position 3, length {len(HOSTILE) - 2}, 2.500 nats"' in page
    assert all(character.isprintable() or character == "\n" for character in page)
    assert "rule entropy, threshold 1" in page


def test_a_page_has_a_legend_only_where_there_are_entropies() -> None:
    assert "nats" not in patch(b"a b", None, PatchRule(scheme="space")).to_html()
    assert ">4+</span>" in cut(b"a b", entropy_nats=np.zeros(4, dtype=np.float16)).to_html()


def test_a_page_of_a_part_says_that_there_is_more() -> None:
    page = display.html_page(cut(b"abcdef", 2, 4), "x", ["2 of 6"], num_shown=3)
    assert re.findall(r"<span[^>]*>(.*?)</span>", page) == ["ab", "c"]
    assert "</span>...</div>" in page
    assert "<p>2 of 6</p>" in page


# ---------------------------------------------------------------------------------------------------------------- words


def test_rules_in_words() -> None:
    assert display.rule_in_words(PatchRule(threshold=1.5, reset_at_newline=True)) == "rule entropy, threshold 1.5, reset_at_newline on"
    assert display.rule_in_words(PatchRule(scheme="fixed", stride=4)) == "rule fixed, stride 4"
    assert display.rule_in_words(RuleSettings(scheme="byte")) == "rule byte"


def test_names_are_in_one_line() -> None:
    assert display.printable_line("a\n\x1b[31m\udcff") == f"a{NEWLINE_SIGN}\\x1b[31m\\xff"


def test_a_long_document() -> None:
    data = bytes(range(256)) * 400
    patches = patch(data, np.tile(np.float16([3, 1, 0.5, 0.25]), len(data) // 4 + 1)[: len(data) + 1], PatchRule(threshold=2.0))
    assert patches.to_text(80).count(MARKS[1]) == len(patches) - 1
    assert len(patches.to_ansi(80)) > len(data)
