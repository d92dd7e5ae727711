import pytest
from hypothesis import given
from hypothesis import strategies as st

from bltmodel.generation import NewByte
from bltmodel.generation.stopping import StopStrings

# Few symbols, so that strings overlap and begin like each other.
STRINGS = st.text("ab", min_size=1, max_size=5).map(str.encode)


def cut(data: bytes, stop: list[bytes]) -> bytes:
    """What is left of data: it is read up to where a stop string ends, which is cut off, the longest if several end there."""
    for end in range(1, len(data) + 1):
        ended = [len(string) for string in stop if data[:end].endswith(string)]
        if ended:
            return data[: end - max(ended)]
    return data


@given(st.text("abc", max_size=30).map(str.encode), st.lists(STRINGS, max_size=4))
def test_what_comes_through_is_certain_and_no_later_than_that(data, stop):
    stops = StopStrings(stop)
    released = b""
    for position, value in enumerate(data):
        released += bytes(each.byte for each in stops.feed(NewByte(0, value, False, None)))
        seen = data[: position + 1]
        if not stops.found:
            # What is held back is the longest end that a stop string begins with.
            held = seen[len(released) :]
            ends = [seen[start:] for start in range(len(seen))]
            assert held == max((end for end in ends if any(string.startswith(end) for string in stop)), key=len, default=b"")
    released += bytes(each.byte for each in stops.flush())
    assert released == cut(data, stop)
    assert stops.found == (cut(data, stop) != data)


@pytest.mark.parametrize(
    ("data", "stop", "left"),
    [
        (b"over here", [b"he"], b"over "),
        (b"aaab", [b"aab"], b"a"),
        # The first that ends counts, and of those that end together the one that began first.
        (b"xabcd", [b"abcd", b"bc"], b"xa"),
        (b"xabc", [b"bc", b"abc"], b"x"),
        (b"nothing", [b"something"], b"nothing"),
        (b"ends with beg", [b"begin"], b"ends with beg"),
    ],
)
def test_examples(data, stop, left):
    stops = StopStrings(stop)
    released = [each for value in data for each in stops.feed(NewByte(0, value, False, None))] + stops.flush()
    assert bytes(each.byte for each in released) == left == cut(data, stop)


def test_what_is_known_of_a_byte_comes_with_it():
    stops = StopStrings([b"ab"])
    events = [NewByte(3, ord("a"), True, 0.5), NewByte(3, ord("c"), False, 1.5)]
    assert stops.feed(events[0]) == []
    assert stops.feed(events[1]) == events
