import dataclasses
import functools

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from bltdata.nn import rotations
from bltdata.shards import round_entropies
from bltmodel.embeddings import ByteEmbedding
from bltmodel.generation import CachedDecoding, GenerationSettings, PatchesOfRule, buffers, cached, latent_cache
from bltmodel.generation.latent_cache import LatentCache
from bltmodel.generation.window_cache import WindowCache
from bltmodel.model import BLT
from tests.bltdata.rules import rules
from tests.bltdata.small import opinionated_model
from tests.bltmodel.documents import Patched, configs, random_document, tiny_config
from tests.bltmodel.generation.decodings import Scripted, random_rows, wrong_steps

EXAMPLES = settings(max_examples=max(settings().max_examples // 10, 1))
"""Fewer than usual: each decodes several documents."""

CONFIG = tiny_config(window=7, encoder_layers=2, encoder_cross_attention="all", decoder_layers=2, latent_layers=2)
PROMPTS = [40, 0, 3]


@functools.cache
def model() -> BLT:
    return BLT(CONFIG, seed=1)


def rows(steps: int = 12, seed: int = 0) -> list[Patched]:
    return random_rows(np.random.default_rng(seed), PROMPTS, steps)


@EXAMPLES
@given(
    config=configs(),
    lengths=st.lists(st.sampled_from([0, 1, 2, 9, 30]), min_size=1, max_size=3),
    chunk=st.sampled_from([3, 17, 2048]),
    seed=st.integers(0, 2**32 - 1),
    data=st.data(),
)
def test_every_step_equals_the_forward_pass(config, lengths, chunk, seed, data):
    steps = 6
    documents = random_rows(np.random.default_rng(seed), lengths, steps)
    orders = st.lists(st.integers(0, len(lengths) - 1), min_size=len(lengths), max_size=len(lengths))
    reorder = data.draw(st.dictionaries(st.integers(0, steps - 1), orders, max_size=2))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cached, "CHUNK_TOKENS", chunk)
        assert wrong_steps(BLT(config, seed=seed % 100), documents, lengths, reorder) == []


@EXAMPLES
@given(
    config=configs(),
    rule=rules(),
    quantile=st.floats(0.1, 0.9),
    prompts=st.lists(st.binary(max_size=30) | st.text("ab \n", max_size=30).map(str.encode), min_size=1, max_size=3),
    more=st.binary(min_size=1, max_size=4) | st.text("ab \n", min_size=1, max_size=6).map(str.encode),
    precision=st.sampled_from(["grid", "float16"]),
    reset_at_newline=st.booleans(),
    seed=st.integers(0, 99),
    data=st.data(),
)
def test_every_step_equals_the_forward_pass_by_any_rule(config, rule, quantile, prompts, more, precision, reset_at_newline, seed, data):
    scorer, whole = opinionated_model(seed, window=5), [prompt + more for prompt in prompts]
    exact = [*scorer.score(whole, reset_at_newline=reset_at_newline)]
    # Rounded either way, both would be right.
    for entropies in exact:
        assume(np.array_equal(round_entropies(entropies - 5e-6, precision), round_entropies(entropies + 5e-6, precision)))
    if rule.threshold:
        # One that some of the entropies pass, and others don't.
        rule = dataclasses.replace(rule, threshold=float(np.quantile(np.concatenate(exact), quantile)))
    documents = []
    for text, entropies in zip(whole, exact, strict=True):
        starts = np.zeros(len(text) + 1, dtype=bool)
        starts[rule.starts(text, round_entropies(entropies, precision) if rule.needs_entropies else None)] = True
        documents.append(Patched(text, starts))
    settings = GenerationSettings(
        rule=rule, entropy_model=scorer, max_new_bytes=1, entropy_precision=precision, reset_at_newline=reset_at_newline
    )
    orders = st.lists(st.integers(0, len(prompts) - 1), min_size=len(prompts), max_size=len(prompts))
    reorder = {data.draw(st.integers(0, len(more) - 1)): data.draw(orders)}
    found = wrong_steps(BLT(config, seed), documents, [*map(len, prompts)], reorder, PatchesOfRule(prompts, settings))
    assert found == []


def test_a_long_continuation_equals_the_forward_pass():
    # Several windows, and more patches than the caches have room for at first.
    documents = [random_document(np.random.default_rng(1), 150, probability) for probability in (0.9, 0.02)]
    assert sum(documents[0].starts) > 2 * latent_cache.FIRST_PATCHES - 10
    assert wrong_steps(BLT(tiny_config(window=70, latent_layers=1, decoder_layers=1), seed=2), documents, [2, 2]) == []


def test_long_prompts_are_read_in_chunks(monkeypatch):
    largest = []
    embed = ByteEmbedding.forward
    monkeypatch.setattr(ByteEmbedding, "forward", lambda self, ids, *rest: largest.append(ids.shape[1]) or embed(self, ids, *rest))
    monkeypatch.setattr(cached, "CHUNK_TOKENS", 16)
    (document,) = random_rows(np.random.default_rng(2), [100], 0)
    CachedDecoding(model(), [document.data], Scripted([document], [100]))
    # A chunk, and before it what its first n-grams reach back to.
    assert max(largest) == 16 + 8


def test_memory_is_bounded_by_the_windows_and_the_patches():
    (document,) = [random_document(np.random.default_rng(3), 300, 0.0)]
    document.starts[::10] = True
    decoding = CachedDecoding(model(), [b""], Scripted([document], [0]))
    sizes = []
    for value in document.data:
        decoding.append([value])
        sizes.append(decoding.size_bytes)
    # 30 patches fit into what there is from the beginning; bytes come and go with the patch that they are in.
    assert max(sizes[20:]) == max(sizes[20:40])
    width = CONFIG.local_dim * 4
    window = 2 * CONFIG.window * width * (CONFIG.encoder_layers + CONFIG.decoder_layers)
    latents = 2 * latent_cache.FIRST_PATCHES * CONFIG.latent_dim * 4 * CONFIG.latent_layers
    seen = 2 * CONFIG.queries_per_patch * width * CONFIG.decoder_layers
    assert max(sizes) <= window + latents + seen + CONFIG.encoder_layers * 10 * width


def test_what_is_kept_grows_by_doubling(monkeypatch):
    pads = []
    pad = buffers.functional.pad
    monkeypatch.setattr(buffers.functional, "pad", lambda buffer, widths: pads.append(len(buffer)) or pad(buffer, widths))
    cache = LatentCache(num_layers=1, head_dim=4, rope_theta=1e4, num_rows=1, device=torch.device("cpu"))
    for _ in range(1000):
        new = torch.zeros(1, 1, 1, 4)
        cache.extend([0], 1).look(0)(new, new, new)
    # 64 -> 1024 are four doublings, of keys and values each.
    assert len(pads) == 8


def test_bfloat16_is_close_and_keeps_half_the_memory():
    documents = rows()[:1]
    sizes, logits = [], []
    for precision in (torch.float32, torch.bfloat16):
        decoding = CachedDecoding(model(), [documents[0].data[:40]], Scripted(documents, [40]), precision)
        decoding.append([documents[0].data[40]])
        sizes.append(decoding.size_bytes)
        logits.append(decoding.logits_BV)
    assert sizes[1] < 0.6 * sizes[0]
    assert logits[1].dtype == torch.float32
    assert 1e-4 < (logits[0] - logits[1]).abs().max() < 0.3


def test_no_gradients_are_kept():
    (document,) = random_rows(np.random.default_rng(4), [2], 1)
    decoding = CachedDecoding(model(), [document.data[:2]], Scripted([document], [2]))
    decoding.append([document.data[2]])
    assert not decoding.logits_BV.requires_grad


# -------------------------------------------------------------------------------------------------------- planted faults


def off_by_one(window_change: int):
    return functools.partial(_other_window, window_change)


def _other_window(change: int, *, window: int, **rest) -> WindowCache:
    return WindowCache(window=window + change, **rest)


def unfinished(monkeypatch: pytest.MonkeyPatch) -> None:
    """The latent transformer reads a patch at each of its bytes."""
    monkeypatch.setattr(Scripted, "starts", property(lambda self: [True] * len(self._rows)))


def never_emptied(monkeypatch: pytest.MonkeyPatch) -> None:
    """A patch has the bytes of the one before as well."""
    complete = CachedDecoding._complete_patches

    def keeping(self: CachedDecoding, completed: list[int]) -> None:
        before = [[*each] for each in self._open]
        complete(self, completed)
        self._open = before

    monkeypatch.setattr(CachedDecoding, "_complete_patches", keeping)


def seen_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """The decoder sees the patch before the last complete one."""
    complete = CachedDecoding._complete_patches

    def late(self: CachedDecoding, completed: list[int]) -> None:
        before = self._complete
        complete(self, completed)
        self._complete = before

    monkeypatch.setattr(CachedDecoding, "_complete_patches", late)


def stale_rotations(positions: torch.Tensor, *rest) -> torch.Tensor:
    return rotations(positions if positions.shape[1] > 1 else positions - 1, *rest)


def stale_window_rotations(self: WindowCache, first: int, num_tokens: int = 1) -> torch.Tensor:
    return rotations(torch.arange(first, first + num_tokens) - int(num_tokens == 1), self._head_dim, self._rope_theta)


FAULTS = {
    "the latent of an unfinished patch": unfinished,
    "bytes of the patch before": never_emptied,
    "the patch before the complete one": seen_late,
    "a stale rotation of a patch": lambda patch: patch.setattr(latent_cache, "rotations", stale_rotations),
    "a stale rotation of a byte": lambda patch: patch.setattr(WindowCache, "rotations", stale_window_rotations),
    "a window too long": lambda patch: patch.setattr(cached, "WindowCache", off_by_one(1)),
    "a window too short": lambda patch: patch.setattr(cached, "WindowCache", off_by_one(-1)),
    "what stands before a shorter document": lambda patch: patch.setattr(WindowCache, "visible_at", lambda *_: None),
    "a token written to the wrong slot": lambda patch: patch.setattr(WindowCache, "slot", lambda self, position: 0),
    "n-grams a byte late": lambda patch: patch.setattr(
        ByteEmbedding, "of_last", lambda self, ids, of_last=ByteEmbedding.of_last: of_last(self, ids.roll(1, 1))
    ),
    "patches of the row before": lambda patch: patch.setattr(LatentCache, "select", lambda self, rows: None),
    "bytes of the row before": lambda patch: patch.setattr(WindowCache, "select", lambda self, rows: None),
}


def test_without_a_fault_nothing_is_wrong():
    assert wrong_steps(model(), rows(), PROMPTS, {4: [2, 0, 1]}) == []


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_planted_fault_is_found(fault, monkeypatch):
    fault(monkeypatch)
    assert wrong_steps(model(), rows(), PROMPTS, {4: [2, 0, 1]})
