"""Which rows of the n-gram tables a token reads: rolling polynomial hashes of the tokens up to it.

The n-gram of a token is the token itself and the `n - 1` before it, so a row depends on nothing later. It stops at the
token's own document: what would stand before reads as id 0, as before the first token of a row.

Source: arXiv:2412.09871, section 3.2.1; primes and arithmetic of the released weights.
Letters: B rows, T tokens, G n-gram tables.
"""

import functools

import numpy as np
import torch
from numba import njit
from torch import Tensor
from torch.nn import functional

from bltdata.vocab import BOE_ID

PRIMES = (
    1_000_000_007, 5_915_587_277, 1_500_450_271, 3_267_000_013, 5_754_853_343, 4_093_082_899,
    9_576_890_767, 3_628_273_133, 2_860_486_313, 5_463_458_053, 3_367_900_313,
)  # fmt: skip
"""The base of each hash function."""

SMALLEST_DIVISOR = 4096
"""From here on a product with the reciprocal in float64, three roundings of 2**-53, is off by less than 1 for any 64-bit hash."""


def ngram_rows(ids_BT: Tensor, visible_from_BT: Tensor, sizes: tuple[int, ...], num_functions: int, num_rows: int) -> Tensor:
    """Rows that each token reads in the n-gram tables, which stand end to end: by function, then by size.

    The hash of an n-gram `t_0 ... t_(n-1)` is the sum of `t_j * prime ** j` in wrapping 64-bit arithmetic; its table's row
    is that modulo `num_rows`, never negative.

    Args:
        ids_BT: int64 `[B, T]`.
        visible_from_BT: int64 `[B, T]`, where in the row each token's document begins.
        sizes: n-gram lengths, increasing.
        num_functions: hash functions.
        num_rows: rows of each table.

    Returns:
        int64 `[B, T, G]`, where `G = num_functions * len(sizes)`.

    >>> ngram_rows(torch.tensor([[1, 79]]), torch.tensor([[0, 0]]), (4,), 1, 50_002).flatten().tolist()
    [30497, 36184]
    """
    arguments = (sizes, num_functions, num_rows)
    if ids_BT.device.type == "cpu" and not torch.compiler.is_compiling():
        return torch.from_numpy(_rows_of_array(ids_BT.numpy(), visible_from_BT.numpy(), *arguments))
    return _rows_of_tensor(ids_BT, visible_from_BT, *arguments)


def last_ngram_rows(ids_BN: Tensor, sizes: tuple[int, ...], num_functions: int, num_rows: int) -> Tensor:
    """What `ngram_rows` gives for the last of a few tokens, at a fraction of its cost: for documents that grow token by token.

    Args:
        ids_BN: int64 `[B, N]`, the token and those before it, at least `max(sizes)` in all; id 0 where the document hasn't begun.
        sizes: n-gram lengths, increasing.
        num_functions: hash functions.
        num_rows: rows of each table.

    Returns:
        int64 `[B, G]`.

    >>> last_ngram_rows(torch.tensor([[0, 0, 1, 79]]), (4,), 1, 50_002).tolist()
    [[36184]]
    """
    factors_GN, first_row_G = _factors(sizes, num_functions, num_rows, ids_BN.device)
    ids_BN = ids_BN[:, ids_BN.shape[1] - factors_GN.shape[1] :]
    return (ids_BN[:, None] * factors_GN).sum(-1).remainder(num_rows) + first_row_G


@functools.lru_cache(maxsize=16)
def _factors(sizes: tuple[int, ...], num_functions: int, num_rows: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """What each of the last tokens is multiplied with in the hash of each table, and where the tables begin."""
    longest = max(sizes)
    factors = []
    for prime in PRIMES[:num_functions]:
        powers = torch.tensor(prime).expand(longest).cumprod(0).roll(1).index_fill(0, torch.tensor(0), 1)
        # The oldest token of an n-gram has power 0.
        factors += [functional.pad(powers[:size], (longest - size, 0)) for size in sizes]
    return torch.stack(factors).to(device), torch.arange(len(factors), device=device) * num_rows


def _rows_of_tensor(ids_BT: Tensor, visible_from_BT: Tensor, sizes: tuple[int, ...], num_functions: int, num_rows: int) -> Tensor:
    """`ngram_rows` in tensor operations, for GPUs and compilers."""
    history = [_back(ids_BT, visible_from_BT, distance) for distance in range(max(sizes))]
    rows: list[Tensor] = []
    for prime in PRIMES[:num_functions]:
        # hash(t_0 ... t_n) = t_0 + prime * hash(t_1 ... t_n), so each size costs one multiplication.
        hash_BT = torch.zeros_like(ids_BT)
        for size, token_BT in enumerate(history, start=1):
            hash_BT = hash_BT * prime + token_BT
            if size in sizes:
                rows.append(hash_BT.remainder(num_rows) + len(rows) * num_rows)
    return torch.stack(rows, dim=-1)


def _rows_of_array(
    ids_BT: np.ndarray, visible_from_BT: np.ndarray, sizes: tuple[int, ...], num_functions: int, num_rows: int
) -> np.ndarray:
    """`ngram_rows` on a CPU, ten times as fast as in tensor operations."""
    is_size = np.zeros(max(sizes), dtype=np.bool_)
    is_size[np.array(sizes) - 1] = True
    rows_BTG = np.empty((*ids_BT.shape, num_functions * len(sizes)), dtype=np.int64)
    _hash_rows(ids_BT, visible_from_BT, is_size, np.array(PRIMES[:num_functions]), num_rows, rows_BTG)
    return rows_BTG


# Loops that are each so plain that the compiler takes eight positions at a time: it is why they stand alone and count from 0.


@njit(cache=True, nogil=True, error_model="numpy")
def _hash_rows(ids, visible_from, is_size, primes, num_rows, rows):  # type: ignore[no-untyped-def]
    num_tokens = ids.shape[1]
    hashes = np.empty(num_tokens, dtype=np.int64)
    of_tables = np.empty((rows.shape[2], num_tokens), dtype=np.int64)
    for b in range(len(ids)):
        table = 0
        for prime in primes:
            hashes[:] = ids[b]
            for n in range(len(is_size)):
                if n > 0:
                    _multiply(hashes[:n], prime)
                    _append(hashes[n:], prime, ids[b, : num_tokens - n], visible_from[b, n:])
                if is_size[n]:
                    _remainders(hashes, num_rows, table * num_rows, of_tables[table])
                    table += 1
        _transpose(of_tables, rows[b])


@njit(cache=True, nogil=True)
def _multiply(hashes, prime):  # type: ignore[no-untyped-def]
    for t in range(len(hashes)):
        hashes[t] *= prime


@njit(cache=True, nogil=True)
def _append(hashes, prime, tokens, visible_from):  # type: ignore[no-untyped-def]
    """Go on with the token at `t` where it is in the document of the hash at `t`, with id 0 elsewhere."""
    for t in range(len(hashes)):
        token = tokens[t]
        hashes[t] = hashes[t] * prime + (token if t >= visible_from[t] else np.int64(0))


@njit(cache=True, nogil=True, error_model="numpy")
def _remainders(hashes, divisor, offset, rows):  # type: ignore[no-untyped-def]
    if divisor < SMALLEST_DIVISOR:
        for t in range(len(hashes)):
            rows[t] = hashes[t] % divisor + offset
        return
    # Processors divide 64-bit integers slowly and one by one. By the reciprocal, in float64, a quotient is off by less than 1,
    # so a remainder (which wraps around exactly) by one divisor at most.
    reciprocal = 1.0 / divisor
    for t in range(len(hashes)):
        remainder = hashes[t] - np.int64(np.floor(np.float64(hashes[t]) * reciprocal)) * divisor
        remainder += divisor if remainder < 0 else np.int64(0)
        remainder -= divisor if remainder >= divisor else np.int64(0)
        rows[t] = remainder + offset


@njit(cache=True, nogil=True)
def _transpose(of_tables, rows):  # type: ignore[no-untyped-def]
    for t in range(of_tables.shape[1]):
        for table in range(of_tables.shape[0]):
            rows[t, table] = of_tables[table, t]


def _back(ids_BT: Tensor, visible_from_BT: Tensor, distance: int) -> Tensor:
    """The token `distance` places before each, or id 0 where that is before its document."""
    num_tokens = ids_BT.shape[1]
    moved = functional.pad(ids_BT, (distance, 0), value=BOE_ID)[:, :num_tokens]
    place_T = torch.arange(num_tokens, device=ids_BT.device) - distance
    return moved.masked_fill(place_T < visible_from_BT, BOE_ID)
