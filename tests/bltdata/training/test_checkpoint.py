import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import nn

from bltdata.errors import CheckpointError
from bltdata.training import checkpoint
from bltdata.training.checkpoint import load_model, load_model_metadata, save_model

KIND = "tests.Model"


class Model(nn.Module):
    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        self.linear = nn.Linear(config["size"], 2)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_model(tmp_path / "model", KIND, {"size": 3}, Model({"size": 3}), {"note": [1, 2]})
    return tmp_path / "model"


def change_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def error_of(folder: Path, kind: str = KIND) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_model(folder, kind, Model)
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith(".")
    assert str(folder) in message
    return message


def test_what_is_saved_is_loaded(tmp_path):
    model = Model({"size": 3}).train()
    save_model(tmp_path / "a" / "b", KIND, {"size": 3}, model, {"note": [1, 2]})
    loaded, metadata = load_model(tmp_path / "a" / "b", KIND, Model)
    assert metadata == {"kind": KIND, "format_version": 1, "config": {"size": 3}, "note": [1, 2]}
    assert metadata == load_model_metadata(tmp_path / "a" / "b", KIND)
    assert not loaded.training
    assert all(torch.equal(tensor, loaded.state_dict()[name]) for name, tensor in model.state_dict().items())
    assert sorted(path.name for path in (tmp_path / "a" / "b").iterdir()) == ["config.json", "model.safetensors"]


def test_a_model_is_built_without_memory(folder):
    built = []

    def build(config: dict[str, Any]) -> Model:
        built.append(Model(config))
        assert all(parameter.is_meta for parameter in built[0].parameters())
        return built[0]

    before = torch.get_rng_state()
    loaded, _ = load_model(folder, KIND, build)
    assert loaded is built[0]
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_weights_are_float32_whatever_the_model_s_type(tmp_path, dtype):
    model = Model({"size": 3}).to(dtype)
    save_model(tmp_path, KIND, {"size": 3}, model, {})
    stored = safetensors.torch.load_file(tmp_path / "model.safetensors")
    assert {name: (tensor.dtype, tensor.tolist()) for name, tensor in stored.items()} == {
        name: (torch.float32, tensor.float().tolist()) for name, tensor in model.state_dict().items()
    }


def test_equal_weights_are_equal_files(tmp_path):
    model = Model({"size": 3})
    for name in ("a", "b"):
        save_model(tmp_path / name, KIND, {"size": 3}, model, {})
    assert (tmp_path / "a" / "model.safetensors").read_bytes() == (tmp_path / "b" / "model.safetensors").read_bytes()


def test_no_model(tmp_path):
    assert "holds no model (config.json is missing); give the folder that training wrote" in error_of(tmp_path)
    assert "holds no model" in error_of(tmp_path / "nowhere")


def test_a_file_instead_of_a_folder(tmp_path):
    (tmp_path / "file").touch()
    assert "can't be read" in error_of(tmp_path / "file")


def test_weights_are_missing(folder):
    (folder / "model.safetensors").unlink()
    assert "model.safetensors is missing: the checkpoint is incomplete" in error_of(folder)


@pytest.mark.parametrize("kept", [0, 4, 100, -1])
def test_weights_are_cut_short(folder, kept):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    assert "model.safetensors can't be read" in error_of(folder)


def test_weights_are_a_folder(folder):
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").mkdir()
    assert "model.safetensors can't be read" in error_of(folder)


@pytest.mark.parametrize("text", [b"", b"{", b"\xff\xfe", b'{"kind": '])
def test_config_is_damaged(folder, text):
    (folder / "config.json").write_bytes(text)
    assert "config.json can't be read" in error_of(folder)


def test_another_kind(folder):
    assert f"holds {KIND}, but bltmodel.BLT is wanted here" in error_of(folder, "bltmodel.BLT")
    (folder / "config.json").write_text("[]")
    assert "holds something else" in error_of(folder)
    (folder / "config.json").write_text('{"model_type": "gpt2"}')
    assert "holds something else" in error_of(folder)


@pytest.mark.parametrize("version", [0, 2, None])
def test_another_version(folder, version):
    change_config(folder, format_version=version)
    assert f"config.json has format version {version}, and this version reads 1" in error_of(folder)


@pytest.mark.parametrize("config", [None, [], "size"])
def test_no_architecture(folder, config):
    change_config(folder, config=config)
    assert "config.json has no table 'config'" in error_of(folder)


def test_another_shape(folder):
    change_config(folder, config={"size": 5})
    expected = "doesn't fit the architecture in config.json: linear.weight has shape [2, 3], and [2, 5] is needed"
    assert expected in error_of(folder)


def test_a_tensor_that_is_not_part_of_it(folder):
    weights = {**Model({"size": 3}).state_dict(), "extra.weight": torch.zeros(1)}
    safetensors.torch.save_file(weights, folder / "model.safetensors")
    assert "it has extra.weight, which isn't part of it" in error_of(folder)


def test_a_tensor_is_missing(folder):
    safetensors.torch.save_file({"linear.weight": torch.zeros(2, 3)}, folder / "model.safetensors")
    assert "it lacks linear.bias" in error_of(folder)


def test_a_write_that_fails_leaves_the_old_file(folder, monkeypatch):
    before = (folder / "model.safetensors").read_bytes()

    def full(weights: dict[str, torch.Tensor], path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint.safetensors.torch, "save_file", full)
    with pytest.raises(OSError, match="No space left"):
        save_model(folder, KIND, {"size": 4}, Model({"size": 4}), {})
    assert (folder / "model.safetensors").read_bytes() == before
    assert load_model(folder, KIND, Model)[1]["config"] == {"size": 3}
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]
