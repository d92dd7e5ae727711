"""Raw bytes in: documents from files, JSONL, Parquet, Hugging Face datasets, or what Python brings along.

    for document in open_corpus("pages/*.jsonl.gz#text=body", split="train"):
        print(document.doc_id, len(document.data))

A spec (`spec.py`) names a source (`files.py`, `jsonl.py`, `parquet.py`, `hub.py`, `python_docs.py`). A source lists the pieces it
can be read in; the corpus (`corpus.py`) groups them into fragments, reads them in any order and process, and leaves out, and
counts, what belongs to another split (`splits.py`) or is too short or too long. Nothing is decoded, and no document is ever cut.
"""

from typing import TYPE_CHECKING

from bltdata.lazy import lazy_names

if TYPE_CHECKING:
    from bltdata.corpus.corpus import Corpus, open_corpus
    from bltdata.corpus.document import Document
    from bltdata.corpus.fragments import Fragment
    from bltdata.corpus.spec import CorpusSpec
    from bltdata.corpus.splits import SplitFractions
    from bltdata.corpus.spool import Spool, write_spool

__all__ = ["Corpus", "CorpusSpec", "Document", "Fragment", "SplitFractions", "Spool", "open_corpus", "write_spool"]

# The settings of a corpus are options of commands, and their help mustn't wait for pyarrow.
__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "Corpus": "bltdata.corpus.corpus",
        "CorpusSpec": "bltdata.corpus.spec",
        "Document": "bltdata.corpus.document",
        "Fragment": "bltdata.corpus.fragments",
        "SplitFractions": "bltdata.corpus.splits",
        "Spool": "bltdata.corpus.spool",
        "open_corpus": "bltdata.corpus.corpus",
        "write_spool": "bltdata.corpus.spool",
    },
)
