"""The entropy model in the form of transformers' `BltPatcher`, both ways; transformers itself isn't needed.

Both are the same architecture under other names, rotary pairs included, so a tensor goes over as it is. A checkpoint that
asks for anything which the entropy model hasn't is refused with the file and the key, since a model that is nearly right
would give entropies that nobody trained.

Source: transformers 5, `models/blt`; arXiv:2412.09871, section 2.3.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors.torch
from torch import Tensor

from bltdata.atomic import atomic_folder, atomic_path, write_json
from bltdata.config import from_mapping
from bltdata.entropy.config import EntropyModelConfig
from bltdata.entropy.patcher_files import CONFIG_FILE, PATCHER_KIND, WEIGHTS_FILE, PatcherFiles
from bltdata.errors import CheckpointError, ConfigError
from bltdata.vocab import VOCAB_SIZE

if TYPE_CHECKING:
    from bltdata.entropy.model import EntropyModel

OUTER_NAMES = {"embed_tokens.weight": "embedding.weight", "norm.weight": "norm.weight", "lm_head.weight": "head.weight"}
"""The name in transformers -> ours."""
LAYER_NAMES = {
    "input_layernorm.weight": "attention_norm.weight",
    **{f"self_attn.{name}_proj.weight": f"attention.{name}_proj.weight" for name in "qkvo"},
    "post_attention_layernorm.weight": "ffn_norm.weight",
    **{f"mlp.{name}_proj.weight": f"ffn.{name}_proj.weight" for name in ("gate", "up", "down")},
}
"""The same inside a layer."""


@dataclass(frozen=True, kw_only=True)
class _Settings:
    """What counts in transformers' `BltPatcherConfig`, and its defaults, because a checkpoint needn't spell them out."""

    vocab_size: int = VOCAB_SIZE
    hidden_size: int = 768
    num_hidden_layers: int = 14
    num_attention_heads: int = 12
    num_key_value_heads: int | None = None
    head_dim: int | None = None
    intermediate_size: int = 2048
    hidden_act: str = "silu"
    rms_norm_eps: float = 1e-5
    sliding_window: int | None = 512
    rope_theta: float = 10_000.0
    rope_parameters: dict[str, Any] | None = None
    rope_scaling: dict[str, Any] | None = None
    partial_rotary_factor: float | None = None

    @property
    def heads_a_key(self) -> int:
        """How many heads share a head of keys and values."""
        return self.num_attention_heads // (self.num_key_value_heads or self.num_attention_heads)


def patcher_config(config: EntropyModelConfig) -> dict[str, Any]:
    """The keyword arguments of transformers' `BltPatcherConfig` that describe an entropy model.

    A transformers whose `BltPatcherConfig` has no `sliding_window` yet ignores it: its entropies differ after the first window.
    """
    return {
        "vocab_size": VOCAB_SIZE,
        "hidden_size": config.dim,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_heads,
        "intermediate_size": config.ffn_dim,
        "rms_norm_eps": config.norm_eps,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},
        "sliding_window": config.window,
        "dropout": 0.0,
        "tie_word_embeddings": False,
    }


def patcher_state(model: "EntropyModel") -> dict[str, Tensor]:
    """The weights of an entropy model under the names of transformers' `BltPatcher`.

    Returns:
        Name in `BltPatcher.state_dict()` -> the model's own tensor, detached, not copied.
    """
    own = model.state_dict()
    return {theirs: own[ours].detach() for theirs, ours in _names(model.config.num_layers).items()}


def export_patcher(model: "EntropyModel", folder: Path | str) -> None:
    """Write an entropy model as a folder that transformers' `BltPatcher.from_pretrained` opens.

    Args:
        model: is stored in float32.
        folder: gets `config.json` and `model.safetensors`, whole or not at all; it must not exist or be empty.

    Raises:
        ConfigError: there is something in the folder.
    """
    weights = {name: tensor.float().cpu().contiguous() for name, tensor in patcher_state(model).items()}
    description = {"architectures": ["BltPatcher"], "model_type": PATCHER_KIND, "dtype": "float32", **patcher_config(model.config)}
    with atomic_folder(folder) as temporary:
        # Transformers before 5 opens no file that doesn't say which framework's tensors it holds.
        with atomic_path(temporary / WEIGHTS_FILE) as path:
            safetensors.torch.save_file(weights, path, metadata={"format": "pt"})
        write_json(temporary / CONFIG_FILE, description)


def import_patcher(folder: Path | str, *, window: int | None = None) -> "EntropyModel":
    """Read the patcher of a transformers checkpoint as an entropy model.

    Args:
        folder: what `save_pretrained` of a `BltPatcher`, `BltModel` or `BltForCausalLM` wrote, in one file or in several.
        window: tokens that a position sees, itself among them, instead of what the checkpoint says. One that says that there is
            no window needs it.

    Returns:
        The model in float32, in eval mode. Weights stored in a smaller type are widened, which changes none of them; heads of
        keys and values that several heads share are repeated for each.

    Raises:
        CheckpointError: there is no patcher, it is damaged, or it is of an architecture that the entropy model hasn't.
        ConfigError: a setting is of the wrong type or out of range.
    """
    from bltdata.entropy.model import EntropyModel

    files = PatcherFiles.find(Path(folder))
    # Most keys have nothing to do with the arithmetic, and every version adds some.
    known = {field.name for field in fields(_Settings)}
    settings = from_mapping(_Settings, {key: value for key, value in files.settings.items() if key in known}, files.where)
    config = _own_config(settings, files.where, window)
    weights = _with_all_heads(files.read(_stored_shapes(settings)), settings)
    model = EntropyModel(config)
    model.load_state_dict({ours: weights[theirs] for theirs, ours in _names(config.num_layers).items()})
    return model.eval()


def _names(num_layers: int) -> dict[str, str]:
    """The name in transformers -> ours, for every tensor."""
    return OUTER_NAMES | {
        f"layers.{layer}.{theirs}": f"layers.{layer}.{ours}" for layer in range(num_layers) for theirs, ours in LAYER_NAMES.items()
    }


def _own_config(settings: _Settings, where: str, window: int | None) -> EntropyModelConfig:
    window = settings.sliding_window if window is None else window
    if window is None:
        raise CheckpointError(
            f"{where}, key 'sliding_window' is null, so a position sees all before it, and an entropy model has a window; say which "
            "with --window: 512 is that of the released weights, and one longer than any document changes nothing."
        )
    try:
        config = EntropyModelConfig(
            dim=settings.hidden_size,
            num_layers=settings.num_hidden_layers,
            num_heads=settings.num_attention_heads,
            ffn_dim=settings.intermediate_size,
            window=window,
            rope_theta=_rope_theta(settings, where),
            norm_eps=settings.rms_norm_eps,
        )
    except ConfigError as error:
        raise ConfigError(f"{where} makes no entropy model: {error}") from error
    _check_supported(settings, where)
    return config


def _rope_theta(settings: _Settings, where: str) -> float:
    """The base of the rotary frequencies, from where transformers looks for it: its versions put it into three places."""
    place = "rope_scaling" if settings.rope_scaling else "rope_parameters"
    rope = settings.rope_scaling or settings.rope_parameters or {}
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind != "default" or any(isinstance(value, dict) for value in rope.values()):
        raise CheckpointError(f"{where}, key {place!r} is {rope!r}; an entropy model has rotary frequencies of the type 'default' only.")
    factor = rope.get("partial_rotary_factor", settings.partial_rotary_factor)
    if factor not in (None, 1):
        raise CheckpointError(f"{where}, key 'partial_rotary_factor' is {factor!r}; an entropy model rotates whole heads only.")
    theta = rope.get("rope_theta", settings.rope_theta)
    if isinstance(theta, bool) or not isinstance(theta, (int, float)):
        raise CheckpointError(f"{where}, key {place!r} has a rope_theta of {theta!r}; it must be a number: copy the checkpoint again.")
    return float(theta)


def _check_supported(settings: _Settings, where: str) -> None:
    """Refuse what has no place in an entropy model and isn't seen from the shapes of tensors."""
    head_dim = settings.hidden_size // settings.num_attention_heads
    needed = {"vocab_size": VOCAB_SIZE, "hidden_act": "silu", "head_dim": head_dim}
    for name, value in needed.items():
        if getattr(settings, name) not in (value, None):
            raise CheckpointError(f"{where}, key {name!r} is {getattr(settings, name)!r}; an entropy model like this has {value!r} only.")
    shared = settings.num_key_value_heads
    if shared and (shared < 0 or settings.num_attention_heads % shared):
        raise CheckpointError(
            f"{where}, key 'num_key_value_heads' is {shared}; it must divide the {settings.num_attention_heads} attention heads: copy the "
            "checkpoint again."
        )


def _stored_shapes(settings: _Settings) -> dict[str, tuple[int, ...]]:
    """The name in transformers -> the shape that the settings give it."""
    dim, ffn_dim = settings.hidden_size, settings.intermediate_size
    shared_dim = dim // settings.heads_a_key
    outer: dict[str, tuple[int, ...]] = {
        "embed_tokens.weight": (VOCAB_SIZE, dim),
        "norm.weight": (dim,),
        "lm_head.weight": (VOCAB_SIZE, dim),
    }
    layer: dict[str, tuple[int, ...]] = {
        "input_layernorm.weight": (dim,),
        "self_attn.q_proj.weight": (dim, dim),
        "self_attn.k_proj.weight": (shared_dim, dim),
        "self_attn.v_proj.weight": (shared_dim, dim),
        "self_attn.o_proj.weight": (dim, dim),
        "post_attention_layernorm.weight": (dim,),
        "mlp.gate_proj.weight": (ffn_dim, dim),
        "mlp.up_proj.weight": (ffn_dim, dim),
        "mlp.down_proj.weight": (dim, ffn_dim),
    }
    return outer | {f"layers.{index}.{name}": shape for index in range(settings.num_hidden_layers) for name, shape in layer.items()}


def _with_all_heads(weights: Mapping[str, Tensor], settings: _Settings) -> dict[str, Tensor]:
    """Keys and values for every head: a checkpoint may store them once for a few heads that follow one another."""
    head_dim = settings.hidden_size // settings.num_attention_heads

    def repeated(weight: Tensor) -> Tensor:
        return weight.unflatten(0, (-1, head_dim)).repeat_interleave(settings.heads_a_key, dim=0).flatten(0, 1)

    shared = ("k_proj.weight", "v_proj.weight")
    return {name: repeated(weight) if name.endswith(shared) else weight for name, weight in weights.items()}
