"""Byte vocabulary of the Byte Latent Transformer: 256 bytes after four special ids.

Byte `b` has id `b + 4`, so ids and released checkpoints agree (arXiv:2412.09871, released `blt` weights). Nothing is
decoded or normalised on the way in: any bytes are a document.
"""

import math

import numpy as np

BOE_ID = 0
"""Also the padding id, and what n-gram hashes read before the first token."""
BOS_ID = 1
EOS_ID = 2
BPE_ID = 3
"""Reserved: the delimiter of the reference's `bpe` mode."""
BYTE_OFFSET = 4
VOCAB_SIZE = 256 + BYTE_OFFSET

MAX_ENTROPY_NATS = math.log(VOCAB_SIZE)
"""No distribution over the 260 ids is more uncertain than this: 5.5607 nats."""


def encode(data: bytes, *, bos: bool = False, eos: bool = False) -> np.ndarray:
    """Ids of a document.

    Args:
        data: any bytes, `n` of them.
        bos: put BOS before them.
        eos: put EOS after them.

    Returns:
        int64 array `[bos + n + eos]`.

    >>> encode("Hi é".encode(), bos=True, eos=True).tolist()
    [1, 76, 109, 36, 199, 173, 2]
    """
    ids = np.empty(len(data) + bos + eos, dtype=np.int64)
    ids[bos : bos + len(data)] = np.frombuffer(data, dtype=np.uint8)
    ids[bos : bos + len(data)] += BYTE_OFFSET
    if bos:
        ids[0] = BOS_ID
    if eos:
        ids[-1] = EOS_ID
    return ids


def decode(ids: np.ndarray | list[int]) -> bytes:
    """Bytes of a sequence of ids; special ids vanish.

    >>> decode([1, 76, 109, 2])
    b'Hi'
    """
    array = np.asarray(ids, dtype=np.int64)
    return (array[array >= BYTE_OFFSET] - BYTE_OFFSET).astype(np.uint8).tobytes()
