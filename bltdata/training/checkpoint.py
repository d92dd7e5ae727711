"""A model as a folder: `config.json`, which says what it is, and `model.safetensors`, its weights.

Each file is published whole or not at all. What a run in progress keeps beside them is in `states`.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor, nn

from bltdata.atomic import atomic_path, write_json
from bltdata.errors import CheckpointError
from bltdata.nn import take_weights, without_weights

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
FORMAT_VERSION = 1

ModelT = TypeVar("ModelT", bound=nn.Module)


def save_model(folder: Path | str, kind: str, config: dict[str, Any], model: nn.Module, extra: dict[str, Any]) -> None:
    """Write a model.

    Args:
        folder: is made where it doesn't exist.
        kind: which architecture it is; `load_model` refuses another.
        config: what the architecture is built from, as JSON can hold it.
        model: its parameters are written in float32, contiguous, by name.
        extra: what else is worth knowing, such as how it was trained.
    """
    folder = Path(folder)
    weights = {name: tensor.detach().cpu().float().contiguous() for name, tensor in model.state_dict().items()}
    with atomic_path(folder / WEIGHTS_FILE) as temporary:
        safetensors.torch.save_file(weights, temporary)
    write_json(folder / CONFIG_FILE, {"kind": kind, "format_version": FORMAT_VERSION, "config": config, **extra})


def load_model(folder: Path | str, kind: str, build: Callable[[dict[str, Any]], ModelT]) -> tuple[ModelT, dict[str, Any]]:
    """Read a model.

    Args:
        folder: what `save_model` wrote.
        kind: the architecture that is wanted.
        build: makes an untrained model from the folder's config. It is called `without_weights`, which would be drawn to be written over.

    Returns:
        The model in eval mode, on torch's default device, and everything in `config.json`.

    Raises:
        CheckpointError: there is no model, it is damaged, or it is of another architecture.
    """
    folder = Path(folder)
    metadata = _read_config(folder, kind)
    with without_weights():
        model = build(metadata["config"])
    path = folder / WEIGHTS_FILE
    try:
        weights = safetensors.torch.load_file(path)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is missing: the checkpoint is incomplete; train it again or copy the whole folder.") from error
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} can't be read ({error}); copy the checkpoint again or train it again.") from error
    _load_weights(model, weights, path)
    return model.eval(), metadata


def load_model_metadata(folder: Path | str, kind: str) -> dict[str, Any]:
    """Everything in the `config.json` of a model, without its weights. Errors as for `load_model`."""
    return _read_config(Path(folder), kind)


def _read_config(folder: Path, kind: str) -> dict[str, Any]:
    path = folder / CONFIG_FILE
    try:
        metadata = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{folder} holds no model ({CONFIG_FILE} is missing); give the folder that training wrote.") from error
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path} can't be read ({error}); copy the checkpoint again or train it again.") from error
    found = metadata.get("kind") if isinstance(metadata, dict) else None
    if found != kind:
        raise CheckpointError(f"{folder} holds {found or 'something else'}, but {kind} is wanted here; give another folder.")
    if metadata.get("format_version") != FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has format version {metadata.get('format_version')}, and this version reads {FORMAT_VERSION}; train the model again."
        )
    if not isinstance(metadata.get("config"), dict):
        raise CheckpointError(f"{path} has no table 'config'; copy the checkpoint again or train it again.")
    return metadata


def _load_weights(model: nn.Module, weights: dict[str, Tensor], path: Path) -> None:
    expected = model.state_dict()
    missing, unknown = sorted(expected.keys() - weights.keys()), sorted(weights.keys() - expected.keys())
    if missing or unknown:
        found = f"lacks {missing[0]}" if missing else f"has {unknown[0]}, which isn't part of it"
        raise CheckpointError(f"{path} doesn't fit the architecture in {CONFIG_FILE}: it {found}; give a matching pair of files.")
    for name, tensor in weights.items():
        if tensor.shape != expected[name].shape:
            raise CheckpointError(
                f"{path} doesn't fit the architecture in {CONFIG_FILE}: {name} has shape {list(tensor.shape)}, "
                f"and {list(expected[name].shape)} is needed; give a matching pair of files."
            )
    take_weights(model, weights)
