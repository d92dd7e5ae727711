"""A model as a folder: `config.json`, which says what it is, and `model.safetensors`, its weights.

A run in progress keeps `training_state.pt` beside them. Each file is published whole or not at all.
"""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import nn

from bltdata.atomic import atomic_path, write_json
from bltdata.errors import CheckpointError

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
STATE_FILE = "training_state.pt"
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
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    with atomic_path(folder / WEIGHTS_FILE) as temporary:
        safetensors.torch.save_file(weights, temporary)
    write_json(folder / CONFIG_FILE, {"kind": kind, "format_version": FORMAT_VERSION, "config": config, **extra})


def load_model(folder: Path | str, kind: str, build: Callable[[dict[str, Any]], ModelT]) -> tuple[ModelT, dict[str, Any]]:
    """Read a model.

    Args:
        folder: what `save_model` wrote.
        kind: the architecture that is wanted.
        build: makes an untrained model from the folder's config.

    Returns:
        The model in eval mode, and everything in `config.json`.

    Raises:
        CheckpointError: there is no model, it is damaged, or it is of another architecture.
    """
    folder = Path(folder)
    metadata = _read_config(folder, kind)
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


def save_state(folder: Path | str, state: dict[str, Any]) -> None:
    """Write the state of a run in progress: tensors, numbers, strings, lists and dicts."""
    with atomic_path(Path(folder) / STATE_FILE) as temporary:
        torch.save({"format_version": FORMAT_VERSION, **state}, temporary)


def load_state(folder: Path | str) -> dict[str, Any] | None:
    """Read the state of a run in progress; None where there is none.

    Raises:
        CheckpointError: it is damaged, or another version wrote it.
    """
    path = Path(folder) / STATE_FILE
    if not path.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError, pickle.UnpicklingError) as error:
        raise CheckpointError(f"{path} is damaged, so the run can't go on from it; start it again with --no-resume.") from error
    version = state.pop("format_version", None) if isinstance(state, dict) else None
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has format version {version}, and this version reads {FORMAT_VERSION}; start the run again with --no-resume."
        )
    return state


def remove_run(folder: Path | str) -> None:
    """Delete a run's state and its best model, so that neither is taken for those of the run that begins."""
    for name in (STATE_FILE, CONFIG_FILE, WEIGHTS_FILE):
        (Path(folder) / name).unlink(missing_ok=True)


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


def _load_weights(model: nn.Module, weights: dict[str, torch.Tensor], path: Path) -> None:
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
    model.load_state_dict(weights)
