"""Statistics by what stands at a position and by where it is, as plain values."""

from typing import Any

from bltdata.stats.byte_classes import CLASSES
from bltdata.stats.sources import SourceStatistics

KEYS = {
    "patches_per_byte": "patches over raw bytes: what a byte costs the model that works on patches",
    "words": "runs of bytes that aren't ASCII white space",
    "patches_per_word": "patches over words",
    "share_of_shortest_patches": "part of the patches that have the smallest length that occurs (`patch_length.min`)",
    "share_of_longest_patches": "part of the patches that have the largest length that occurs (`patch_length.max`)",
    "cost_over_entropy": "the entropy model's negative log-likelihood over the sum of its entropies, of documents whose likelihood is "
    "known: 1 where entropies can be believed, more where the model is too sure",
    "start_separation": "probability that a patch start has a higher entropy than a position inside a patch (to 1/256 nat, ties count "
    "half; first positions of documents left out): 1/2 where starts have nothing to do with entropies",
    "by_class": "by the class of what stands at a position: `bytes` (for `end`: documents), `share` of all positions, entropy in nats "
    "(`mean_entropy_nats`, `median_entropy_nats`, `p95_entropy_nats`, to 1/256 nat), `start_rate` (share of them that start a patch) and "
    "`patch_length` (mean of the patches that begin with one)",
    "by_position": "by distance from the start of the document: bin `from` up to before `to`, `positions`, `mean_entropy_nats`, "
    "`start_rate`",
    "by_tenth": "mean entropy in nats in each tenth of the documents that have at least 1,256 bytes, after their first 256",
    "byte_counts": "how often each byte value occurs: 256 numbers",
    "start_rate_after": "share of each byte value's occurrences after which a patch starts: 256 numbers, `null` where one doesn't occur",
    "seams": "around multiples of `window` positions: mean entropy of the 64 positions before them and the 4 after them, in nats",
    "documents_by_entropy": "documents in bins of their mean entropy: `documents`, their positions (`count`), `mean_entropy_nats`, and "
    "`mean_nll_nats`, which they cost",
}
"""What each key means."""


def breakdown(source: SourceStatistics) -> dict[str, Any]:
    """The `KEYS` of one source."""
    positions, lengths = source.positions, source.patch_lengths.summary()
    shortest, longest = lengths.minimum, lengths.maximum
    return {
        "patches_per_byte": _ratio(source.num_patches, source.num_bytes),
        "words": positions.num_words,
        "patches_per_word": _ratio(source.num_patches, positions.num_words),
        "share_of_shortest_patches": None if shortest is None else lengths.share_of(shortest),
        "share_of_longest_patches": None if longest is None else lengths.share_of(longest),
        "cost_over_entropy": source.expectation.ratio,
        "start_separation": positions.start_separation,
        "by_class": {name: found for index, name in enumerate(CLASSES) if (found := _class(source, index)) is not None},
        "by_position": positions.bins(),
        "by_tenth": positions.parts(),
        "byte_counts": positions.byte_counts.tolist(),
        "start_rate_after": positions.start_rate_after(),
        "seams": positions.seams(),
        "documents_by_entropy": source.expectation.bins(),
    }


def _class(source: SourceStatistics, index: int) -> dict[str, Any] | None:
    """One class of bytes; None if there are none of it."""
    inside, starts, firsts = source.positions.by_class[index].sum(axis=1).tolist()
    total = inside + starts + firsts
    if not total:
        return None
    entropy = source.positions.class_entropy(index)
    return {
        "bytes": total,
        "share": total / (source.num_bytes + source.num_documents),
        "mean_entropy_nats": entropy.mean,
        "median_entropy_nats": entropy.median,
        "p95_entropy_nats": entropy.quantile(0.95),
        "start_rate": (starts + firsts) / total,
        "patch_length": _ratio(int(source.positions.patch_positions[index]), starts + firsts),
    }


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None
