"""The explorer: one page in which a person moves a threshold and watches the patches.

    documents = sample_documents(open_shards(folder), max_bytes=200_000)
    page = explorer_page(documents, rule, title="My corpus")     HTML that needs nothing else

The page has the rules of `bltdata.patching` in JavaScript (`rules.js`), entropies as they are stored, and makes the same decisions.
"""

from bltdata.explore.documents import ExplorerDocument, sample_documents, stored_document
from bltdata.explore.page import explorer_page

__all__ = ["ExplorerDocument", "explorer_page", "sample_documents", "stored_document"]
