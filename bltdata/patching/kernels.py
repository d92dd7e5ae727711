"""The compiled loops: from flags, packed 64 to a word, to the lengths of patches.

They run over documents that lie end to end; `bounds` are the positions where documents start, and the total. Compiled on the first
call, kept on disk after that, and they let other threads run.
"""

from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import intrinsic


def _bit_operation(name: str) -> Any:
    """A machine instruction on a uint64 for which numba has no public name; of 0, the leading and the trailing zeros are 64."""

    def typed(typing_context: Any, word: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            of_zero = [] if name == "ctpop" else [context.get_constant(types.boolean, False)]
            return getattr(builder, name)(arguments[0], *of_zero)

        return types.uint64(types.uint64), generate

    return intrinsic(typed)


_trailing_zeros: Any = _bit_operation("cttz")
_leading_zeros: Any = _bit_operation("ctlz")
_ones: Any = _bit_operation("ctpop")

ROOM = 16
"""Lengths that `lengths_from_bits` may write beyond the last, and that nobody reads."""

MAX_FILLED = 64
"""The longest maximum length that `fill` can do."""


@njit(cache=True, nogil=True)
def count_bits(words: np.ndarray) -> int:
    """How many bits of uint64 words are set."""
    count = 0
    for index in range(words.size):
        count += int(_ones(words[index]))
    return count


@njit(cache=True, nogil=True)
def lengths_from_bits(words: np.ndarray, bounds: np.ndarray, lengths: np.ndarray, offsets: np.ndarray) -> int:
    """Lengths of the patches that start at the set bits.

    How many bits a word has is the only thing that the processor can guess wrong, so they are done eight at a time: what is done too
    often is overwritten.

    Args:
        words: uint64, bit `p % 64` of word `p // 64` says that a patch starts at position `p`; set at the start of every document.
        bounds: int64 [documents + 1], where documents start, and the total.
        lengths: uint32, room for all set bits and `ROOM` more. Written.
        offsets: int64 [documents + 1]. Written: where in `lengths` each document starts, and the number of patches.

    Returns:
        The number of patches.
    """
    one = np.uint64(1)
    count = 0
    last = np.int64(0)
    document = 0
    for index in range(words.size):
        word = words[index]
        base = index * 64
        if index == 0:
            word &= ~one  # position 0 ends no patch
        if word == 0:
            continue
        while document + 2 < bounds.size and bounds[document + 1] < base + 64:
            document += 1
            before = word & ((one << np.uint64(bounds[document] - base)) - one)
            offsets[document] = count + int(_ones(before)) + 1
        number = int(_ones(word))
        latest = base + 63 - np.int64(_leading_zeros(word))
        for slot in range(8):
            position = base + np.int64(_trailing_zeros(word))
            word &= word - one
            lengths[count + slot] = position - last
            last = position
        if number > 8:
            for slot in range(8, 16):
                position = base + np.int64(_trailing_zeros(word))
                word &= word - one
                lengths[count + slot] = position - last
                last = position
        slot = 16
        while word:
            position = base + np.int64(_trailing_zeros(word))
            word &= word - one
            lengths[count + slot] = position - last
            last = position
            slot += 1
        count += number
        last = latest
    lengths[count] = bounds[-1] - last
    offsets[0] = 0
    offsets[bounds.size - 1] = count + 1
    return count + 1


@njit(cache=True, nogil=True)
def fill(words: np.ndarray, total: int, max_length: int) -> None:
    """Set the bits that a maximum length of up to `MAX_FILLED` asks for, so that no patch is longer.

    A word at a time: a patch starts wherever one starts `max_length` before and none in between. Each turn of the inner loop splits
    every long patch of the word once more.

    Args:
        words: uint64, as above. Written.
        total: positions of all documents.
        max_length: positions, from 1 to `MAX_FILLED`.
    """
    one = np.uint64(1)
    previous = np.uint64(0)
    shift, back = np.uint64(max_length), np.uint64(64 - max_length)
    for index in range(words.size):
        word = words[index]
        # Where the last start of the word before is less than `max_length` before.
        reach = max_length - 1 - np.int64(_leading_zeros(previous))
        covered_before = (one << np.uint64(reach)) - one if reach > 0 else np.uint64(0)
        while True:
            covered = word
            width = 1
            while width < max_length:
                step = min(width, max_length - width)
                covered |= covered << np.uint64(step)
                width += step
            # A shift by a whole word is none to the processor.
            full = previous if max_length == 64 else (word << shift) | (previous >> back)
            full &= ~(covered | covered_before)
            if full == 0:
                break
            word |= full
        if (index + 1) * 64 > total:
            used = np.uint64(max(total - index * 64, 0))
            word &= (one << used) - one
        words[index] = word
        previous = word


@njit(cache=True, nogil=True)
def limited_lengths_from_bits(
    words: np.ndarray,
    forced: np.ndarray,
    bounds: np.ndarray,
    min_length: int,
    max_length: int,
    lengths: np.ndarray,
    offsets: np.ndarray,
) -> int:
    """The same, with every patch at least `min_length` and at most `max_length` long.

    In the order of the positions: a patch starts at a set bit if the last one is `min_length` long by then or the bit is set in
    `forced` too, and wherever the last one is `max_length` long.

    Args:
        words: as above.
        forced: uint64, as `words`: the starts that `min_length` can't hold back; set at the start of every document.
        bounds: as above.
        min_length: positions, at least 1.
        max_length: positions, at least `min_length`.
        lengths: uint32, room for all set bits and `positions // max_length` more. Written.
        offsets: as above. Written.

    Returns:
        The number of patches.
    """
    count = 0
    last = np.int64(0)
    document = 0
    next_document = bounds[1]
    for index in range(words.size):
        word = words[index]
        if index == 0:
            word &= ~np.uint64(1)
        while word:
            bit = word & (~word + np.uint64(1))
            position = index * 64 + np.int64(_trailing_zeros(word))
            word ^= bit
            while position - last > max_length:
                lengths[count] = max_length
                count += 1
                last += max_length
            if position - last >= min_length or forced[index] & bit:
                lengths[count] = position - last
                count += 1
                last = position
                if position == next_document:
                    document += 1
                    offsets[document] = count
                    next_document = bounds[document + 1]
    while bounds[-1] - last > max_length:
        lengths[count] = max_length
        count += 1
        last += max_length
    lengths[count] = bounds[-1] - last
    offsets[0] = 0
    offsets[bounds.size - 1] = count + 1
    return count + 1


@njit(cache=True, nogil=True)
def next_quantile(quantile: float, starts: bool, target_length: float, step: float, highest: float) -> float:
    """The running quantile after a position, given whether a patch started there; see `schemes.quantile_flags`."""
    moved = quantile - step / target_length
    if starts:
        moved += step
    return min(max(moved, -step), highest + step)


@njit(cache=True, nogil=True)
def quantile_starts(
    entropy_nats: np.ndarray,
    firsts: np.ndarray,
    quantile: np.ndarray,
    length: np.ndarray,
    initial: float,
    target_length: float,
    step: float,
    highest: float,
    min_length: int,
    max_length: int,
) -> np.ndarray:
    """Where patches start by the running quantile.

    Args:
        entropy_nats: float32 [positions].
        firsts: bool [positions], the first positions of documents.
        quantile: float64 [1], the quantile before these positions. Written: that after them.
        length: int64 [1], the length of the last patch before these positions. Written: that after them.
        initial: the quantile at the start of a document.
        target_length: as `highest` and `step`, see `next_quantile`.
        step: nats.
        highest: nats.
        min_length: positions, at least 1.
        max_length: positions, at least `min_length`.

    Returns:
        bool [positions].
    """
    starts = np.empty(entropy_nats.size, dtype=np.bool_)
    threshold, filled = quantile[0], length[0]
    for position in range(entropy_nats.size):
        if firsts[position]:
            threshold = initial
            start = True
        else:
            start = filled == max_length or (filled >= min_length and np.float64(entropy_nats[position]) > threshold)
        starts[position] = start
        filled = 1 if start else filled + 1
        threshold = next_quantile(threshold, start, target_length, step, highest)
    quantile[0], length[0] = threshold, filled
    return starts


@njit(cache=True, nogil=True)
def bytes_before(data: np.ndarray, bounds: np.ndarray, document: int, begin: int, end: int, bos_byte: int) -> np.ndarray:
    """The byte before each position of a block.

    Args:
        data: uint8 [bytes], the documents' bytes, end to end.
        bounds: as above.
        document: the one that `begin` belongs to.
        begin: the block's first position.
        end: the position after its last.
        bos_byte: what stands before a document.

    Returns:
        uint8 [end - begin].
    """
    before = np.empty(end - begin, dtype=np.uint8)
    position = begin
    while position < end:
        if position == bounds[document]:
            before[position - begin] = bos_byte
            position += 1
        until = min(bounds[document + 1], end)
        # Each document has a position more than bytes.
        source, target = data[position - document - 1 : until - document - 1], before[position - begin : until - begin]
        for index in range(target.size):  # many times as fast as the assignment of a slice
            target[index] = source[index]
        position = until
        document += 1
    return before


@njit(cache=True, nogil=True)
def word_end_flags(before: np.ndarray, high_plain: int) -> np.ndarray:
    """Where a plain byte is followed by one that isn't: the work of `schemes.space_flags`.

    In types of eight bits all along, so that the compiler does many bytes at once: a byte below a range wraps around to above it.

    Args:
        before: uint8 [positions], the byte before each position.
        high_plain: how many byte values from 0x80 up are plain, at most 128, besides ASCII letters and digits.

    Returns:
        bool [positions].
    """
    flags = np.empty(before.size, dtype=np.bool_)
    flags[:1] = False
    width = np.uint8(high_plain)
    for position in range(1, before.size):
        this, other = before[position], before[position - 1]
        this_plain = (
            (np.uint8(np.uint8(this | np.uint8(0x20)) - np.uint8(0x61)) < np.uint8(26))
            | (np.uint8(this - np.uint8(0x30)) < np.uint8(10))
            | (np.uint8(this - np.uint8(0x80)) < width)
        )
        other_plain = (
            (np.uint8(np.uint8(other | np.uint8(0x20)) - np.uint8(0x61)) < np.uint8(26))
            | (np.uint8(other - np.uint8(0x30)) < np.uint8(10))
            | (np.uint8(other - np.uint8(0x80)) < width)
        )
        flags[position] = other_plain & (not this_plain)
    return flags
