"""Both ways between the entropy model and transformers' `BltPatcher`: the same weights, the same entropies."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import BltConfig, BltForCausalLM, BltModel, BltPatcher
from transformers.models.blt.configuration_blt import BltPatcherConfig

import bltdata.entropy
from bltdata.entropy import EntropyModel, export_patcher, import_patcher, patcher_config, patcher_state
from bltdata.errors import CheckpointError, ConfigError
from bltdata.vocab import encode
from tests.bltdata.small import architecture, opinionated_model

DATA = bytes(range(200)) + b"and some words, some of them twice; some of them twice."
EDITED = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24, "sliding_window": 8}


def theirs(patcher: BltPatcher, data: bytes) -> np.ndarray:
    """The entropies of `BltPatcher`, of one document in one row."""
    with torch.no_grad():
        entropies, _, _ = patcher.eval()(torch.from_numpy(encode(data, bos=True))[None])
    return entropies[0].float().numpy()


def ours(model: EntropyModel, data: bytes) -> np.ndarray:
    return next(model.score([data]))


def randomised(patcher: BltPatcher, seed: int) -> BltPatcher:
    """Weights of which each matters, norms among them."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in patcher.parameters():
            if parameter.dim() == 1:
                parameter.uniform_(0.5, 1.5, generator=generator)
            else:
                parameter.normal_(0, parameter.shape[1] ** -0.5, generator=generator)
    return patcher.eval()


def small_patcher(seed: int = 0, **changes: Any) -> BltPatcher:
    return randomised(BltPatcher(BltPatcherConfig(**(EDITED | changes))), seed)


@st.composite
def architectures(draw: st.DrawFn) -> dict[str, Any]:
    heads = draw(st.integers(1, 4))
    return {
        "num_heads": heads,
        "dim": heads * 2 * draw(st.integers(1, 5)),
        "num_layers": draw(st.integers(1, 3)),
        "ffn_dim": draw(st.integers(1, 24)),
        "window": draw(st.integers(1, 24)),
        "rope_theta": draw(st.sampled_from([10.0, 1000.0, 10_000.0, 500_000.0])),
        "norm_eps": draw(st.sampled_from([1e-6, 1e-5, 1e-2])),
    }


# ------------------------------------------------------------------------------------------------------------- entropies


@settings(max_examples=25)
@given(architecture=architectures(), seed=st.integers(0, 100), data=st.binary(max_size=90))
def test_a_patcher_with_our_weights_has_our_entropies(architecture: dict[str, Any], seed: int, data: bytes) -> None:
    model = opinionated_model(seed, **architecture)
    patcher = BltPatcher(BltPatcherConfig(**patcher_config(model.config)))
    patcher.load_state_dict(patcher_state(model))
    np.testing.assert_allclose(theirs(patcher, data), ours(model, data), rtol=0, atol=1e-5)


@settings(max_examples=20)
@given(
    heads=st.integers(1, 4), shared=st.integers(1, 4), half=st.integers(1, 4), window=st.integers(1, 24),
    theta=st.sampled_from([10.0, 1e4]), seed=st.integers(0, 100), data=st.binary(min_size=1, max_size=90),
)  # fmt: skip
def test_a_model_with_their_weights_has_their_entropies(
    tmp_path_factory: pytest.TempPathFactory, heads: int, shared: int, half: int, window: int, theta: float, seed: int, data: bytes
) -> None:
    patcher = small_patcher(
        seed,
        hidden_size=heads * shared * 2 * half,
        num_attention_heads=heads * shared,
        num_key_value_heads=heads,
        sliding_window=window,
        rope_parameters={"rope_type": "default", "rope_theta": theta},
    )
    folder = tmp_path_factory.mktemp("patcher")
    patcher.save_pretrained(folder)
    np.testing.assert_allclose(ours(import_patcher(folder), data), theirs(patcher, data), rtol=0, atol=1e-5)


def with_exact_angles(patcher: BltPatcher) -> BltPatcher:
    """The same patcher, whose angles don't lose digits where positions are large."""
    rotary = patcher.rotary_emb

    def forward(x: torch.Tensor, position_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        angles = (position_ids[..., None].double() * rotary.inv_freq.double()).repeat_interleave(2, dim=-1)
        return angles.cos().to(x.dtype), angles.sin().to(x.dtype)

    rotary.forward = forward
    return patcher


@pytest.mark.parametrize("window", [8, 512])
def test_far_into_a_text_they_agree_as_far_as_their_angles_have_digits(window: int) -> None:
    # As docs/transformers.md and the help of two commands say it, for weights that make more of a difference than trained ones.
    model = opinionated_model(window=window)
    patcher = BltPatcher(BltPatcherConfig(**patcher_config(model.config)))
    patcher.load_state_dict(patcher_state(model))
    data = np.random.default_rng(0).integers(0, 256, 4000, dtype=np.uint8).tobytes()
    scores = ours(model, data)
    for begin, end, tolerance in ((0, 300, 1e-5), (300, 1000, 5e-5), (1000, 4001, 5e-4)):
        np.testing.assert_allclose(theirs(patcher, data)[begin:end], scores[begin:end], rtol=0, atol=tolerance)
    np.testing.assert_allclose(theirs(with_exact_angles(patcher), data), scores, rtol=0, atol=1e-5)


def test_the_window_matters() -> None:
    # Or the two tests above would show little of it.
    model = opinionated_model()
    patcher = BltPatcher(BltPatcherConfig(**patcher_config(model.config) | {"sliding_window": None}))
    patcher.load_state_dict(patcher_state(model))
    difference = np.abs(theirs(patcher, DATA) - ours(model, DATA))
    assert difference[:8].max() < 1e-5
    assert difference[8:].max() > 0.1


# ----------------------------------------------------------------------------------------------------------------- export


def test_transformers_opens_what_is_exported(tmp_path: Path) -> None:
    model = opinionated_model()
    export_patcher(model, tmp_path / "new" / "patcher")
    patcher, report = BltPatcher.from_pretrained(tmp_path / "new" / "patcher", output_loading_info=True)
    assert not any(report.values())
    assert sorted(patcher.state_dict()) == sorted(patcher_state(model))
    assert patcher.dtype == torch.float32
    np.testing.assert_allclose(theirs(patcher, DATA), ours(model, DATA), rtol=0, atol=1e-5)


def test_there_and_back(tmp_path: Path) -> None:
    model = opinionated_model(num_layers=1, rope_theta=123.0, norm_eps=1e-3, window=5)
    export_patcher(model, tmp_path / "out")
    back = import_patcher(str(tmp_path / "out"))
    assert back.config == model.config
    assert back.fingerprint == model.fingerprint
    assert not back.training


def test_every_setting_arrives() -> None:
    config = architecture(dim=24, num_layers=3, num_heads=3, ffn_dim=7, window=9, rope_theta=50.0, norm_eps=1e-4)
    made = BltPatcherConfig(**patcher_config(config))
    assert (made.vocab_size, made.hidden_size, made.num_hidden_layers, made.num_attention_heads) == (260, 24, 3, 3)
    assert (made.num_key_value_heads, made.intermediate_size, made.sliding_window, made.rms_norm_eps) == (3, 7, 9, 1e-4)
    assert made.rope_parameters == {"rope_type": "default", "rope_theta": 50.0}


def test_the_exported_state_is_the_model_s_own() -> None:
    model = opinionated_model()
    state = patcher_state(model)
    assert {tensor.data_ptr() for tensor in state.values()} == {parameter.data_ptr() for parameter in model.parameters()}
    assert not any(tensor.requires_grad for tensor in state.values())


def test_nothing_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"isn't empty; give a folder that doesn't exist or is empty\.$"):
        export_patcher(opinionated_model(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_an_empty_folder_will_do(tmp_path: Path) -> None:
    export_patcher(opinionated_model(), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]


def test_the_file_says_whose_tensors_it_holds(tmp_path: Path) -> None:
    # Which versions of transformers insist on, though the newest doesn't.
    export_patcher(opinionated_model(), tmp_path)
    with safe_open(tmp_path / "model.safetensors", framework="pt") as file:
        assert file.metadata() == {"format": "pt"}


# ----------------------------------------------------------------------------------------------------------------- import


@pytest.fixture(scope="module")
def blt_config() -> BltConfig:
    local = {"hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 16, "hidden_size_global": 32}
    return BltConfig(
        patcher_config=EDITED,
        encoder_config=local,
        decoder_config=local,
        global_config={"hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 16},
        encoder_hash_byte_group_vocab=11,
    )


@pytest.mark.parametrize("cls", [BltModel, BltForCausalLM])
@pytest.mark.parametrize("shard_size", ["1GB", "20KB"])
def test_the_patcher_of_a_blt(tmp_path: Path, blt_config: BltConfig, cls: type, shard_size: str) -> None:
    blt = cls(blt_config)
    patcher = randomised((blt if cls is BltModel else blt.model).patcher, 1)
    blt.save_pretrained(tmp_path, max_shard_size=shard_size)
    assert (tmp_path / "model.safetensors.index.json").exists() == (shard_size == "20KB")
    np.testing.assert_allclose(ours(import_patcher(tmp_path), DATA), theirs(patcher, DATA), rtol=0, atol=1e-5)


def test_a_blt_without_a_patcher(tmp_path: Path, blt_config: BltConfig) -> None:
    blt_config = BltConfig(**blt_config.to_dict() | {"patch_in_forward": False})
    BltModel(blt_config).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"holds no patcher \(no tensor is called model\.patcher\.\.\.\.\); give"):
        import_patcher(tmp_path)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_smaller_types_are_widened(tmp_path: Path, dtype: torch.dtype) -> None:
    small_patcher().to(dtype).save_pretrained(tmp_path)
    model = import_patcher(tmp_path)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    patcher = BltPatcher.from_pretrained(tmp_path, dtype=torch.float32)
    np.testing.assert_allclose(ours(model, DATA), theirs(patcher, DATA), rtol=0, atol=1e-5)


Edit = Callable[..., Path]


@pytest.fixture
def edited(tmp_path: Path) -> Edit:
    """A patcher's folder whose settings and tensors were changed after it was written; None takes one out."""

    def write(settings: dict[str, Any] | None = None, tensors: dict[str, torch.Tensor | None] | None = None) -> Path:
        small_patcher().save_pretrained(tmp_path)
        path, weights = tmp_path / "config.json", tmp_path / "model.safetensors"
        config = json.loads(path.read_text()) | (settings or {})
        path.write_text(json.dumps({key: value for key, value in config.items() if value != "absent"}))
        changed = load_file(weights) | (tensors or {})
        save_file({name: tensor for name, tensor in changed.items() if tensor is not None}, weights, metadata={"format": "pt"})
        return tmp_path

    return write


ROPE_ABSENT = {"rope_parameters": "absent"}


@pytest.mark.parametrize(
    ("settings", "theta"),
    [
        (ROPE_ABSENT, 10_000.0),
        (ROPE_ABSENT | {"rope_theta": 77}, 77.0),
        (ROPE_ABSENT | {"rope_theta": 77.0, "rope_scaling": None}, 77.0),
        (ROPE_ABSENT | {"rope_theta": 77.0, "rope_scaling": {"rope_type": "default"}}, 77.0),
        ({"rope_parameters": {"rope_theta": 5.0}, "rope_theta": 77.0}, 5.0),
        ({"rope_parameters": {"rope_type": "default"}, "rope_theta": 77.0}, 77.0),
        ({"rope_parameters": {"rope_theta": 5.0}, "rope_scaling": {"type": "default", "rope_theta": 6.0}}, 6.0),
        ({"rope_parameters": None, "partial_rotary_factor": 1.0}, 10_000.0),
    ],
)
def test_the_base_of_rotations_stands_where_versions_put_it(edited: Edit, settings: dict[str, Any], theta: float) -> None:
    folder = edited(settings)
    model = import_patcher(folder)
    assert model.config.rope_theta == theta
    np.testing.assert_allclose(ours(model, DATA), theirs(BltPatcher.from_pretrained(folder), DATA), rtol=0, atol=1e-5)


def test_settings_that_are_not_spelled_out_are_those_of_transformers() -> None:
    made, config = BltPatcherConfig(), bltdata.entropy.interop._Settings()
    names = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "hidden_act", "rms_norm_eps")
    assert [getattr(config, name) for name in names] == [getattr(made, name) for name in names]
    assert (config.sliding_window, config.rope_theta) == (made.sliding_window, made.rope_parameters["rope_theta"])


def test_a_window_in_place_of_the_checkpoint_s(edited: Edit) -> None:
    folder = edited({"sliding_window": None})
    with pytest.raises(CheckpointError, match=r"config\.json, key 'sliding_window' is null, .*; say which with --window: 512 is"):
        import_patcher(folder)
    patcher = BltPatcher.from_pretrained(folder)
    assert patcher.config.sliding_window is None
    np.testing.assert_allclose(ours(import_patcher(folder, window=1000), DATA), theirs(patcher, DATA), rtol=0, atol=1e-5)
    assert import_patcher(folder, window=3).config.window == 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"vocab_size": 300}, "config.json, key 'vocab_size' is 300; an entropy model like this has 260 only."),
        ({"hidden_act": "gelu"}, "config.json, key 'hidden_act' is 'gelu'; an entropy model like this has 'silu' only."),
        ({"head_dim": 4}, "config.json, key 'head_dim' is 4; an entropy model like this has 8 only."),
        ({"num_key_value_heads": 3}, "config.json, key 'num_key_value_heads' is 3; it must divide the 2 attention heads: copy the"),
        ({"hidden_size": "16"}, "config.json has"),
        ({"num_attention_heads": 0}, "config.json makes no entropy model: The entropy model's num_heads is 0; it must be at least 1."),
        ({"num_attention_heads": 16}, "config.json makes no entropy model: The entropy model's dim is 16 with 16 heads; it must be"),
        ({"sliding_window": 0}, "config.json makes no entropy model: The entropy model's window is 0; it must be at least 1."),
        (
            {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}},
            "config.json, key 'rope_parameters' is {'rope_type': 'linear', 'factor': 2.0, 'rope_theta': 10000.0}; an entropy model has",
        ),
        ({"rope_scaling": {"type": "yarn"}}, "config.json, key 'rope_scaling' is {'type': 'yarn'}; an entropy model has rotary"),
        ({"rope_parameters": {"full_attention": {"rope_theta": 1.0}}}, "config.json, key 'rope_parameters' is {'full_attention'"),
        ({"partial_rotary_factor": 0.5}, "config.json, key 'partial_rotary_factor' is 0.5; an entropy model rotates whole heads only."),
        ({"rope_parameters": {"rope_theta": "x"}}, "config.json, key 'rope_parameters' has a rope_theta of 'x'; it must be a number"),
        ({"intermediate_size": 25}, "gate_proj.weight, has shape [24, 16], and"),
        ({"num_hidden_layers": 3}, " lack layers.2.input_layernorm.weight; copy the checkpoint again, or give one whose"),
        ({"num_hidden_layers": 1}, " have layers.1.input_layernorm.weight, which an entropy model hasn't; copy the checkpoint again"),
        ({"model_type": "llama"}, "config.json, key 'model_type' is 'llama'; give a transformers checkpoint of a BLT"),
        ({"model_type": ["blt"]}, "config.json, key 'model_type' is ['blt']; give a transformers checkpoint of a BLT"),
        ({"model_type": "blt", "patcher_config": 3}, "config.json, key 'patcher_config' is 3; it must be a table: copy the"),
    ],
)  # fmt: skip
def test_architectures_that_an_entropy_model_has_not(edited: Edit, settings: dict[str, Any], message: str) -> None:
    folder = edited(settings)
    with pytest.raises((CheckpointError, ConfigError)) as caught:
        import_patcher(folder)
    text = str(caught.value)
    assert str(folder) in text
    assert message in text or (message == "config.json has" and "key 'hidden_size' is '16'; it must be of type int." in text)
    assert text.endswith(".")


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"lm_head.weight": None}, " lack lm_head.weight; copy the checkpoint again, .* no biases, and an output matrix of its own"),
        ({"layers.0.self_attn.q_proj.bias": torch.zeros(16)}, " have layers.0.self_attn.q_proj.bias, which an entropy model hasn't"),
        ({"norm.weight": torch.ones(17)}, r"model.safetensors, tensor norm.weight, has shape \[17\], and .*config.json asks for"),
        ({"norm.weight": torch.ones(16, dtype=torch.float64)}, "tensor norm.weight, is stored as float64; save the checkpoint in float32"),
        ({"norm.weight": torch.ones(16, dtype=torch.int8)}, "tensor norm.weight, is stored as int8; save the checkpoint in float32"),
    ],
)  # fmt: skip
def test_tensors_that_do_not_fit(edited: Edit, tensors: dict[str, torch.Tensor | None], message: str) -> None:
    folder = edited(tensors=tensors)
    with pytest.raises(CheckpointError, match=message):
        import_patcher(folder)


# ------------------------------------------------------------------------------------------------------- missing, damaged


def test_a_folder_without_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"holds no transformers checkpoint \(config\.json is missing\); give what save_pretrained"):
        import_patcher(tmp_path)


def test_weights_in_another_format(edited: Edit) -> None:
    folder = edited()
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"model\.safetensors is missing; copy the whole checkpoint, or save it as safetensors"):
        import_patcher(folder)


@pytest.mark.parametrize("content", [b"", b"\xff{", b"[1]", b"{"])
def test_a_damaged_config(edited: Edit, content: bytes) -> None:
    folder = edited()
    (folder / "config.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"config\.json (can't be read \(.*\)|holds no table); copy the checkpoint again\.$"):
        import_patcher(folder)


def test_damaged_weights(edited: Edit) -> None:
    folder = edited()
    whole = (folder / "model.safetensors").read_bytes()
    for damaged in (b"", whole[:100], whole[:-1]):
        (folder / "model.safetensors").write_bytes(damaged)
        with pytest.raises(CheckpointError, match=r"model\.safetensors can't be read \(.*\); copy the checkpoint again\.$"):
            import_patcher(folder)


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    small_patcher().save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    return tmp_path


def test_a_file_of_several_is_missing(sharded: Path) -> None:
    last = sorted(sharded.glob("model-*.safetensors"))[-1]
    last.unlink()
    with pytest.raises(CheckpointError, match=rf"{last.name} is missing; copy the whole checkpoint"):
        import_patcher(sharded)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"norm.weight": "../model.safetensors"},
            r"key 'norm\.weight' is '\.\./model\.safetensors'; it must be the name of a file beside it",
        ),
        ({"norm.weight": 3}, r"key 'norm\.weight' is 3; it must be the name of a file beside it"),
        (
            {"lm_head.weight": "model-00001-of-00002.safetensors"},
            r"00001-of-00002\.safetensors lacks lm_head\.weight, which model\.safetensors",
        ),
        (None, r"model\.safetensors\.index\.json has no table 'weight_map'; copy the checkpoint again"),
    ],
)
def test_an_index_that_lies(sharded: Path, change: dict[str, Any] | None, message: str) -> None:
    for path in sharded.glob("model-00001-of-*.safetensors"):
        path.rename(sharded / "model-00001-of-00002.safetensors")
    path = sharded / "model.safetensors.index.json"
    weight_map = json.loads(path.read_text())["weight_map"]
    weight_map = {name: "model-00001-of-00002.safetensors" if "-00001-of-" in file else file for name, file in weight_map.items()}
    path.write_text(json.dumps({"weight_map": None if change is None else weight_map | change}))
    with pytest.raises(CheckpointError, match=message):
        import_patcher(sharded)


def test_the_names_are_public() -> None:
    assert {"export_patcher", "import_patcher", "patcher_config", "patcher_state"} <= set(bltdata.entropy.__all__)
