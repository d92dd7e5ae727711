import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bltdata.errors import CheckpointError, ConfigError
from bltdata.vocab import BOE_ID, BOS_ID, BYTE_OFFSET, EOS_ID, VOCAB_SIZE
from bltmodel.sampling import allowed, sample, temperature_factor
from bltmodel.sampling_config import SamplingConfig

LOGITS = torch.full((VOCAB_SIZE,), -torch.inf)
LOGITS[[EOS_ID, 10, 20, 30, 40]] = torch.tensor([0.05, 0.4, 0.3, 0.2, 0.05]).log()


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def shares(logits: torch.Tensor = LOGITS, draws: int = 1500, **settings) -> dict[int, float]:
    """How often each id was chosen."""
    random, config = generator(), SamplingConfig(**settings)
    chosen = [sample(logits, config, random) for _ in range(draws)]
    return {each: chosen.count(each) / draws for each in sorted(set(chosen))}


def close(found: dict[int, float], expected: dict[int, float]) -> None:
    assert found.keys() == expected.keys()
    for each, share in expected.items():
        # Five deviations of 1500 draws.
        assert found[each] == pytest.approx(share, abs=5 * math.sqrt(share * (1 - share) / 1500) + 1e-12)


def test_probabilities_are_those_of_the_logits():
    close(shares(), {EOS_ID: 0.05, 10: 0.4, 20: 0.3, 30: 0.2, 40: 0.05})


def test_temperature_sharpens_and_flattens():
    weights = {EOS_ID: 0.05, 10: 0.4, 20: 0.3, 30: 0.2, 40: 0.05}
    for temperature in (0.5, 2.0):
        powers = {each: weight ** (1 / temperature) for each, weight in weights.items()}
        close(shares(temperature=temperature), {each: power / sum(powers.values()) for each, power in powers.items()})


@pytest.mark.parametrize("temperature", [0.0, 5e-324, 1e-30, 1e-4])
def test_next_to_no_temperature_is_greedy(temperature):
    assert shares(temperature=temperature, draws=50) == {10: 1.0}
    assert shares(LOGITS * 1e30, temperature=temperature, draws=5) == {10: 1.0}


def test_top_k():
    assert shares(top_k=1, draws=50) == {10: 1.0}
    close(shares(top_k=2), {10: 4 / 7, 20: 3 / 7})
    close(shares(top_k=1000), {EOS_ID: 0.05, 10: 0.4, 20: 0.3, 30: 0.2, 40: 0.05})


@pytest.mark.parametrize(
    ("top_p", "kept"), [(0.01, [10]), (0.39, [10]), (0.41, [10, 20]), (0.69, [10, 20]), (0.71, [10, 20, 30]), (0.89, [10, 20, 30])]
)
def test_top_p_takes_the_fewest_that_reach_it(top_p, kept):
    weights = {10: 0.4, 20: 0.3, 30: 0.2}
    close(shares(top_p=top_p), {each: weights[each] / sum(weights[other] for other in kept) for each in kept})


@pytest.mark.parametrize(("min_p", "kept"), [(0.0, [EOS_ID, 10, 20, 30, 40]), (0.45, [10, 20, 30]), (0.6, [10, 20]), (1.0, [10])])
def test_min_p_is_a_share_of_the_most_probable(min_p, kept):
    weights = {EOS_ID: 0.05, 10: 0.4, 20: 0.3, 30: 0.2, 40: 0.05}
    close(shares(min_p=min_p), {each: weights[each] / sum(weights[other] for other in kept) for each in kept})


def test_min_p_counts_after_the_temperature():
    # 0.3 is 0.75 of 0.4; at a temperature of 2 it is 0.87 of it.
    assert set(shares(min_p=0.8, draws=200)) == {10}
    assert set(shares(min_p=0.8, temperature=2.0, draws=200)) == {10, 20}


def test_a_penalty_makes_what_came_lately_less_probable_whatever_its_sign():
    logits = torch.arange(-130, 130, dtype=torch.float32)
    recent = bytes([5, 200, 5])
    penalised = allowed(logits, SamplingConfig(repetition_penalty=2.0), recent)
    assert logits[5 + BYTE_OFFSET] == -121
    assert penalised[5 + BYTE_OFFSET] == -242
    assert logits[200 + BYTE_OFFSET] == 74
    assert penalised[200 + BYTE_OFFSET] == 37
    changed = (penalised != logits)[BYTE_OFFSET:].nonzero().flatten().tolist()
    assert changed == [5, 200]
    assert penalised[EOS_ID] == logits[EOS_ID]
    # Only the last so many bytes came lately.
    windowed = allowed(logits, SamplingConfig(repetition_penalty=2.0, repetition_window=2), bytes([7, 200, 5]))
    assert torch.equal(windowed, penalised)


@given(st.floats(0, 5.56), st.floats(0, 2), st.floats(0, 2))
def test_the_temperature_follows_the_entropy_between_its_factors(entropy_nats, low, more):
    config = SamplingConfig(adaptive_temperature="entropy-model", adaptive_low=low, adaptive_high=low + more)
    factor = temperature_factor(LOGITS, config, entropy_nats)
    assert factor == pytest.approx(low + more * entropy_nats / math.log(260))
    assert low - 1e-9 <= factor <= low + more + 1e-9


def test_the_temperature_can_follow_the_logits():
    config = SamplingConfig(adaptive_temperature="blt", adaptive_low=0.2, adaptive_high=1.2)
    weights = [0.05, 0.4, 0.3, 0.2, 0.05]
    entropy = -sum(weight * math.log(weight) for weight in weights)
    assert temperature_factor(LOGITS, config, None) == pytest.approx(0.2 + entropy / math.log(260))
    powers = [weight ** (1 / (0.2 + entropy / math.log(260))) for weight in weights]
    expected = dict(zip([EOS_ID, 10, 20, 30, 40], (power / sum(powers) for power in powers), strict=True))
    close(shares(adaptive_temperature="blt", adaptive_low=0.2, adaptive_high=1.2), expected)


def test_the_end_can_be_forbidden():
    close(shares(stop_at_eos=False), {10: 0.4 / 0.95, 20: 0.3 / 0.95, 30: 0.2 / 0.95, 40: 0.05 / 0.95})
    # The nucleus is then one of what is left.
    close(shares(stop_at_eos=False, top_p=0.42), {10: 1.0})


@given(
    st.floats(0, 5),
    st.none() | st.integers(1, 300),
    st.floats(0, 1, exclude_min=True),
    st.booleans(),
    st.integers(0, 2**32),
    st.floats(0.1, 1e4),
)
def test_only_bytes_and_the_end_are_ever_chosen(temperature, top_k, top_p, stop_at_eos, seed, scale):
    logits = torch.randn(VOCAB_SIZE, generator=generator(seed)) * scale
    logits[[BOE_ID, BOS_ID, 3]] = 2e4
    # At a temperature of 0 nothing reads the others.
    among = {"top_k": top_k, "top_p": top_p} if temperature else {}
    config = SamplingConfig(temperature=temperature, stop_at_eos=stop_at_eos, **among)
    chosen = sample(logits, config, generator(seed))
    assert chosen >= BYTE_OFFSET or (chosen == EOS_ID and stop_at_eos)


def test_the_choice_is_fixed_by_the_seed_and_touches_nothing():
    logits = torch.randn(VOCAB_SIZE, generator=generator())
    before, state = logits.clone(), torch.get_rng_state()
    chosen = [[sample(logits, SamplingConfig(), random) for _ in range(20)] for random in (generator(1), generator(1), generator(2))]
    assert chosen[0] == chosen[1] != chosen[2]
    assert torch.equal(logits, before)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("settings", [{}, {"temperature": 0.0}, {"adaptive_temperature": "blt"}, {"repetition_penalty": 2.0}])
@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("token", [BOE_ID, EOS_ID, 70])
def test_logits_that_are_no_numbers_are_refused(settings, value, token):
    logits = torch.zeros(VOCAB_SIZE)
    logits[token] = value
    with pytest.raises(CheckpointError, match=r"^What the BLT predicts are no numbers; it is damaged, train it again\.$"):
        sample(logits, SamplingConfig(**settings), generator(), recent=b"B")
    with pytest.raises(CheckpointError):
        sample(torch.full((VOCAB_SIZE,), -torch.inf), SamplingConfig(**settings), generator())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": -0.1}, "The temperature is -0.1; it must be a finite number, 0 or more"),
        ({"temperature": math.nan}, "The temperature is nan"),
        ({"temperature": math.inf}, "The temperature is inf"),
        ({"top_k": 0}, "top_k is 0; it must be at least 1"),
        ({"top_p": 0.0}, "top_p is 0.0; it must be above 0 and at most 1"),
        ({"top_p": 1.5}, "top_p is 1.5"),
        ({"top_p": math.nan}, "top_p is nan"),
        ({"min_p": 1.5}, "min_p is 1.5; it must be from 0 to 1"),
        ({"min_p": math.nan}, "min_p is nan"),
        ({"repetition_penalty": 0.0}, "repetition_penalty is 0.0; it must be a finite number above 0"),
        ({"repetition_window": 0}, "repetition_window is 0; it must be at least 1"),
        ({"repetition_window": 9}, "repetition_window is 9, but repetition_penalty is 1, which changes nothing"),
        ({"num_beams": 0}, "num_beams is 0; it must be at least 1"),
        ({"num_beams": 2, "length_penalty": -1.0}, "length_penalty is -1.0; it must be a finite number, 0 or more"),
        ({"length_penalty": 2.0}, "length_penalty is 2.0, but there is no beam search"),
        ({"num_beams": 2, "top_k": 3}, "top_k is 3, but a beam search draws nothing"),
        ({"num_beams": 2, "temperature": 0.5}, "temperature is 0.5, but a beam search draws nothing"),
        ({"adaptive_temperature": "blt", "adaptive_low": 2.0}, "adaptive_low is 2.0 and adaptive_high 1.5; they must be finite numbers"),
        ({"adaptive_high": 2.0}, "adaptive_high is 2.0, but adaptive_temperature is off"),
        ({"temperature": 0.0, "top_k": 3}, "top_k is 3, but the temperature is 0, which takes the most probable byte always; leave it out"),
        ({"temperature": 0.0, "top_p": 0.9}, "top_p is 0.9, but the temperature is 0"),
        ({"temperature": 0.0, "min_p": 0.1}, "min_p is 0.1, but the temperature is 0"),
        ({"temperature": 0.0, "adaptive_temperature": "blt"}, "adaptive_temperature is 'blt', but the temperature is 0"),
        ({"temperature": 0.0, "adaptive_temperature": "blt", "adaptive_low": 0.1}, "adaptive_temperature is 'blt', but"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        SamplingConfig(**settings)
