"""Documents to explore, and the explorer page in a browser."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from bltdata.explore import ExplorerDocument, explorer_page
from bltdata.patching import PatchRule, patch
from bltdata.shards import round_entropies
from tests.bltdata.browser import Opener

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

RULE = PatchRule(threshold=2.0)


def make_document(data: bytes, name: str = "a document", seed: int = 0, **settings: Any) -> ExplorerDocument:
    """A document with invented entropies, cut by `RULE`."""
    entropies = np.random.default_rng(seed).gamma(1.3, 1.0, len(data) + 1).clip(0, 5.5).astype(np.float32)
    return ExplorerDocument(name=name, patches=patch(data, round_entropies(entropies), RULE), **settings)


@pytest.fixture(scope="session")
def document() -> Callable[..., ExplorerDocument]:
    """Makes a document of bytes."""
    return make_document


class ExplorerOpener(Opener):
    """Opens explorer pages of documents."""

    def __call__(self, *documents: ExplorerDocument, rule: PatchRule | None = RULE, title: str = "Patches", **context: Any) -> "Page":
        page = self.open(explorer_page(documents, rule, title=title), **context)
        # Layout, patches and drawing wait for a frame each.
        page.wait_for_selector(".row")
        return page


@pytest.fixture
def opened(browser: "Browser", tmp_path: Path) -> Iterator[ExplorerOpener]:
    """Opens an explorer page of documents; no test may leave a complaint in the console or a request to anywhere."""
    opener = ExplorerOpener(browser, tmp_path)
    yield opener
    opener.close()
