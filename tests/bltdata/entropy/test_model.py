import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from transformers.models.blt.configuration_blt import BltPatcherConfig
from transformers.models.blt.modeling_blt import BltPatcher

import bltdata
from bltdata.entropy import PRESETS, EntropyModel, EntropyModelConfig, export_patcher, import_patcher
from bltdata.entropy.config import preset
from bltdata.errors import CheckpointError, ConfigError
from bltdata.nn import truncated_normal_
from bltdata.vocab import encode
from tests.bltdata.small import architecture, opinionated_model

DATA = "The naïve café".encode() + bytes(range(0, 256, 5)) * 2


def as_patcher(model: EntropyModel) -> BltPatcher:
    """The entropy model of transformers with the same weights."""
    config = model.config
    patcher = BltPatcher(
        BltPatcherConfig(
            hidden_size=config.dim, num_hidden_layers=config.num_layers, num_attention_heads=config.num_heads,
            intermediate_size=config.ffn_dim, sliding_window=config.window, rms_norm_eps=config.norm_eps,
            rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta}, attn_implementation="eager",
        )
    )  # fmt: skip
    names = {
        "embedding.": "embed_tokens.",
        "head.": "lm_head.",
        ".attention.": ".self_attn.",
        ".attention_norm.": ".input_layernorm.",
        ".ffn.": ".mlp.",
        ".ffn_norm.": ".post_attention_layernorm.",
    }
    weights = {}
    for name, tensor in model.state_dict().items():
        for ours, theirs in names.items():
            name = name.replace(ours, theirs)
        weights[name] = tensor
    patcher.load_state_dict(weights)
    return patcher.eval()


@pytest.mark.parametrize(
    "changes", [{}, {"dim": 32, "num_heads": 4, "num_layers": 3, "window": 17, "rope_theta": 500.0, "norm_eps": 1e-3}, {"window": 500}]
)
def test_entropies_are_those_of_transformers(changes):
    model = opinionated_model(**changes)
    ids = torch.from_numpy(encode(DATA, bos=True))[None]
    with torch.no_grad():
        expected, _, expected_logits = as_patcher(model)(ids)
        logits = model(ids, torch.zeros_like(ids))
    torch.testing.assert_close(logits, expected_logits, atol=1e-4, rtol=0)
    (entropies,) = model.score([DATA])
    assert expected.std() > 0.15
    np.testing.assert_allclose(entropies, expected[0].numpy(), atol=1e-5, rtol=0)


def test_base_is_the_released_size():
    with torch.device("meta"):
        assert EntropyModel.from_preset("base").num_parameters == 99_512_064


@pytest.mark.parametrize("name", PRESETS)
def test_presets(name):
    with torch.device("meta"):
        model = EntropyModel.from_preset(name)
    config = PRESETS[name]
    matrices = 2 * 260 * config.dim + config.num_layers * (4 * config.dim**2 + 3 * config.dim * config.ffn_dim)
    assert model.config == preset(name) == config
    assert model.num_parameters == matrices + (2 * config.num_layers + 1) * config.dim


def test_presets_grow():
    with torch.device("meta"):
        sizes = [EntropyModel.from_preset(name).num_parameters for name in ("tiny", "small", "medium", "base")]
    assert list(PRESETS) == ["tiny", "small", "medium", "base"]
    assert sizes == sorted(sizes)


@pytest.mark.parametrize(("name", "advice"), [("tinny", "'tiny'"), ("x", "base, medium, small, tiny"), ("", "base, medium, small, tiny")])
def test_no_such_preset(name, advice):
    with pytest.raises(ConfigError, match=rf"^There is no entropy model preset '{name}'; .*{advice}\.$"):
        EntropyModel.from_preset(name)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dim": 0}, "The entropy model's dim is 0; it must be at least 1."),
        ({"num_layers": 0}, "The entropy model's num_layers is 0; it must be at least 1."),
        ({"window": -1}, "The entropy model's window is -1; it must be at least 1."),
        ({"dim": 18, "num_heads": 4}, "The entropy model's dim is 18 with 4 heads; it must be a multiple of 8 (heads of an even size)."),
        ({"rope_theta": 0.0}, "The entropy model's rope_theta is 0; it must be a finite number above 0."),
        ({"rope_theta": math.inf}, "The entropy model's rope_theta is inf; it must be a finite number above 0."),
        ({"norm_eps": -1e-5}, "The entropy model's norm_eps is -1e-05; it must be a finite number above 0."),
        ({"norm_eps": math.nan}, "The entropy model's norm_eps is nan; it must be a finite number above 0."),
    ],
)
def test_impossible_architectures(changes, message):
    with pytest.raises(ConfigError) as caught:
        architecture(**changes)
    assert str(caught.value) == message


def test_a_seed_fixes_the_weights():
    before = torch.get_rng_state()
    one, same, other = (EntropyModel(architecture(), seed) for seed in (1, 1, 2))
    assert one.fingerprint == same.fingerprint != other.fingerprint
    assert torch.equal(torch.get_rng_state(), before)


def test_the_weights_of_a_seed_are_what_they_were():
    # In the order in which they were drawn when a model still began with memory.
    model, generator = EntropyModel(architecture(), seed=3), torch.Generator().manual_seed(3)
    for layer in model.modules():
        if isinstance(layer, torch.nn.Linear):
            assert torch.equal(layer.weight, truncated_normal_(torch.empty_like(layer.weight), layer.in_features**-0.5, generator))
    assert torch.equal(model.embedding.weight, truncated_normal_(torch.empty(260, 16), 0.25, generator))
    assert all(torch.equal(weight, torch.ones(16)) for name, weight in model.state_dict().items() if name.endswith("norm.weight"))


def test_initial_weights_make_a_model_that_is_almost_undecided():
    # However they are drawn: a model that starts with opinions has to unlearn them.
    ids = torch.from_numpy(encode(DATA, bos=True))[None]
    for name in ("tiny", "small"):
        logits = EntropyModel.from_preset(name)(ids, torch.zeros_like(ids))
        assert torch.distributions.Categorical(logits=logits).entropy().mean() > 4.5


def test_save_and_load(tmp_path):
    model = opinionated_model()
    model.save(tmp_path, {"note": "x"})
    loaded = EntropyModel.load(tmp_path)
    assert loaded.config == model.config
    assert loaded.fingerprint == model.fingerprint
    assert next(loaded.score([DATA])).tobytes() == next(model.score([DATA])).tobytes()
    assert json.loads((tmp_path / "config.json").read_text())["note"] == "x"
    assert bltdata.EntropyModel.load(str(tmp_path)).fingerprint == model.fingerprint


def test_loading_draws_no_weights(tmp_path, monkeypatch):
    model = opinionated_model()
    model.save(tmp_path / "model")
    export_patcher(model, tmp_path / "patcher")
    for module in ("entropy.model", "nn.initialisation"):
        monkeypatch.setattr(f"bltdata.{module}.truncated_normal_", lambda *_: pytest.fail("Weights were drawn to be written over."))
    before = torch.get_rng_state()
    for loaded in (EntropyModel.load(tmp_path / "model"), import_patcher(tmp_path / "patcher")):
        assert loaded.fingerprint == model.fingerprint
        assert all(parameter.requires_grad for parameter in loaded.parameters())
    assert torch.equal(torch.get_rng_state(), before)


def test_the_fingerprint_names_every_weight_and_setting():
    model = opinionated_model()
    seen = {model.fingerprint}
    for parameter in model.parameters():
        with torch.no_grad():
            parameter.view(-1)[-1] += 1e-3
        seen.add(model.fingerprint)
    assert len(seen) == 1 + len(list(model.parameters()))
    for field, value in {"rope_theta": 5.0, "norm_eps": 1e-3, "window": 9}.items():
        other = EntropyModel(dataclasses.replace(model.config, **{field: value}))
        other.load_state_dict(model.state_dict())
        seen.add(other.fingerprint)
    assert len(seen) == 4 + len(list(model.parameters()))
    assert all(len(name) == 16 and int(name, 16) >= 0 for name in seen)


def test_whole_numbers_make_no_other_model(tmp_path):
    whole, same = (EntropyModel(architecture(rope_theta=theta, norm_eps=eps)) for theta, eps in ((500, 1), (500.0, 1.0)))
    whole.save(tmp_path)
    assert whole.fingerprint == same.fingerprint == EntropyModel.load(tmp_path).fingerprint


def test_a_model_of_another_architecture(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"kind": "bltmodel.BLT", "format_version": 1, "config": {}}))
    with pytest.raises(CheckpointError, match=r"holds bltmodel\.BLT, but bltdata\.EntropyModel is wanted here"):
        EntropyModel.load(tmp_path)


def test_a_model_with_settings_that_there_are_not(tmp_path):
    opinionated_model().save(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(path.read_text().replace('"window"', '"windov"'))
    with pytest.raises(ConfigError, match=r"config of the entropy model has an unknown key 'windov'; .*'window'"):
        EntropyModel.load(tmp_path)


def test_rows_of_a_batch_are_apart():
    model = opinionated_model()
    ids = torch.from_numpy(np.stack([encode(DATA[:40], bos=True), encode(DATA[40:80], bos=True)]))
    first = torch.zeros_like(ids)
    together = model(ids, first)
    for row in range(2):
        torch.testing.assert_close(together[row : row + 1], model(ids[row : row + 1], first[row : row + 1]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("heads", [1, 2])
def test_what_is_carried_holds_no_more_than_the_window(heads):
    model = opinionated_model(num_heads=heads, window=8)
    ids = torch.from_numpy(encode(DATA, bos=True))[None]
    past = None
    with torch.no_grad():
        for _ in range(2):
            _, past = model.forward_chunk(ids, torch.zeros_like(ids), past)
            for tensor in (tensor for keys_values in past for tensor in keys_values):
                assert tensor.shape == (1, heads, 8, 16 // heads)
                assert tensor.untyped_storage().nbytes() == 4 * tensor.numel()


def test_config_is_what_the_docs_say():
    assert {field.name for field in dataclasses.fields(EntropyModelConfig)} == {
        "dim", "num_layers", "num_heads", "ffn_dim", "window", "rope_theta", "norm_eps",
    }  # fmt: skip
