"""How good an entropy model is: bits per byte by source, beside compressors, and whether its entropies can be believed."""

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from bltdata.compressors import COMPRESSORS, CompressedSizes, bits_per_raw_byte
from bltdata.corpus import Corpus, Document
from bltdata.corpus.sample import sample_documents
from bltdata.entropy.model import EntropyModel
from bltdata.entropy.reliability import Reliability
from bltdata.entropy.scoring import bits_per_byte

NUM_REPLICATES = 1000
INTERVAL = (2.5, 97.5)
"""Percentiles between which 95 % of the replicates lie."""


class Replicates:
    """Bits per byte of documents drawn anew with replacement, many times over, while the documents pass by once.

    Each replicate takes each document a Poisson(1) number of times, which for many documents is what drawing as many as there are
    comes to, and needs neither their number nor the documents.
    """

    def __init__(self, generator: np.random.Generator) -> None:
        self._generator = generator
        self._nats = np.zeros(NUM_REPLICATES)
        self._bytes = np.zeros(NUM_REPLICATES)
        self._num_documents = 0

    def add(self, nats: float, num_bytes: int) -> None:
        """Let each replicate take a document or not."""
        times = self._generator.poisson(1.0, NUM_REPLICATES)
        self._nats += times * nats
        self._bytes += times * num_bytes
        self._num_documents += 1

    def __iadd__(self, other: "Replicates") -> "Replicates":
        self._nats += other._nats
        self._bytes += other._bytes
        self._num_documents += other._num_documents
        return self

    def interval(self) -> tuple[float, float] | None:
        """The middle 95 % of the replicates; None of fewer than two documents, whose spread nobody knows."""
        some = self._bytes > 0
        if self._num_documents < 2 or not some.any():
            return None
        low, high = np.percentile(self._nats[some] / self._bytes[some] / math.log(2), INTERVAL)
        return float(low), float(high)


@dataclass
class SourceEvaluation:
    """Figures of the documents of one source, or of all.

    Attributes:
        replicates: for the interval of the bits per byte.
        reliability: entropies against what came, by position.
        num_documents: documents that were scored.
        num_bytes: their raw bytes.
        nll_nats: negative log-likelihood of their bytes and ends.
        compressed_bytes: compressor -> bytes it needs for the same documents.
    """

    replicates: Replicates
    reliability: Reliability
    num_documents: int
    num_bytes: int
    nll_nats: float
    compressed_bytes: dict[str, int]

    @classmethod
    def empty(cls, generator: np.random.Generator) -> "SourceEvaluation":
        """Of no documents."""
        return cls(Replicates(generator), Reliability(), 0, 0, 0.0, {})

    def __iadd__(self, other: "SourceEvaluation") -> "SourceEvaluation":
        self.replicates += other.replicates
        self.reliability += other.reliability
        self.num_documents += other.num_documents
        self.num_bytes += other.num_bytes
        self.nll_nats += other.nll_nats
        for name, size in other.compressed_bytes.items():
            self.compressed_bytes[name] = self.compressed_bytes.get(name, 0) + size
        return self

    def report(self) -> dict[str, Any]:
        """Plain values; bits per byte are those of raw bytes, None where there are none."""
        interval = self.replicates.interval()
        return {
            "documents": self.num_documents,
            "bytes": self.num_bytes,
            "bits_per_byte": bits_per_byte(self.nll_nats, self.num_bytes) if self.num_bytes else None,
            "bits_per_byte_interval": None if interval is None else list(interval),
            "compressors_bits_per_byte": bits_per_raw_byte(self.compressed_bytes, self.num_bytes),
            "reliability": self.reliability.report(),
        }


@dataclass(frozen=True)
class Evaluation:
    """Figures by source, in the order of the corpus, and of all documents together."""

    sources: dict[str, SourceEvaluation]
    overall: SourceEvaluation
    left_out: Counter[str]

    def report(self) -> dict[str, Any]:
        """Plain values, as JSON can hold them."""
        return {
            "overall": self.overall.report(),
            "sources": {name: source.report() for name, source in self.sources.items()},
            "left_out": dict(self.left_out),
        }


def evaluate_entropy_model(
    model: EntropyModel,
    corpus: Corpus,
    *,
    sample_bytes: int | None = None,
    precision: torch.dtype = torch.float32,
    reset_at_newline: bool = False,
    compressors: Iterable[str] = tuple(COMPRESSORS),
    advance: Callable[[int], object] = lambda num_bytes: None,
) -> Evaluation:
    """Measure an entropy model on the documents of a corpus, in one pass and in memory that doesn't grow with it.

    Args:
        model: a trained model, which is put into eval mode.
        corpus: documents that it hasn't seen.
        sample_bytes: take about this much, from all over the corpus; None for all.
        precision: type of matrix products.
        reset_at_newline: see `EntropyModel.score`.
        compressors: which of `COMPRESSORS` to run on the same documents.
        advance: told of bytes that were scored.

    Raises:
        CorpusError: the corpus has no documents, or one can't be read.
        CheckpointError: the model's predictions are no numbers.
    """
    names = list(compressors)
    generator = np.random.default_rng(0)
    left_out: Counter[str] = Counter()
    read, kept = itertools.tee(_documents(corpus, sample_bytes, left_out))
    scores = model.score_positions((document.data for document in read), precision, reset_at_newline=reset_at_newline)
    sources: dict[str, SourceEvaluation] = {}
    # A corpus gives the documents of one source after those of another, so only one source's compressors are needed at a time.
    for name, group in itertools.groupby(zip(kept, scores, strict=True), key=lambda pair: pair[0].source):
        assert name not in sources, "a corpus reads its sources one after the other"
        found = sources[name] = SourceEvaluation.empty(generator)
        sizes = CompressedSizes(names)
        for document, (entropy_nats, nll_nats) in group:
            _add(found, document, entropy_nats, nll_nats)
            sizes.add(document.data)
            advance(len(document.data))
        found.compressed_bytes = sizes.finish()
    overall = SourceEvaluation.empty(generator)
    for source in sources.values():
        overall += source
    corpus.check_not_empty(overall.num_documents, left_out)
    return Evaluation(sources, overall, left_out)


def _documents(corpus: Corpus, sample_bytes: int | None, left_out: Counter[str]) -> Iterator[Document]:
    fragments = corpus.fragments()
    if sample_bytes is not None:
        return sample_documents(corpus, fragments, sample_bytes, left_out)
    return itertools.chain.from_iterable(corpus.read(fragment, left_out) for fragment in fragments)


def _add(found: SourceEvaluation, document: Document, entropy_nats: np.ndarray, nll_nats: np.ndarray) -> None:
    total = float(nll_nats.sum(dtype=np.float64))
    found.reliability.add(entropy_nats, nll_nats)
    found.replicates.add(total, len(document.data))
    found.num_documents += 1
    found.num_bytes += len(document.data)
    found.nll_nats += total
