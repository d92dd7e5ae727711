"""What a byte costs a model that knows nothing but the last two bytes: the least that an entropy model should beat.

The model learns while it codes, so what it needs to learn is paid for in the bits it reports, as a compressor's table would be. Each
order trusts its own counts as far as they go, and the next shorter one for the rest.

Source: the blend of orders is method C of Witten and Bell, "The zero-frequency problem", IEEE Transactions on Information Theory 37(4),
1991: what is new in a context has the weight of the number of distinct symbols seen in it.
"""

import math
from typing import Any

import numpy as np
from numba import njit

NUM_SYMBOLS = 257
"""Byte values, and the end of a document, which the entropy model pays for too."""
NUM_CONTEXTS = 1 << 16
_END = 256


class ContextModel:
    """Adaptive code lengths of documents, 68 MB however many there are.

    Before a document stand two newlines; nothing else of another document is in a context, but what was learned from it stays.

    >>> model = ContextModel()
    >>> model.add(b"abracadabra " * 50)
    >>> model.bits[2] < model.bits[1] < model.bits[0]
    True
    """

    def __init__(self) -> None:
        self._second = np.zeros((NUM_CONTEXTS, NUM_SYMBOLS), dtype=np.uint32)
        self._second_totals = np.zeros((NUM_CONTEXTS, 2), dtype=np.uint32)
        self._first = np.zeros((256, NUM_SYMBOLS), dtype=np.uint32)
        self._first_totals = np.zeros((256, 2), dtype=np.uint32)
        self._none = np.zeros(NUM_SYMBOLS, dtype=np.uint32)
        self._nats = np.zeros(3)

    def add(self, data: bytes | np.ndarray) -> None:
        """Code a document and its end, and learn from it."""
        array = np.frombuffer(data, dtype=np.uint8) if isinstance(data, bytes) else data
        _code(array, self._second, self._second_totals, self._first, self._first_totals, self._none, self._nats)

    @property
    def bits(self) -> tuple[float, float, float]:
        """Bits of all documents so far and of their ends, by a model of order 0, 1 and 2."""
        none, first, second = (self._nats / math.log(2)).tolist()
        return none, first, second


@njit(cache=True, nogil=True)
def _code(
    data: np.ndarray,
    second: np.ndarray,
    second_totals: np.ndarray,
    first: np.ndarray,
    first_totals: np.ndarray,
    none: np.ndarray,
    nats: np.ndarray,
) -> None:
    total = np.int64(0)
    for count in none:
        total += count
    before: Any = 10
    last: Any = 10
    for position in range(data.size + 1):
        symbol: Any = np.int64(data[position]) if position < data.size else np.int64(_END)
        context = before * 256 + last
        # Half a count for every symbol from the start (Krichevsky and Trofimov), so that nothing is impossible.
        p_none = (none[symbol] + 0.5) / (total + 0.5 * none.size)
        p_first = _blend(first[last, symbol], first_totals[last], p_none)
        p_second = _blend(second[context, symbol], second_totals[context], p_first)
        nats[0] -= math.log(p_none)
        nats[1] -= math.log(p_first)
        nats[2] -= math.log(p_second)
        total += 1
        none[symbol] += 1
        _count(first[last], first_totals[last], symbol)
        _count(second[context], second_totals[context], symbol)
        before, last = last, symbol


@njit(cache=True, nogil=True)
def _blend(count: int, totals: np.ndarray, shorter: float) -> float:
    seen, distinct = totals[0], totals[1]
    if seen == 0:
        return shorter
    return (count + distinct * shorter) / (seen + distinct)


@njit(cache=True, nogil=True)
def _count(counts: np.ndarray, totals: np.ndarray, symbol: int) -> None:
    if counts[symbol] == 0:
        totals[1] += 1
    totals[0] += 1
    counts[symbol] += 1
