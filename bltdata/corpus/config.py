"""The corpus of a run as settings: what to learn from, what to judge on, and which documents are left out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bltdata.corpus.corpus import Corpus


@dataclass(frozen=True, kw_only=True)
class CorpusConfig:
    """Where documents come from, for every split."""

    corpus: tuple[str, ...] = ("python-docs",)
    """Sources: python-docs, a file, folder or pattern, jsonl:..., parquet:..., hf:NAME:CONFIG:SPLIT; options after #, as in
    'pages.jsonl#text=body'."""

    validation_corpus: tuple[str, ...] | None = None
    """Sources of the validation documents; none to set apart a share of the corpus by a hash of each document."""

    min_bytes: int = 0
    """Leave out shorter documents."""

    max_bytes: int | None = None
    """Leave out longer documents."""

    def open(self, split: str | None) -> Corpus:
        """The documents of a split, `train`, `validation` or `test`; None for all of `corpus`.

        Raises:
            ConfigError, CorpusError: as `open_corpus`.
        """
        from bltdata.corpus.corpus import open_corpus

        limits = {"min_bytes": self.min_bytes, "max_bytes": self.max_bytes}
        if split is None or self.validation_corpus is None:
            return open_corpus(self.corpus, split, **limits)  # type: ignore[arg-type]
        return open_corpus({"train": self.corpus, "validation": self.validation_corpus}, split, **limits)  # type: ignore[arg-type]
