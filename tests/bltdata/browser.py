"""A browser for the tests of pages: opens them as files, and remembers what they complained about."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@contextlib.contextmanager
def launched_browser() -> "Iterator[Browser]":
    """Chromium, without a window; without one the test is skipped, but fails in CI."""
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


def _without_browser(reason: str) -> NoReturn:
    if os.environ.get("CI") == "true":
        pytest.fail(f"{reason}; CI must have one, see .ci/run.")
    pytest.skip(f"{reason}: install Debian's package chromium, or run `playwright install chromium`.")


class Opener:
    """Opens pages as files, and remembers whatever they complained about, asked for or tried to say."""

    def __init__(self, browser: "Browser", folder: Path) -> None:
        self._browser, self._folder, self._number = browser, folder, 0
        self._contexts: list[BrowserContext] = []
        self.complaints: list[str] = []
        self.requests: list[str] = []

    def open(self, text: str, **context: Any) -> "Page":
        """Show a page; `context` is what Playwright's browser contexts take, such as `viewport` and `color_scheme`."""
        self._number += 1
        path = self._folder / f"page-{self._number}.html"
        path.write_text(text, encoding="utf-8", newline="")
        self._contexts.append(self._browser.new_context(**context))
        page = self._contexts[-1].new_page()
        page.set_default_timeout(20_000)
        page.on("console", lambda message: self.complaints.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("dialog", lambda dialog: self.complaints.append(f"dialog: {dialog.message}"))
        page.on("request", lambda request: self.requests.append(request.url))
        page.goto(path.as_uri())
        return page

    def close(self) -> None:
        """Close all pages, and check that none left a complaint in the console or a request to anywhere."""
        for context in self._contexts:
            context.close()
        assert self.complaints == []
        assert all(url.startswith(self._folder.as_uri()) for url in self.requests)
