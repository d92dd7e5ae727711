"""The compiled loops over every position of every document.

Documents lie end to end as they do in a row group. Position `bounds[r] + i` is byte `i` of row `r`, or its end; since a document has a
position more than bytes, that byte is `data[bounds[r] + i - r]`. Compiled on the first call, kept on disk after that.
"""

import numpy as np
from numba import njit

from bltdata.stats.byte_classes import AFTER_SEAM, BEFORE_SEAM, COLD_POSITIONS, END_CLASS, MIN_PART_POSITIONS, NUM_PARTS, SEAM_STEP

INSIDE, START, FIRST = 0, 1, 2
"""What a position is: inside a patch, the start of one, or the first of a document, which starts one whatever its entropy."""


@njit(cache=True, nogil=True)
def mark_starts(lengths: np.ndarray, patch_offsets: np.ndarray, bounds: np.ndarray, kinds: np.ndarray) -> int:
    """Write what each position is.

    Args:
        lengths: uint32 `[patches]`.
        patch_offsets: int64 `[rows + 1]`, where the patches of each row begin in `lengths`.
        bounds: int64 `[rows + 1]`.
        kinds: uint8 `[positions]`, zeros. Written.

    Returns:
        The first row whose patches aren't as long as the row, or -1.
    """
    for row in range(bounds.size - 1):
        position = bounds[row]
        end = bounds[row + 1]
        for patch in range(patch_offsets[row], patch_offsets[row + 1]):
            length = np.int64(lengths[patch])
            if length == 0 or length > end - position:
                return row
            kinds[position] = START
            position += length
        if position != end:
            return row
        kinds[bounds[row]] = FIRST
    return -1


@njit(cache=True, nogil=True)
def count_positions(
    rows: np.ndarray,
    data: np.ndarray,
    bounds: np.ndarray,
    codes: np.ndarray,
    kinds: np.ndarray,
    class_of: np.ndarray,
    grid_of: np.ndarray,
    edges: np.ndarray,
    code_counts: np.ndarray,
    by_class: np.ndarray,
    byte_counts: np.ndarray,
    starts_after: np.ndarray,
    bin_starts: np.ndarray,
    bin_counts: np.ndarray,
) -> int:
    """Count what stands at each position of some rows.

    Args:
        rows: int64, the rows to count.
        data: uint8 `[bytes]`.
        bounds: int64 `[rows + 1]`.
        codes: uint16 `[positions]`, bits of the float16 entropies.
        kinds: uint8 `[positions]`, from `mark_starts`.
        class_of: uint8 `[256]`.
        grid_of: uint16 `[65536]`, the bin of each code in the last axis of `by_class`.
        edges: int64 `[bins + 1]`, where bins of positions begin.
        code_counts: int64 `[65536]`. Added to.
        by_class: int64 `[classes, kinds, grid]`. Added to.
        byte_counts: int64 `[256]`, how often each byte value occurs. Added to.
        starts_after: int64 `[256]`, how often a patch starts right after each. Added to.
        bin_starts: int64 `[bins]`, starts in each bin. Added to.
        bin_counts: int64 `[bins]`, positions in each. Added to.

    Returns:
        The number of words: runs of bytes that aren't white space.
    """
    words = 0
    for row in rows:
        begin, end = bounds[row], bounds[row + 1]
        for bin_ in range(edges.size - 1):
            first = begin + edges[bin_]
            if first >= end:
                break
            last = min(begin + edges[bin_ + 1], end)
            starts = 0
            for position in range(first, last):
                starts += kinds[position] != INSIDE
            bin_starts[bin_] += starts
            bin_counts[bin_] += last - first
        in_word = False
        for position in range(begin, end - 1):
            byte = data[position - row]
            code = codes[position]
            code_counts[code] += 1
            by_class[class_of[byte], kinds[position], grid_of[code]] += 1
            byte_counts[byte] += 1
            starts_after[byte] += kinds[position + 1] != INSIDE
            is_space = byte == 32 or 9 <= byte <= 13
            words += not (is_space or in_word)
            in_word = not is_space
        code = codes[end - 1]
        code_counts[code] += 1
        by_class[END_CLASS, kinds[end - 1], grid_of[code]] += 1
    return words


@njit(cache=True, nogil=True)
def sum_entropies(
    rows: np.ndarray,
    bounds: np.ndarray,
    codes: np.ndarray,
    units_of: np.ndarray,
    edges: np.ndarray,
    bin_units: np.ndarray,
    part_units: np.ndarray,
    part_counts: np.ndarray,
    seam_units: np.ndarray,
    seam_counts: np.ndarray,
    row_units: np.ndarray,
) -> int:
    """Add up entropies by where they are, in whole units, so that sums are the same in any order.

    Args:
        rows: int64, the rows to add up.
        bounds: int64 `[rows + 1]`.
        codes: uint16 `[positions]`, bits of the float16 entropies.
        units_of: int64 `[65536]`, what each code is worth; 0 where it is no entropy.
        edges: int64 `[bins + 1]`, where bins of positions begin.
        bin_units: int64 `[bins]`. Added to.
        part_units: int64 `[NUM_PARTS]`, by tenths of documents, after what is cold. Added to.
        part_counts: int64 `[NUM_PARTS]`. Added to.
        seam_units: int64 `[NUM_SEAM_STEPS, BEFORE_SEAM + AFTER_SEAM]`, around each multiple of `SEAM_STEP`. Added to.
        seam_counts: int64, as `seam_units`. Added to.
        row_units: int64 `[rows given]`, the sum over each. Written.

    Returns:
        How many documents are long enough for `part_units`.
    """
    num_long = 0
    for index in range(rows.size):
        begin, end = bounds[rows[index]], bounds[rows[index] + 1]
        total = np.int64(0)
        for bin_ in range(edges.size - 1):
            first = begin + edges[bin_]
            if first >= end:
                break
            last = min(begin + edges[bin_ + 1], end)
            units = np.int64(0)
            for position in range(first, last):
                units += units_of[codes[position]]
            bin_units[bin_] += units
            total += units
        row_units[index] = total
        room = end - 1 - begin - COLD_POSITIONS
        if room >= NUM_PARTS * MIN_PART_POSITIONS:
            num_long += 1
            for part in range(NUM_PARTS):
                first = begin + COLD_POSITIONS + room * part // NUM_PARTS
                last = begin + COLD_POSITIONS + room * (part + 1) // NUM_PARTS
                units = np.int64(0)
                for position in range(first, last):
                    units += units_of[codes[position]]
                part_units[part] += units
                part_counts[part] += last - first
        # From the second step on: what precedes the first one is cold.
        step = 2
        while begin + step * SEAM_STEP < end - 1:
            middle = begin + step * SEAM_STEP
            slot = step % seam_units.shape[0]
            first = middle - BEFORE_SEAM
            last = min(middle + AFTER_SEAM, end - 1)
            for position in range(first, last):
                seam_units[slot, position - first] += units_of[codes[position]]
                seam_counts[slot, position - first] += 1
            step += 1
    return num_long


@njit(cache=True, nogil=True)
def count_patches(
    rows: np.ndarray,
    lengths: np.ndarray,
    patch_offsets: np.ndarray,
    data: np.ndarray,
    bounds: np.ndarray,
    class_of: np.ndarray,
    dense: np.ndarray,
    class_positions: np.ndarray,
) -> int:
    """Count the patches of some rows by length, and their positions by the class of their first byte.

    Args:
        rows: int64, the rows to count.
        lengths: uint32 `[patches]`.
        patch_offsets: int64 `[rows + 1]`.
        data: uint8 `[bytes]`.
        bounds: int64 `[rows + 1]`.
        class_of: uint8 `[256]`.
        dense: int64, how many patches have each length below its size. Added to.
        class_positions: int64 `[classes]`. Added to.

    Returns:
        How many patches are too long for `dense`.
    """
    num_large = 0
    for row in rows:
        position, end = bounds[row], bounds[row + 1]
        for patch in range(patch_offsets[row], patch_offsets[row + 1]):
            length = np.int64(lengths[patch])
            if length < dense.size:
                dense[length] += 1
            else:
                num_large += 1
            kind = class_of[data[position - row]] if position < end - 1 else END_CLASS
            class_positions[kind] += length
            position += length
    return num_large
