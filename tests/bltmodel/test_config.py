import dataclasses

import pytest

from bltdata.config import fingerprint, from_mapping, to_mapping
from bltdata.errors import ConfigError
from bltmodel.config import MAX_HASH_FUNCTIONS, PRESETS, BLTConfig, config_from_preset
from bltmodel.hashing import PRIMES
from tests.bltmodel.documents import tiny_config


@pytest.mark.parametrize("name", PRESETS)
def test_presets_survive_json(name):
    config = config_from_preset(name)
    assert from_mapping(BLTConfig, to_mapping(config)) == config


@pytest.mark.parametrize(
    ("name", "encoder", "latent", "decoder", "queries_per_patch"),
    [
        ("400m", (1, 12, 768), (24, 10, 1280), (7, 12, 768), 2),
        ("1b", (1, 16, 1024), (25, 16, 2048), (9, 16, 1024), 2),
        ("8b", (1, 20, 1280), (32, 32, 4096), (6, 20, 1280), 4),
    ],
)
def test_presets_are_those_of_the_paper(name, encoder, latent, decoder, queries_per_patch):
    # Layers, heads and dimension of each part, as arXiv:2412.09871 has them, for 400m but for the heads of the local models, which
    # are ours; `test_flops` has its parameters.
    config = config_from_preset(name)
    assert (config.encoder_layers, config.local_heads, config.local_dim) == encoder
    assert (config.latent_layers, config.latent_heads, config.latent_dim) == latent
    assert (config.decoder_layers, config.local_heads, config.local_dim) == decoder
    assert config.queries_per_patch == queries_per_patch
    # What all of them share: six n-gram sizes, a hash function, windows of 512.
    assert (config.ngram_sizes, config.hash_functions, config.window) == ((3, 4, 5, 6, 7, 8), 1, 512)
    assert (config.hash_rows, config.rope_theta, config.norm_eps) == (500_002, 500_000.0, 1e-5)
    # Gated feed-forward layers have three matrices, so 8/3 of the dimension make as many weights as two of four times the dimension.
    assert config.local_ffn_dim == -(-8 * config.local_dim // 3 // 256) * 256
    assert config.latent_ffn_dim == -(-8 * config.latent_dim // 3 // 256) * 256


def test_unknown_preset_names_the_nearest():
    with pytest.raises(ConfigError, match=r"There is no BLT preset 'tinny'; the nearest is 'tiny'"):
        config_from_preset("tinny")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"local_dim": 0}, "local_dim is 0; it must be at least 1"),
        ({"decoder_layers": -1}, "decoder_layers is -1; it must be at least 1"),
        ({"hash_functions": 0}, "hash_functions is 0; it must be at least 1"),
        ({"hash_functions": 12}, "hash_functions is 12; there are 11 at most"),
        ({"local_heads": 3}, "local_dim is 16 with 3 heads; it must be a multiple of 6"),
        ({"latent_heads": 24}, "latent_dim is 24 with 24 heads; it must be a multiple of 48"),
        ({"rope_theta": 0.0}, "rope_theta is 0.0; it must be a finite number above 0"),
        ({"rope_theta": float("inf")}, "rope_theta is inf; it must be a finite number above 0"),
        ({"norm_eps": float("nan")}, "norm_eps is nan; it must be a finite number above 0"),
        ({"pooling": "sum"}, "pooling is 'sum'; it must be one of max, mean, min"),
        ({"encoder_cross_attention": True}, "encoder_cross_attention is True; it must be one of last, all"),
        ({"ngram_sizes": ()}, r"ngram_sizes are \[\]; they must be lengths in increasing order"),
        ({"ngram_sizes": (3, 3)}, r"ngram_sizes are \[3, 3\]; they must be lengths in increasing order"),
        ({"ngram_sizes": (0, 3)}, r"ngram_sizes are \[0, 3\]; they must be lengths in increasing order"),
    ],
)
def test_impossible_settings_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        tiny_config(**changes)


def test_config_is_frozen_and_derives_sizes():
    config = tiny_config(queries_per_patch=3, hash_functions=2)
    assert (config.patch_dim, config.num_hash_tables) == (48, 12)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.local_dim = 5


def test_settings_that_joined_later_leave_the_fingerprints_of_old_models_alone():
    assert fingerprint(tiny_config()) == fingerprint(tiny_config(pooling="max", encoder_cross_attention="last"))
    assert fingerprint(config_from_preset("tiny")) == "3da6c9652fe045a1"
    changed = tiny_config(pooling="mean", encoder_layers=2, encoder_cross_attention="all")
    assert from_mapping(BLTConfig, to_mapping(changed)) == changed


def test_whole_numbers_make_no_other_model():
    whole = tiny_config(rope_theta=1000, norm_eps=1)
    assert fingerprint(whole) == fingerprint(tiny_config(rope_theta=1000.0, norm_eps=1.0))
    assert fingerprint(whole) == fingerprint(from_mapping(BLTConfig, to_mapping(whole)))


def test_every_hash_function_has_a_prime():
    assert len(set(PRIMES)) == MAX_HASH_FUNCTIONS
