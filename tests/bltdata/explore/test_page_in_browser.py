"""The explorer page in Chromium: what a person does, and what the page then shows."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from bltdata.explore import ExplorerDocument
from bltdata.patching import PatchRule
from bltdata.patching.display import NEWLINE_SIGN

pytestmark = pytest.mark.browser

MakeDocument = Callable[..., ExplorerDocument]

TEXT = b"Patches begin where the next byte is hard to predict. " * 12
STARTS = "Array.from(state.starts.subarray(0, state.count))"
SHOWN = """() => {
    const texts = new Map();
    const rows = [...document.querySelectorAll(".row")].sort((a, b) => parseFloat(a.style.top) - parseFloat(b.style.top));
    for (const part of rows.flatMap((row) => [...row.querySelectorAll(".patch")]))
        texts.set(part.dataset.patch, (texts.get(part.dataset.patch) ?? "") + part.textContent);
    return [...texts.values()];
}"""
HOSTILE = (
    b"</script><script>window.hacked = 1; alert(1)</script><!-- <img src=x onerror=alert(2)> ]]> &lt; @script@ @data@ "
    + "\u2028\u2029\u202e\u2066 \U000e0041 \u200b".encode()
    + b"\0\x1b[31m \xff\xfe\xc3( \xed\xa0\x80 \xf4\x90\x80\x80 <style>*{display:none}</style>\r\n\t\n"
)


def settle(page: Any) -> None:
    """Wait until what was done is shown: it is computed in one frame, and drawn in the next."""
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => requestAnimationFrame(done))))")


def starts_by(page: Any, expected: PatchRule, shown: ExplorerDocument) -> None:
    """Check that the page has cut its document as a rule does."""
    settle(page)
    assert page.evaluate(STARTS) == expected.starts(shown.patches.data, shown.patches.entropy_nats).tolist()


def detail(page: Any, label: str) -> str:
    found: str = page.locator("#details div", has=page.locator("dt", has_text=label)).locator("dd").inner_text()
    return found


def number(page: Any, label: str) -> str:
    found: str = page.locator("#numbers div", has=page.get_by_text(label, exact=True)).locator("dd").inner_text()
    return found


# --------------------------------------------------------------------------------------------------------------- controls


def test_the_page_begins_with_the_patches_of_its_rule(opened: Any, document: MakeDocument) -> None:
    shown = document(TEXT)
    page = opened(shown, title="Patches of <b>a text</b>")
    assert page.title() == "Patches of <b>a text</b>" == page.locator("h1").inner_text()
    starts_by(page, shown.patches.rule, shown)
    assert page.evaluate(SHOWN)[:-1] == [patch.decode() for patch in shown.patches][: len(page.evaluate(SHOWN)) - 1]
    assert number(page, "Mean length") == f"{shown.patches.mean_length:.2f}"
    assert number(page, "Patches") == str(len(shown.patches))
    assert number(page, "Longest") == str(shown.patches.lengths.max())
    assert page.locator("#options").inner_text() == "--scheme entropy --threshold 2"
    assert len(opened.requests) == 1


def test_the_slider_moves_the_patches(opened: Any, document: MakeDocument) -> None:
    shown = document(TEXT)
    page = opened(shown)
    before = page.evaluate(SHOWN)
    slider = page.get_by_role("slider", name="Threshold (nats)")
    slider.focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    starts_by(page, PatchRule(threshold=(512 + 3) / 256), shown)
    page.keyboard.press("Home")
    starts_by(page, PatchRule(threshold=0.0), shown)
    assert page.evaluate(SHOWN) != before
    page.keyboard.press("End")
    starts_by(page, PatchRule(threshold=1423 / 256), shown)
    page.get_by_role("spinbutton", name="Threshold (nats)").fill("1.2345")
    starts_by(page, PatchRule(threshold=1.2345), shown)
    assert slider.input_value() == str(round(1.2345 * 256))
    page.get_by_role("button", name="Back to the first rule").click()
    starts_by(page, PatchRule(threshold=2.0), shown)


def test_every_rule_by_its_controls(opened: Any, document: MakeDocument) -> None:
    shown = document(b"Two words.\nd\xc3\xa9j\xc3\xa0 vu, and 12 more\n" * 9, has_stored_patches=True)
    page = opened(shown)
    rule = page.get_by_label("Rule", exact=True)

    def set_number(label: str, value: str) -> None:
        page.get_by_role("spinbutton", name=label).fill(value)

    rule.select_option("relative")
    set_number("Rise (nats)", "-0.35")
    starts_by(page, PatchRule(relative_threshold=-0.35), shown)
    assert "--relative-threshold=-0.35" in page.locator("#options").inner_text()
    rule.select_option("both")
    set_number("Threshold (nats)", "0.9")
    starts_by(page, PatchRule(threshold=0.9, relative_threshold=-0.35), shown)
    page.get_by_label("Start afresh at newlines").check()
    set_number("Minimum length", "2")
    set_number("Maximum length", "7")
    lengths: dict[str, Any] = {"min_length": 2, "max_length": 7}
    starts_by(page, PatchRule(threshold=0.9, relative_threshold=-0.35, reset_at_newline=True, **lengths), shown)
    rule.select_option("quantile")
    set_number("Target length (bytes)", "3.5")
    starts_by(page, PatchRule(scheme="quantile", target_length=3.5, threshold=0.9, **lengths), shown)
    rule.select_option("space")
    starts_by(page, PatchRule(scheme="space", **lengths), shown)
    page.get_by_label("Keep characters whole").check()
    starts_by(page, PatchRule(scheme="space", characters=True, min_length=2), shown)
    rule.select_option("fixed")
    set_number("Stride (bytes)", "6")
    starts_by(page, PatchRule(scheme="fixed", stride=6), shown)
    rule.select_option("byte")
    starts_by(page, PatchRule(scheme="byte"), shown)
    rule.select_option("stored")
    settle(page)
    assert page.evaluate(STARTS) == shown.patches.starts.tolist()


def test_what_makes_no_sense_changes_nothing(opened: Any, document: MakeDocument) -> None:
    shown = document(TEXT)
    page = opened(shown)
    page.get_by_role("spinbutton", name="Maximum length").fill("4")
    page.get_by_role("spinbutton", name="Minimum length").fill("5")
    starts_by(page, PatchRule(threshold=2.0, max_length=4), shown)
    assert page.get_by_role("alert").inner_text() == "The minimum length must not be above the maximum length."
    page.get_by_role("spinbutton", name="Maximum length").fill("")
    starts_by(page, PatchRule(threshold=2.0, min_length=5), shown)
    assert page.locator("#mistake").inner_text() == ""


def test_the_curve_is_that_of_python(opened: Any, document: MakeDocument) -> None:
    shown = [document(TEXT), document(b"another one " * 20, seed=1)]
    page = opened(*shown)
    page.wait_for_function("curve.points.length === CURVE_POINTS")
    positions = sum(len(one.patches.data) + 1 for one in shown)
    for threshold, mean in page.evaluate("curve.points")[::16]:
        rule = PatchRule(threshold=threshold)
        assert mean == positions / sum(len(rule.starts(one.patches.data, one.patches.entropy_nats)) for one in shown)
    page.get_by_label("Rule", exact=True).select_option("byte")
    settle(page)
    assert not page.locator("#curve").is_visible()


def test_several_documents(opened: Any, document: MakeDocument) -> None:
    first, second = document(b"short", "first"), document(TEXT, "second", seed=2, source="news", num_left_out=1234)
    page = opened(first, second)
    assert page.locator("#about").inner_text() == "second (news); 1,234 more bytes are left out", "the longest one is shown first"
    mean = (len(TEXT) + 1 + 6) / (len(first.patches) + len(second.patches))
    assert number(page, "\u2026 all documents") == f"{mean:.2f}"
    page.get_by_label("Document", exact=True).select_option("0")
    starts_by(page, first.patches.rule, first)
    assert page.locator("#about").inner_text() == "first"


# --------------------------------------------------------------------------------------------- what stands at a position


def test_by_the_keyboard(opened: Any, document: MakeDocument) -> None:
    shown = document(TEXT)
    starts = shown.patches.starts.tolist()
    page = opened(shown)
    for _ in range(30):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "scroller":
            break
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid", "focus can be seen"
    for key, position in (
        ("j", starts[1]),
        ("ArrowRight", starts[2]),
        ("k", starts[1]),
        ("Shift+ArrowRight", starts[1] + 1),
        ("Shift+ArrowLeft", starts[1]),
        ("ArrowLeft", 0),
        ("k", 0),
        ("End", starts[-1]),
        ("j", starts[-1]),
        ("Home", 0),
    ):
        page.keyboard.press(key)
        assert page.evaluate("viewer.position") == position, key
    page.keyboard.press("ArrowDown")
    below = page.evaluate("viewer.position")
    assert below == page.evaluate("viewer.columns")
    nats = float(shown.patches.entropy_nats[below])
    assert detail(page, "Position") == f"{below} of {len(TEXT)}"
    assert detail(page, "Byte").startswith(f"0x{TEXT[below]:02X} ")
    assert detail(page, "Entropy").startswith(f"{nats:.3f} nats = {nats / np.log(2):.3f} bits, as of {np.exp(nats):.1f} equally")
    patch = int(np.searchsorted(starts, below, side="right")) - 1
    length = shown.patches.lengths[patch]
    assert detail(page, "Patch") == f"{patch + 1} of {len(starts)}, from {starts[patch]}, length {length}"
    share = float((shown.patches.entropy_nats >= shown.patches.entropy_nats[below]).mean())
    assert detail(page, "Start").startswith(f"{'yes' if below in starts else 'no'}; {100 * share:.1f}"[:8])
    assert f"Position {below} of" in page.locator("#spoken").inner_text()
    assert {*page.evaluate("[...document.querySelectorAll('.current')].map((part) => part.dataset.patch)")} == {str(patch)}


def test_under_the_pointer(opened: Any, document: MakeDocument) -> None:
    shown = document("a\u65e5b".encode())
    page = opened(shown)
    page.get_by_label("Rule", exact=True).select_option("byte")
    settle(page)
    assert page.locator(".cut i").count() == 2, "two starts inside the character"
    box = page.locator(".cut").bounding_box()
    for part, byte in enumerate(("0xE6, 1 of 3 of", "0x97, 2 of 3 of", "0xA5, 3 of 3 of")):
        page.mouse.move(box["x"] + box["width"] * (part + 0.5) / 3, box["y"] + 8)
        assert detail(page, "Byte") == f"{byte} \u65e5 (U+65E5)"
        assert detail(page, "Position") == f"{part + 1} of 5"
    page.mouse.move(5, 5)
    assert detail(page, "Position") == "0 of 5", "back to what was chosen"
    page.locator(".cut").click(position={"x": 1, "y": 8})
    page.mouse.move(5, 5)
    assert detail(page, "Position") == "1 of 5"
    page.get_by_label("Rule", exact=True).select_option("fixed")
    settle(page)
    page.locator("#scroller").press("End")
    assert page.evaluate("byteInWords(documents[0], 5)") == "the end of the document"
    assert page.evaluate("byteInWords({...documents[0], numLeftOut: 7}, 5)") == "7 more bytes, left out here"


# -------------------------------------------------------------------------------------------------------- hostile content


def test_nothing_of_a_document_is_executed(opened: Any, document: MakeDocument) -> None:
    shown = document(HOSTILE, "<script>alert(3)</script>\u202e", source="</title><script>alert(4)</script>")
    page = opened(shown, title="</title></script><script>alert(5)</script>")
    page.get_by_label("Rule", exact=True).select_option("byte")
    settle(page)
    assert page.evaluate("window.hacked") is None
    assert page.locator("script").count() == 2
    assert page.locator("#canvas :is(script, style, img)").count() == 0
    text = "".join(page.evaluate(SHOWN))
    assert text.startswith(
        "</script><script>window.hacked = 1; alert(1)</script><!-- <img src=x onerror=alert(2)> ]]> &lt; @script@ @data@ "
    )
    assert "\\u2028\\u2029\\u202e\\u2066 \\U000e0041 \\u200b\\x00\\x1b[31m \\xff\\xfe\\xc3( \\xed\\xa0\\x80" in text
    assert text.count(NEWLINE_SIGN) == 2
    assert page.locator("#about").inner_text() == "<script>alert(3)</script>\\u202e (</title><script>alert(4)</script>)"
    assert page.evaluate("documents[0].data.join()") == ",".join(map(str, HOSTILE))


def test_what_got_into_the_page_would_not_run(opened: Any, document: MakeDocument) -> None:
    page = opened(document(b"text"))
    page.evaluate("""() => {
        const script = document.createElement("script");
        script.textContent = "window.hacked = 1";
        document.body.append(script);
        const box = document.createElement("div");
        box.innerHTML = '<img src="data:," onerror="window.hacked = 2">';
        document.body.append(box);
    }""")
    settle(page)
    assert page.evaluate("window.hacked") is None
    assert any("Content Security Policy" in complaint for complaint in opened.complaints)
    opened.complaints.clear()


# ------------------------------------------------------------------------------------------------------------ large, small


def test_the_page_of_a_long_document_stays_small(opened: Any, document: MakeDocument) -> None:
    rng = np.random.default_rng(0)
    data = rng.choice(np.frombuffer(b"abcdefgh  \n\xff", dtype=np.uint8), 1_000_000).tobytes()
    page = opened(document(data))
    page.get_by_label("Rule", exact=True).select_option("byte")
    for share in (0.0, 0.5, 1.0):
        page.evaluate(f"viewer.scroller.scrollTop = {share} * viewer.scroller.scrollHeight")
        settle(page)
        seen = page.evaluate("""() => {
            const box = viewer.scroller.getBoundingClientRect();
            const rows = [...document.querySelectorAll(".row")].map((row) => row.getBoundingClientRect());
            return [Math.min(...rows.map((row) => row.top)) <= box.top + 10, Math.max(...rows.map((row) => row.bottom)) >= box.bottom - 10];
        }""")
        assert seen == [True, True]
        assert page.evaluate("document.querySelectorAll('*').length") < 5000
    page.locator("#scroller").press("Home")
    settle(page)
    assert page.evaluate("viewer.scroller.scrollTop") == 0


def test_a_million_newlines_can_be_scrolled_through(opened: Any, document: MakeDocument) -> None:
    page = opened(document(b"\n" * 1_000_000))
    assert page.evaluate("viewer.rows.length") < 50_000
    page.locator("#scroller").press("End")
    settle(page)
    assert page.evaluate("document.querySelectorAll('.row').length") > 3


def test_an_empty_document(opened: Any, document: MakeDocument) -> None:
    page = opened(document(b""))
    assert page.evaluate(STARTS) == [0]
    page.locator("#scroller").press("j")
    assert detail(page, "Byte") == "the end of the document"


# ------------------------------------------------------------------------------------------------------------- appearance


@pytest.mark.parametrize("width", [390, 1280])
def test_it_fits_light_and_dark(opened: Any, document: MakeDocument, width: int) -> None:
    shown = [document(HOSTILE * 20, "a-name-without-any-place-to-break-it" * 4), document(TEXT)]
    backgrounds = []
    for scheme in ("light", "dark"):
        page = opened(*shown, viewport={"width": width, "height": 844}, color_scheme=scheme)
        for choice in ("both", "quantile", "space"):
            page.get_by_label("Rule", exact=True).select_option(choice)
            settle(page)
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            assert page.evaluate("viewer.scroller.scrollWidth <= viewer.scroller.clientWidth")
        found = page.evaluate("[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]")
        backgrounds.append([sum(map(int, colour.strip("rgb()").split(","))) for colour in found])
    (light, dark_ink), (dark, light_ink) = backgrounds
    assert min(light, light_ink) > 600 > 200 > max(dark, dark_ink)


def test_motion_can_be_turned_off(opened: Any, document: MakeDocument) -> None:
    durations = [
        opened(document(b"text"), reduced_motion=wish).evaluate("getComputedStyle(viewer.cursor).transitionDuration")
        for wish in ("no-preference", "reduce")
    ]
    assert durations[0] != "0s"
    assert durations[1] == "0s"


def test_a_narrower_window_keeps_the_place(opened: Any, document: MakeDocument) -> None:
    page = opened(document(TEXT * 20), viewport={"width": 1280, "height": 800})
    page.locator("#scroller").press("End")
    page.set_viewport_size({"width": 390, "height": 800})
    settle(page)
    settle(page)
    cursor, box = page.locator("#cursor").bounding_box(), page.locator("#scroller").bounding_box()
    assert box["y"] <= cursor["y"] <= box["y"] + box["height"]
