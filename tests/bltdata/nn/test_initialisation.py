import subprocess
import sys

import pytest
import torch
from torch import nn

from bltdata.nn import RMSNorm, draw_weights, initialisation, initialise_linear, take_weights, truncated_normal_, without_weights


def test_truncated_normal(monkeypatch):
    # Several slices, of which the last is shorter.
    monkeypatch.setattr(initialisation, "SLICE", 3000)
    weight = truncated_normal_(torch.empty(200, 200), 0.5, torch.Generator().manual_seed(0))
    # Cutting off at three deviations takes 1.4 % of the deviation.
    assert abs(float(weight.std()) - 0.5 * 0.9866) < 0.01
    assert 1.4 < float(weight.abs().max()) <= 1.5
    assert abs(float(weight.mean())) < 0.01
    assert torch.equal(weight, truncated_normal_(torch.empty(200, 200), 0.5, torch.Generator().manual_seed(0)))


def test_what_is_left_is_normal():
    weight = truncated_normal_(torch.empty(300, 1000), 2.0, torch.Generator().manual_seed(1)).flatten().sort().values
    # Its quantiles are those of a normal distribution between the bounds.
    normal, levels = torch.distributions.Normal(0.0, 2.0), torch.linspace(0.001, 0.999, 99)
    low, high = normal.cdf(torch.tensor(-6.0)), normal.cdf(torch.tensor(6.0))
    found = weight[(levels * len(weight)).long()]
    assert torch.allclose(normal.cdf(found), low + levels * (high - low), atol=0.003)


def test_linear_layers_by_the_size_of_their_input():
    module = nn.Sequential(nn.Linear(400, 100, bias=False), nn.Sequential(nn.Linear(100, 400, bias=False)), nn.Embedding(3, 100))
    embedding = module[2].weight.clone()
    initialise_linear(module, torch.Generator().manual_seed(0))
    assert abs(float(module[0].weight.detach().std()) / 400**-0.5 - 0.9866) < 0.02
    assert abs(float(module[1][0].weight.detach().std()) / 100**-0.5 - 0.9866) < 0.02
    assert torch.equal(module[2].weight, embedding)


def small_model() -> nn.Module:
    return nn.ModuleDict({"table": nn.Embedding(5, 4), "linear": nn.Linear(4, 3, bias=False), "norm": RMSNorm(3)})


def drawn(seed: int) -> dict[str, torch.Tensor]:
    with without_weights():
        model = small_model()
    draw_weights(model, seed, lambda generator: truncated_normal_(model["table"].weight, 1.0, generator))
    return model.state_dict()


def test_weights_are_drawn_by_a_generator_of_their_own():
    before = torch.get_rng_state()
    weights, again, others = drawn(1), drawn(1), drawn(2)
    assert torch.equal(torch.get_rng_state(), before)
    generator = torch.Generator().manual_seed(1)
    assert torch.equal(weights["linear.weight"], truncated_normal_(torch.empty(3, 4), 0.5, generator))
    assert torch.equal(weights["table.weight"], truncated_normal_(torch.empty(5, 4), 1.0, generator))
    assert torch.equal(weights["norm.weight"], torch.ones(3))
    for name, weight in weights.items():
        assert torch.equal(weight, again[name])
        assert torch.equal(weight, others[name]) == (name == "norm.weight")


def test_on_meta_nothing_is_drawn():
    with without_weights():
        model = small_model()
        draw_weights(model, 0, lambda generator: pytest.fail("There is nothing to fill."))
    assert all(parameter.is_meta for parameter in model.parameters())


def test_a_model_is_made_without_torch_s_compiler():
    # Whose import takes longer than most models take to load.
    code = "import sys, torch; from bltdata.entropy import EntropyModel; EntropyModel.from_preset('tiny'); "
    subprocess.run([sys.executable, "-c", code + "assert not {'torch._dynamo', 'sympy'} & sys.modules.keys()"], check=True)


def test_weights_are_taken_as_copies_in_the_model_s_types():
    with without_weights():
        model = small_model()
    # As a file gives them: pieces of one storage, at any address.
    weights = dict(zip(model.state_dict(), torch.arange(36.0).bfloat16()[1:].split([20, 12, 3]), strict=True))
    weights = {name: weight.view(model.state_dict()[name].shape) for name, weight in weights.items()}
    take_weights(model, weights)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, weights[name].float())
        assert (parameter.dtype, parameter.requires_grad) == (torch.float32, True)
        assert parameter.untyped_storage().nbytes() == 4 * parameter.numel()
        assert parameter.data_ptr() % 64 == 0
