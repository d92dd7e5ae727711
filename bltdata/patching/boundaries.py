"""From a rule to patch starts and lengths, for one document or for many that lie end to end.

Three steps, none of which copies the entropies: flags, in blocks that stay in the processor's cache; the flags packed to bits; one
pass over the bits, where an empty word costs nothing. Beside the result this takes an eighth of a byte for a byte of data (a quarter
with a minimum length), and a few blocks.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bltdata.errors import PatchingError
from bltdata.patching import inputs, kernels
from bltdata.patching.quantile import NO_LIMIT, QuantileState
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
    offsets = inputs.as_offsets(data_offsets)
    if names is not None and len(names) != offsets.size - 1:
        raise PatchingError(f"There are {len(names)} names for {offsets.size - 1} documents; give one for each, or none.")
    if offsets.size == 1:
        return np.empty(0, dtype=np.uint32), np.zeros(1, dtype=np.int64)
    bounds = offsets + np.arange(offsets.size)

    array = marks = None
    if reads_bytes(rule):
        if data is None:
            raise PatchingError(f"The rule {rule.scheme!r} reads the bytes of a document, and there are none; give data.")
        array = inputs.as_bytes(data)
        if array.size != offsets[-1]:
            raise PatchingError(f"The documents' offsets end at {offsets[-1]}, and there are {array.size} bytes; they must be equal.")
        marks = _marks(array, offsets, rule)
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
    return _cut(_Documents(bounds, array, entropies, marks), rule, names)


@dataclass(frozen=True, slots=True)
class _Documents:
    """What is known at the positions of documents that lie end to end; None where the rule doesn't read it."""

    bounds: np.ndarray
    data: np.ndarray | None
    entropy_nats: np.ndarray | None
    marks: np.ndarray | None

    def positions(self, begin: int, end: int) -> Positions:
        """The positions from `begin` up to `end`; bytes are copied, to where each is before its position."""
        before = None
        if self.data is not None:
            document = int(np.searchsorted(self.bounds, begin, side="right")) - 1
            before = kernels.bytes_before(self.data, self.bounds, document, begin, end, BOS_BYTE)
        entropies = None if self.entropy_nats is None else self.entropy_nats[begin:end]
        return Positions(end - begin, before, entropies, None if self.marks is None else self.marks[begin:end])


def _marks(data: np.ndarray, offsets: np.ndarray, rule: RuleSettings) -> np.ndarray | None:
    """What a rule that needs whole documents says of each; None for all others."""
    marks_of = SCHEMES[rule.scheme].marks
    if marks_of is None:
        return None
    return np.concatenate([marks_of(data[begin:end].tobytes(), rule) for begin, end in itertools.pairwise(offsets)])


def _cut(documents: _Documents, rule: RuleSettings, names: Sequence[str] | None) -> tuple[np.ndarray, np.ndarray]:
    bounds, count = documents.bounds, int(documents.bounds[-1])
    if int(np.diff(bounds).max()) - 1 > _MAX_DOCUMENT:
        raise PatchingError(f"A document has more than {_MAX_DOCUMENT} bytes; cut it before it is patched.")
    candidates = np.zeros(count // 64 + 1, dtype=np.uint64)
    flags_of = SCHEMES[rule.scheme].flags
    # No document is as long as the greatest limits, and the compiled loops count in 64 bits.
    min_length, max_length = min(rule.min_length, NO_LIMIT), longest_patch(rule)
    max_length = None if max_length is None or max_length >= NO_LIMIT else max_length
    quantile = QuantileState.of(rule) if flags_of is None else None
    # Starts that a minimum length can't hold back are kept apart, unless the running quantile sees to the lengths itself.
    forced = np.zeros_like(candidates) if min_length > 1 and quantile is None else None
    for begin in range(0, count, _BLOCK):
        end, lag = min(begin + _BLOCK, count), min(begin, 1)
        positions = documents.positions(begin - lag, end)
        block = positions.block(lag, positions.count)
        if documents.entropy_nats is not None and not inputs.are_valid(documents.entropy_nats[begin:end]):
            raise _entropy_error(documents.entropy_nats, begin, bounds, names)
        firsts = bounds[np.searchsorted(bounds, begin) : np.searchsorted(bounds, end)] - begin
        if quantile is not None:
            assert block.entropy_nats is not None
            must = _forced_flags(block, firsts, rule)
            may = quantile.starts(block.entropy_nats, must, min_length, max_length or NO_LIMIT)
        else:
            assert flags_of is not None
            may = flags_of(positions, rule)[lag:]
            if forced is not None or rule.reset_at_newline:
                must = _forced_flags(block, firsts, rule)
                may |= must
                if forced is not None:
                    _store(must, forced, begin)
            else:
                may[firsts] = True
        _store(may, candidates, begin)
    if quantile is not None:
        max_length = None  # kept already, as its threshold depends on the starts that lengths force
    return _lengths_of_bits(candidates, forced, bounds, min_length, max_length)


def _forced_flags(block: Positions, firsts: np.ndarray, rule: RuleSettings) -> np.ndarray:
    """Where a patch starts whatever the rule says: at the first positions of documents, and after newlines that reset it."""
    if rule.reset_at_newline:
        assert block.before is not None
        flags = newline_flags(block.before)
    else:
        flags = np.zeros(block.count, dtype=bool)
    flags[firsts] = True
    return flags


def _store(flags: np.ndarray, words: np.ndarray, begin: int) -> None:
    """Pack flags into the bits of `words` from position `begin`, a multiple of 8."""
    packed = np.packbits(flags, bitorder="little")
    words.view(np.uint8)[begin // 8 : begin // 8 + packed.size] = packed


def _lengths_of_bits(
    candidates: np.ndarray, forced: np.ndarray | None, bounds: np.ndarray, min_length: int, max_length: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """Lengths and their offsets from packed flags, which are used up; no minimum length where nothing is forced. See `kernels`."""
    offsets = np.empty(bounds.size, dtype=np.int64)
    total = int(bounds[-1])
    longest = total if max_length is None else min(max_length, total)
    if forced is None and max_length is not None and longest <= kernels.MAX_FILLED:
        kernels.fill(candidates, total, longest)
        longest = total
    num_candidates = kernels.count_bits(candidates)
    if forced is None and longest == total:
        lengths = np.empty(num_candidates + kernels.ROOM, dtype=np.uint32)
        count = kernels.lengths_from_bits(candidates, bounds, lengths, offsets)
    else:
        lengths = np.empty(num_candidates + total // longest, dtype=np.uint32)
        count = kernels.limited_lengths_from_bits(
            candidates, candidates if forced is None else forced, bounds, min_length, longest, lengths, offsets
        )
    return lengths[:count], offsets


def _entropy_error(entropy_nats: np.ndarray, begin: int, bounds: np.ndarray, names: Sequence[str] | None) -> PatchingError:
    where = begin + inputs.first_invalid(entropy_nats[begin:])
    document = int(np.searchsorted(bounds, where, side="right")) - 1
    name = names[document] if names is not None else f"document {document}"
    return inputs.entropy_error(entropy_nats[where], where - int(bounds[document]), name)
