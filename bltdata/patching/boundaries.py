"""From a rule to patch starts and lengths, for one document or for many that lie end to end.

Three steps, none of which copies the entropies: flags, in blocks that stay in the processor's cache; the flags packed to bits; one
pass over the bits, where an empty word costs nothing. Beside the result this takes an eighth of a byte for a byte of data, and one
byte more for a rule that reads bytes.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from bltdata.errors import PatchingError
from bltdata.patching import inputs, kernels
from bltdata.patching.schemes import BOS_BYTE, SCHEMES, Positions, longest_patch, newline_flags, reads_bytes
from bltdata.patching.settings import RuleSettings

_BLOCK = 1 << 18
"""Positions that are flagged at a time, a multiple of 64: few enough for a cache of 1 MB, many enough to make the calls cheap."""

_MAX_DOCUMENT = 2**32 - 2
"""Bytes of a document: its lengths are uint32."""


def patch_lengths_of_documents(
    data: Any, data_offsets: Any, entropy_nats: Any, rule: RuleSettings, *, names: Sequence[str] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Patch lengths of documents that lie end to end, as the columns of a shard do: fast for many short ones too.

    Args:
        data: the bytes of all documents; None if the rule reads none.
        data_offsets: int64 [documents + 1], where each document starts in `data`; the first is 0, the last the number of bytes.
        entropy_nats: float16 or float32, the `n + 1` entropies of each document, one document after the other; None if the rule
            reads none.
        rule: the `PatchRule`.
        names: what errors call each document; by default its number.

    Returns:
        The lengths, uint32, one document after the other, those of a document of n bytes summing to n + 1; and int64
        [documents + 1], where each document starts in them.

    Raises:
        PatchingError: the sizes don't fit together, or an entropy is NaN, infinite, negative or above ln 260.
    """
    offsets = np.ascontiguousarray(data_offsets, dtype=np.int64)
    if offsets.ndim != 1 or offsets.size == 0 or offsets[0] != 0 or (np.diff(offsets) < 0).any():
        raise PatchingError("The offsets of the documents must be a flat array that starts with 0 and never falls.")
    if offsets.size == 1:
        return np.empty(0, dtype=np.uint32), np.zeros(1, dtype=np.int64)
    bounds = offsets + np.arange(offsets.size)

    before = None
    if reads_bytes(rule):
        if data is None:
            raise PatchingError(f"The rule {rule.scheme!r} reads the bytes of a document, and there are none; give data.")
        array = inputs.as_bytes(data)
        if array.size != offsets[-1]:
            raise PatchingError(f"The documents' offsets end at {offsets[-1]}, and there are {array.size} bytes; they must be equal.")
        before = kernels.bytes_before(array, bounds, BOS_BYTE)
    entropies = None
    if SCHEMES[rule.scheme].needs_entropies:
        if entropy_nats is None:
            raise PatchingError(f"The rule {rule.scheme!r} reads entropies, and there are none; give entropy_nats.")
        entropies = inputs.as_entropies(entropy_nats)
        if entropies.size != bounds[-1]:
            raise PatchingError(
                f"There are {entropies.size} entropies for the {offsets[-1]} bytes of {offsets.size - 1} documents; "
                f"give {bounds[-1]}: one for each byte, and one for the end of each document."
            )
    return _cut(Positions(int(bounds[-1]), before, entropies), bounds, rule, names)


def _cut(positions: Positions, bounds: np.ndarray, rule: RuleSettings, names: Sequence[str] | None) -> tuple[np.ndarray, np.ndarray]:
    if int(np.diff(bounds).max()) - 1 > _MAX_DOCUMENT:
        raise PatchingError(f"A document has more than {_MAX_DOCUMENT} bytes; cut it before it is patched.")
    candidates = np.zeros(positions.count // 64 + 1, dtype=np.uint64)
    forced = np.zeros_like(candidates)
    num_candidates = 0
    for begin in range(0, positions.count, _BLOCK):
        end = min(begin + _BLOCK, positions.count)
        if positions.entropy_nats is not None and not inputs.are_valid(positions.entropy_nats[begin:end]):
            raise _entropy_error(positions.entropy_nats, begin, bounds, names)
        must = _forced_flags(positions, begin, end, bounds, rule)
        lag = min(begin, 1)
        may = SCHEMES[rule.scheme].flags(positions.block(begin - lag, end), rule)[lag:]
        may |= must
        num_candidates += int(np.count_nonzero(may))
        _store(may, candidates, begin)
        if rule.min_length > 1:
            _store(must, forced, begin)
    return _lengths_of_bits(candidates, num_candidates, forced, bounds, rule.min_length, longest_patch(rule))


def _forced_flags(positions: Positions, begin: int, end: int, bounds: np.ndarray, rule: RuleSettings) -> np.ndarray:
    """Where a patch starts whatever the rule says: at the start of each document, and after newlines that reset it."""
    if rule.reset_at_newline:
        assert positions.before is not None
        flags = newline_flags(positions.before[begin:end])
    else:
        flags = np.zeros(end - begin, dtype=bool)
    flags[bounds[np.searchsorted(bounds, begin) : np.searchsorted(bounds, end)] - begin] = True
    return flags


def _store(flags: np.ndarray, words: np.ndarray, begin: int) -> None:
    """Pack flags into the bits of `words` from position `begin`, a multiple of 8."""
    packed = np.packbits(flags, bitorder="little")
    words.view(np.uint8)[begin // 8 : begin // 8 + packed.size] = packed


def _lengths_of_bits(
    candidates: np.ndarray, num_candidates: int, forced: np.ndarray, bounds: np.ndarray, min_length: int, max_length: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """Lengths and their offsets from packed flags; see `kernels` for the arguments."""
    offsets = np.empty(bounds.size, dtype=np.int64)
    if min_length == 1 and max_length is None:
        lengths = np.empty(num_candidates, dtype=np.uint32)
        count = kernels.lengths_from_bits(candidates, bounds, lengths, offsets)
    else:
        longest = int(bounds[-1]) if max_length is None else min(max_length, int(bounds[-1]))
        lengths = np.empty(num_candidates + int(bounds[-1]) // longest, dtype=np.uint32)
        count = kernels.limited_lengths_from_bits(candidates, forced, bounds, min_length, longest, lengths, offsets)
    return lengths[:count], offsets


def _entropy_error(entropy_nats: np.ndarray, begin: int, bounds: np.ndarray, names: Sequence[str] | None) -> PatchingError:
    where = begin + inputs.first_invalid(entropy_nats[begin:])
    document = int(np.searchsorted(bounds, where, side="right")) - 1
    name = names[document] if names is not None else f"document {document}"
    return inputs.entropy_error(entropy_nats[where], where - int(bounds[document]), name)
