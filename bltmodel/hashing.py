"""Which rows of the n-gram tables a token reads: rolling polynomial hashes of the tokens up to it.

The n-gram of a token is the token itself and the `n - 1` before it, so a row depends on nothing later. It stops at the
token's own document: what would stand before reads as id 0, as before the first token of a row.

Source: arXiv:2412.09871, section 3.2.1; primes and arithmetic of the released weights.
Letters: B rows, T tokens, G n-gram tables.
"""

import torch
from torch import Tensor
from torch.nn import functional

from bltdata.vocab import BOE_ID

PRIMES = (
    1_000_000_007, 5_915_587_277, 1_500_450_271, 3_267_000_013, 5_754_853_343, 4_093_082_899,
    9_576_890_767, 3_628_273_133, 2_860_486_313, 5_463_458_053, 3_367_900_313,
)  # fmt: skip
"""The base of each hash function."""


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


def _back(ids_BT: Tensor, visible_from_BT: Tensor, distance: int) -> Tensor:
    """The token `distance` places before each, or id 0 where that is before its document."""
    num_tokens = ids_BT.shape[1]
    moved = functional.pad(ids_BT, (distance, 0), value=BOE_ID)[:, :num_tokens]
    place_T = torch.arange(num_tokens, device=ids_BT.device) - distance
    return moved.masked_fill(place_T < visible_from_BT, BOE_ID)
