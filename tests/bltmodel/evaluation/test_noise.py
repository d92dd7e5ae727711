import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bltdata.errors import ConfigError
from bltmodel.evaluation.noise import MAX_COPIES, NOISES, Noise, add_noise

TEXT = ("The quick brown Fox, \u00e9t\u00e9 \u4e16\u754c! " * 100).encode()
BROKEN = b"\xff\x80ab\xc3"
"""Bytes that are no characters, which stay what they are."""


def characters(data: bytes) -> list[str]:
    return list(data.decode("utf-8", "surrogateescape"))


@given(st.binary(max_size=60), st.sampled_from(list(NOISES)), st.floats(0.01, 1), st.integers(0, 3))
def test_any_bytes_can_be_noised_and_a_document_always_in_the_same_way(data, kind, rate, seed):
    assert add_noise(data, kind, rate, seed) == add_noise(data, kind, rate, seed)


@pytest.mark.parametrize("kind", NOISES)
def test_of_nothing_nothing_is_made(kind):
    assert add_noise(b"", kind, 1.0) == b""


def test_seed_kind_and_content_say_what_is_hit(monkeypatch):
    hits = []
    for kind in NOISES:
        monkeypatch.setitem(NOISES, kind, Noise(lambda characters, hit, generator: hits.append(tuple(hit)), "is seen"))
    # As long as each other, so that nothing but what they hold tells them apart.
    for data in (TEXT, TEXT.swapcase(), TEXT.replace(b"Fox", b"Ape")):
        for kind in NOISES:
            for seed in range(3):
                add_noise(data, kind, 0.1, seed)
                add_noise(data, kind, 0.1, seed)
    assert hits[::2] == hits[1::2]
    assert len(set(hits)) == 3 * len(NOISES) * 3
    num_characters = len(characters(TEXT))
    assert all(0.07 < len(each) / num_characters < 0.13 for each in hits)
    # A greater rate hits others as well.
    add_noise(TEXT, "drop", 0.3)
    assert set(hits[0]) < set(hits[-1])


def test_drop():
    left = characters(add_noise(TEXT, "drop", 0.1))
    every = characters(TEXT)
    assert 0.87 < len(left) / len(every) < 0.93
    rest = iter(every)
    assert all(character in rest for character in left), "what is left is in its order"
    assert add_noise(TEXT, "drop", 1.0) == b""


def test_repeat():
    noised = "".join(characters(add_noise(("abc" * 1000).encode(), "repeat", 0.2)))
    runs = np.diff([0, *(place + 1 for place in range(len(noised) - 1) if noised[place] != noised[place + 1]), len(noised)])
    assert len(runs) == 3000
    counts = np.bincount(runs, minlength=MAX_COPIES + 1) / 3000
    assert counts[0] == 0
    assert len(counts) == 5
    assert counts[1:] == pytest.approx([0.8, 0.2 / 3, 0.2 / 3, 0.2 / 3], abs=0.03)


@given(st.text(st.characters(codec="utf-8"), max_size=60), st.floats(0.01, 1))
def test_swap_moves_each_character_one_place_at_most(text, rate):
    before, noised = list(text), add_noise(text.encode(), "swap", rate).decode()
    assert len(noised) == len(before)
    place = 0
    while place < len(before):
        if noised[place] == before[place]:
            place += 1
        else:
            assert (noised[place], noised[place + 1]) == (before[place + 1], before[place])
            place += 2


def test_case():
    noised = add_noise(b"aB" * 5000, "case", 0.4)
    assert noised.lower() == b"ab" * 5000
    # Half of what is hit is what it was.
    changed = [a != b for a, b in zip(noised, b"aB" * 5000, strict=True)]
    assert np.mean(changed) == pytest.approx(0.2, abs=0.02)
    assert np.mean(changed[::2]) == pytest.approx(np.mean(changed[1::2]), abs=0.03)


def test_the_kinds_that_the_paper_has_for_whole_texts():
    assert add_noise(TEXT, "upper", 1.0) == TEXT.decode().upper().encode()
    assert add_noise(TEXT, "ant", 1.0) == " ".join(TEXT.decode().upper()).encode()
    half = add_noise(b"a" * 1000, "ant", 0.5)
    assert half.replace(b"A ", b"a") in (b"a" * 1000, b"a" * 999 + b"A")


@pytest.mark.parametrize("kind", ["upper", "case"])
def test_what_is_no_text_stays(kind):
    assert add_noise(BROKEN, kind, 1.0).lower() == BROKEN


def test_swap_keeps_bytes_that_are_no_text():
    assert sorted(add_noise(BROKEN, "swap", 1.0)) == sorted(BROKEN)
    assert add_noise(BROKEN, "swap", 1.0) == b"\x80\xffba\xc3"


@pytest.mark.parametrize("rate", [0.0, 1.1, float("nan")])
def test_mistakes(rate):
    with pytest.raises(ConfigError, match=rf"The rate of the noise 'drop' is {rate:g}; it must be above 0 and at most 1"):
        add_noise(b"a", "drop", rate)
    with pytest.raises(ConfigError, match="There is no noise 'dorp'; the nearest is 'drop'"):
        add_noise(b"a", "dorp", 0.1)
