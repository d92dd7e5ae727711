"""Where a transformers checkpoint keeps a BLT's patcher, which is what it calls the entropy model.

Of the weights the patcher's only are read: the rest of a BLT may be eighty times as large.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bltdata.entropy.transformers_files import CONFIG_FILE, StoredTensors, read_config, sub_config, tensor_files
from bltdata.errors import CheckpointError

PATCHER_KIND = "blt_patcher"
BLT_KIND = "blt"

PREFIXES = {PATCHER_KIND: ("",), BLT_KIND: ("model.patcher.", "patcher.")}
"""What stands before the patcher's names, by `model_type`: `BltForCausalLM` and `BltModel` hold it under different ones."""


@dataclass(frozen=True)
class PatcherFiles:
    """A checkpoint's patcher on the disk.

    Attributes:
        settings: the patcher's part of `config.json`, as it stands there.
        tensors: its tensors.
    """

    settings: dict[str, Any]
    tensors: StoredTensors

    @classmethod
    def find(cls, folder: Path) -> "PatcherFiles":
        """Look for the patcher in what `save_pretrained` of a `BltPatcher`, `BltModel` or `BltForCausalLM` wrote.

        Raises:
            CheckpointError: there is none, or a file is missing or damaged.
        """
        path = folder / CONFIG_FILE
        config = read_config(folder)
        kind = config.get("model_type")
        if not isinstance(kind, str) or kind not in PREFIXES:
            raise CheckpointError(
                f"{path}, key 'model_type' is {kind!r}; give a transformers checkpoint of a BLT ({BLT_KIND!r}) or of its patcher alone "
                f"({PATCHER_KIND!r})."
            )
        where = str(path)
        if kind == BLT_KIND:
            where = f"{path}, patcher_config"
            config = sub_config(config, "patcher_config", path)
        files = tensor_files(folder)
        prefix = next((prefix for prefix in PREFIXES[kind] if any(name.startswith(prefix) for name in files)), None)
        if prefix is None:
            raise CheckpointError(
                f"{folder} holds no patcher (no tensor is called {PREFIXES[kind][0]}...); give a checkpoint that was saved with it."
            )
        its_own = {name.removeprefix(prefix): files[name] for name in files if name.startswith(prefix)}
        tensors = StoredTensors(
            folder=folder, where=where, files=its_own, prefix=prefix, model="an entropy model", wanted="whose patcher has"
        )
        return cls(config, tensors)
