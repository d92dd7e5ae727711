"""The transformer blocks of transformers' BLT and ours: one architecture under other names, rotary pairs included.

What a checkpoint says of its blocks is read here, and refused where it asks for what our blocks haven't, for a model that is nearly
right would say what nobody trained.

Source: transformers 5, `models/blt`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from bltdata.config import from_mapping
from bltdata.errors import CheckpointError

LAYER_NAMES = {
    "input_layernorm.weight": "attention_norm.weight",
    **{f"self_attn.{name}_proj.weight": f"attention.{name}_proj.weight" for name in "qkvo"},
    "post_attention_layernorm.weight": "ffn_norm.weight",
    **{f"mlp.{name}_proj.weight": f"ffn.{name}_proj.weight" for name in ("gate", "up", "down")},
}
"""The name in transformers -> ours, inside a block."""


@dataclass(frozen=True, kw_only=True)
class BlockSettings:
    """What counts in the settings of a part of transformers' BLT that consists of blocks.

    Parts add what they have beside, and the defaults that transformers has, because a checkpoint needn't spell them out.
    """

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int | None = None
    head_dim: int | None = None
    intermediate_size: int | None = None
    hidden_act: str = "silu"
    rms_norm_eps: float = 1e-5
    rope_theta: float = 500_000.0
    rope_parameters: dict[str, Any] | None = None
    rope_scaling: dict[str, Any] | None = None
    partial_rotary_factor: float | None = None

    @property
    def ffn_dim(self) -> int:
        """Hidden size of the feed-forward layers."""
        return self.intermediate_size or int(8 * self.hidden_size / 3)

    @property
    def heads_a_key(self) -> int:
        """How many heads share a head of keys and values."""
        return self.num_attention_heads // (self.num_key_value_heads or self.num_attention_heads)


SettingsT = TypeVar("SettingsT")


def read_settings(cls: type[SettingsT], mapping: Mapping[str, Any], where: str) -> SettingsT:
    """The settings that count; most keys have nothing to do with the arithmetic, and every version adds some.

    Raises:
        ConfigError: one is of the wrong type.
    """
    known = {field.name for field in fields(cls)}  # type: ignore[arg-type]
    return from_mapping(cls, {key: value for key, value in mapping.items() if key in known}, where)


def block_config(*, dim: int, num_layers: int, num_heads: int, ffn_dim: int, norm_eps: float, rope_theta: float) -> dict[str, Any]:
    """What transformers calls the settings of blocks."""
    return {
        "hidden_size": dim,
        "num_hidden_layers": num_layers,
        "num_attention_heads": num_heads,
        "num_key_value_heads": num_heads,
        "intermediate_size": ffn_dim,
        "rms_norm_eps": norm_eps,
        "rope_parameters": {"rope_type": "default", "rope_theta": rope_theta},
        "dropout": 0.0,
        "tie_word_embeddings": False,
    }


def layer_names(num_layers: int, theirs: str = "", ours: str = "") -> dict[str, str]:
    """The name in transformers -> ours, for every tensor of some blocks; prefixes as given."""
    return {
        f"{theirs}layers.{layer}.{their_name}": f"{ours}layers.{layer}.{our_name}"
        for layer in range(num_layers)
        for their_name, our_name in LAYER_NAMES.items()
    }


def rope_theta(settings: BlockSettings, where: str, model: str) -> float:
    """The base of the rotary frequencies, from where transformers looks for it: its versions put it into three places.

    Args:
        settings: of a part.
        where: how an error names its place.
        model: what errors call the model that it is for.

    Raises:
        CheckpointError: they aren't plain rotary frequencies of whole heads.
    """
    place = "rope_scaling" if settings.rope_scaling else "rope_parameters"
    rope = settings.rope_scaling or settings.rope_parameters or {}
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind != "default" or any(isinstance(value, dict) for value in rope.values()):
        raise CheckpointError(f"{where}, key {place!r} is {rope!r}; {model} has rotary frequencies of the type 'default' only.")
    factor = rope.get("partial_rotary_factor", settings.partial_rotary_factor)
    if factor not in (None, 1):
        raise CheckpointError(f"{where}, key 'partial_rotary_factor' is {factor!r}; {model} rotates whole heads only.")
    theta = rope.get("rope_theta", settings.rope_theta)
    if isinstance(theta, bool) or not isinstance(theta, (int, float)):
        raise CheckpointError(f"{where}, key {place!r} has a rope_theta of {theta!r}; it must be a number: copy the checkpoint again.")
    return float(theta)


def refuse_other(settings: Any, needed: Mapping[str, Any], where: str, model: str) -> None:
    """Refuse settings that have no place in our model and aren't seen from the shapes of tensors.

    Args:
        settings: of a part.
        needed: name -> the value that it must have if it is given.
        where: how an error names their place.
        model: what errors call the model that they are for.

    Raises:
        CheckpointError: one has another value.
    """
    for name, value in needed.items():
        if getattr(settings, name) not in (value, None):
            raise CheckpointError(f"{where}, key {name!r} is {getattr(settings, name)!r}; {model} like this has {value!r} only.")
