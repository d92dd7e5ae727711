import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from unittest import mock

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from bltdata.nn import attention
from bltdata.nn.attention import AttentionMask, attend, banded_mask, dense_mask

Pairs = set[tuple[int, int]]


def pairs_that_should_see(visible_from: list[int], window: int | None, num_past: int) -> Pairs:
    """(query, key), both counted from the first past key, written out one by one."""
    pairs = set()
    for i, first in enumerate(visible_from):
        query = num_past + i
        for key in range(query + 1):
            if key >= first and (window is None or query - key < window):
                pairs.add((query, key))
    return pairs


def pairs_that_see(mask: AttentionMask, row: int = 0) -> Pairs:
    """(query, key) of a mask, from its definition: block n of a band begins with the key `window` before its first query."""
    num_blocks, block = mask.visible.shape[1], mask.visible.shape[3]
    pairs = set()
    for n in range(num_blocks):
        for c, s in mask.visible[row, n, 0].nonzero().tolist():
            query = n * block + c
            key = s if mask.window is None else n * block + s - mask.window + mask.num_past
            if query < mask.num_queries:
                pairs.add((mask.num_past + query, key))
    return pairs


def reference(q: Tensor, k: Tensor, v: Tensor, visible_from: Tensor, window: int | None) -> Tensor:
    """Every score, in float64, with a mask from the pairs."""
    num_past = k.shape[2] - q.shape[2]
    scores = q.double() @ k.double().transpose(-1, -2) / q.shape[-1] ** 0.5
    visible = torch.zeros(q.shape[0], 1, q.shape[2], k.shape[2], dtype=torch.bool)
    for row, first in enumerate(visible_from.tolist()):
        for query, key in pairs_that_should_see(first, window, num_past):
            visible[row, 0, query - num_past, key] = True
    return scores.masked_fill(~visible, -torch.inf).softmax(-1) @ v.double()


@st.composite
def cases(draw: st.DrawFn) -> tuple[Tensor, int | None, int, int]:
    """`visible_from` of rows of documents, window, past keys, and the queries of a block."""
    num_rows, num_queries = draw(st.integers(1, 2)), draw(st.integers(1, 40))
    window = draw(st.none() | st.integers(1, 50))
    num_past = draw(st.integers(0, 60))
    rows = []
    for _ in range(num_rows):
        # Documents begin at these keys; a query belongs to the last that begins at or before it.
        begins = sorted({0, *draw(st.lists(st.integers(0, num_past + num_queries - 1), max_size=6))})
        rows.append([max(begin for begin in begins if begin <= num_past + i) for i in range(num_queries)])
    return torch.tensor(rows), window, num_past, draw(st.sampled_from([1, 3, 8, 256]))


def make_mask(visible_from: Tensor, window: int | None, num_past: int) -> AttentionMask:
    return dense_mask(visible_from, num_past) if window is None else banded_mask(visible_from, window, num_past)


def random_inputs(num_rows: int, num_queries: int, num_past: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = (num_queries, num_past + num_queries, num_past + num_queries)
    q, k, v = (torch.randn(num_rows, 2, length, 4, generator=generator) for length in shapes)
    return q, k, v


@contextlib.contextmanager
def in_blocks(block: int, is_blockwise: bool) -> Iterator[None]:
    """Blocks of so many queries at most; with gradients, one after the other or all at once."""
    with (
        mock.patch.object(attention, "_block_size", lambda window, device: min(window, block)),
        mock.patch.object(attention, "PLAIN_BLOCK", block),
        mock.patch.object(attention, "SMALLEST_BLOCKWISE", 0 if is_blockwise else 1 << 60),
    ):
        yield


@given(cases())
def test_a_mask_shows_the_window_of_the_document_and_nothing_else(case):
    visible_from, window, num_past, block = case
    with mock.patch.object(attention, "_block_size", lambda window, device: min(window, block)):
        mask = make_mask(visible_from, window, num_past)
    for row, first in enumerate(visible_from.tolist()):
        assert pairs_that_see(mask, row) == pairs_that_should_see(first, window, num_past)
    assert torch.equal(mask.bias == 0, mask.visible)
    assert torch.equal(mask.bias == -torch.inf, ~mask.visible)
    # A softmax over nothing would be NaN: padded queries have a key too.
    assert mask.visible.any(-1).all()


@given(cases(), st.booleans())
def test_all_kernels_are_the_plain_computation(case, is_blockwise):
    visible_from, window, num_past, block = case
    q, k, v = random_inputs(*visible_from.shape, num_past)
    expected = reference(q, k, v, visible_from, window)
    with in_blocks(block, is_blockwise):
        mask = make_mask(visible_from, window, num_past)
        fused = attend(q, k, v, mask)
        plain = attend(q.requires_grad_(), k, v, mask)
    assert fused.shape == plain.shape == q.shape
    assert fused.grad_fn is None
    assert plain.grad_fn is not None
    assert (plain.grad_fn.name() == "_BlockwiseBackward") == is_blockwise
    torch.testing.assert_close(fused.double(), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(plain.detach().double(), expected, atol=1e-5, rtol=0)


@given(cases(), st.booleans())
def test_gradients_are_those_of_the_plain_computation(case, is_blockwise):
    visible_from, window, num_past, block = case
    inputs = [x.requires_grad_() for x in random_inputs(*visible_from.shape, num_past)]
    weights = torch.randn(inputs[0].shape, generator=torch.Generator().manual_seed(1))
    expected = torch.autograd.grad((reference(*inputs, visible_from, window) * weights).sum(), inputs)
    with in_blocks(block, is_blockwise):
        out = attend(*inputs, make_mask(visible_from, window, num_past))
    found = torch.autograd.grad((out * weights).sum(), inputs)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("num_queries", "window", "num_past"), [(600, 300, 0), (513, 256, 256), (257, 40, 40), (300, 1000, 7)])
def test_blocks_of_the_real_size(num_queries, window, num_past):
    visible_from = torch.tensor([[0] * (num_queries // 3) + [num_past + num_queries // 3] * (num_queries - num_queries // 3)])
    q, k, v = random_inputs(1, num_queries, num_past)
    found = attend(q, k, v, banded_mask(visible_from, window, num_past))
    torch.testing.assert_close(found.double(), reference(q, k, v, visible_from, window), atol=1e-5, rtol=0)


def test_a_case_by_hand():
    # Two documents of 3 and 2 tokens, a window of 2: token 2 no longer sees token 0, token 3 sees itself only.
    mask = banded_mask(torch.tensor([[0, 0, 0, 3, 3]]), window=2)
    assert pairs_that_see(mask) == {(0, 0), (1, 0), (1, 1), (2, 1), (2, 2), (3, 3), (4, 3), (4, 4)}
    values = torch.arange(5.0).view(1, 1, 5, 1)
    alike = torch.zeros(1, 1, 5, 1)
    assert attend(alike, alike, values, mask).flatten().tolist() == [0, 0.5, 1.5, 3, 3.5]


@pytest.mark.parametrize("make", [dense_mask, lambda first: banded_mask(first, 3)])
def test_nothing_a_caller_says_makes_a_key_after_the_query_visible(make):
    mask = make(torch.tensor([[5, 0, 2, 100, 4]]))
    assert all(key <= query for query, key in pairs_that_see(mask))
    # Who sees nothing by what the caller says sees itself.
    assert {(0, 0), (3, 3)} <= pairs_that_see(mask)
    assert attend(*random_inputs(1, 5, 0), mask).isfinite().all()


def test_keys_that_were_never_there_are_not_seen():
    # A document that began before the past: the band still has room for keys, which are padding.
    q, k, v = random_inputs(1, 4, 2)
    expected = reference(q, k, v, torch.zeros(1, 4, dtype=torch.int64), 8)
    found = attend(q, k, v, banded_mask(torch.full((1, 4), -3), window=8, num_past=2))
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=0)


def test_keys_before_the_window_make_no_difference():
    q, k, v = random_inputs(1, 5, 12)
    visible_from = torch.zeros(1, 5, dtype=torch.int64)
    found = attend(q, k, v, banded_mask(visible_from, window=4, num_past=12))
    # Counted from the first past key that is left.
    shorter = attend(q, k[:, :, 9:], v[:, :, 9:], banded_mask(visible_from, window=4, num_past=3))
    torch.testing.assert_close(found, shorter, atol=1e-6, rtol=0)


def changed_queries(run: Callable[[Tensor, Tensor, Tensor], Tensor], num_queries: int, key: int) -> list[int]:
    """Queries whose result differs when one key and its value change."""
    q, k, v = random_inputs(1, num_queries, 0)
    before = run(q, k, v)
    k, v = k.clone(), v.clone()
    k[:, :, key] += 3
    v[:, :, key] -= 5
    return (run(q, k, v) - before).abs().amax(dim=(0, 1, 3)).gt(1e-6).nonzero()[:, 0].tolist()


@pytest.mark.parametrize("window", [None, 3, 7, 100])
@pytest.mark.parametrize(("with_gradients", "is_blockwise"), [(False, False), (True, False), (True, True)])
def test_no_query_is_changed_by_what_it_must_not_see(window, with_gradients, is_blockwise):
    # Documents at 0 to 9 and 10 to 19.
    visible_from = torch.tensor([[0] * 10 + [10] * 10])
    reach = window or 20

    def run(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return attend(q.requires_grad_(with_gradients), k, v, make_mask(visible_from, window, 0)).detach()

    with in_blocks(6, is_blockwise):
        for key in range(20):
            end = 10 if key < 10 else 20
            assert changed_queries(run, 20, key) == list(range(key, min(key + reach, end)))


@pytest.mark.parametrize("is_blockwise", [False, True])
@pytest.mark.parametrize("make", [dense_mask, lambda first: banded_mask(first, 6)])
def test_the_checks_find_a_planted_leak(make, is_blockwise):
    mask = make(torch.zeros(1, 12, dtype=torch.int64))
    # Each query also sees the key after it.
    visible = mask.visible | mask.visible.roll(1, -1)
    leaking = dataclasses.replace(mask, visible=visible, bias=torch.zeros_like(mask.bias).masked_fill_(~visible, -torch.inf))
    assert any(key > query for query, key in pairs_that_see(leaking))
    with mock.patch.object(attention, "SMALLEST_BLOCKWISE", 0):
        changed = changed_queries(lambda q, k, v: attend(q.requires_grad_(is_blockwise), k, v, leaking).detach(), 12, key=5)
    # In a block of queries keys end with the last of them, so there a leak begins in the block: key 5 is in that of query 4.
    assert min(changed) == 4


def test_large_blocks_are_taken_one_after_the_other():
    for num_rows, is_blockwise in ((1, False), (8, True)):
        # A block has 64 queries and 128 keys before them, for 2 heads.
        assert (num_rows * 2 * 64 * 192 >= attention.SMALLEST_BLOCKWISE) == is_blockwise
        q, k, v = (x.requires_grad_() for x in random_inputs(num_rows, 200, 0))
        visible_from = torch.zeros(num_rows, 200, dtype=torch.int64)
        out = attend(q, k, v, banded_mask(visible_from, 128))
        assert (out.grad_fn.name() == "_BlockwiseBackward") == is_blockwise
        with torch.no_grad():
            assert attend(q, k, v, banded_mask(visible_from, 128)).grad_fn is None


def test_one_block_after_the_other_in_half_precision():
    inputs = [x.bfloat16().requires_grad_() for x in random_inputs(2, 20, 4)]
    visible_from = torch.tensor([[0] * 20, [0] * 9 + [11] * 11])
    weights = torch.randn(inputs[0].shape, generator=torch.Generator().manual_seed(1))
    expected = torch.autograd.grad((reference(*inputs, visible_from, 6) * weights).sum(), inputs)
    with in_blocks(4, is_blockwise=True), torch.autocast("cpu", torch.bfloat16):
        out = attend(*inputs, banded_mask(visible_from, 6, 4))
    assert out.dtype == torch.bfloat16
    for ours, theirs in zip(torch.autograd.grad((out * weights).sum(), inputs), expected, strict=True):
        torch.testing.assert_close(ours.double(), theirs.double(), atol=6e-2, rtol=0)


@pytest.mark.parametrize("kernel", [attention._fused, attention._plain])
def test_both_kernels_in_half_precision(kernel):
    q, k, v = (x.bfloat16() for x in random_inputs(1, 20, 0))
    visible_from = torch.zeros(1, 20, dtype=torch.int64)
    with mock.patch.object(attention, "_attend_blocks", kernel):
        found = attend(q, k, v, banded_mask(visible_from, 6))
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.double(), reference(q, k, v, visible_from, 6), atol=3e-2, rtol=0)


@pytest.mark.parametrize(
    ("dtype", "with_gradients", "kernel", "block"),
    [(torch.float32, False, "_fused", 32), (torch.float32, True, "_plain", 100), (torch.bfloat16, False, "_plain", 100)],
)
def test_the_kernel_that_wins_on_a_cpu_gets_blocks_of_its_size(dtype, with_gradients, kernel, block):
    q, k, v = (x.to(dtype).requires_grad_(with_gradients) for x in random_inputs(1, 300, 0))
    visible_from = torch.zeros(1, 300, dtype=torch.int64)
    with torch.set_grad_enabled(with_gradients), torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
        mask = banded_mask(visible_from, 200)
        with mock.patch.object(attention, kernel, wraps=getattr(attention, kernel)) as called:
            attend(q, k, v, mask)
    called.assert_called_once()
    assert mask.visible.shape[3] == block


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 5), st.sampled_from([torch.float32, torch.bfloat16]))
def test_the_gradient_of_overlapping_blocks_has_the_bits_of_unfold(window, block, num_blocks, dtype):
    generator = torch.Generator().manual_seed(window)
    padded = torch.randn(2, 3, window + num_blocks * block, 4, generator=generator).to(dtype).requires_grad_()
    expected = padded.unfold(2, window + block, block).permute(0, 2, 1, 4, 3)
    blocks = attention._Overlapping.apply(padded, window + block, block)
    assert torch.equal(blocks, expected)
    weights = torch.randn(blocks.shape, generator=generator).to(dtype)
    gradients = [torch.autograd.grad(each, padded, weights)[0] for each in (blocks, expected)]
    assert torch.equal(*gradients)
