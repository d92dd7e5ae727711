"""The page as a text; what a browser makes of it is tested in `test_page_in_browser.py`."""

import base64
import hashlib
import json
import re
import tomllib
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bltdata.explore
from bltdata.errors import PatchingError, ShardError
from bltdata.explore import ExplorerDocument, explorer_page
from bltdata.explore.page import page_rule
from bltdata.patching import PatchRule, patch
from bltdata.patching.settings import RuleSettings

MakeDocument = Callable[..., ExplorerDocument]


class Tags(HTMLParser):
    """The tags of a page with their attributes, and what is inside of scripts, styles and the title."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.inside: dict[str, list[str]] = {}
        self._open: str | None = None
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._open = tag

    def handle_endtag(self, tag: str) -> None:
        self._open = None

    def handle_data(self, data: str) -> None:
        if self._open is not None:
            self.inside.setdefault(self._open, []).append(data)


def data_of(page: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(re.search(r'<script type="application/json" id="explorer-data">(.*?)</script>', page)[1])
    return found


def sha256(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def test_bytes_entropies_and_patches_are_all_there(document: MakeDocument) -> None:
    shown = document(bytes(range(256)), source="any", has_stored_patches=True, num_left_out=3)
    data = data_of(explorer_page([shown], shown.patches.rule, title="x"))
    (packed,) = data["documents"]
    assert base64.b64decode(packed["data"]) == bytes(range(256))
    codes = np.frombuffer(base64.b64decode(packed["entropies"]), dtype="<u2")
    assert np.array_equal(codes.view(np.float16), shown.patches.entropy_nats)
    bits = np.unpackbits(np.frombuffer(base64.b64decode(packed["stored"]), dtype=np.uint8), bitorder="little")
    assert np.flatnonzero(bits).tolist() == shown.patches.starts.tolist()
    assert (packed["name"], packed["source"], packed["num_left_out"]) == ("a document", "any", 3)


def test_entropies_take_little_more_than_their_bits(document: MakeDocument) -> None:
    size = [len(explorer_page([document(bytes(count))], PatchRule(scheme="byte"), title="x")) for count in (0, 30_000)]
    assert size[1] - size[0] == 30_000 * 4, "4/3 characters for a byte, 8/3 for its entropy"


@pytest.mark.parametrize(
    ("rule", "choice"),
    [
        (PatchRule(threshold=1.25), "global"),
        (PatchRule(relative_threshold=0.5), "relative"),
        (PatchRule(threshold=1.0, relative_threshold=0.5), "both"),
        (PatchRule(scheme="quantile", target_length=4.5), "quantile"),
        (PatchRule(scheme="fixed", stride=3), "fixed"),
        (PatchRule(scheme="space", characters=True), "space"),
        (PatchRule(scheme="byte"), "byte"),
        (RuleSettings(scheme="bpe"), "stored"),
        (None, "stored"),
    ],
)
def test_the_rule_to_begin_with(document: MakeDocument, rule: PatchRule | None, choice: str) -> None:
    data = data_of(explorer_page([document(b"abc", has_stored_patches=True)], rule, title="x"))
    assert data["choice"] == choice
    for name in ("threshold", "relative_threshold", "stride", "target_length", "characters"):
        assert rule is None or getattr(rule, name) in (None, data["values"][name])
    assert f'<option value="{choice}">' in explorer_page([document(b"abc")], PatchRule(threshold=1.0), title="x")


def test_documents_that_one_rule_has_cut(document: MakeDocument) -> None:
    one = document(b"abc")
    other = replace(one, patches=patch(b"abc", one.patches.entropy_nats, PatchRule(threshold=1.0)))
    assert page_rule([one, one]) == one.patches.rule
    assert page_rule([one, other]) is None


def test_the_policy_names_the_script_and_the_style(document: MakeDocument) -> None:
    page = explorer_page([document(b"abc")], PatchRule(threshold=1.0), title="x")
    found = Tags(page)
    policy = next(attributes["content"] for tag, attributes in found.tags if attributes.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'; ")
    assert f"script-src {sha256(''.join(found.inside['script'][1:]))};" in policy
    assert f"style-src {sha256(found.inside['style'][0])};" in policy
    assert "unsafe" not in policy
    attributes = [name for _, attributes in found.tags for name in attributes]
    assert not [name for name in attributes if name in ("src", "href", "style") or name.startswith("on")]


def test_nothing_of_a_document_is_markup(document: MakeDocument) -> None:
    plain = explorer_page([document(b"abc")], PatchRule(threshold=1.0), title="x")
    name = "</script><script>alert(1)</script>\u2028\u202e]]>&lt;<!--@script@"
    shown = document(name.encode(), name, source=name)
    page = explorer_page([shown], PatchRule(threshold=1.0), title=name)
    assert [tag for tag, _ in Tags(page).tags] == [tag for tag, _ in Tags(plain).tags]
    assert Tags(page).inside["script"][1:] == Tags(plain).inside["script"][1:]
    assert not {*"\u2028\u202e"} & {*page}
    assert Tags(page).inside["title"][0].startswith("</script><script>alert(1)</script>\\u2028\\u202e]]>&lt;<!--@script@")
    assert data_of(page)["documents"][0]["name"].endswith("]]>&lt;<!--@script@")


def test_what_cannot_be_explored(document: MakeDocument) -> None:
    rule = PatchRule(scheme="byte")
    with pytest.raises(PatchingError, match="There are no documents to explore"):
        explorer_page([], rule, title="x")
    with pytest.raises(PatchingError, match="'a' has no entropies"):
        explorer_page([ExplorerDocument(name="a", patches=patch(b"abc", None, rule))], rule, title="x")
    with pytest.raises(PatchingError, match="no rule that a page can begin with"):
        explorer_page([document(b"abc")], None, title="x")
    entropies = np.array([1, 2, 7], dtype=np.float16)
    impossible = replace(document(b"ab").patches, entropy_nats=entropies)
    with pytest.raises(ShardError, match="The entropy at position 2 is 7"):
        explorer_page([ExplorerDocument(name="a", patches=impossible)], rule, title="x")


def test_the_parts_of_the_page_are_installed_with_the_package() -> None:
    folder = Path(bltdata.explore.__file__).parent
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = project["tool"]["setuptools"]["package-data"]["bltdata.explore"]
    listed = {path for pattern in patterns for path in folder.glob(pattern)}
    assert listed == {path for path in folder.iterdir() if path.suffix not in (".py", "") and path.is_file()}
