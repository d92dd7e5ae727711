"""The entropy model in the form of transformers' `BltPatcher`, both ways; transformers itself isn't needed.

Both are the same architecture under other names, rotary pairs included, so a tensor goes over as it is. A checkpoint that
asks for anything which the entropy model hasn't is refused with the file and the key, since a model that is nearly right
would give entropies that nobody trained.

Source: transformers 5, `models/blt`; arXiv:2412.09871, section 2.3.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from bltdata.atomic import atomic_folder
from bltdata.entropy.config import EntropyModelConfig
from bltdata.entropy.patcher_files import PATCHER_KIND, PatcherFiles
from bltdata.entropy.transformers_blocks import BlockSettings, block_config, layer_names, read_settings, refuse_other, rope_theta
from bltdata.entropy.transformers_files import write_checkpoint
from bltdata.errors import CheckpointError, ConfigError
from bltdata.nn import take_weights, without_weights
from bltdata.vocab import VOCAB_SIZE

if TYPE_CHECKING:
    from bltdata.entropy.model import EntropyModel

OUTER_NAMES = {"embed_tokens.weight": "embedding.weight", "norm.weight": "norm.weight", "lm_head.weight": "head.weight"}
"""The name in transformers -> ours, outside of the blocks."""

OURS = "an entropy model"
"""What errors call the model that a patcher becomes."""


@dataclass(frozen=True, kw_only=True)
class _Settings(BlockSettings):
    """What counts in transformers' `BltPatcherConfig`, and its defaults, because a checkpoint needn't spell them out."""

    vocab_size: int = VOCAB_SIZE
    hidden_size: int = 768
    num_hidden_layers: int = 14
    num_attention_heads: int = 12
    intermediate_size: int = 2048
    sliding_window: int | None = 512
    rope_theta: float = 10_000.0


def patcher_config(config: EntropyModelConfig) -> dict[str, Any]:
    """The keyword arguments of transformers' `BltPatcherConfig` that describe an entropy model.

    A transformers whose `BltPatcherConfig` has no `sliding_window` yet ignores it: its entropies differ after the first window.
    """
    return {
        "vocab_size": VOCAB_SIZE,
        **block_config(
            dim=config.dim,
            num_layers=config.num_layers,
            num_heads=config.num_heads,
            ffn_dim=config.ffn_dim,
            norm_eps=config.norm_eps,
            rope_theta=config.rope_theta,
        ),
        "sliding_window": config.window,
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
    description = {"architectures": ["BltPatcher"], "model_type": PATCHER_KIND, "dtype": "float32", **patcher_config(model.config)}
    with atomic_folder(folder) as temporary:
        write_checkpoint(temporary, description, patcher_state(model))


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
    where = files.tensors.where
    settings = read_settings(_Settings, files.settings, where)
    config = _own_config(settings, where, window)
    weights = _with_all_heads(files.tensors.read(_stored_shapes(settings)), settings)
    with without_weights():
        model = EntropyModel(config)
    take_weights(model, {ours: weights[theirs] for theirs, ours in _names(config.num_layers).items()})
    return model.eval()


def _names(num_layers: int) -> dict[str, str]:
    """The name in transformers -> ours, for every tensor."""
    return OUTER_NAMES | layer_names(num_layers)


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
            rope_theta=rope_theta(settings, where, OURS),
            norm_eps=settings.rms_norm_eps,
        )
    except ConfigError as error:
        raise ConfigError(f"{where} makes no entropy model: {error}") from error
    _check_supported(settings, where)
    return config


def _check_supported(settings: _Settings, where: str) -> None:
    """Refuse what has no place in an entropy model and isn't seen from the shapes of tensors."""
    head_dim = settings.hidden_size // settings.num_attention_heads
    refuse_other(settings, {"vocab_size": VOCAB_SIZE, "hidden_act": "silu", "head_dim": head_dim}, where, OURS)
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
