import pytest
import torch
from torch import nn
from transformers import BltConfig, BltForCausalLM

from bltdata.entropy import EntropyModel, EntropyModelConfig, patcher_config
from bltdata.entropy.config import PRESETS as ENTROPY_PRESETS
from bltdata.errors import ConfigError
from bltmodel.config import PRESETS, BLTConfig
from bltmodel.flops import entropy_model_flops_per_byte, summarise
from bltmodel.interop import transformers_config
from bltmodel.masks import PackedBatch
from bltmodel.model import BLT
from tests.bltmodel.documents import tiny_config


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("1b", {"n-gram tables": 3072.0, "local encoder": 19.1, "latent transformer": 1284.6, "local decoder": 157.6}),
        ("8b", {"n-gram tables": 3840.0, "local encoder": 33.4, "latent transformer": 6497.2, "local decoder": 182.2}),
    ],
)
def test_parameters_of_the_released_shapes(name, expected):
    millions = {part: round(count / 1e6, 1) for part, count in summarise(PRESETS[name]).parameters.items()}
    assert millions == {**expected, "byte embedding": 0.3, "head": 0.3}


def test_1b_has_as_many_parameters_as_the_model_of_transformers():
    config = BltConfig(patch_in_forward=False)
    # Their default is not what the released weights have.
    config.encoder_config.intermediate_size = 2816
    with torch.device("meta"):
        theirs = BltForCausalLM(config)
    assert summarise(PRESETS["1b"]).total_parameters == num_parameters(theirs)


@pytest.mark.parametrize(("name", "total"), [("1b", 4.63e9), ("8b", 10.65e9)])
def test_every_part_has_as_many_parameters_as_that_of_transformers(name, total):
    patcher = ENTROPY_PRESETS["base"]
    settings = {**transformers_config(PRESETS[name]), "patch_in_forward": True, "patcher_config": patcher_config(patcher)}
    with torch.device("meta"):
        theirs = BltForCausalLM(BltConfig(**settings))
        its_patcher = EntropyModel(patcher)
    parts = {
        "byte embedding": theirs.model.local_encoder.embed_tokens,
        "n-gram tables": theirs.model.encoder_hash_tok_embedding,
        "latent transformer": theirs.model.global_transformer,
        "local decoder": theirs.model.local_decoder,
        "head": theirs.lm_head,
    }
    expected = {part: num_parameters(module) for part, module in parts.items()}
    # Theirs holds the embedding of bytes.
    expected["local encoder"] = num_parameters(theirs.model.local_encoder) - expected["byte embedding"]
    found = summarise(PRESETS[name])
    assert found.parameters == expected
    assert num_parameters(theirs.model.patcher) == its_patcher.num_parameters == 99_512_064
    assert found.total_parameters + its_patcher.num_parameters == num_parameters(theirs) == pytest.approx(total, rel=1e-3)


def num_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("name", "encoder", "latent", "decoder"), [("400m", 7e6, 470e6, 50e6), ("1b", 12e6, 1e9, 113e6), ("8b", 20e6, 6.4e9, 120e6)]
)
def test_blocks_have_the_papers_parameters(name, encoder, latent, decoder):
    # arXiv:2412.09871, table 10, which counts blocks of 12 d^2 and nothing between them.
    config = PRESETS[name]
    papers = {"encoder": encoder, "latent": latent, "decoder": decoder}
    exact = {
        "encoder": 12 * config.encoder_layers * config.local_dim**2,
        "latent": 12 * config.latent_layers * config.latent_dim**2,
        "decoder": 12 * config.decoder_layers * config.local_dim**2,
    }
    with torch.device("meta"):
        model = BLT(config)
    for part, count in papers.items():
        # The paper writes 1 B for 1.26 B.
        assert exact[part] == pytest.approx(count, rel=0.06 if count != 1e9 else 0.3)
        # Ours are wider by what rounding feed-forward layers up adds.
        assert 1 <= num_parameters(getattr(model, part).layers) / exact[part] < 1.04


@pytest.mark.parametrize("window", [8, 512])
def test_flops_of_an_entropy_model_are_those_that_run(window):
    config = EntropyModelConfig(dim=16, num_layers=2, num_heads=2, ffn_dim=24, window=window)
    linear = sum(2 * layer.in_features * layer.out_features for layer in EntropyModel(config).modules() if isinstance(layer, nn.Linear))
    keys = sum(min(place + 1, window) for place in range(100)) / 100
    assert entropy_model_flops_per_byte(config, 100) == pytest.approx(linear + 2 * 4 * 16 * keys)


@pytest.mark.parametrize(
    ("name", "low", "high"), [("tiny", 3e6, 5e6), ("small", 20e6, 30e6), ("100m", 90e6, 110e6), ("400m", 400e6, 600e6)]
)
def test_sizes_without_tables_fit_their_names(name, low, high):
    summary = summarise(PRESETS[name])
    assert low < summary.total_parameters - summary.parameters["n-gram tables"] < high


def papers_formula(config: BLTConfig, patch: float, context: int) -> float:
    """arXiv:2412.09871, section 4.5."""

    def attention(dim: int, length: float) -> float:
        return 4 * dim * (length + 1) / 2

    def projections(dim: int, keys_per_query: float) -> float:
        return (2 * keys_per_query + 2) * 2 * dim**2

    def transformer(dim: int, layers: int, length: float) -> float:
        return layers * (attention(dim, length) + projections(dim, 1) + 16 * dim**2)

    def cross(dim: int, length: float, keys_per_query: float) -> float:
        return attention(dim, length) + projections(dim, keys_per_query)

    k = config.queries_per_patch
    return (
        transformer(config.latent_dim, config.latent_layers, context / patch) / patch
        + transformer(config.local_dim, config.encoder_layers, config.window)
        + transformer(config.local_dim, config.decoder_layers, config.window)
        + 2 * config.local_dim * 260
        + cross(config.local_dim, patch, patch / k) * k / patch
        + config.decoder_layers * cross(config.local_dim, k, k / patch)
    )


@pytest.mark.parametrize("name", ["400m", "1b", "8b"])
@pytest.mark.parametrize("patch", [4.5, 6.0, 8.0])
def test_flops_are_the_papers_and_the_little_it_leaves_out(name, patch):
    ours = summarise(PRESETS[name], patch, 8192).total_flops_per_byte
    assert 1.0 < ours / papers_formula(PRESETS[name], patch, 8192) < 1.06


@pytest.mark.parametrize(
    "config",
    [
        tiny_config(),
        tiny_config(latent_dim=32, queries_per_patch=2),
        tiny_config(queries_per_patch=3, encoder_layers=2),
        tiny_config(encoder_layers=3, encoder_cross_attention="all"),
    ],
)
def test_flops_of_linear_layers_are_those_that_run(config):
    num_bytes, patch = 64, 4
    ran = 0

    def count(layer: nn.Linear, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        nonlocal ran
        ran += 2 * inputs[0].numel() * layer.out_features

    model = BLT(config)
    for layer in model.modules():
        if isinstance(layer, nn.Linear):
            layer.register_forward_hook(count)
    # 65 tokens with BOS, 17 patches with its own; the patch that begins with the end holds none.
    batch = PackedBatch.of_document(bytes(num_bytes), [patch] * 16 + [1])
    per_token, per_patch = _linear_flops(config)
    model(batch)
    assert ran == 65 * per_token + 17 * per_patch
    assert summarise(config, patch, num_bytes).total_flops_per_byte == pytest.approx(
        per_token + per_patch / patch + _attention_flops(config, num_bytes, patch)
    )


def _linear_flops(config: BLTConfig) -> tuple[int, int]:
    """Multiplications and additions of linear layers a token and a patch, written out."""
    local, latent, k = config.local_dim, config.latent_dim, config.queries_per_patch
    block = 4 * local * local + 3 * local * config.local_ffn_dim
    layers, decoder_layers = config.encoder_layers, config.decoder_layers
    asked = layers if config.encoder_cross_attention == "all" else 1
    per_token = layers * block + asked * 2 * local * local + decoder_layers * (block + 2 * local * local) + local * 260
    latent_block = 4 * latent * latent + 3 * latent * config.latent_ffn_dim
    projected = k * local * latent if k * local != latent else 0
    per_patch = k * local * local + asked * 2 * k * local * local + projected + config.latent_layers * latent_block
    per_patch += latent * k * local + decoder_layers * 2 * k * local * local
    return 2 * per_token, 2 * per_patch


def _attention_flops(config: BLTConfig, num_bytes: int, patch: int) -> float:
    """Scores and sums of values a byte: 4 x dimension for each key that is seen."""
    byte_keys = sum(min(place + 1, config.window) for place in range(num_bytes)) / num_bytes
    num_patches = num_bytes // patch
    patch_keys = sum(place + 1 for place in range(num_patches)) / num_patches
    local_layers = config.encoder_layers + config.decoder_layers
    asked = config.encoder_layers if config.encoder_cross_attention == "all" else 1
    between = (asked + config.decoder_layers) * config.queries_per_patch
    return 4 * config.local_dim * (local_layers * byte_keys + between) + 4 * config.latent_dim * config.latent_layers * patch_keys / patch


@pytest.mark.parametrize(
    ("patch", "context", "message"),
    [
        (0.5, 100, "The mean patch length is 0.5; it must be at least 1 byte."),
        (float("nan"), 100, "The mean patch length is nan"),
        (4.5, 0, "The context is 0; it must be at least 1 byte."),
    ],
)
def test_impossible_numbers_are_refused(patch, context, message):
    with pytest.raises(ConfigError, match=message):
        summarise(tiny_config(), patch, context)
