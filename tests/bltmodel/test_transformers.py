"""The arithmetic is the released models': logits and gradients equal those of transformers' BLT with the same weights."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import BltConfig, BltForCausalLM

from bltmodel.config import BLTConfig
from bltmodel.masks import PackedBatch
from bltmodel.model import BLT
from tests.bltmodel.documents import Patched, random_document, tiny_config

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
TOKENS = 60
"""Longer than most of the windows."""


def their_config(config: BLTConfig) -> BltConfig:
    rope = {"rope_type": "default", "rope_theta": config.rope_theta}
    local = {
        "hidden_size": config.local_dim,
        "intermediate_size": config.local_ffn_dim,
        "num_attention_heads": config.local_heads,
        "num_key_value_heads": config.local_heads,
        "head_dim": config.local_dim // config.local_heads,
        "hidden_size_global": config.latent_dim,
        "cross_attn_k": config.queries_per_patch,
        "rms_norm_eps": config.norm_eps,
        "rope_parameters": rope,
        "vocab_size": 260,
    }
    return BltConfig(
        vocab_size=260,
        patch_in_forward=False,
        cross_attn_k=config.queries_per_patch,
        encoder_hash_byte_group_size=list(config.ngram_sizes),
        encoder_hash_byte_group_vocab=config.hash_rows,
        encoder_hash_byte_group_nb_functions=config.hash_functions,
        local_attention_window_len=config.window,
        encoder_config={**local, "num_hidden_layers": config.encoder_layers, "cross_attn_all_layers": False},
        decoder_config={**local, "num_hidden_layers": config.decoder_layers, "cross_attn_all_layers": True},
        global_config={
            "hidden_size": config.latent_dim,
            "intermediate_size": config.latent_ffn_dim,
            "num_attention_heads": config.latent_heads,
            "num_key_value_heads": config.latent_heads,
            "head_dim": config.latent_dim // config.latent_heads,
            "num_hidden_layers": config.latent_layers,
            "rms_norm_eps": config.norm_eps,
            "rope_parameters": rope,
        },
        use_cache=False,
        attn_implementation="eager",
    )


def their_name(name: str) -> str:
    """Their name of one of our parameters."""
    renamed = {
        "embedding.tokens": "model.local_encoder.embed_tokens",
        "embedding.ngrams": "model.encoder_hash_tok_embedding",
        "encoder.patch_proj": "model.local_encoder.patch_embedding_projection",
        "encoder.cross_attention.": "model.local_encoder.cross_attn_layers.0.",
        "encoder.": "model.local_encoder.",
        "latent.patch_proj": "model.global_transformer.token_embedding_projection",
        "latent.": "model.global_transformer.",
        "decoder.patch_proj": "model.local_decoder.patch_embedding_projection",
        "decoder.cross_attentions.": "model.local_decoder.cross_attn_layers.",
        "decoder.": "model.local_decoder.",
        "head": "lm_head",
    }
    prefix = next(prefix for prefix in renamed if name.startswith(prefix))
    name = renamed[prefix] + name.removeprefix(prefix)
    for ours, theirs in {
        ".attention.": ".self_attn.",
        ".ffn.": ".mlp.",
        ".attention_norm.": ".input_layernorm.",
        ".ffn_norm.": ".post_attention_layernorm.",
        ".query_norm.": ".q_norm.",
        ".key_norm.": ".k_norm.",
    }.items():
        name = name.replace(ours, theirs)
    return name


def pair(config: BLTConfig) -> tuple[BLT, BltForCausalLM]:
    """Our model and theirs with the same weights, norms that aren't all 1 among them."""
    ours = BLT(config, seed=3)
    generator = torch.Generator().manual_seed(4)
    for parameter in ours.parameters():
        if parameter.dim() == 1:
            nn.init.uniform_(parameter, 0.5, 1.5, generator=generator)
    theirs = BltForCausalLM(their_config(config)).eval()
    theirs.load_state_dict({their_name(name): weight for name, weight in ours.state_dict().items()}, strict=True)
    return ours, theirs


def their_logits(model: BltForCausalLM, document: Patched) -> Tensor:
    batch = PackedBatch.of_document(document.data, document.lengths)
    lengths = torch.tensor([[1, *document.lengths]])
    return model(batch.ids_BT, patch_lengths=lengths, use_cache=False).logits[0]


@pytest.fixture(params=CONFIGS.values(), ids=CONFIGS, scope="module")
def models(request) -> tuple[BLT, BltForCausalLM]:
    return pair(request.param)


def test_logits_equal(models):
    ours, theirs = models
    rng = np.random.default_rng(5)
    for num_bytes, probability in ((TOKENS - 1, 0.3), (TOKENS - 1, 0.9), (TOKENS - 1, 0.02), (1, 0.5), (0, 0.5)):
        document = random_document(rng, num_bytes, probability)
        expected = their_logits(theirs, document).detach()
        assert expected.std() > 0.3
        torch.testing.assert_close(ours.logits(document.data, document.lengths), expected, atol=1e-4, rtol=0)


def test_gradients_equal(models):
    ours, theirs = models
    document = random_document(np.random.default_rng(6), TOKENS - 1, 0.3)
    weights = torch.randn(TOKENS, 260, generator=torch.Generator().manual_seed(7))
    logits = ours(PackedBatch.of_document(document.data, document.lengths))[0]
    gradients = torch.autograd.grad((logits * weights).sum(), ours.parameters())
    their_parameters = dict(theirs.named_parameters())
    expected = torch.autograd.grad(
        (their_logits(theirs, document) * weights).sum(), [their_parameters[their_name(name)] for name, _ in ours.named_parameters()]
    )
    for (name, _), gradient, other in zip(ours.named_parameters(), gradients, expected, strict=True):
        scale = float(other.abs().max()) + 1e-6
        torch.testing.assert_close(gradient / scale, other / scale, atol=1e-4, rtol=0, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("change", [{"window": 8}, {"rope_theta": 10_000.0}, {"norm_eps": 1e-2}])
def test_another_setting_gives_other_logits(change):
    # So the test above would notice if a setting were not used.
    document = random_document(np.random.default_rng(8), TOKENS - 1)
    first, second = (BLT(tiny_config(**changes), seed=3).logits(document.data, document.lengths) for changes in ({}, change))
    assert (first - second).abs().max() > 1e-3
