"""The compiled loops: from flags, packed 64 to a word, to the lengths of patches.

They run over documents that lie end to end; `bounds` are the positions where documents start, and the total. Compiled on the first
call, kept on disk after that, and they let other threads run.
"""

from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import intrinsic


def _typed_trailing_zeros(typing_context: Any, word: Any) -> Any:
    """How many zero bits a uint64 that isn't 0 ends with: one machine instruction, for which numba has no public name."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], context.get_constant(types.boolean, True))

    return types.uint64(types.uint64), generate


_trailing_zeros: Any = intrinsic(_typed_trailing_zeros)


@njit(cache=True, nogil=True)
def lengths_from_bits(words: np.ndarray, bounds: np.ndarray, lengths: np.ndarray, offsets: np.ndarray) -> int:
    """Lengths of the patches that start at the set bits.

    Args:
        words: uint64, bit `p % 64` of word `p // 64` says that a patch starts at position `p`; set at the start of every document.
        bounds: int64 [documents + 1], where documents start, and the total.
        lengths: uint32, room for all set bits. Written.
        offsets: int64 [documents + 1]. Written: where in `lengths` each document starts, and the number of patches.

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
            word &= ~np.uint64(1)  # position 0 ends no patch
        while word:
            position = index * 64 + np.int64(_trailing_zeros(word))
            word &= word - np.uint64(1)
            lengths[count] = position - last
            count += 1
            last = position
            if position == next_document:
                document += 1
                offsets[document] = count
                next_document = bounds[document + 1]
    lengths[count] = bounds[-1] - last
    offsets[0] = 0
    offsets[bounds.size - 1] = count + 1
    return count + 1


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
def bytes_before(data: np.ndarray, bounds: np.ndarray, bos_byte: int) -> np.ndarray:
    """The byte before each position.

    Args:
        data: uint8 [bytes], the documents' bytes, end to end.
        bounds: as above.
        bos_byte: what stands before a document.

    Returns:
        uint8 [positions].
    """
    before = np.empty(bounds[-1], dtype=np.uint8)
    for document in range(bounds.size - 1):
        begin, end = bounds[document], bounds[document + 1]
        before[begin] = bos_byte
        before[begin + 1 : end] = data[begin - document : end - 1 - document]  # each document has a position more than bytes
    return before
