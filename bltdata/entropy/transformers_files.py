"""The files of a transformers checkpoint: its settings and tensors, in one file or in several.

Read with safetensors and json alone. Which of the tensors are wanted, and under which settings, is for others to say: the patcher of
a BLT (`patcher_files`), or a whole BLT (`bltmodel.interop`).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from bltdata.atomic import atomic_path, write_json
from bltdata.errors import CheckpointError

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"

WIDENED = (torch.float32, torch.bfloat16, torch.float16)
"""Types that float32 holds exactly."""


@dataclass(frozen=True, kw_only=True)
class StoredTensors:
    """Some of a checkpoint's tensors, still on the disk.

    Attributes:
        folder: the checkpoint.
        where: how an error names the place of the settings.
        files: name of each tensor, without the prefix -> the file that holds it.
        prefix: what stands before the names.
        model: what errors call the model that they are for.
        wanted: how an error ends that says which checkpoint to give.
    """

    folder: Path
    where: str
    files: dict[str, Path]
    prefix: str
    model: str
    wanted: str

    def read(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
        """The tensors, in float32.

        Args:
            shapes: name -> shape of all tensors that there must be.

        Raises:
            CheckpointError: one is missing or too many, or of another shape, or of a type that float32 doesn't hold exactly.
        """
        missing, unknown = sorted(shapes.keys() - self.files.keys()), sorted(self.files.keys() - shapes.keys())
        if missing or unknown:
            found = f"lack {self.prefix}{missing[0]}" if missing else f"have {self.prefix}{unknown[0]}, which {self.model} hasn't"
            raise CheckpointError(
                f"The weights in {self.folder} {found}; copy the checkpoint again, or give one {self.wanted} the layers of "
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


def write_checkpoint(folder: Path, description: Mapping[str, Any], weights: Mapping[str, Tensor]) -> None:
    """Write `config.json` and `model.safetensors`.

    Args:
        folder: is there.
        description: what goes into the former.
        weights: name -> tensor; stored in float32.
    """
    stored = {name: tensor.detach().float().cpu().contiguous() for name, tensor in weights.items()}
    # Transformers before 5 opens no file that doesn't say which framework's tensors it holds.
    with atomic_path(folder / WEIGHTS_FILE) as path:
        safetensors.torch.save_file(stored, path, metadata={"format": "pt"})
    write_json(folder / CONFIG_FILE, dict(description))


def read_config(folder: Path) -> dict[str, Any]:
    """The `config.json` of a checkpoint.

    Raises:
        CheckpointError: there is none, or it is damaged.
    """
    return _read_json(
        folder / CONFIG_FILE, f"{folder} holds no transformers checkpoint ({CONFIG_FILE} is missing); give what save_pretrained wrote."
    )


def sub_config(config: Mapping[str, Any], key: str, path: Path) -> dict[str, Any]:
    """A table of `config.json`; empty where it is missing or null, which means that all of it is as by default.

    Raises:
        CheckpointError: it is something else.
    """
    table = {} if config.get(key) is None else config[key]
    if not isinstance(table, dict):
        raise CheckpointError(f"{path}, key {key!r} is {table!r}; it must be a table: copy the checkpoint again.")
    return table


def tensor_files(folder: Path) -> dict[str, Path]:
    """Name of each tensor of a checkpoint -> its file.

    Raises:
        CheckpointError: a file is missing or damaged.
    """
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
