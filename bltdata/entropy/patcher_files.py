"""The files of a transformers checkpoint that holds a BLT's patcher, which is what it calls the entropy model.

Read with safetensors and json alone, and of the weights the patcher's only: the rest of a BLT may be eighty times as large.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from bltdata.errors import CheckpointError

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
PATCHER_KIND = "blt_patcher"
BLT_KIND = "blt"

PREFIXES = {PATCHER_KIND: ("",), BLT_KIND: ("model.patcher.", "patcher.")}
"""What stands before the patcher's names, by `model_type`: `BltForCausalLM` and `BltModel` hold it under different ones."""

WIDENED = (torch.float32, torch.bfloat16, torch.float16)
"""Types that float32 holds exactly."""


@dataclass(frozen=True)
class PatcherFiles:
    """A checkpoint's patcher on the disk.

    Attributes:
        folder: the checkpoint.
        settings: the patcher's part of `config.json`, as it stands there.
        where: how an error names the place of the settings.
        prefix: what stands before the names of the patcher's tensors.
        files: name of each of its tensors, without the prefix -> the file that holds it.
    """

    folder: Path
    settings: dict[str, Any]
    where: str
    prefix: str
    files: dict[str, Path]

    @classmethod
    def find(cls, folder: Path) -> "PatcherFiles":
        """Look for the patcher in what `save_pretrained` of a `BltPatcher`, `BltModel` or `BltForCausalLM` wrote.

        Raises:
            CheckpointError: there is none, or a file is missing or damaged.
        """
        path = folder / CONFIG_FILE
        config = _read_json(path, f"{folder} holds no transformers checkpoint ({CONFIG_FILE} is missing); give what save_pretrained wrote.")
        kind = config.get("model_type")
        if kind not in PREFIXES:
            raise CheckpointError(
                f"{path}, key 'model_type' is {kind!r}; give a transformers checkpoint of a BLT ({BLT_KIND!r}) or of its patcher alone "
                f"({PATCHER_KIND!r})."
            )
        where = str(path)
        if kind == BLT_KIND:
            where = f"{path}, patcher_config"
            config = {} if config.get("patcher_config") is None else config["patcher_config"]
            if not isinstance(config, dict):
                raise CheckpointError(f"{path}, key 'patcher_config' is {config!r}; it must be a table: copy the checkpoint again.")
        files = _tensor_files(folder)
        prefix = next((prefix for prefix in PREFIXES[kind] if any(name.startswith(prefix) for name in files)), None)
        if prefix is None:
            raise CheckpointError(
                f"{folder} holds no patcher (no tensor is called {PREFIXES[kind][0]}...); give a checkpoint that was saved with it."
            )
        return cls(folder, config, where, prefix, {name.removeprefix(prefix): files[name] for name in files if name.startswith(prefix)})

    def read(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
        """The patcher's tensors, in float32.

        Args:
            shapes: name -> shape of all tensors that there must be.

        Raises:
            CheckpointError: one is missing or too many, or of another shape, or of a type that float32 doesn't hold exactly.
        """
        missing, unknown = sorted(shapes.keys() - self.files.keys()), sorted(self.files.keys() - shapes.keys())
        if missing or unknown:
            found = f"lack {self.prefix}{missing[0]}" if missing else f"have {self.prefix}{unknown[0]}, which an entropy model hasn't"
            raise CheckpointError(
                f"The weights in {self.folder} {found}; copy the checkpoint again, or give one whose patcher has the layers of "
                f"{CONFIG_FILE}, no biases, and an output matrix of its own."
            )
        tensors = {}
        for path in sorted(set(self.files.values())):
            with _opened(path) as file:
                present = set(file.keys())
                for name in (name for name in shapes if self.files[name] == path):
                    stored = self.prefix + name
                    if stored not in present:
                        raise CheckpointError(f"{path} lacks {stored}, which {INDEX_FILE} says it holds; copy the checkpoint again.")
                    tensors[name] = self._widened(file.get_tensor(stored), shapes[name], f"{path}, tensor {stored},")
        return tensors

    def _widened(self, tensor: Tensor, shape: tuple[int, ...], where: str) -> Tensor:
        if tuple(tensor.shape) != shape:
            raise CheckpointError(
                f"{where} has shape {list(tensor.shape)}, and {self.where} asks for {list(shape)}; give a matching pair of files."
            )
        if tensor.dtype not in WIDENED:
            kind = str(tensor.dtype).removeprefix("torch.")
            raise CheckpointError(f"{where} is stored as {kind}; save the checkpoint in float32, bfloat16 or float16.")
        return tensor.float()


def _tensor_files(folder: Path) -> dict[str, Path]:
    """Name of each tensor of a checkpoint -> its file."""
    whole, index = folder / WEIGHTS_FILE, folder / INDEX_FILE
    # transformers prefers the whole file, too.
    if whole.exists() or not index.exists():
        with _opened(whole) as file:
            return dict.fromkeys(file.keys(), whole)
    weight_map = _read_json(index, f"{index} is missing; copy the checkpoint again.").get("weight_map")
    if not isinstance(weight_map, dict):
        raise CheckpointError(f"{index} has no table 'weight_map'; copy the checkpoint again.")
    for name, file in weight_map.items():
        if not isinstance(file, str) or PurePath(file).name != file:
            raise CheckpointError(f"{index}, key {name!r} is {file!r}; it must be the name of a file beside it: copy the checkpoint again.")
    return {name: folder / file for name, file in weight_map.items()}


def _opened(path: Path) -> Any:
    try:
        return safe_open(path, framework="pt")
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{path} is missing; copy the whole checkpoint, or save it as safetensors with transformers' save_pretrained."
        ) from error
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} can't be read ({error}); copy the checkpoint again.") from error


def _read_json(path: Path, if_missing: str) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(if_missing) from error
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path} can't be read ({error}); copy the checkpoint again.") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} holds no table; copy the checkpoint again.")
    return value
