import dataclasses
import functools
import math
import operator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bltdata.nn.loss import IGNORED_TARGET, PredictionSums, negative_log_likelihood_sum
from bltdata.vocab import BYTE_OFFSET, EOS_ID


def random_predictions(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(count, 260, generator=generator) * 3
    targets = torch.randint(BYTE_OFFSET, 260, (count,), generator=generator)
    targets[torch.rand(count, generator=generator) < 0.2] = EOS_ID
    targets[torch.rand(count, generator=generator) < 0.2] = IGNORED_TARGET
    return logits, targets


def test_bits_per_byte_by_hand():
    # Three predictions with probabilities 1/2, 1/4 and 1/8 for what came, the last of them of a document's end: two bytes.
    logits = torch.full((4, 260), -torch.inf)
    logits[0, [10, 11]] = math.log(0.5)
    logits[1, [10, 11]] = torch.tensor([0.25, 0.75]).log()
    logits[2, [EOS_ID, 7]] = torch.tensor([0.125, 0.875]).log()
    logits[3, 5] = 0.0
    targets = torch.tensor([10, 10, EOS_ID, IGNORED_TARGET])
    sums = PredictionSums.of(logits, targets)
    assert (sums.num_targets, sums.num_bytes, sums.num_correct) == (3, 2, 1)
    assert sums.bits_per_byte == pytest.approx((1 + 2 + 3) / 2)
    metrics = sums.metrics()
    assert metrics == pytest.approx(
        {
            "loss": math.log(64) / 3,
            "bits_per_byte": 3.0,
            "accuracy": 1 / 3,
            "perplexity": 4.0,
            "confidence_mean": (0.5 + 0.75 + 0.875) / 3,
            "confidence_min": 0.5,
            "confidence_max": 0.875,
        }
    )


def test_training_and_judging_sum_the_same_nats():
    logits, targets = random_predictions(50, seed=1)
    sums = PredictionSums.of(logits, targets)
    assert float(negative_log_likelihood_sum(logits, targets)) == pytest.approx(sums.nats, rel=1e-6)
    by_hand = sum(-logits[i].double().log_softmax(0)[target] for i, target in enumerate(targets.tolist()) if target != IGNORED_TARGET)
    assert sums.nats == pytest.approx(float(by_hand), rel=1e-6)


def test_rows_of_a_batch_are_summed():
    logits, targets = random_predictions(24, seed=2)
    assert PredictionSums.of(logits.view(2, 12, 260), targets.view(2, 12)) == PredictionSums.of(logits, targets)
    batched = negative_log_likelihood_sum(logits.view(2, 12, 260), targets.view(2, 12))
    torch.testing.assert_close(batched, negative_log_likelihood_sum(logits, targets))


def test_padding_has_no_gradient():
    logits, targets = random_predictions(20, seed=3)
    negative_log_likelihood_sum(logits.requires_grad_(), targets).backward()
    assert torch.equal(logits.grad.abs().sum(-1) == 0, targets == IGNORED_TARGET)


@given(st.permutations(range(5)), st.integers(1, 4))
def test_sums_add_up_in_any_order(order, split):
    parts = [PredictionSums.of(*random_predictions(7, seed)) for seed in range(5)]
    whole = PredictionSums.of(*(torch.cat(tensors) for tensors in zip(*(random_predictions(7, seed) for seed in range(5)), strict=True)))
    shuffled = [parts[i] for i in order]
    left = functools.reduce(operator.add, shuffled[:split])
    right = functools.reduce(operator.add, shuffled[split:])
    for field in dataclasses.fields(PredictionSums):
        assert getattr(left + right, field.name) == pytest.approx(getattr(whole, field.name), rel=1e-6), field.name


def test_nothing_is_the_neutral_element():
    logits, targets = random_predictions(7, 0)
    sums = PredictionSums.of(logits, targets)
    nothing = PredictionSums.of(logits, torch.full_like(targets, IGNORED_TARGET))
    assert nothing == PredictionSums()
    assert sums + nothing == nothing + sums == sums
    assert math.isnan(nothing.bits_per_byte)


def test_a_hopeless_model_has_a_perplexity():
    assert PredictionSums(nats=1e6, num_targets=1, num_bytes=1).metrics()["perplexity"] > 1e300
