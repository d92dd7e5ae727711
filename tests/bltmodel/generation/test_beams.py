import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from bltdata.patching import PatchRule
from bltdata.vocab import BYTE_OFFSET, EOS_ID, VOCAB_SIZE
from bltmodel.generation import GenerationSettings, generate
from bltmodel.model import BLT
from bltmodel.sampling_config import SamplingConfig
from tests.bltmodel.datasets import entropy_model, opinionated_blt

SPACE = PatchRule(scheme="space")
SYMBOLS = b"ab"


class Chances:
    """Any distribution over two bytes and the end after each beginning, fixed by a seed."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def logits(self, data: bytes, patch_lengths: np.ndarray) -> Tensor:
        logits = torch.full((len(data) + 1, VOCAB_SIZE), -torch.inf)
        logits[-1, [EOS_ID, *(byte + BYTE_OFFSET for byte in SYMBOLS)]] = torch.from_numpy(self.chances(data)).log().float()
        return logits

    def chances(self, data: bytes) -> np.ndarray:
        return np.random.default_rng([self.seed, *data]).dirichlet([1.0, 1.0, 1.0])


def search(model: Chances, max_new_bytes: int, stop: list[bytes] | None = None, prompt: bytes = b"x", **sampling) -> bytes:
    settings = GenerationSettings(
        rule=SPACE, max_new_bytes=max_new_bytes, sampling=SamplingConfig(**sampling), use_cache=False, stop=stop or []
    )
    (new,) = generate(model, [prompt], settings)
    return new


def best_of_all(model: Chances, max_new_bytes: int, length_penalty: float, may_end: bool = True) -> bytes:
    """The best of all continuations there are."""
    scores = {}
    for length in range(max_new_bytes + 1):
        for symbols in itertools.product(SYMBOLS, repeat=length):
            data, total = bytes(symbols), 0.0
            for position, byte in enumerate(data):
                chances = model.chances(b"x" + data[:position])[0 if may_end else 1 :]
                total += math.log(chances[SYMBOLS.index(byte) + may_end] / chances.sum())
            if length == max_new_bytes:
                scores[data] = total / length**length_penalty
            elif may_end:
                scores[data] = (total + math.log(model.chances(b"x" + data)[0])) / (length + 1) ** length_penalty
    return max(scores, key=lambda data: scores[data])


@pytest.mark.parametrize("length_penalty", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("seed", range(12))
def test_with_beams_enough_the_best_continuation_is_found(seed, length_penalty):
    model = Chances(seed)
    expected = best_of_all(model, 4, length_penalty)
    assert search(model, 4, num_beams=32, **({} if length_penalty == 1 else {"length_penalty": length_penalty})) == expected


def test_without_an_end_too():
    for seed in range(5):
        assert search(Chances(seed), 3, num_beams=32, stop_at_eos=False) == best_of_all(Chances(seed), 3, 1.0, may_end=False)


def test_the_length_penalty_matters():
    found = {search(Chances(seed), 4, num_beams=32, length_penalty=0.0) == search(Chances(seed), 4, num_beams=32) for seed in range(12)}
    assert found == {True, False}


def obvious(model: BLT, data: bytes, num_beams: int, max_new_bytes: int) -> bytes:
    """Beam search that computes everything anew, and goes on until every beam is finished."""
    beams, finished = [(0.0, b"")], []
    for length in range(1, max_new_bytes + 1):
        grown = []
        for number, (total, new) in enumerate(beams):
            logits = model.logits(data + new, SPACE.lengths(data + new))[-1].double()
            logits[[0, 1, 3]] = -torch.inf
            grown += [(-total - chance, number, token, new) for token, chance in enumerate(logits.log_softmax(-1).tolist())]
        beams = []
        for negative, _, token, new in sorted(grown)[:num_beams]:
            if token == EOS_ID:
                finished.append((-negative / length, new))
            elif token > EOS_ID:
                beams.append((-negative, new + bytes([token - BYTE_OFFSET])))
    finished += [(total / max_new_bytes, new) for total, new in beams]
    return max(finished)[1]


@pytest.mark.parametrize("use_cache", [True, False], ids=["cached", "plain"])
def test_beams_of_a_blt_go_separate_ways(use_cache):
    model, scorer = opinionated_blt(3, decoder_layers=1, latent_layers=1, ngram_sizes=(3,)), entropy_model()
    prompts = [b"a b", b"", b"some longer text, longer than the window"]
    continuations = model.generate(
        prompts, entropy_model=scorer, rule=SPACE, max_new_bytes=5, sampling=SamplingConfig(num_beams=3), use_cache=use_cache
    )
    assert continuations == [obvious(model, prompt, 3, 5) for prompt in prompts]
    greedy = model.generate(prompts, entropy_model=scorer, rule=SPACE, max_new_bytes=5, sampling=SamplingConfig(temperature=0.0))
    assert continuations != greedy


def test_a_stop_string_finishes_a_beam():
    class Certain(Chances):
        def chances(self, data: bytes) -> np.ndarray:
            return np.array([0.01, 0.9, 0.09] if len(data) % 3 else [0.01, 0.09, 0.9])

    assert search(Certain(0), 9, num_beams=2) == b"aabaabaab"
    assert search(Certain(0), 9, stop=[b"baa"], num_beams=2) == b"aa"


def best_before_a_stop(model: Chances, max_new_bytes: int, stop: list[bytes]) -> bytes:
    """The best of all continuations, each read up to where a stop string ends; of those that end there the longest is cut off."""
    scores: dict[bytes, float] = {}

    def go_on(data: bytes, total: float) -> None:
        ended = [string for string in stop if data.endswith(string)]
        if ended or len(data) == max_new_bytes:
            left = data[: len(data) - max(map(len, ended), default=0)]
            scores[left] = max(scores.get(left, -math.inf), total / len(data))
            return
        end, *others = np.log(model.chances(b"x" + data)).tolist()
        scores[data] = max(scores.get(data, -math.inf), (total + end) / (len(data) + 1))
        for byte, chance in zip(SYMBOLS, others, strict=True):
            go_on(data + bytes([byte]), total + chance)

    go_on(b"", 0.0)
    return max(scores, key=lambda data: scores[data])


@pytest.mark.parametrize("stop", [[b"b", b"ab"], [b"ab", b"b"], [b"a", b"ba", b"bba"], [b"bb", b"abb", b"aa"], [b"abab", b"bab"]])
def test_of_stop_strings_that_end_together_the_longest_is_cut_off(stop):
    found = [search(Chances(seed), 5, stop=stop, num_beams=80) for seed in range(40)]
    assert found == [best_before_a_stop(Chances(seed), 5, stop) for seed in range(40)]


def best_with_a_penalty(model: Chances, prompt: bytes, max_new_bytes: int, penalty: float, window: int) -> bytes:
    """The best of all continuations, where an `a` or a `b` among the last bytes makes the next one less probable."""
    scores: dict[bytes, float] = {}

    def go_on(data: bytes, total: float) -> None:
        if len(data) == max_new_bytes:
            scores[data] = total / len(data)
            return
        lately = (prompt + data)[-window:]
        end, *others = np.log(model.chances(prompt + data)).tolist()
        # Logarithms of chances are negative.
        penalised = [chance * penalty if byte in lately else chance for byte, chance in zip(SYMBOLS, others, strict=True)]
        all_ways = math.log(sum(map(math.exp, [end, *penalised])))
        scores[data] = (total + end - all_ways) / (len(data) + 1)
        for byte, chance in zip(SYMBOLS, penalised, strict=True):
            go_on(data + bytes([byte]), total + chance - all_ways)

    go_on(b"", 0.0)
    return max(scores, key=lambda data: scores[data])


@pytest.mark.parametrize("prompt", [b"x", b"ab"])
@pytest.mark.parametrize("window", [1, 2, 65])
def test_a_repetition_penalty_counts_the_prompt_and_the_new_bytes_of_each_beam(window, prompt):
    penalty = {"repetition_penalty": 3.0, "repetition_window": window}
    found = [search(Chances(seed), 4, prompt=prompt, num_beams=32, **penalty) for seed in range(20)]
    assert found == [best_with_a_penalty(Chances(seed), prompt, 4, 3.0, window) for seed in range(20)]
    assert found != [search(Chances(seed), 4, prompt=prompt, num_beams=32) for seed in range(20)]


def test_no_new_bytes():
    assert search(Chances(0), 0, num_beams=3) == b""
