import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bltdata.errors import PatchingError
from bltdata.patching import Patches, PatchRule, patch, patches

ENTROPIES = np.array([3, 0.5, 0.25, 2, 0.5, 1.5], dtype=np.float16)


@given(st.binary(max_size=50), st.integers(0, 2**32 - 1))
def test_slices_join_to_the_document(data: bytes, seed: int) -> None:
    entropies = np.random.default_rng(seed).uniform(0, 5, len(data) + 1).astype(np.float16)
    cut = patch(data, entropies, PatchRule(threshold=2.5))
    slices = list(cut)
    assert b"".join(slices) == data
    assert len(slices) == len(cut) == len(cut.lengths)
    assert [data[start : start + length] for start, length in zip(cut.starts, cut.lengths, strict=True)] == slices
    assert cut.mean_length == (len(data) + 1) / len(slices)
    assert all(slices[:-1])


def test_the_end_may_be_a_patch_without_bytes() -> None:
    cut = patch(b"abcde", ENTROPIES, PatchRule(threshold=1.0))
    assert list(cut) == [b"abc", b"de", b""]
    assert cut.lengths.tolist() == [3, 2, 1]
    assert list(patch(b"", ENTROPIES[:1], PatchRule(threshold=1.0))) == [b""]


def test_any_bytes_like_data() -> None:
    for data in (bytearray(b"abcde"), np.frombuffer(b"abcde", dtype=np.uint8)):
        cut = patch(data, ENTROPIES, PatchRule(threshold=1.0))
        assert cut.data == b"abcde"


def test_entropies_are_checked_even_where_the_rule_reads_none() -> None:
    with pytest.raises(PatchingError, match="position 1 of page 7 is nan"):
        patch(b"ab", [0.0, np.nan, 0.0], PatchRule(scheme="space"), document="page 7")
    with pytest.raises(PatchingError, match="2 entropies for the 2 bytes of page 7"):
        patch(b"ab", [0.0, 0.0], PatchRule(scheme="byte"), document="page 7")
    assert patch(b"ab", None, PatchRule(scheme="byte")).entropy_nats is None


def test_what_was_cut_stays_as_it_was() -> None:
    data, entropies = bytearray(b"abcde"), ENTROPIES.copy()
    cut = patch(data, entropies, PatchRule(threshold=1.0))
    data[:] = b"12345"
    entropies[:] = 0
    assert cut.data == b"abcde"
    assert cut.entropy_nats is not None
    assert cut.entropy_nats.tolist() == ENTROPIES.tolist()


@pytest.mark.parametrize("rule", [None, "space"])
def test_a_rule_that_is_none(rule: Any) -> None:
    with pytest.raises(PatchingError, match=f"The rule is {rule!r}; give a PatchRule"):
        patch(b"ab", None, rule)


def shown_texts(cut: Patches) -> list[str]:
    return re.findall(r"<span [^>]*>(.*?)</span>", cut._repr_html_(), flags=re.DOTALL)


def test_html_shows_patches_in_order_and_colours_them_by_entropy() -> None:
    page = patch(b"abcde", ENTROPIES, PatchRule(threshold=1.0))
    assert shown_texts(page) == ["abc", "de", ""]
    strengths = [float(strength) for strength in re.findall(r"rgba\(235,110,20,([\d.]+)\)", page._repr_html_())]
    assert strengths[0] > strengths[1] > strengths[2] > 0
    assert "position 5, the end of the document, 1.500 nats" in page._repr_html_()
    assert "position 3, length 2, 2.000 nats" in page._repr_html_()
    assert "rgba(235,110,20,0.000)" in patch(b"a b", None, PatchRule(scheme="space"))._repr_html_()


def test_html_escapes_everything() -> None:
    data = b"<script>alert(1)</script>&\"'\x00\x1b[31m\xff\xe2\x80\xae\r\n\\n"
    html = patch(data, None, PatchRule(scheme="fixed", stride=100))._repr_html_()
    assert "<script" not in html
    (text,) = shown_texts(patch(data, None, PatchRule(scheme="fixed", stride=100)))
    escaped = "&lt;script&gt;alert(1)&lt;/script&gt;&amp;&quot;&#x27;"
    assert text == escaped + "\\x00\\x1b[31m\\xff\\u202e\\r\N{RETURN SYMBOL}\n\\n"
    # A character that is cut in two is shown once, where its last byte is.
    assert shown_texts(patch("\u00e9".encode(), None, PatchRule(scheme="byte"))) == ["\N{WHITE BULLET}", "\u00e9", ""]


@given(st.binary(max_size=40))
def test_html_of_any_bytes_has_no_control_characters(data: bytes) -> None:
    html = patch(data, None, PatchRule(scheme="space"))._repr_html_()
    assert all(character.isprintable() or character == "\n" for character in html)
    assert html.isascii() or data


def test_html_of_a_long_document_says_what_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patches, "_SHOWN_BYTES", 5)
    cut = patch(b"abcdefgh", None, PatchRule(scheme="fixed", stride=3))
    assert shown_texts(cut) == ["abc", "de"]
    assert "; the first 5 are shown" in cut._repr_html_()


def test_repr_is_one_line() -> None:
    assert repr(patch(b"abcde", ENTROPIES, PatchRule(threshold=1.0))) == "<Patches: 3 of 5 bytes, 2.00 on average>"
