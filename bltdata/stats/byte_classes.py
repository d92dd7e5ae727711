"""The places that statistics tell apart: classes of bytes, distances from the start of a document, multiples of a window."""

import numpy as np

CLASSES = ("letter", "digit", "space", "punctuation", "UTF-8 lead", "UTF-8 continuation", "control", "other", "end")
"""What may stand at a position. `space` is ASCII white space, `other` what no UTF-8 has, `end` the end of a document."""

END_CLASS = len(CLASSES) - 1
NUM_CLASSES = len(CLASSES)

WHITE_SPACE = b"\t\n\v\f\r "
"""Between words; everything else belongs to one."""

COLD_POSITIONS = 256
"""The first positions of a document, where any model knows little yet: drift is looked for after them."""
NUM_PARTS = 10
"""Equal parts of the rest of each document, among which drift is looked for."""
MIN_PART_POSITIONS = 100
"""Documents whose parts would be shorter tell nothing of drift."""

SEAM_STEP = 256
"""Windows are multiples of this."""
NUM_SEAM_STEPS = 64
"""The largest window that is looked for is this many steps: 16,384 positions."""
BEFORE_SEAM = 64
"""Positions just before a multiple that those after it are compared with."""
AFTER_SEAM = 4
"""Positions after a multiple. Few, as a model that lost its context finds its way again soon, and more than one, as what frames a window
(a BOS, say) shifts it by one or two."""


def class_table() -> np.ndarray:
    r"""Class of each byte value: uint8 `[256]`, indices into `CLASSES`.

    >>> [CLASSES[class_table()[byte]] for byte in b"a7 ,\xc3\xa9\x00\xff"]
    ['letter', 'digit', 'space', 'punctuation', 'UTF-8 lead', 'UTF-8 continuation', 'control', 'other']
    """
    return np.array([CLASSES.index(_class_name(byte)) for byte in range(256)], dtype=np.uint8)


def _class_name(byte: int) -> str:
    character = chr(byte)
    if byte >= 0x80:
        # 0xC0 and 0xC1 would begin a character that has a shorter form, those from 0xF5 on one beyond Unicode.
        return "UTF-8 continuation" if byte < 0xC0 else "UTF-8 lead" if 0xC2 <= byte <= 0xF4 else "other"
    if byte in WHITE_SPACE:
        return "space"
    if byte < 0x20 or byte == 0x7F:
        return "control"
    return "letter" if character.isalpha() else "digit" if character.isdigit() else "punctuation"


def position_edges() -> np.ndarray:
    """Where bins of positions begin, two for each doubling: int64; the last is beyond every document and begins none.

    >>> position_edges()[:10].tolist()
    [0, 1, 2, 3, 4, 6, 8, 11, 16, 23]
    """
    powers = np.round(2.0 ** (np.arange(1, 64) / 2)).astype(np.int64)
    return np.unique(np.concatenate([[0, 1], powers]))


def seam_windows() -> list[int]:
    """The windows whose seams are looked for, in positions.

    >>> seam_windows()
    [256, 512, 1024, 2048, 4096, 8192, 16384]
    """
    return [SEAM_STEP << power for power in range(NUM_SEAM_STEPS.bit_length())]
