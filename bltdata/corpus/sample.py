"""A sample of a corpus, for what needs typical documents and not all of them."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from bltdata.corpus.corpus import Corpus
from bltdata.corpus.document import Document
from bltdata.corpus.fragments import Fragment

MAX_FRAGMENTS = 64
"""A sample reads no more fragments than this, evenly spread over the plan."""


def sample_documents(
    corpus: Corpus, fragments: Sequence[Fragment], num_bytes: int, left_out: Counter[str] | None = None
) -> Iterator[Document]:
    """Documents of about `num_bytes` bytes together, from all over the corpus.

    A fragment's documents are chosen by a hash of their content, so the sample depends on nothing but the corpus; of a
    fragment whose size nobody knows, the first documents are taken. There is at least one document, however large, where
    the fragments that are read have any.

    Args:
        corpus: what to sample.
        fragments: its plan.
        num_bytes: how much is wanted; a corpus that isn't larger is taken whole.
        left_out: counts what the corpus leaves out of the fragments that are read, by reason.
    """
    chosen = [fragments[i * len(fragments) // MAX_FRAGMENTS] for i in range(MAX_FRAGMENTS)] if len(fragments) > MAX_FRAGMENTS else fragments
    known_bytes = expected_bytes(corpus, [fragment for fragment in chosen if fragment.size_bytes is not None])
    share = num_bytes / known_bytes if known_bytes else 1.0
    left_out = Counter() if left_out is None else left_out
    first_left, nearest = 1.0, None
    num_taken = 0
    for fragment in chosen:
        budget = num_bytes // len(chosen)
        for document in corpus.read(fragment, left_out):
            position = _position(document.data)
            if budget > 0 if fragment.size_bytes is None else position < share:
                num_taken += 1
                yield document
            elif num_taken == 0 and position < first_left:
                first_left, nearest = position, document
            budget -= len(document.data)
            if fragment.size_bytes is None and budget <= 0:
                break
    if num_taken == 0 and nearest is not None:
        yield nearest


def expected_bytes(corpus: Corpus, fragments: Iterable[Fragment]) -> float | None:
    """About how many bytes the documents of `corpus` in `fragments` have; None where nobody knows."""
    sizes = [fragment.size_bytes for fragment in fragments]
    if None in sizes:
        return None
    share = 1.0 if corpus.split is None or corpus.split_by_spec else getattr(corpus.fractions, corpus.split)
    return share * sum(size for size in sizes if size is not None)


def _position(data: bytes) -> float:
    """A number in [0, 1) that the content fixes; independent of the one that chooses the split."""
    return int.from_bytes(hashlib.blake2b(data, digest_size=8, person=b"sample").digest(), "big") / 2**64
