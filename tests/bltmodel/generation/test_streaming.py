import pytest
from hypothesis import given
from hypothesis import strategies as st

from bltmodel.generation import as_text, in_characters

BYTES = st.binary(max_size=12) | st.text(max_size=8).map(lambda text: text.encode(errors="surrogatepass"))


@given(BYTES, st.integers(0, 3))
def test_nothing_is_lost_and_no_character_is_cut(data, cut):
    # Bytes one by one, and pieces of other sizes.
    pieces = [data[start : start + cut + 1] for start in range(0, len(data), cut + 1)]
    found = [*in_characters(pieces)]
    assert b"".join(found) == data
    assert all(found)
    # Cut where one character ends, both sides say together what the whole says.
    assert "".join(piece.decode(errors="replace") for piece in found) == data.decode(errors="replace") == "".join(as_text(pieces))


def test_a_character_comes_with_its_last_byte_and_no_later():
    given_so_far, came = bytearray(), []

    def one_by_one():
        for value in "a\u00e9\u20ac\U0001f600b".encode():
            given_so_far.append(value)
            yield bytes([value])

    for piece in in_characters(one_by_one()):
        came.append((piece.decode(), len(given_so_far)))
    assert came == [("a", 1), ("\u00e9", 3), ("\u20ac", 6), ("\U0001f600", 10), ("b", 11)]


@pytest.mark.parametrize("data", [b"\xff", b"\xc3(", b"\xe2\x82", b"\xed\xa0\x80", b"\xf0\x9f\x98", b"\x80\x80a"])
def test_what_is_no_text_gets_through(data):
    pieces = [bytes([value]) for value in data]
    assert b"".join(in_characters(pieces)) == data
    assert "".join(as_text(pieces)) == data.decode(errors="replace")
