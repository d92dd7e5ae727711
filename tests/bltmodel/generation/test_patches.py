import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bltdata.entropy import scoring
from bltdata.patching import PatchRule
from bltdata.shards import round_entropies
from bltmodel.generation import GenerationSettings, PatchesOfRule
from bltmodel.generation.patches import GrowingEntropies
from tests.bltdata.small import opinionated_model

RULES = {
    "threshold": PatchRule(threshold=4.55),
    "relative": PatchRule(relative_threshold=0.05),
    "lengths": PatchRule(threshold=4.5, min_length=2, max_length=4),
    "newline": PatchRule(threshold=4.6, reset_at_newline=True),
    "quantile": PatchRule(scheme="quantile", threshold=4.5, target_length=3.0),
    "space": PatchRule(scheme="space"),
}
TEXTS = st.binary(max_size=30) | st.text("ab \n", max_size=30).map(str.encode)
EXAMPLES = settings(max_examples=max(settings().max_examples // 5, 1))


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prompts are scored in several chunks."""
    monkeypatch.setattr(scoring, "CHUNK_TOKENS", 11)


def rows_of(prompts: list[bytes], more: bytes) -> list[bytes]:
    return [prompt + more for prompt in prompts]


@EXAMPLES
@given(st.lists(TEXTS, min_size=1, max_size=3), TEXTS, st.booleans())
def test_entropies_are_those_of_whole_documents(prompts, more, reset_at_newline):
    model = opinionated_model(window=5)
    growing = GrowingEntropies(model, prompts, reset_at_newline=reset_at_newline)
    steps = [growing.append([value] * len(prompts)) for value in more]
    for row, (prompt, expected) in enumerate(
        zip(prompts, model.score(rows_of(prompts, more), reset_at_newline=reset_at_newline), strict=True)
    ):
        found = np.array([*growing.of_prompts[row], *(step[row] for step in steps)])
        assert len(growing.of_prompts[row]) == len(prompt) + 1
        np.testing.assert_allclose(found, expected, atol=2e-5)


def test_entropies_of_chosen_rows():
    model, prompts = opinionated_model(), [b"one and two", b"2", b"\n three"]
    growing = GrowingEntropies(model, prompts, reset_at_newline=False)
    growing.select(torch.tensor([2, 0, 2]))
    found = growing.append([97, 98, 99])
    expected = [entropies[-1] for entropies in model.score([b"\n threea", b"one and twob", b"\n threec"])]
    np.testing.assert_allclose(found, expected, atol=2e-5)


@pytest.mark.parametrize("precision", ["grid", "float16"])
@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_patches_are_those_of_the_shards(rule, precision):
    model, prompts, more = opinionated_model(), [b"", b"some text\nand more of it", b"\xff\x00"], b"goes on\n for a while"
    settings = GenerationSettings(rule=rule, entropy_model=model, max_new_bytes=1, entropy_precision=precision)
    patches = PatchesOfRule(prompts, settings)
    starts = [[*each] for each in patches.prompt_starts]
    for value in more:
        patches.append([value] * 3)
        for row, start in enumerate(patches.starts):
            starts[row].append(start)
    for document, entropies, found in zip(rows_of(prompts, more), model.score(rows_of(prompts, more)), starts, strict=True):
        expected = rule.starts(document, round_entropies(entropies, precision) if rule.needs_entropies else None)
        assert np.flatnonzero(found).tolist() == expected.tolist()
    assert len({tuple(row) for row in starts}) == 3


def test_rows_that_are_kept_twice_go_separate_ways():
    model = opinionated_model()
    patches = PatchesOfRule([b"a", b"some text"], GenerationSettings(rule=RULES["relative"], entropy_model=model, max_new_bytes=1))
    patches.select(torch.tensor([1, 1]))
    texts = [b"some text", b"some text"]
    for pair in (b"xy", b"ab", b" \n"):
        patches.append(pair)
        texts = [text + bytes([value]) for text, value in zip(texts, pair, strict=True)]
        entropies = [round_entropies(each) for each in model.score(texts)]
        assert patches.entropy_nats == [float(each[-1]) for each in entropies]
        assert patches.starts == [len(text) in RULES["relative"].starts(text, each) for text, each in zip(texts, entropies, strict=True)]


def test_where_nobody_reads_entropies_the_model_is_not_asked():
    patches = PatchesOfRule([b"a b"], GenerationSettings(rule=RULES["space"], max_new_bytes=1))
    assert patches.entropy_nats == [None]
    patches.append([32])
    assert (patches.entropy_nats, patches.starts) == ([None], [True])
