"""Statistics as plain values.

Each of `overall` and `by_source[NAME]` has these keys. A distribution is a table of `mean`, `std` (of the population: the sum of
squares over the number of values), `median`, `min`, `max` and the percentiles `p1 p5 p25 p75 p95 p99` (on a straight line between
the two neighbours, as NumPy has it). What no values have is `null`.
"""

import math
from typing import Any

from bltdata.stats import breakdown
from bltdata.stats.sources import DatasetStatistics, SourceStatistics
from bltdata.stats.summary import Summary

KEYS = {
    "documents": "documents",
    "total_bytes": "raw bytes; the ends of documents are no bytes",
    "patches": "patches",
    "entropy_model_bits_per_byte": "the entropy model's negative log-likelihood in bits, ends of documents included, over raw bytes; "
    "`null` too where a document's is unknown, as in converted datasets",
    "entropy_nats": "distribution of the stored entropies, one for each byte and each end of a document, in nats",
    "entropy_bits": "the same in bits",
    "impossible_entropies": "stored entropies outside of 0 ... ln 260, or no number at all: a sound dataset has none",
    "patch_length": "distribution of patch lengths, in bytes (the end of a document counts as one)",
    "most_common_patch_length": "the length that most patches have",
    "share_of_most_common_patch_length": "part of the patches that have it: 1 where a rule is a fixed stride in disguise",
    "boundaries_per_document": "distribution over documents of the patch starts inside them (patches less one)",
    "document_bytes": "distribution of document lengths, in raw bytes",
} | breakdown.KEYS
"""What each key means."""

PERCENTILES = (1, 5, 25, 75, 95, 99)


def to_mapping(statistics: DatasetStatistics) -> dict[str, Any]:
    """Statistics as values that JSON can hold: `overall` and `by_source`, each with the `KEYS`."""
    return {
        "overall": source_mapping(statistics.overall()),
        "by_source": {name: source_mapping(statistics.by_source[name]) for name in sorted(statistics.by_source)},
    }


def source_mapping(source: SourceStatistics) -> dict[str, Any]:
    """The `KEYS` of one source."""
    entropy, patch_length = source.entropy.summary(), source.patch_lengths.summary()
    in_nats = _distribution(entropy)
    most_common = patch_length.most_common
    return {
        "documents": source.num_documents,
        "total_bytes": source.num_bytes,
        "patches": source.num_patches,
        "entropy_model_bits_per_byte": source.bits_per_byte,
        "entropy_nats": in_nats,
        "entropy_bits": {name: None if value is None else value / math.log(2) for name, value in in_nats.items()},
        "impossible_entropies": source.entropy.num_impossible,
        "patch_length": _distribution(patch_length),
        "most_common_patch_length": None if most_common is None else int(most_common),
        "share_of_most_common_patch_length": None if most_common is None else patch_length.share_of(most_common),
        "boundaries_per_document": _distribution(source.boundaries.summary()),
        "document_bytes": _distribution(source.document_bytes.summary()),
    } | breakdown.breakdown(source)


def _distribution(summary: Summary) -> dict[str, float | None]:
    values = {"mean": summary.mean, "std": summary.std, "median": summary.median, "min": summary.minimum, "max": summary.maximum}
    return values | {f"p{percent}": summary.quantile(percent / 100) for percent in PERCENTILES}
