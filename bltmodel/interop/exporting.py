"""Writing a BLT, with the entropy model that patches for it, as a checkpoint that transformers opens."""

from pathlib import Path
from typing import Any, NamedTuple

from bltdata.atomic import atomic_folder, write_json
from bltdata.config import from_mapping
from bltdata.entropy import EntropyModel, patcher_config, patcher_state
from bltdata.entropy.patcher_files import BLT_KIND, PATCHER_KIND
from bltdata.entropy.transformers_files import write_checkpoint
from bltdata.errors import CheckpointError, ConfigError
from bltdata.patching import PatchRule
from bltdata.patching.sources import SourceRules
from bltdata.training.checkpoint import load_model_metadata
from bltdata.vocab import BOE_ID, BOS_ID, EOS_ID
from bltmodel.config import BLTConfig
from bltmodel.interop.architecture import DATA_KEY, transformers_config, transformers_names
from bltmodel.interop.thresholds import beyond_a_threshold, unrounded_threshold
from bltmodel.interop.tokenizer import TOKENIZER_CONFIG, build_tokenizer
from bltmodel.model import BLT, KIND

GENERATION_CONFIG = {"bos_token_id": BOS_ID, "eos_token_id": EOS_ID, "pad_token_id": BOE_ID, "use_cache": False}


class Exported(NamedTuple):
    """What a checkpoint has become.

    Attributes:
        num_parameters: weights, those of the patcher among them.
        threshold: nats, above which transformers starts a patch; None without a patcher.
    """

    num_parameters: int
    threshold: float | None


def export_blt(folder: Path | str, out: Path | str, *, entropy_model: Path | str | None = None, threshold: float | None = None) -> Exported:
    """Write a BLT as a folder that transformers' `BltForCausalLM.from_pretrained` opens.

    Args:
        folder: the BLT.
        out: gets `config.json`, `model.safetensors` in float32, `generation_config.json`, `tokenizer.json` and
            `tokenizer_config.json`, whole or not at all; it must not exist or be empty.
        entropy_model: the folder of the one whose entropies cut the training shards, which becomes the patcher; without it
            transformers has to be given patch lengths.
        threshold: nats; where transformers starts patches. None for where the rule of the training shards does; given, it is instead
            of that rule, whatever it is.

    Raises:
        CheckpointError: a model is missing or damaged, the entropy model isn't that of the training shards, or nobody knows their rule.
        ConfigError: transformers can't express the architecture or the rule, or `tokenizers` isn't installed.
    """
    folder = Path(folder)
    metadata = load_model_metadata(folder, KIND)
    description: dict[str, Any] = {
        "architectures": ["BltForCausalLM"],
        "model_type": BLT_KIND,
        "dtype": "float32",
        **transformers_config(from_mapping(BLTConfig, metadata["config"], f"{folder}, config of the BLT")),
    }
    if isinstance(metadata.get("data"), dict):
        description[DATA_KEY] = _without_places(metadata["data"])
    tokenizer = build_tokenizer()
    weights = {}
    if entropy_model is not None:
        patcher = EntropyModel.load(entropy_model)
        threshold = _threshold(metadata.get("data"), folder, patcher, entropy_model, threshold)
        description |= {
            "patch_in_forward": True,
            "patching_threshold": threshold,
            # Only that it is there is looked at.
            "patch_size": 4,
            "patcher_config": {"model_type": PATCHER_KIND, **patcher_config(patcher.config)},
        }
        weights = {f"model.patcher.{name}": tensor for name, tensor in patcher_state(patcher).items()}
    elif threshold is not None:
        raise ConfigError(f"A threshold of {threshold} is given without an entropy model, so nothing would read it; give both or none.")
    model = BLT.load(folder)
    own = model.state_dict()
    weights |= {theirs: own[ours] for theirs, ours in transformers_names(model.config).items()}
    with atomic_folder(out) as temporary:
        write_checkpoint(temporary, description, weights)
        write_json(temporary / "generation_config.json", GENERATION_CONFIG)
        tokenizer.save(str(temporary / "tokenizer.json"))
        write_json(temporary / "tokenizer_config.json", TOKENIZER_CONFIG)
    return Exported(sum(tensor.numel() for tensor in weights.values()), threshold)


def _without_places(data: dict[str, Any]) -> dict[str, Any]:
    """What a model was trained on, without where tokenizers lay on this machine: their file names and fingerprints remain."""

    def moved(rule: dict[str, Any]) -> dict[str, Any]:
        return {**rule, "tokenizer": Path(rule["tokenizer"]).name} if rule.get("tokenizer") else rule

    by_source = {"source_rules": {name: moved(rule) for name, rule in data["source_rules"].items()}} if "source_rules" in data else {}
    return {**data, "patch_rule": moved(data["patch_rule"]), **by_source}


def _threshold(data: Any, folder: Path, model: EntropyModel, model_folder: Path | str, wanted: float | None) -> float:
    """Where transformers has to start patches."""
    named = data["entropy_model"]["fingerprint"] if isinstance(data, dict) else None
    if named is not None and model.fingerprint != named:
        raise CheckpointError(f"{model_folder} isn't the entropy model of the shards that {folder} was trained on; give that one.")
    if wanted is not None:
        # Checks its range.
        PatchRule(threshold=wanted)
        # transformers takes no int for it.
        return float(wanted)
    if not isinstance(data, dict):
        raise CheckpointError(f"{folder} doesn't say what it was trained on, so nobody knows its patches; say with --threshold.")
    if named is None:
        raise CheckpointError(
            f"Nobody knows which entropy model made the shards that {folder} was trained on, because they were converted from Arrow files; "
            "say with --threshold where the one that you give is to start patches."
        )
    rules = SourceRules.from_mapping(data, f"What {folder} says of its data")
    how = beyond_a_threshold(rules, data["entropy_model"])
    if how is not None:
        raise ConfigError(
            f"transformers starts patches above a threshold and nowhere else, and the shards that {folder} was trained on were cut {how}; "
            "export it without --entropy-model and give transformers patch lengths, or say with --threshold where it is to cut instead."
        )
    assert rules.default.threshold is not None
    return unrounded_threshold(rules.default.threshold, data["entropy_precision"])
