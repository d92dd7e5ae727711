"""A recipe: everything that a pipeline does, as settings. The stages are always the same; recipes differ in their TOML alone."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from bltdata.config import ADDED_LATER, from_mapping, merged, nearest, read_toml, to_mapping
from bltdata.corpus.config import CorpusConfig
from bltdata.entropy.config import EntropyModelConfig
from bltdata.entropy.config import preset as entropy_preset
from bltdata.errors import ConfigError
from bltdata.patching.settings import RuleSettings
from bltdata.training.config import TrainingConfig
from bltmodel.config import BLTConfig, config_from_preset

RECIPE_FOLDER = Path(__file__).parent


@dataclass(frozen=True, kw_only=True)
class ShardSettings:
    """How the shards of every split are made."""

    target_patch_length: float | None = None
    """Mean patch length that the threshold is calibrated to; none to take the rule as it is."""

    calibration_bytes: int = 1 << 20
    """Bytes of training documents to calibrate on."""

    fragment_bytes: int = 32 << 20
    """Raw bytes a shard should have, about."""

    entropy_precision: Literal["grid", "float16"] = "grid"
    """How entropies are stored."""

    precision: Literal["float32", "bfloat16"] = "float32"
    """Type of the entropy model's matrix products."""

    reset_at_newline: bool = field(default=False, metadata=ADDED_LATER)
    """Score each line as if nothing stood before it; `rule` has a field of this name for the patches."""


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """What the trained BLT is judged on."""

    max_bytes: int | None = None
    """The first validation documents that fit into this; none for all."""


@dataclass(frozen=True, kw_only=True)
class SampleSettings:
    """The text that the trained BLT writes at the end."""

    prompt: str = ""
    """What it continues."""

    max_new_bytes: int = 200
    """Bytes to add at most."""

    temperature: float = 0.7
    """Divides the logits; 0 takes the most probable byte always."""

    seed: int = 0
    """Fixes what is chosen."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The settings of every stage."""

    corpus: CorpusConfig = field(default_factory=CorpusConfig)
    """Where documents come from."""

    entropy_model: EntropyModelConfig
    """The entropy model's architecture; in TOML a `preset` and what differs from it."""

    entropy_training: TrainingConfig = field(default_factory=TrainingConfig)
    """How it is trained."""

    rule: RuleSettings = field(default_factory=RuleSettings)
    """Where patches start."""

    shards: ShardSettings = field(default_factory=ShardSettings)
    """How shards are made."""

    blt: BLTConfig
    """The BLT's architecture; in TOML a `preset` and what differs from it."""

    blt_training: TrainingConfig = field(default_factory=TrainingConfig)
    """How it is trained."""

    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    """What it is judged on."""

    sample: SampleSettings = field(default_factory=SampleSettings)
    """What it writes."""


def recipe_names() -> list[str]:
    """The recipes that come with the project."""
    return sorted(path.stem for path in RECIPE_FOLDER.glob("*.toml"))


def read_recipe(name: str) -> Recipe:
    """Read a recipe.

    Args:
        name: one of `recipe_names`, or the path of a TOML file.

    Raises:
        ConfigError: there is no such recipe, or it has an unknown or impossible setting.
    """
    path = Path(name) if name.endswith(".toml") else RECIPE_FOLDER / f"{name}.toml"
    if not name.endswith(".toml") and name not in recipe_names():
        raise ConfigError(f"There is no recipe {name!r}{nearest(name, recipe_names())}; or give the path of a TOML file.")
    table = read_toml(path)
    table["entropy_model"] = _with_preset(table.get("entropy_model", {}), lambda preset: to_mapping(entropy_preset(preset)))
    table["blt"] = _with_preset(table.get("blt", {}), lambda preset: to_mapping(config_from_preset(preset)))
    return from_mapping(Recipe, table, str(path))


def _with_preset(section: Any, settings_of: Any) -> Any:
    if not isinstance(section, dict):
        return section
    changes = dict(section)
    return merged(settings_of(changes.pop("preset", "tiny")), changes)
