import re
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from bltdata.entropy import EntropyModel, scoring
from bltdata.errors import ConfigError, PatchingError
from bltdata.patching import PatchRule
from bltdata.shards import round_entropies
from bltdata.vocab import BYTE_OFFSET, EOS_ID, VOCAB_SIZE
from bltmodel.generation import CachedDecoding, GenerationSettings, NextByteModel, PatchesOfRule, PlainDecoding, as_text, new_bytes
from bltmodel.generation import generate as generate_all
from bltmodel.model import BLT
from bltmodel.sampling_config import SamplingConfig
from tests.bltmodel.datasets import entropy_model, opinionated_blt, texts

GREEDY = SamplingConfig(temperature=0.0)
RULES = {
    "threshold": PatchRule(threshold=4.55),
    "relative": PatchRule(relative_threshold=0.05),
    "both": PatchRule(threshold=4.4, relative_threshold=0.02),
    "lengths": PatchRule(threshold=4.5, min_length=2, max_length=4),
    "newline": PatchRule(threshold=4.6, reset_at_newline=True),
    "fixed": PatchRule(scheme="fixed", stride=3),
    "space": PatchRule(scheme="space"),
    "byte": PatchRule(scheme="byte"),
}
PROMPTS = [b"", b"a", b"\n\n\n", b"def f(x):\n    return x\n", b"\xff\x00\x80\xc3", "h\u00e9llo w\u00f6rld".encode()]
LONG = b"".join(texts(4, longest=60))
"""Longer than the windows of both models."""


@pytest.fixture(autouse=True)
def nothing_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Generation changes no weights. Documents are scored in short chunks here, since each is scored by itself."""
    monkeypatch.setattr(scoring, "CHUNK_TOKENS", 64)
    before = entropy_model().fingerprint
    yield
    assert entropy_model().fingerprint == before


def entropies_of(data: bytes, model: EntropyModel, precision: str = "grid") -> np.ndarray:
    """As a shard would store them."""
    return round_entropies(next(iter(model.score([data]))), precision)


def naive(
    model: BLT, prompt: bytes, scorer: EntropyModel, rule: PatchRule, max_new_bytes: int, *, precision: str = "grid", may_end: bool = True
) -> bytes:
    """Greedy continuation in which each step computes everything anew from the bytes so far."""
    data = prompt
    for _ in range(max_new_bytes):
        lengths = rule.lengths(data, entropies_of(data, scorer, precision))
        logits = model.logits(data, lengths)[len(data)].tolist()
        allowed = [*([EOS_ID] if may_end else []), *range(BYTE_OFFSET, VOCAB_SIZE)]
        best = max(allowed, key=lambda each: logits[each])
        if best == EOS_ID:
            break
        data += bytes([best - BYTE_OFFSET])
    return data[len(prompt) :]


def generate(model: NextByteModel, prompt: bytes, *, sampling: SamplingConfig | None = None, **settings) -> bytes:
    """The continuation of one prompt."""
    (new,) = generate_all(model, [prompt], GenerationSettings(sampling=sampling or SamplingConfig(), **settings))
    return new


class Spy:
    """Passes on to a model and remembers what it was asked."""

    def __init__(self, model: NextByteModel) -> None:
        self.model = model
        self.asked: list[tuple[bytes, list[int]]] = []

    def logits(self, data: bytes, patch_lengths: np.ndarray) -> Tensor:
        self.asked.append((data, np.asarray(patch_lengths).tolist()))
        return self.model.logits(data, patch_lengths)


class Dictation:
    """Predicts a text, and then its end."""

    def __init__(self, text: bytes) -> None:
        self.text = text

    def logits(self, data: bytes, patch_lengths: np.ndarray) -> Tensor:
        assert sum(patch_lengths) == len(data) + 1
        logits = torch.full((len(data) + 1, VOCAB_SIZE), -5.0)
        logits[-1, self.text[len(data)] + BYTE_OFFSET if len(data) < len(self.text) else EOS_ID] = 100.0
        return logits


def small_blt(seed: int = 0) -> BLT:
    return opinionated_blt(seed, decoder_layers=1, latent_layers=1, ngram_sizes=(3,))


@pytest.mark.parametrize("use_cache", [True, False], ids=["cached", "plain"])
@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_greedy_is_what_computing_everything_anew_gives(rule, use_cache):
    model, scorer = small_blt(3), entropy_model()
    continuations = []
    for prompt in PROMPTS:
        found = generate(model, prompt, entropy_model=scorer, rule=rule, max_new_bytes=7, sampling=GREEDY, use_cache=use_cache)
        assert found == naive(model, prompt, scorer, rule, 7), prompt
        continuations.append(found)
    # There was something to compare.
    assert len(set(continuations)) > 3
    assert max(map(len, continuations)) == 7


def test_prompts_longer_than_the_windows():
    model, scorer = small_blt(3), entropy_model()
    assert len(LONG) > 4 * max(model.config.window, scorer.config.window)
    found = generate(model, LONG, entropy_model=scorer, rule=RULES["threshold"], max_new_bytes=6, sampling=GREEDY)
    assert found == naive(model, LONG, scorer, RULES["threshold"], 6)


@pytest.mark.parametrize("precision", ["grid", "float16"])
@pytest.mark.parametrize("name", ["threshold", "relative", "newline"])
def test_patches_are_those_of_the_shards(name, precision):
    spy, scorer, rule = Spy(small_blt()), entropy_model(), RULES[name]
    new = generate(
        spy,
        LONG,
        entropy_model=scorer,
        rule=rule,
        max_new_bytes=12,
        entropy_precision=precision,
        sampling=SamplingConfig(stop_at_eos=False),
        use_cache=False,
    )
    assert [data for data, _ in spy.asked] == [(LONG + new)[: len(LONG) + step] for step in range(12)]
    for data, lengths in spy.asked:
        assert lengths == rule.lengths(data, entropies_of(data, scorer, precision)).tolist()
    # No patch changes once it is there, but for the one that grows.
    for (_, before), (_, after) in zip(spy.asked, spy.asked[1:], strict=False):
        assert after in ([*before, 1], [*before[:-1], before[-1] + 1])
    assert len(set(spy.asked[-1][1])) > 2


def test_scoring_line_by_line_is_that_of_the_shards():
    spy, scorer, rule = Spy(small_blt()), entropy_model(), RULES["threshold"]
    prompt = b"one line\nanother\n\nand a third"
    new = generate(
        spy, prompt, entropy_model=scorer, rule=rule, max_new_bytes=4, reset_at_newline=True, use_cache=False,
        sampling=SamplingConfig(stop_at_eos=False),
    )  # fmt: skip
    assert len(new) == 4
    for data, lengths in spy.asked:
        (entropies,) = scorer.score([data], reset_at_newline=True)
        assert lengths == rule.lengths(data, round_entropies(entropies)).tolist()
    assert spy.asked[0][1] != rule.lengths(prompt, entropies_of(prompt, scorer)).tolist()


def test_entropies_are_rounded_as_the_shards_are():
    scorer = entropy_model()
    exact = next(iter(scorer.score([LONG])))
    # A threshold that an entropy passes only before it is rounded, and another one only after.
    for rounded_up in (True, False):
        grid = round_entropies(exact).astype(np.float32)
        candidates = np.flatnonzero(((grid > exact + 1e-3) if rounded_up else (grid < exact - 1e-3)) & (np.arange(len(exact)) > 0))
        threshold = float(max(grid[candidates[0]], exact[candidates[0]])) - 5e-4
        spy, rule = Spy(small_blt()), PatchRule(threshold=threshold)
        generate(spy, LONG, entropy_model=scorer, rule=rule, max_new_bytes=1, use_cache=False)
        assert spy.asked[0][1] == rule.lengths(LONG, round_entropies(exact)).tolist() != rule.lengths(LONG, exact).tolist()


def test_the_end_of_the_document_ends_the_continuation():
    make: Callable[..., bytes] = lambda limit, **settings: generate(  # noqa: E731
        Dictation(b"over here"), b"over ", entropy_model=entropy_model(), rule=RULES["threshold"], max_new_bytes=limit,
        sampling=SamplingConfig(**settings), use_cache=False,
    )  # fmt: skip
    assert make(50) == make(50, temperature=0.0) == make(4) == b"here"
    assert make(3) == b"her"
    assert make(0) == b""
    going_on = make(9, stop_at_eos=False)
    assert going_on[:4] == b"here"
    assert len(going_on) == 9


def test_any_bytes_come_out():
    text = bytes(range(256))
    assert generate(Dictation(text), b"", entropy_model=entropy_model(), rule=RULES["space"], max_new_bytes=300, use_cache=False) == text


def test_a_seed_fixes_the_text():
    def texts_of(seed: int, **settings) -> list[bytes]:
        return small_blt().generate(
            PROMPTS[1:4:2], entropy_model=entropy_model(), rule=RULES["threshold"], max_new_bytes=6, seed=seed,
            sampling=SamplingConfig(**settings),
        )  # fmt: skip

    state = torch.get_rng_state()
    first = texts_of(1)
    assert first == texts_of(1)
    assert first != texts_of(2)
    assert torch.equal(torch.get_rng_state(), state)
    assert texts_of(1, top_k=1) == texts_of(2, top_k=1) == texts_of(5, temperature=0.0) == texts_of(5, top_p=1e-9)
    assert texts_of(1) != texts_of(1, temperature=0.0)


@pytest.mark.parametrize("use_cache", [True, False], ids=["cached", "plain"])
def test_several_prompts_are_each_on_its_own(use_cache):
    model = small_blt(2).train()
    settings = {"entropy_model": entropy_model(), "rule": RULES["newline"], "max_new_bytes": 9, "use_cache": use_cache}
    prompts, seeds = [*PROMPTS, LONG], range(7)
    together = model.generate(prompts, seed=seeds, **settings)
    assert not model.training
    for prompt, seed, text in zip(prompts, seeds, together, strict=True):
        assert model.generate([prompt], seed=seed, **settings) == [text]
    # Some came to their end before the others.
    assert len({len(text) for text in together}) > 1
    assert model.generate([], **settings) == []


def test_with_caches_or_without_the_same_is_drawn():
    settings = {"entropy_model": entropy_model(), "max_new_bytes": 12, "sampling": SamplingConfig(stop_at_eos=False), "seed": 3}
    for name in ("threshold", "lengths", "space"):
        cached, plain = (small_blt(4).generate(PROMPTS, rule=RULES[name], use_cache=use_cache, **settings) for use_cache in (True, False))
        assert cached == plain


def test_the_precision_counts_without_caches_too():
    prompt, starts = [LONG], GenerationSettings(rule=RULES["space"], max_new_bytes=1)
    logits = {
        (kind, precision): kind(small_blt(4), prompt, PatchesOfRule(prompt, starts), precision).logits_BV
        for kind in (CachedDecoding, PlainDecoding)
        for precision in (torch.float32, torch.bfloat16)
    }
    exact = logits[PlainDecoding, torch.float32]
    torch.testing.assert_close(logits[CachedDecoding, torch.float32], exact, atol=1e-4, rtol=0)
    rounded = [logits[kind, torch.bfloat16] for kind in (CachedDecoding, PlainDecoding)]
    assert all(1e-3 < (each - exact).abs().max() < 0.5 for each in rounded), [(each - exact).abs().max() for each in rounded]
    asked = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BLT, "logits", lambda self, data, lengths: asked.append(torch.is_autocast_enabled("cpu")) or exact)
        small_blt(4).generate([b""], rule=RULES["space"], max_new_bytes=1, precision=torch.bfloat16, use_cache=False, sampling=GREEDY)
    assert asked == [True]


def test_a_stop_string_ends_the_continuation_and_is_cut_off():
    def call(text: bytes, stop: list[bytes], limit: int = 50) -> bytes:
        settings = {"entropy_model": entropy_model(), "rule": RULES["space"], "max_new_bytes": limit, "use_cache": False}
        return generate(Dictation(text), b"over ", stop=stop, **settings)

    assert call(b"over here and there", [b"there", b"re and"]) == b"he"
    # In the new bytes only, and not in what was there.
    assert call(b"over here", [b"over", b"r h"]) == b"here"
    # What may begin one is let go where nothing follows.
    assert call(b"over here", [b"here and"]) == b"here"
    assert call(b"over here", [b"here"], limit=3) == b"her"


def test_new_bytes_come_one_by_one_and_say_where_patches_start():
    scorer, rule = entropy_model(), RULES["threshold"]
    settings = GenerationSettings(
        entropy_model=scorer, rule=rule, max_new_bytes=8, stop=[b"\x00\x01\x02"], sampling=SamplingConfig(stop_at_eos=False)
    )
    prompts = [b"", b"some words"]
    news = [*new_bytes(small_blt(5), prompts, settings)]
    assert [new.row for new in news] == [0, 1] * 8
    for row, prompt in enumerate(prompts):
        own = [new for new in news if new.row == row]
        data = prompt + bytes(new.byte for new in own)
        entropies = entropies_of(data, scorer)
        starts = set(rule.starts(data, entropies).tolist())
        assert [new.starts_patch for new in own] == [position in starts for position in range(len(prompt), len(data))]
        assert [new.entropy_nats for new in own] == entropies[len(prompt) : -1].tolist()
    assert len({new.starts_patch for new in news}) == 2


def test_a_stream_is_the_continuation(monkeypatch):
    settings = GenerationSettings(entropy_model=entropy_model(), rule=RULES["threshold"], max_new_bytes=20, stop=[b"qq"])
    model = small_blt(6)
    pieces = [*model.stream(b"begin", settings)]
    (whole,) = generate_all(model, [b"begin"], settings)
    assert b"".join(pieces) == whole
    assert len(pieces) > 5
    assert "".join(as_text(model.stream(b"begin", settings))) == whole.decode(errors="replace")
    # Nothing is computed before it is asked for.
    steps, append = [], CachedDecoding.append
    monkeypatch.setattr(CachedDecoding, "append", lambda self, values: steps.append(values) or append(self, values))
    stream = model.stream(b"begin", settings)
    assert steps == []
    assert next(stream) == pieces[0]
    assert len(steps) < len(pieces[0]) + 4


def test_an_adaptive_temperature_follows_the_entropies():
    # Where the entropy model is all that counts, its lowest factor of 0 makes the choice greedy at no uncertainty.
    def text(**adaptive) -> bytes:
        sampling = SamplingConfig(stop_at_eos=False, **adaptive)
        return generate(small_blt(7), b"x", entropy_model=entropy_model(), rule=RULES["space"], max_new_bytes=12, sampling=sampling, seed=1)

    plain = text()
    for name in ("blt", "entropy-model"):
        assert text(adaptive_temperature=name, adaptive_low=1.0, adaptive_high=1.0) == plain
        assert text(adaptive_temperature=name, adaptive_low=0.0, adaptive_high=0.0) == text(temperature=0.0)
        assert text(adaptive_temperature=name, adaptive_low=0.1, adaptive_high=0.2) != plain


def test_a_repetition_penalty_counts_the_prompt():
    class Fond:
        """Prefers what the prompt has, by a little."""

        def logits(self, data: bytes, patch_lengths: np.ndarray) -> Tensor:
            logits = torch.full((len(data) + 1, VOCAB_SIZE), -50.0)
            logits[-1, [ord("a") + BYTE_OFFSET, ord("b") + BYTE_OFFSET, ord("c") + BYTE_OFFSET]] = torch.tensor([1.2, 1.1, 1.0])
            return logits

    def text(**settings) -> bytes:
        sampling = SamplingConfig(temperature=0.0, **settings)
        return generate(Fond(), b"a", rule=RULES["space"], max_new_bytes=6, sampling=sampling, use_cache=False)

    assert text() == b"aaaaaa"
    # Each byte that came lately is worth less than those that didn't.
    assert text(repetition_penalty=2.0, repetition_window=2) == b"bcabca"
    assert text(repetition_penalty=2.0, repetition_window=1) == b"bababa"


def test_mistakes():
    def call(**changes) -> bytes:
        arguments = {"entropy_model": entropy_model(), "rule": RULES["threshold"], "max_new_bytes": 1} | changes
        return generate(small_blt(), b"", **arguments)

    with pytest.raises(ConfigError, match="The number of new bytes is -1; it must be 0 or more"):
        call(max_new_bytes=-1)
    with pytest.raises(PatchingError, match="has neither threshold nor relative_threshold yet"):
        call(rule=PatchRule())
    with pytest.raises(ConfigError, match="Entropy precision 'float8' is unknown"):
        call(entropy_precision="float8")
    with pytest.raises(ConfigError, match="A stop string is empty"):
        call(stop=[b"x", b""])
    with pytest.raises(ConfigError, match="There are 2 seeds for 1 prompts; give one for all, or one for each"):
        call(seed=[1, 2])
    with pytest.raises(ConfigError, match="The rule 'entropy' reads the entropy model's entropies, and no entropy model is given"):
        call(entropy_model=None)
    adaptive = SamplingConfig(adaptive_temperature="entropy-model")
    with pytest.raises(ConfigError, match="The adaptive temperature reads the entropy model's entropies, and no entropy model is given"):
        call(entropy_model=None, rule=RULES["space"], sampling=adaptive)
    assert call(entropy_model=None, rule=RULES["space"], max_new_bytes=0) == b""
    with pytest.raises(ConfigError, match="There are 2 seeds for 1 prompts"):
        call(seed=[1, 2], sampling=SamplingConfig(num_beams=2))
    settings = GenerationSettings(rule=RULES["space"], max_new_bytes=1, sampling=SamplingConfig(num_beams=2))
    with pytest.raises(ConfigError, match="num_beams is 2, and a beam search has no byte to give before its end"):
        small_blt().stream(b"", settings)


def test_a_rule_that_needs_the_whole_document_is_refused():
    rule = PatchRule(scheme="bpe", tokenizer="tokenizer.json", tokenizer_fingerprint="0" * 16)
    with pytest.raises(PatchingError, match="needs the whole document before it can cut it"):
        GenerationSettings(rule=rule, max_new_bytes=1)


@pytest.mark.parametrize("num_beams", [1, 2])
def test_one_prompt_or_stop_string_in_place_of_a_list_is_an_error(num_beams):
    settings = GenerationSettings(rule=RULES["byte"], max_new_bytes=2, sampling=SamplingConfig(num_beams=num_beams))
    with pytest.raises(ConfigError, match=r"prompts is b'ab'; give a list of byte strings"):
        generate_all(opinionated_blt(), b"ab", settings)
    with pytest.raises(ConfigError, match=r"stop is b'ab'; give a list of byte strings, like \[b'ab'\]"):
        GenerationSettings(rule=RULES["byte"], max_new_bytes=2, stop=b"ab")


@pytest.mark.parametrize("num_beams", [1, 2])
def test_what_is_no_bytes_is_an_error(num_beams):
    settings = GenerationSettings(rule=RULES["byte"], max_new_bytes=2, sampling=SamplingConfig(num_beams=num_beams))
    for prompts, message in [
        (["abc"], r"^The prompt 'abc' is of type str; give bytes, for a text its text\.encode\(\)\.$"),
        ([b"a", "x" * 1000], r"^The prompt 'x{3,40}\.\.\.x{3,40}' is of type str; give bytes"),
        ([3], "^The prompt 3 is of type int; give bytes"),
        (bytearray(b"abc"), r"^prompts is bytearray\(b'abc'\); give a list of byte strings"),
    ]:
        with pytest.raises(ConfigError, match=message):
            generate_all(opinionated_blt(), prompts, settings)
    with pytest.raises(ConfigError, match=r"^The stop string '\\n' is of type str; give bytes, for a text its text\.encode\(\)\.$"):
        GenerationSettings(rule=RULES["byte"], max_new_bytes=2, stop=[b"x", "\n"])
    # Other bytes are as good.
    found = [generate_all(opinionated_blt(), [kind(b"ab"), kind(b"")], settings) for kind in (bytes, bytearray, memoryview)]
    assert found[0] == found[1] == found[2]


def test_seeds_are_whole_numbers_of_64_bits():
    settings = {"rule": RULES["space"], "max_new_bytes": 6}

    def texts_of(seed: object, **sampling) -> list[bytes]:
        return small_blt().generate([b"a", b"b"], **settings, seed=seed, sampling=SamplingConfig(**sampling))

    assert texts_of(np.int64(3)) == texts_of(np.uint8(3)) == texts_of(3)
    assert texts_of(np.arange(2)) == texts_of(range(2)) == texts_of([0, np.int32(1)]) != texts_of(0)
    assert texts_of(-(2**63)) != texts_of(2**64 - 1)
    for seed, wrong in [*((one, one) for one in (2**64, -(2**63) - 1, 1.5, None, "3")), ([0, 2**70], 2**70), ((0.5, 0), 0.5)]:
        message = re.escape(f"The seed is {wrong!r}; it must be a whole number from -2**63 to 2**64 - 1.")
        for sampling in ({}, {"num_beams": 2}):
            with pytest.raises(ConfigError, match=f"^{message}$"):
                texts_of(seed, **sampling)
