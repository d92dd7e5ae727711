"""The arithmetic is the released models': logits and gradients equal those of transformers' BLT with the same weights."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import BltConfig, BltForCausalLM

from bltdata.errors import ConfigError
from bltmodel.config import BLTConfig
from bltmodel.interop import transformers_config, transformers_names
from bltmodel.masks import PackedBatch
from bltmodel.model import BLT
from tests.bltmodel.documents import Patched, configs, random_document, tiny_config

CONFIGS = {
    "k 2, sizes differ": tiny_config(),
    "k 2, sizes equal, 2 hash functions": tiny_config(latent_dim=32, latent_heads=4, hash_functions=2, decoder_layers=3),
    "k 4, 2 encoder layers, 1 head": tiny_config(queries_per_patch=4, encoder_layers=2, local_heads=1, latent_dim=40, window=7),
    "k 1, 3 hash functions, other n-grams": tiny_config(
        queries_per_patch=1,
        hash_functions=3,
        ngram_sizes=(2, 5, 9),
        local_heads=4,
        latent_dim=16,
        latent_layers=1,
        decoder_layers=1,
        window=64,
    ),
}
EXAMPLES = settings(max_examples=max(settings().max_examples // 10, 1))
"""A tenth of the usual number: each makes two models."""

TOKENS = 60
"""Longer than most of the windows."""


def pair(config: BLTConfig, seed: int = 3) -> tuple[BLT, BltForCausalLM]:
    """Our model and theirs with the same weights, norms that aren't all 1 among them."""
    ours = BLT(config, seed)
    generator = torch.Generator().manual_seed(seed + 1)
    for parameter in ours.parameters():
        if parameter.dim() == 1:
            nn.init.uniform_(parameter, 0.5, 1.5, generator=generator)
    theirs = BltForCausalLM(BltConfig(**transformers_config(config), attn_implementation="eager")).eval()
    own = ours.state_dict()
    theirs.load_state_dict({name: own[our_name] for name, our_name in transformers_names(config).items()}, strict=True)
    return ours, theirs


def their_logits(model: BltForCausalLM, document: Patched) -> Tensor:
    batch = PackedBatch.of_document(document.data, document.lengths)
    return model(batch.ids_BT, patch_lengths=torch.tensor([[1, *document.lengths]])).logits[0]


@EXAMPLES
@given(config=configs(pooling="max", encoder_cross_attention="last"), seed=st.integers(0, 2**32 - 1))
def test_logits_of_any_architecture_equal(config, seed):
    ours, theirs = pair(config, seed % 1000)
    assert sorted(transformers_names(config).values()) == sorted(ours.state_dict())
    rng = np.random.default_rng(seed)
    for num_bytes, probability in ((TOKENS - 1, rng.uniform(0.02, 0.95)), (int(rng.integers(10)), 0.5), (0, 0.5)):
        document = random_document(rng, num_bytes, probability)
        expected = their_logits(theirs, document).detach()
        assert expected.std() > 0.2
        torch.testing.assert_close(ours.logits(document.data, document.lengths), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_gradients_equal(config):
    ours, theirs = pair(config)
    document = random_document(np.random.default_rng(6), TOKENS - 1, 0.3)
    weights = torch.randn(TOKENS, 260, generator=torch.Generator().manual_seed(7))
    logits = ours(PackedBatch.of_document(document.data, document.lengths))[0]
    gradients = dict(zip(ours.state_dict(), torch.autograd.grad((logits * weights).sum(), ours.parameters()), strict=True))
    names = transformers_names(config)
    their_parameters = dict(theirs.named_parameters())
    expected = torch.autograd.grad((their_logits(theirs, document) * weights).sum(), [their_parameters[name] for name in names])
    for name, other in zip(names.values(), expected, strict=True):
        scale = float(other.abs().max()) + 1e-6
        torch.testing.assert_close(gradients[name] / scale, other / scale, atol=1e-4, rtol=0, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("change", [{"window": 8}, {"rope_theta": 10_000.0}, {"norm_eps": 1e-2}])
def test_another_setting_gives_other_logits(change):
    # So the tests above would notice if a setting were not used.
    document = random_document(np.random.default_rng(8), TOKENS - 1)
    first, second = (BLT(tiny_config(**changes), seed=3).logits(document.data, document.lengths) for changes in ({}, change))
    assert (first - second).abs().max() > 1e-3


def test_one_layer_has_nothing_to_refine():
    config = tiny_config(encoder_layers=1, encoder_cross_attention="all")
    assert transformers_config(config) == transformers_config(tiny_config())
    assert sorted(transformers_names(config).values()) == sorted(BLT(config).state_dict())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pooling": "mean"}, "The BLT's pooling is 'mean', and transformers knows 'max' only; train one with that to export it."),
        ({"pooling": "min"}, "The BLT's pooling is 'min', and transformers knows 'max' only"),
        ({"encoder_layers": 2, "encoder_cross_attention": "all"}, "The BLT's encoder_cross_attention is 'all' with 2 encoder layers, and"),
    ],
)
def test_what_transformers_cannot_express_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        transformers_config(tiny_config(**changes))
