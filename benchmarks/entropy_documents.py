"""Documents for the benchmark of scoring: real ones from files, and cuttings of the prose and sources that Python ships."""

import random
import re
import statistics
from collections.abc import Iterator
from typing import Any

import numpy as np

from bltdata.corpus import open_corpus
from bltdata.corpus.streams import open_binary

SHORT_BYTES = 500
LOGNORMAL = 7.58, 0.98
"""Logarithmic mean and deviation of lengths as on the web: median 1,960 bytes, mean 3,170."""
TEXT_BYTES = 8_000_000


def c4_documents(path: str) -> list[bytes]:
    """The documents of a JSONL file with a column `text`."""
    return [document.data for document in open_corpus(f"jsonl:{path}#text=text")]


def pages(path: str, num_bytes: int) -> list[bytes]:
    """The whole pages in the first bytes of enwik8, plain or compressed."""
    with open_binary(path) as file:
        return re.findall(rb"<page>.*?</page>", file.read(num_bytes), re.DOTALL)


def mixed_documents(num_bytes: int, longest: int) -> Iterator[bytes]:
    """Cuttings with lognormal lengths, `num_bytes` together, made as they are taken; the text begins again where it ends."""
    rng = np.random.default_rng(0)
    text, begin = _text(), 0
    while num_bytes > 0:
        length = min(max(1, round(rng.lognormal(*LOGNORMAL))), longest, num_bytes)
        num_bytes -= length
        begin = begin if begin + length <= len(text) else 0
        yield text[begin : begin + length]
        begin += length


def short_documents(num_bytes: int) -> list[bytes]:
    """Cuttings of 500 bytes from all over the text."""
    text, count = _text(), max(1, round(num_bytes / SHORT_BYTES))
    begins = [(len(text) - SHORT_BYTES) * index // count for index in range(count)]
    return [text[begin : begin + SHORT_BYTES] for begin in begins]


def typical(documents: list[bytes], num_bytes: int) -> list[bytes]:
    """At least `num_bytes` bytes, where there are, with the distribution of lengths of all.

    The middles of equal parts of the documents, sorted by length; as many as it takes, since a few miss the long ones.
    """
    ordered = sorted(documents, key=len)
    for count in range(1, len(ordered) + 1):
        chosen = [ordered[(2 * index + 1) * len(ordered) // (2 * count)] for index in range(count)]
        if sum(map(len, chosen)) >= num_bytes:
            break
    random.Random(0).shuffle(chosen)
    return chosen


def describe(documents: list[bytes]) -> dict[str, Any]:
    """Their number, bytes and lengths."""
    lengths = sorted(map(len, documents))
    return {
        "documents": len(lengths),
        "bytes": sum(lengths),
        "mean_bytes": round(statistics.mean(lengths), 1),
        "length_percentiles": {str(part): int(np.percentile(lengths, part)) for part in (0, 10, 25, 50, 75, 90, 100)},
    }


def _text() -> bytes:
    parts, room = [], TEXT_BYTES
    for document in open_corpus("python-docs"):
        parts.append(document.data[:room])
        room -= len(parts[-1])
        if not room:
            break
    return b"\n".join(parts)
