"""The corpus of a run as settings: what to learn from, what to judge on, and which documents are left out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bltdata.config import nearest
from bltdata.errors import ConfigError

if TYPE_CHECKING:
    from bltdata.corpus.corpus import Corpus

ALL = "all"
"""What is given for a split to take every document."""


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

    def open(self, split: str) -> Corpus:
        """The documents of a split, `train`, `validation` or `test`; `all` for those of `corpus`, whatever their split.

        Raises:
            ConfigError, CorpusError: there is no such split; or as `open_corpus`.
        """
        from bltdata.corpus.corpus import open_corpus

        own = ("train", "validation", "test") if self.validation_corpus is None else ("train", "validation")
        if split not in (*own, ALL):
            raise ConfigError(f"There is no split {split!r}{nearest(split, (*own, ALL))}.")
        limits = {"min_bytes": self.min_bytes, "max_bytes": self.max_bytes}
        if split == ALL or self.validation_corpus is None:
            return open_corpus(self.corpus, None if split == ALL else split, **limits)  # type: ignore[arg-type]
        return open_corpus({"train": self.corpus, "validation": self.validation_corpus}, split, **limits)  # type: ignore[arg-type]
