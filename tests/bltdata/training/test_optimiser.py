import math

import pytest
import torch
from torch import nn

from bltdata.nn import RMSNorm
from bltdata.training.optimiser import build_optimiser, learning_rate_at
from bltdata.vocab import VOCAB_SIZE
from tests.bltdata.small import training


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(3, 4)
        self.norm = RMSNorm(4)
        self.inner = nn.ModuleList([nn.Linear(4, 5)])
        self.frozen = nn.Linear(4, 4, bias=False).requires_grad_(False)


def test_only_matrices_of_linear_layers_decay():
    model = Model()
    optimiser = build_optimiser(model, training(weight_decay=0.3, beta1=0.8, beta2=0.9, learning_rate=0.01))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = {group["weight_decay"]: {names[id(p)] for p in group["params"]} for group in optimiser.param_groups}
    assert groups == {0.3: {"inner.0.weight"}, 0.0: {"embedding.weight", "norm.weight", "inner.0.bias"}}
    assert all((group["betas"], group["lr"], group["eps"]) == ((0.8, 0.9), 0.01, 1e-8) for group in optimiser.param_groups)


def test_a_step_is_adamw():
    # Without a gradient there is only the decay, and it is decoupled: lr * decay of the weight.
    model = Model()
    optimiser = build_optimiser(model, training(weight_decay=0.5, learning_rate=0.1))
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimiser.step()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.detach(), before[name] * (0.95 if name == "inner.0.weight" else 1.0))


class WithHead(Model):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, VOCAB_SIZE, bias=False)


def test_muon_gets_the_matrices_between_embedding_and_head():
    model = WithHead()
    optimiser = build_optimiser(model, training(optimiser="muon", weight_decay=0.3, learning_rate=0.01))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = [({names[id(p)] for p in group["params"]}, group["weight_decay"], "momentum" in group) for group in optimiser.param_groups]
    assert groups == [
        ({"head.weight"}, 0.3, False),
        ({"embedding.weight", "norm.weight", "inner.0.bias"}, 0.0, False),
        ({"inner.0.weight"}, 0.3, True),
    ]


def test_a_step_of_muon_is_orthogonal_and_as_large_as_adamws():
    torch.manual_seed(0)
    model = WithHead()
    optimiser = build_optimiser(model, training(optimiser="muon", weight_decay=0.0, learning_rate=0.1))
    before = model.inner[0].weight.detach().clone()
    model.inner[0].weight.grad = torch.randn(5, 4)
    optimiser.step()
    step = (model.inner[0].weight.detach() - before) / 0.1
    # Singular values near each other, which those of a random gradient aren't; 0.2 is the root mean square of AdamW's steps.
    singular = torch.linalg.svdvals(step)
    assert singular.max() / singular.min() < 2
    assert 0.1 < step.square().mean().sqrt() < 0.25


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_a_state_goes_on_as_if_nothing_had_been(name):
    def steps(optimiser, model, numbers):
        for number in numbers:
            for parameter in model.parameters():
                parameter.grad = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number))
            optimiser.step()
            optimiser.zero_grad()

    config = training(optimiser=name)
    whole, first = WithHead(), WithHead()
    first.load_state_dict(whole.state_dict())
    steps(build_optimiser(whole, config), whole, range(4))
    optimiser = build_optimiser(first, config)
    steps(optimiser, first, range(2))
    second = WithHead()
    second.load_state_dict(first.state_dict())
    again = build_optimiser(second, config)
    again.load_state_dict(optimiser.state_dict())
    again.set_learning_rate(config.learning_rate)
    steps(again, second, range(2, 4))
    for one, other in zip(whole.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)


def test_learning_rate_by_hand():
    config = training(steps=11, warmup_steps=4, learning_rate=2.0, final_learning_rate_ratio=0.1)
    assert [learning_rate_at(step, config) for step in range(4)] == pytest.approx([0.5, 1.0, 1.5, 2.0])
    # Steps 4 to 10 are half a cosine from the peak to a tenth of it.
    expected = [0.2 + 1.8 * (1 + math.cos(math.pi * k / 6)) / 2 for k in range(7)]
    assert [learning_rate_at(step, config) for step in range(4, 11)] == pytest.approx(expected)
    assert learning_rate_at(10, config) == pytest.approx(0.2)


@pytest.mark.parametrize("changes", [{"steps": 1, "warmup_steps": 0}, {"steps": 3, "warmup_steps": 10}, {"steps": 5, "warmup_steps": 5}])
def test_learning_rate_of_odd_runs(changes):
    config = training(learning_rate=1.0, **changes)
    rates = [learning_rate_at(step, config) for step in range(config.steps)]
    assert all(0 < rate <= 1 for rate in rates)


def test_set_learning_rate():
    optimiser = build_optimiser(Model(), training())
    optimiser.set_learning_rate(0.25)
    assert [group["lr"] for group in optimiser.param_groups] == [0.25, 0.25]
