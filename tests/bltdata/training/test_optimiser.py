import pytest
import torch
from torch import nn

from bltdata.nn import RMSNorm, machine
from bltdata.training.muon import Muon
from bltdata.training.optimiser import build_optimiser, clip_gradients
from bltdata.training.row_adam import RowAdam
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


@pytest.mark.parametrize(("precision", "dtype"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_muon_multiplies_in_the_precision_of_the_run(precision, dtype):
    optimiser = build_optimiser(WithHead(), training(optimiser="muon", precision=precision))
    assert [part.dtype for part in optimiser._parts.values() if isinstance(part, Muon)] == [dtype]


@pytest.mark.parametrize("has_bfloat16", [False, True])
def test_muon_is_in_bfloat16_only_where_the_machine_multiplies_it(monkeypatch, has_bfloat16):
    monkeypatch.setattr(machine, "_has_bfloat16", lambda device: has_bfloat16)
    optimiser = build_optimiser(WithHead(), training(optimiser="muon", precision="auto"))
    (dtype,) = (part.dtype for part in optimiser._parts.values() if isinstance(part, Muon))
    assert dtype == (torch.bfloat16 if has_bfloat16 else torch.float32)


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
    again.set_learning_rate(0.125)
    assert {group["lr"] for part in again._parts.values() for group in part.param_groups} == {0.125}
    again.set_learning_rate(config.learning_rate)
    steps(again, second, range(2, 4))
    for one, other in zip(whole.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)


def test_set_learning_rate():
    optimiser = build_optimiser(Model(), training())
    optimiser.set_learning_rate(0.25)
    assert [group["lr"] for group in optimiser.param_groups] == [0.25, 0.25]


class WithTable(Model):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.EmbeddingBag(20, 4, mode="sum")


def test_tables_get_an_optimiser_of_their_own():
    model = WithTable()
    optimiser = build_optimiser(model, training(beta1=0.8, beta2=0.9))
    assert model.table.sparse
    (part,) = (part for part in optimiser._parts.values() if isinstance(part, RowAdam))
    (group,) = part.param_groups
    assert (group["params"], group["beta2"]) == ([model.table.weight], 0.9)
    others = [parameter for part in optimiser._parts.values() for group in part.param_groups for parameter in group["params"]]
    assert len(others) == len(set(map(id, others))) == sum(parameter.requires_grad for parameter in model.parameters())
    optimiser.set_learning_rate(0.125)
    assert group["lr"] == 0.125


def test_tables_can_be_left_to_adamw():
    model = WithTable()
    model.table.sparse = True
    optimiser = build_optimiser(model, training(table_optimiser="adamw"))
    assert not model.table.sparse
    assert not any(isinstance(part, RowAdam) for part in optimiser._parts.values())
    assert any(model.table.weight is parameter for group in optimiser.param_groups for parameter in group["params"])


def gradients_of(model: WithTable, seed: int) -> None:
    """Add gradients of two passes, as micro-batches do."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(2):
        rows = torch.randint(0, 20, (6, 3), generator=generator)
        hidden = model.inner[0](model.norm(model.table(rows) + model.embedding(rows[:, 0] % 3)))
        (hidden * torch.randn(hidden.shape, generator=generator)).sum().backward()


@pytest.mark.parametrize("max_norm", [0.1, 1e6])
def test_clipping_counts_sparse_gradients_as_what_they_are(max_norm):
    torch.manual_seed(0)
    sparse, dense = WithTable(), WithTable()
    dense.load_state_dict(sparse.state_dict())
    build_optimiser(sparse, training())
    norms = []
    for model, clip in ((sparse, clip_gradients), (dense, nn.utils.clip_grad_norm_)):
        gradients_of(model, 1)
        norms.append(clip(model.parameters(), max_norm))
    assert sparse.table.weight.grad.is_sparse
    torch.testing.assert_close(*norms)
    for one, other in zip(sparse.parameters(), dense.parameters(), strict=True):
        if one.grad is not None:
            torch.testing.assert_close(one.grad.to_dense(), other.grad)


def test_clipping_of_dense_gradients_has_the_bits_of_torchs():
    torch.manual_seed(0)
    one, other = Model(), Model()
    other.load_state_dict(one.state_dict())
    for model, clip in ((one, clip_gradients), (other, nn.utils.clip_grad_norm_)):
        for seed, parameter in enumerate(model.parameters()):
            parameter.grad = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed))
        clip(model.parameters(), 0.3)
    assert all(torch.equal(a.grad, b.grad) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_the_state_of_a_table_goes_on_as_if_nothing_had_been():
    def steps(optimiser, model, numbers):
        for number in numbers:
            gradients_of(model, number)
            clip_gradients(model.parameters(), 1.0)
            optimiser.set_learning_rate(0.1 / number)
            optimiser.step()
            optimiser.zero_grad()

    torch.manual_seed(0)
    whole, first, second = WithTable(), WithTable(), WithTable()
    first.load_state_dict(whole.state_dict())
    steps(build_optimiser(whole, training()), whole, range(1, 6))
    optimiser = build_optimiser(first, training())
    steps(optimiser, first, range(1, 4))
    second.load_state_dict(first.state_dict())
    again = build_optimiser(second, training())
    again.load_state_dict(optimiser.state_dict())
    steps(again, second, range(4, 6))
    for one, other in zip(whole.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)
