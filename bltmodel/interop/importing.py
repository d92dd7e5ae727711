"""Reading a BLT, and the entropy model that patches for it, from a transformers checkpoint."""

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from bltdata.atomic import atomic_folder
from bltdata.config import to_mapping
from bltdata.entropy import EntropyModel, import_patcher
from bltdata.entropy.patcher_files import BLT_KIND, PREFIXES
from bltdata.entropy.transformers_blocks import read_settings
from bltdata.entropy.transformers_files import CONFIG_FILE, StoredTensors, read_config, tensor_files
from bltdata.errors import CheckpointError, ConfigError
from bltdata.patching import PatchRule
from bltdata.patching.sources import SourceRules
from bltmodel.interop.architecture import DATA_KEY, OURS, TopSettings, own_config, transformers_names
from bltmodel.interop.thresholds import PRECISIONS, beyond_a_threshold, rule_of_threshold, unrounded_threshold
from bltmodel.model import BLT


class Imported(NamedTuple):
    """What a checkpoint has become.

    Attributes:
        model: the BLT, in float32 and in eval mode.
        entropy_model: its patcher; None where it has none.
        data: what is known of its patches, as `config.json` of a trained BLT says it (`bltmodel.cutting.trained_on`); None
            where that is nothing.
    """

    model: BLT
    entropy_model: EntropyModel | None
    data: dict[str, Any] | None

    @property
    def rule(self) -> PatchRule | None:
        """The rule that cuts as transformers does, or as the training shards were cut; None where nobody knows."""
        return None if self.data is None else SourceRules.from_mapping(self.data).default


def import_blt(folder: Path | str, out: Path | str, *, entropy_model_out: Path | str | None = None, window: int | None = None) -> Imported:
    """Read a transformers checkpoint, and write it as a BLT that all of `bltmodel` opens.

    Args:
        folder: what `save_pretrained` of a `BltForCausalLM` wrote, in one file or in several.
        out: gets the BLT, whole or not at all; it must not exist or be empty.
        entropy_model_out: gets its patcher as an entropy model, likewise; None to write none.
        window: tokens that a position of the patcher sees, instead of what the checkpoint says.

    Raises:
        CheckpointError: there is no BLT, it is damaged, or it is of an architecture that ours hasn't.
        ConfigError: a setting is of the wrong type or out of range, nothing would read `window`, or there is something in a folder that
            is written to.
    """
    folder = Path(folder)
    if entropy_model_out is not None and Path(out).resolve() == Path(entropy_model_out).resolve():
        raise ConfigError(f"Both models would be written to {out}; give two folders.")
    imported = read_blt(folder, needs_patcher=entropy_model_out is not None, window=window)
    extra = {"imported_from": folder.resolve().name}
    with contextlib.ExitStack() as folders:
        temporary = folders.enter_context(atomic_folder(out))
        imported.model.save(temporary, extra | ({} if imported.data is None else {"data": imported.data}))
        if entropy_model_out is not None:
            assert imported.entropy_model is not None
            imported.entropy_model.save(folders.enter_context(atomic_folder(entropy_model_out)), extra)
    return imported


def read_blt(folder: Path, *, needs_patcher: bool = False, window: int | None = None) -> Imported:
    """Read a transformers checkpoint.

    Weights stored in a smaller type are widened, which changes none of them. Entropies are then computed in float32, which
    transformers does only where the model was opened in that type.

    Args:
        folder: what `save_pretrained` of a `BltForCausalLM` wrote.
        needs_patcher: whether it is an error if there is none, though the model was saved as one that needs none.
        window: tokens that a position of the patcher sees, instead of what the checkpoint says.

    Raises:
        CheckpointError: there is no BLT, it is damaged, or it is of an architecture that ours hasn't.
        ConfigError: a setting is of the wrong type or out of range, or nothing would read `window`.
    """
    path = folder / CONFIG_FILE
    config = read_config(folder)
    if config.get("model_type") != BLT_KIND:
        raise CheckpointError(
            f"{path}, key 'model_type' is {config.get('model_type')!r}; give a transformers checkpoint of a BLT ({BLT_KIND!r})."
        )
    top = read_settings(TopSettings, config, str(path))
    patches = bool(top.patch_in_forward)
    if window is not None and not (patches or needs_patcher):
        raise ConfigError(
            f"A window of {window} is given, but {folder} doesn't patch by itself and its patcher isn't asked for; leave the window "
            "out, or ask for the entropy model too."
        )
    model = _read_model(config, folder)
    entropy_model = import_patcher(folder, window=window) if patches or needs_patcher else None
    data = _trained_on(config, path)
    if patches:
        assert entropy_model is not None
        data = _patches(top, entropy_model, data, path)
    return Imported(model, entropy_model, data)


def _read_model(config: Mapping[str, Any], folder: Path) -> BLT:
    own = own_config(config, folder / CONFIG_FILE)
    files = tensor_files(folder)
    if "lm_head.weight" not in files and any(name.startswith("local_encoder.") for name in files):
        raise CheckpointError(f"{folder} holds a BltModel, which predicts nothing; give what save_pretrained of a BltForCausalLM wrote.")
    stored = StoredTensors(
        folder=folder,
        where=str(folder / CONFIG_FILE),
        files={name: file for name, file in files.items() if not name.startswith(PREFIXES[BLT_KIND][0])},
        prefix="",
        model=OURS,
        wanted="with",
    )
    # Without memory of its own, since it takes the tensors over as they are.
    with torch.device("meta"):
        model = BLT(own)
    names, state = transformers_names(own), model.state_dict()
    weights = stored.read({theirs: tuple(state[ours].shape) for theirs, ours in names.items()})
    model.load_state_dict({ours: weights[theirs] for theirs, ours in names.items()}, assign=True)
    return model.eval()


def _trained_on(config: Mapping[str, Any], path: Path) -> dict[str, Any] | None:
    """What the export says of the training shards, if it was ours."""
    data = config.get(DATA_KEY)
    if data is None:
        return None
    where = f"{path}, key {DATA_KEY!r}"
    if not isinstance(data, dict) or not isinstance(data.get("entropy_model"), dict) or data.get("entropy_precision") not in PRECISIONS:
        raise CheckpointError(f"{where} isn't what bltmodel export wrote; export it again, or take the key out.")
    SourceRules.from_mapping(data, where)
    return data


def _patches(top: TopSettings, entropy_model: EntropyModel, known: dict[str, Any] | None, path: Path) -> dict[str, Any]:
    """What a BLT's user must know of the patches that transformers makes, under the names that training gives it.

    Where these are the ones of the training shards, it is what is known of the shards.
    """
    if top.patching_mode != "entropy" or top.patching_threshold is None:
        key = "patching_threshold" if top.patching_mode == "entropy" else "patching_mode"
        raise CheckpointError(
            f"{path}, key {key!r} is {getattr(top, key)!r}, for which transformers has no patches of its own; write patching_mode "
            "'entropy' and a threshold there, or patch_in_forward false."
        )
    if top.patch_size is None:
        raise CheckpointError(
            f"{path}, key 'patch_size' is null, for which transformers takes every byte for a patch, whatever the threshold; write a "
            "number there, 4 as by default, or patch_in_forward false."
        )
    if known is not None and known["entropy_model"].get("fingerprint") == entropy_model.fingerprint and top.max_patch_length is None:
        rules = SourceRules.from_mapping(known)
        threshold = rules.default.threshold if beyond_a_threshold(rules, known["entropy_model"]) is None else None
        if threshold is not None and unrounded_threshold(threshold, known["entropy_precision"]) == top.patching_threshold:
            return known
    rule, precision = rule_of_threshold(top.patching_threshold, top.max_patch_length, str(path))
    return {
        "entropy_model": {"fingerprint": entropy_model.fingerprint, "config": to_mapping(entropy_model.config)},
        "patch_rule": to_mapping(rule),
        "entropy_precision": precision,
    }
