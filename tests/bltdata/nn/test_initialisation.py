import torch
from torch import nn

from bltdata.nn import initialisation, initialise_linear, truncated_normal_


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
