"""What must hold of each row, whoever made it. A check returns what it was given, or raises one sentence that names the document."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from bltdata.errors import ShardError
from bltdata.shards.precision import TOLERANCE_NATS, check_stored
from bltdata.shards.schema import MAX_DOCUMENT_BYTES


def check_text(text: str, what: str) -> str:
    """A string that UTF-8 can hold; a file name in another encoding may not be one."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ShardError(f"{what} is not valid Unicode; give it another one.") from error
    return text


def check_size(num_bytes: int, where: str) -> int:
    """A length that a row can hold."""
    if num_bytes > MAX_DOCUMENT_BYTES:
        raise ShardError(f"{where} has {num_bytes} bytes; a row can hold {MAX_DOCUMENT_BYTES}, so leave it out with max_bytes or cut it.")
    return num_bytes


def check_entropies(entropy_nats: np.ndarray, num_bytes: int, where: str) -> np.ndarray:
    """One possible float16 for each of `num_bytes` bytes and one for the end."""
    expected = (num_bytes + 1,)
    if entropy_nats.dtype != np.float16 or entropy_nats.shape != expected:
        raise ShardError(
            f"{where} of {num_bytes} bytes has entropies of type {entropy_nats.dtype} and shape {entropy_nats.shape}; "
            f"they must be float16 and {expected}, so pass what round_entropies returns."
        )
    check_stored(entropy_nats, where)
    return entropy_nats


def check_patch_lengths(lengths: np.ndarray, num_bytes: int, where: str) -> np.ndarray:
    """Integers of at least 1 that sum to `num_bytes + 1`."""
    positions = num_bytes + 1
    if lengths.ndim != 1 or lengths.size == 0 or lengths.dtype.kind not in "iu":
        raise ShardError(f"{where} has patch lengths of type {lengths.dtype} and shape {lengths.shape}; they must be a list of integers.")
    for length in (lengths.min(), lengths.max()):
        if not 1 <= length <= positions:
            raise ShardError(f"{where} has a patch of length {length}; it must lie in 1 ... {positions}, so check the patch rule.")
    total = int(lengths.sum(dtype=np.int64))
    if total != positions:
        raise ShardError(
            f"{where} has patch lengths that sum to {total}; they must sum to {positions}, its bytes and one, so check the patch rule."
        )
    return lengths


def check_all_patch_lengths(lengths: np.ndarray, offsets: np.ndarray, num_bytes: np.ndarray, num_patches: np.ndarray) -> None:
    """The same of many documents: `lengths[offsets[i] : offsets[i + 1]]` are the `num_patches[i]` of document `i`."""
    # An empty list would take the next one's first value for its sum, so the order of these matters.
    is_whole = np.array_equal(np.diff(offsets), num_patches) and (num_patches >= 1).all() and (lengths >= 1).all()
    if not is_whole or (len(num_bytes) and (np.add.reduceat(lengths, offsets[:-1], dtype=np.int64) != num_bytes + 1).any()):
        raise ShardError("Patch lengths of a row group don't sum to the bytes of their documents and one; check the patch rule.")


def has_nll(entropy_model: Mapping[str, Any]) -> bool:
    """Whether the documents of a dataset have a likelihood, by what it says of its entropy model: a known one gave them one."""
    return entropy_model.get("fingerprint") is not None


def check_nll(nll_nats: float | None, where: str) -> float:
    """A finite sum of surprises; rounding may have brought that of a certain document slightly below zero, which becomes zero.

    None, where nobody knows it, is stored as NaN; a NaN that comes by itself is a mistake.
    """
    if nll_nats is None:
        return math.nan
    # A NaN fails the comparison too.
    if not -TOLERANCE_NATS <= nll_nats < math.inf:
        raise ShardError(
            f"{where} has a negative log-likelihood of {nll_nats} nats; it must be finite and at least 0, so check the entropy model."
        )
    return max(float(nll_nats), 0.0)
