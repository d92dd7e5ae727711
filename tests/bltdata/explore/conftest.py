"""A browser for the tests of the explorer page, and documents to explore."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import pytest

from bltdata.explore import ExplorerDocument, explorer_page
from bltdata.patching import PatchRule, patch
from bltdata.shards import round_entropies

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
RULE = PatchRule(threshold=2.0)


def make_document(data: bytes, name: str = "a document", seed: int = 0, **settings: Any) -> ExplorerDocument:
    """A document with invented entropies, cut by `RULE`."""
    entropies = np.random.default_rng(seed).gamma(1.3, 1.0, len(data) + 1).clip(0, 5.5).astype(np.float32)
    return ExplorerDocument(name=name, patches=patch(data, round_entropies(entropies), RULE), **settings)


@pytest.fixture(scope="session")
def document() -> Callable[..., ExplorerDocument]:
    """Makes a document of bytes."""
    return make_document


def _without_browser(reason: str) -> NoReturn:
    if os.environ.get("CI") == "true":
        pytest.fail(f"{reason}; CI must have one, see .ci/run.")
    pytest.skip(f"{reason}: install Debian's package chromium, or run `playwright install chromium`.")


# Not for the session: while it is there, nothing else in this process can run an event loop.
@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    """Chromium, without a window."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        _without_browser("There is no playwright")
    with sync_playwright() as playwright:
        found = next(filter(None, map(shutil.which, BROWSERS)), playwright.chromium.executable_path)
        if not Path(found).exists():
            _without_browser("There is no Chromium")
        launched = playwright.chromium.launch(executable_path=found)
        yield launched
        launched.close()


class Opener:
    """Opens pages as files, and remembers whatever they complained about, asked for or tried to say."""

    def __init__(self, browser: "Browser", folder: Path) -> None:
        self._browser, self._folder, self._number = browser, folder, 0
        self._contexts: list[BrowserContext] = []
        self.complaints: list[str] = []
        self.requests: list[str] = []

    def __call__(self, *documents: ExplorerDocument, rule: PatchRule | None = RULE, title: str = "Patches", **context: Any) -> "Page":
        self._number += 1
        path = self._folder / f"page-{self._number}.html"
        path.write_text(explorer_page(documents, rule, title=title), encoding="utf-8", newline="")
        self._contexts.append(self._browser.new_context(**context))
        page = self._contexts[-1].new_page()
        page.set_default_timeout(20_000)
        page.on("console", lambda message: self.complaints.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("dialog", lambda dialog: self.complaints.append(f"dialog: {dialog.message}"))
        page.on("request", lambda request: self.requests.append(request.url))
        page.goto(path.as_uri())
        # Layout, patches and drawing wait for a frame each.
        page.wait_for_selector(".row")
        return page

    def close(self) -> None:
        for context in self._contexts:
            context.close()


@pytest.fixture
def opened(browser: "Browser", tmp_path: Path) -> Iterator[Opener]:
    """Opens an explorer page of documents; no test may leave a complaint in the console or a request to anywhere."""
    opener = Opener(browser, tmp_path)
    yield opener
    opener.close()
    assert opener.complaints == []
    assert all(url.startswith(tmp_path.as_uri()) for url in opener.requests)
