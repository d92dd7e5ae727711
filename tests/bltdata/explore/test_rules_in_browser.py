"""The rules of the page are the rules of Python: both cut the same documents, and every start is compared."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bltdata.config import to_mapping
from bltdata.explore import ExplorerDocument, explorer_page
from bltdata.patching import PatchRule
from bltdata.patching.display import printable_parts
from bltdata.patching.inputs import MAX_STORED_ENTROPY_NATS
from bltdata.vocab import MAX_ENTROPY_NATS

pytestmark = pytest.mark.browser

CUT = """([data, entropies, rule]) => Array.from(
    patchStarts({data: Uint8Array.from(data), entropies: Float32Array.from(entropies), stored: null}, rule))"""
WIDEN = "(codes) => Array.from(widen(Uint16Array.from(codes)))"
TEXTS = """(data) => {
    const doc = {data: Uint8Array.from(data), numLeftOut: 0}, pieces = piecesOf(doc, SIGNS), found = [];
    for (let i = 0; i + 1 < pieces.count; i++)
        found.push([pieceText(doc, pieces.starts[i], SIGNS), pieces.starts[i + 1] - pieces.starts[i]]);
    return found;
}"""

TOP_CODE = int(np.float16(MAX_STORED_ENTROPY_NATS).view(np.uint16))


@pytest.fixture(scope="module")
def page(browser: Any, document: Callable[..., ExplorerDocument], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A page whose functions are called; what it shows doesn't matter."""
    path = tmp_path_factory.mktemp("pages") / "page.html"
    path.write_text(explorer_page([document(b"any")], PatchRule(threshold=1.0), title="any"), encoding="utf-8", newline="")
    context = browser.new_context()
    opened = context.new_page()
    opened.goto(path.as_uri())
    yield opened
    context.close()


def cut_by_page(page: Any, data: bytes, entropies: np.ndarray, rule: PatchRule) -> list[int]:
    found: list[int] = page.evaluate(CUT, [list(data), entropies.astype(np.float32).tolist(), to_mapping(rule)])
    return found


# ------------------------------------------------------------------------------------------------------- golden vectors


def golden_cases() -> Iterator[tuple[bytes, np.ndarray, PatchRule]]:
    """Documents and rules of the vectors that `tests/bltdata/patching/test_golden.py` compares with public implementations."""
    path = Path(__file__).parents[2] / "golden" / "patches.json"
    for case in json.loads(path.read_text(encoding="utf-8"))["cases"]:
        mode, threshold = case["mode"], case.get("threshold")
        if "entropies" not in case:
            data = bytes(token - 4 for token in case.get("token_ids", [4] * case.get("seq_len", 0)) if token >= 4)
            schemes = {"static": {"scheme": "fixed", "stride": case.get("patch_size")}, "space": {"scheme": "space"}}
            yield data, np.zeros(len(data) + 1, dtype=np.float32), PatchRule(**schemes.get(mode, {"scheme": "byte"}))
            continue
        if mode.endswith("monotonic"):
            rule = PatchRule(relative_threshold=threshold)
        elif mode.endswith("threshold_add"):
            rule = PatchRule(threshold=threshold, relative_threshold=case["threshold_add"])
        else:
            rule = PatchRule(threshold=threshold, max_length=case.get("max_patch_length"))
        for row in case["entropies"]:
            entropies = np.array([float(value) for value in row], dtype=np.float32)
            if entropies.size and entropies.max() <= MAX_STORED_ENTROPY_NATS:
                yield bytes(len(row) - 1), entropies, rule


def test_golden_vectors(page: Any) -> None:
    cases = list(golden_cases())
    asked = [[list(data), entropies.tolist(), to_mapping(rule)] for data, entropies, rule in cases]
    found = page.evaluate(f"(cases) => cases.map({CUT})", asked)
    for (data, entropies, rule), starts in zip(cases, found, strict=True):
        assert starts == rule.starts(data, entropies).tolist(), rule
    assert len({(rule.scheme, rule.relative_threshold is None) for _, _, rule in cases}) == 5
    assert len(cases) > 100


# ---------------------------------------------------------------------------------------------------- generated documents


@st.composite
def cases(draw: st.DrawFn) -> tuple[bytes, np.ndarray, PatchRule]:
    """A document, entropies with many ties, and a rule whose thresholds are often exactly, or almost, what they are compared with."""
    data = draw(st.binary(max_size=40) | st.lists(st.sampled_from(b"ab1 .\n\xc3\xa9"), max_size=60).map(bytes))
    few = draw(st.lists(st.integers(0, TOP_CODE), min_size=1, max_size=5))
    codes = draw(st.lists(st.sampled_from(few), min_size=len(data) + 1, max_size=len(data) + 1))
    entropies = np.array(codes, dtype=np.uint16).view(np.float16)
    wide = entropies.astype(np.float32)

    def near(values: np.ndarray, low: float, high: float) -> st.SearchStrategy[float]:
        exact = st.sampled_from(values.tolist() or [0.0])
        # So little below that as a float32 it is the same: then only the running quantile, in float64, tells them apart.
        below = exact.map(lambda value: float(np.nextafter(value, -np.inf)))
        return (st.floats(low, high) | exact | below).map(lambda value: min(max(value, low), high))

    thresholds = near(wide, 0.0, MAX_ENTROPY_NATS)
    rises = near(np.diff(wide), -6.0, 6.0)
    scheme = draw(st.sampled_from(["global", "relative", "both", "quantile", "fixed", "space", "byte"]))
    if scheme == "byte":
        return data, entropies, PatchRule(scheme="byte")
    if scheme == "fixed":
        return data, entropies, PatchRule(scheme="fixed", stride=draw(st.integers(1, 70)))
    fields: dict[str, Any] = {"min_length": draw(st.integers(1, 6))}
    if draw(st.booleans()):
        fields["max_length"] = draw(st.integers(fields["min_length"], 12))
    if scheme == "space":
        whole = "max_length" not in fields and draw(st.booleans())
        return data, entropies, PatchRule(scheme="space", characters=whole, **fields)
    if scheme == "quantile":
        threshold = draw(st.none() | thresholds)
        return data, entropies, PatchRule(scheme="quantile", target_length=draw(st.floats(1, 12)), threshold=threshold, **fields)
    fields["reset_at_newline"] = draw(st.booleans())
    if scheme != "relative":
        fields["threshold"] = draw(thresholds)
    if scheme != "global":
        fields["relative_threshold"] = draw(rises)
    return data, entropies, PatchRule(**fields)


@given(case=cases())
@settings(max_examples=150)
def test_generated_documents(page: Any, case: tuple[bytes, np.ndarray, PatchRule]) -> None:
    data, entropies, rule = case
    assert cut_by_page(page, data, entropies, rule) == rule.starts(data, entropies).tolist()


def test_a_threshold_that_is_no_float32(page: Any) -> None:
    """Rounded to float32 it is what it is compared with; the running quantile alone is not rounded."""
    entropies, almost = np.array([3, 2, 2], dtype=np.float16), float(np.nextafter(2.0, 0.0))
    for rule, starts in (
        (PatchRule(threshold=almost), [0]),
        (PatchRule(scheme="quantile", target_length=1.0, threshold=almost), [0, 1, 2]),
    ):
        assert cut_by_page(page, b"ab", entropies, rule) == rule.starts(b"ab", entropies).tolist() == starts


def joined(starts: np.ndarray) -> str:
    """Many numbers are quicker passed on as a text."""
    return ",".join(map(str, starts.tolist()))


RULES = [
    PatchRule(threshold=1.335442066192627),
    PatchRule(threshold=1.0, min_length=3, max_length=9, reset_at_newline=True),
    PatchRule(relative_threshold=0.3),
    PatchRule(relative_threshold=-0.1, max_length=16),
    PatchRule(threshold=0.7, relative_threshold=0.1),
    PatchRule(scheme="quantile", target_length=4.5),
    PatchRule(scheme="quantile", target_length=3.7, threshold=0.3, min_length=2, max_length=11),
    PatchRule(scheme="fixed", stride=7),
    PatchRule(scheme="space"),
    PatchRule(scheme="space", min_length=2, max_length=5),
    PatchRule(scheme="space", characters=True),
    PatchRule(scheme="byte"),
]


def test_long_documents_as_the_page_has_them(opened: Any, document: Callable[..., ExplorerDocument]) -> None:
    """From Python to the page and through its decoding, at a length where a slip of the running quantile would show."""
    data = np.random.default_rng(5).choice(np.frombuffer(b"abc XYZ09.,\n\xc3\xa9\xff", dtype=np.uint8), 100_000).tobytes()
    shown = document(data, has_stored_patches=True)
    page = opened(shown)
    found = page.evaluate("(rules) => rules.map((rule) => patchStarts(documents[0], rule).join())", [*map(to_mapping, RULES)])
    for rule, starts in zip(RULES, found, strict=True):
        assert starts == joined(rule.starts(data, shown.patches.entropy_nats)), rule
    assert page.evaluate("patchStarts(documents[0], {scheme: 'stored'}).join()") == joined(shown.patches.starts)


def test_every_code_of_an_entropy(page: Any) -> None:
    codes = np.arange(TOP_CODE + 1, dtype=np.uint16)
    assert page.evaluate(WIDEN, codes.tolist()) == codes.view(np.float16).astype(np.float64).tolist()


def test_the_page_refuses_what_python_refuses(page: Any) -> None:
    base = {"scheme": "entropy", "threshold": 1.0, "relative_threshold": None, "min_length": 1, "max_length": None}
    cases = [
        ({}, None),
        ({"threshold": MAX_ENTROPY_NATS}, None),
        ({"threshold": 5.5625}, "The threshold must lie between 0 and 5.5607 nats."),
        ({"threshold": -0.01}, "The threshold must"),
        ({"min_length": 5, "max_length": 5}, None),
        ({"min_length": 5, "max_length": 4}, "must not be above"),
        ({"min_length": 0}, "The minimum length must"),
        ({"min_length": 1.5}, "The minimum length must"),
        ({"max_length": 0}, "The maximum length must"),
        ({"scheme": "fixed", "stride": 0}, "The stride must"),
        ({"scheme": "quantile", "target_length": 0.5}, "The target length must"),
        ({"scheme": "space", "characters": True, "max_length": 4}, "whole characters"),
    ]
    found = page.evaluate("(rules) => rules.map((rule) => mistakeIn(rule, CONSTANTS))", [base | changes for changes, _ in cases])
    for (changes, expected), mistake in zip(cases, found, strict=True):
        assert (mistake is None) if expected is None else expected in mistake, changes


# --------------------------------------------------------------------------------------------------------- what is shown


@given(data=st.binary(max_size=40) | st.text(st.characters(exclude_categories=["Cs", "Cn"]), max_size=20).map(str.encode))
@settings(max_examples=80)
def test_text_is_shown_as_everywhere(page: Any, data: bytes) -> None:
    (expected,) = printable_parts(data, [len(data)])
    found = page.evaluate(TEXTS, list(data))
    # A mark that would sit on the character before gets a circle to sit on.
    assert [[text.removeprefix("\u25cc") or text, num_bytes] for text, num_bytes in found] == [
        [piece.text.removesuffix("\n").removeprefix("\u25cc") or piece.text, piece.num_bytes] for piece in expected
    ]
