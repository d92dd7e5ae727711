import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bltmodel.hashing import PRIMES, SMALLEST_DIVISOR, _remainders, _rows_of_tensor, last_ngram_rows, ngram_rows

GOLDEN = json.loads((Path(__file__).parent.parent / "golden" / "hashes.json").read_text(encoding="utf-8"))["cases"]


def wrapped(value: int) -> int:
    """What 64 bits hold of an integer, as a signed number."""
    return (value + 2**63) % 2**64 - 2**63


def slow_row(tokens: list[int], first: int, place: int, size: int, prime: int, num_rows: int) -> int:
    ngram = [tokens[index] if index >= first else 0 for index in range(place - size + 1, place + 1)]
    return wrapped(sum(token * prime**power for power, token in enumerate(ngram))) % num_rows


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: f"function{case['function']}-size{case['group_size']}")
def test_golden(case):
    tokens, function = torch.tensor([case["token_ids"]]), case["function"]
    assert PRIMES[function] == case["prime"]
    rows = ngram_rows(tokens, torch.zeros_like(tokens), (case["group_size"],), function + 1, case["modulus"])
    assert (rows[0, :, function] - function * case["modulus"]).tolist() == case["expected"]


@given(
    documents=st.lists(st.lists(st.integers(0, 259), min_size=1, max_size=20), min_size=1, max_size=4),
    sizes=st.sets(st.integers(1, 10), min_size=1).map(sorted),
    num_functions=st.integers(1, len(PRIMES)),
    num_rows=st.integers(1, 600_000),
)
def test_equals_arithmetic_of_any_size_cut_to_64_bits(documents, sizes, num_functions, num_rows):
    tokens = [token for document in documents for token in document]
    first = [sum(map(len, documents[:index])) for index, document in enumerate(documents) for _ in document]
    rows = ngram_rows(torch.tensor([tokens]), torch.tensor([first]), tuple(sizes), num_functions, num_rows)
    tables = [(prime, size) for prime in PRIMES[:num_functions] for size in sizes]
    for place in range(len(tokens)):
        expected = [
            index * num_rows + slow_row(tokens, first[place], place, size, prime, num_rows) for index, (prime, size) in enumerate(tables)
        ]
        assert rows[0, place].tolist() == expected


def test_long_ngrams_wrap_around_64_bits_and_stay_in_the_table():
    tokens = torch.full((1, 8), 256)
    exact = sum(256 * PRIMES[0] ** power for power in range(8))
    assert exact > 2**63
    assert wrapped(exact) < 0
    rows = ngram_rows(tokens, torch.zeros_like(tokens), (8,), 1, 1000)
    assert rows[0, 7, 0] == wrapped(exact) % 1000
    assert rows.min() >= 0


def test_ngrams_that_collide_share_a_row():
    # Modulo 101, adding 101 to the oldest token (whose power is 0) changes nothing.
    tokens = torch.tensor([[5, 7, 9], [106, 7, 9]])
    rows = ngram_rows(tokens, torch.zeros_like(tokens), (3,), 1, 101)
    assert rows[0, 2] == rows[1, 2]
    assert rows[0, 0] != ngram_rows(tokens, torch.zeros_like(tokens), (3,), 1, 1009)[1, 0, 0]


def test_a_document_reads_the_same_wherever_it_stands():
    document = torch.randint(4, 260, (1, 12))
    alone = ngram_rows(document, torch.zeros_like(document), (3, 8), 2, 1009)
    row = torch.cat((torch.randint(4, 260, (1, 9)), document), dim=1)
    visible_from = torch.cat((torch.zeros(1, 9, dtype=torch.int64), torch.full((1, 12), 9)), dim=1)
    assert torch.equal(ngram_rows(row, visible_from, (3, 8), 2, 1009)[:, 9:], alone)


@given(
    seed=st.integers(0, 2**32),
    num_rows=st.one_of(st.integers(1, 5000), st.integers(1, 2**40)),
    sizes=st.sets(st.integers(1, 10), min_size=1).map(lambda sizes: tuple(sorted(sizes))),
    num_functions=st.integers(1, 3),
    num_tokens=st.integers(1, 40),
)
def test_loops_and_tensor_operations_give_the_same_rows(seed, num_rows, sizes, num_functions, num_tokens):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, 260, (3, num_tokens), generator=generator)
    begins = torch.rand(3, num_tokens, generator=generator) < 0.2
    visible_from = torch.where(begins, torch.arange(num_tokens), 0).cummax(1).values
    expected = _rows_of_tensor(ids, visible_from, sizes, num_functions, num_rows)
    assert torch.equal(ngram_rows(ids, visible_from, sizes, num_functions, num_rows), expected)


@given(hashes=st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1), divisor=st.integers(SMALLEST_DIVISOR - 2, 2**31))
def test_remainders_of_any_hash(hashes, divisor):
    # Multiples and their neighbours, where a quotient that is off shows first, and the largest hashes.
    hashes += [value // divisor * divisor + near for value in hashes for near in (0, 1) if value > divisor - 2**63]
    hashes += [2**63 - 1, -(2**63)]
    rows = np.empty(len(hashes), dtype=np.int64)
    _remainders(np.array(hashes, dtype=np.int64), divisor, 7, rows)
    assert rows.tolist() == [value % divisor + 7 for value in hashes]


@given(
    st.integers(0, 2**32),
    st.sets(st.integers(1, 9), min_size=1).map(lambda sizes: tuple(sorted(sizes))),
    st.integers(1, len(PRIMES)),
    st.integers(1, 600_000),
    st.integers(0, 8),
)
def test_the_last_token_reads_what_it_would_in_its_row(seed, sizes, num_functions, num_rows, before):
    tokens = torch.randint(260, (2, 9 + before), generator=torch.Generator().manual_seed(seed))
    # So many of the first are from before the document, where id 0 stands.
    tokens[:, :before] = 0
    expected = ngram_rows(tokens, torch.full_like(tokens, before), sizes, num_functions, num_rows)[:, -1]
    assert torch.equal(last_ngram_rows(tokens, sizes, num_functions, num_rows), expected)
