"""The architecture of a BLT in transformers' words, both ways: settings and names of tensors.

Source: transformers 5, `models/blt`; arXiv:2412.09871, section 3.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bltdata.entropy.transformers_blocks import BlockSettings, block_config, layer_names, read_settings, refuse_other, rope_theta
from bltdata.entropy.transformers_files import sub_config
from bltdata.errors import CheckpointError, ConfigError
from bltdata.vocab import BOE_ID, BOS_ID, EOS_ID, VOCAB_SIZE
from bltmodel.config import BLTConfig

OURS = "a BLT"
"""What errors call the model that a checkpoint becomes."""

DATA_KEY = "bltmodel_data"
"""Key of `config.json`, which transformers keeps and doesn't read: what the shards were on which a BLT was trained."""

OUTER_NAMES = {
    "lm_head.weight": "head.weight",
    "model.encoder_hash_tok_embedding.weight": "embedding.ngrams.weight",
    "model.local_encoder.embed_tokens.weight": "embedding.tokens.weight",
    "model.local_encoder.patch_embedding_projection.weight": "encoder.patch_proj.weight",
    "model.local_decoder.patch_embedding_projection.weight": "decoder.patch_proj.weight",
    "model.local_decoder.norm.weight": "decoder.norm.weight",
}
"""The name in transformers -> ours, of what stands once."""

LATENT_PROJECTION = {"model.global_transformer.token_embedding_projection.weight": "latent.patch_proj.weight"}
"""The same of what is there only where an encoded patch hasn't the size of the latent transformer."""

CROSS_ATTENTION_NAMES = {
    "q_norm.weight": "query_norm.weight",
    "k_norm.weight": "key_norm.weight",
    **{f"{name}_proj.weight": f"{name}_proj.weight" for name in "qkvo"},
}
"""The same inside a cross-attention."""


@dataclass(frozen=True, kw_only=True)
class TopSettings:
    """What counts in transformers' `BltConfig` itself, and its defaults."""

    vocab_size: int = VOCAB_SIZE
    patch_in_forward: bool | None = True
    patch_size: float | None = 4
    patching_mode: str | None = "entropy"
    patching_threshold: float | None = 1.335442066192627
    max_patch_length: int | None = None
    local_attention_window_len: int | None = 512
    cross_attn_k: int = 2
    encoder_hash_byte_group_size: tuple[int, ...] | None = None
    encoder_hash_byte_group_vocab: int = 500_002
    encoder_hash_byte_group_nb_functions: int = 1


@dataclass(frozen=True, kw_only=True)
class _Local(BlockSettings):
    hidden_size: int = 1024
    num_attention_heads: int = 16
    vocab_size: int = VOCAB_SIZE
    cross_attn_k: int | None = None


@dataclass(frozen=True, kw_only=True)
class _Encoder(_Local):
    num_hidden_layers: int = 1
    cross_attn_all_layers: bool | None = False


@dataclass(frozen=True, kw_only=True)
class _Decoder(_Local):
    num_hidden_layers: int = 9
    intermediate_size: int | None = 2816
    cross_attn_all_layers: bool | None = True
    hidden_size_global: int | None = None


@dataclass(frozen=True, kw_only=True)
class _Latent(BlockSettings):
    hidden_size: int = 2048
    num_hidden_layers: int = 25
    num_attention_heads: int = 16
    intermediate_size: int | None = 5632


def transformers_config(config: BLTConfig) -> dict[str, Any]:
    """The keyword arguments of transformers' `BltConfig` that describe a BLT without a patcher.

    Raises:
        ConfigError: transformers has no such architecture.
    """
    _check_expressible(config)
    local_blocks: dict[str, Any] = {
        "dim": config.local_dim,
        "num_heads": config.local_heads,
        "ffn_dim": config.local_ffn_dim,
        "norm_eps": config.norm_eps,
        "rope_theta": config.rope_theta,
    }
    local = {
        "vocab_size": VOCAB_SIZE,
        "head_dim": config.local_dim // config.local_heads,
        "hidden_size_global": config.latent_dim,
        "cross_attn_k": config.queries_per_patch,
        "sliding_window": config.window,
    }
    latent = block_config(
        dim=config.latent_dim,
        num_layers=config.latent_layers,
        num_heads=config.latent_heads,
        ffn_dim=config.latent_ffn_dim,
        norm_eps=config.norm_eps,
        rope_theta=config.rope_theta,
    )
    return {
        "vocab_size": VOCAB_SIZE,
        "patch_in_forward": False,
        "patching_mode": "entropy",
        "max_patch_length": None,
        "local_attention_window_len": config.window,
        "cross_attn_k": config.queries_per_patch,
        "encoder_hash_byte_group_size": list(config.ngram_sizes),
        "encoder_hash_byte_group_vocab": config.hash_rows,
        "encoder_hash_byte_group_nb_functions": config.hash_functions,
        "encoder_config": {
            "model_type": "blt_local_encoder",
            **block_config(**local_blocks, num_layers=config.encoder_layers),
            **local,
            "cross_attn_all_layers": False,
        },
        "decoder_config": {
            "model_type": "blt_local_decoder",
            **block_config(**local_blocks, num_layers=config.decoder_layers),
            **local,
            "cross_attn_all_layers": True,
        },
        "global_config": {"model_type": "blt_global_transformer", **latent, "head_dim": config.latent_dim // config.latent_heads},
        "bos_token_id": BOS_ID,
        "eos_token_id": EOS_ID,
        "pad_token_id": BOE_ID,
        "tie_word_embeddings": False,
        # Its cache gives wrong logits.
        "use_cache": False,
    }


def transformers_names(config: BLTConfig) -> dict[str, str]:
    """The name in `BltForCausalLM.state_dict()` -> ours, for every tensor of a BLT but a patcher's."""
    return {
        **OUTER_NAMES,
        **(LATENT_PROJECTION if config.patch_dim != config.latent_dim else {}),
        **layer_names(config.encoder_layers, "model.local_encoder.", "encoder."),
        **_cross_attention("model.local_encoder.cross_attn_layers.0.", "encoder.cross_attention."),
        **layer_names(config.latent_layers, "model.global_transformer.", "latent."),
        **layer_names(config.decoder_layers, "model.local_decoder.", "decoder."),
        **{
            theirs: ours
            for layer in range(config.decoder_layers)
            for theirs, ours in _cross_attention(
                f"model.local_decoder.cross_attn_layers.{layer}.", f"decoder.cross_attentions.{layer}."
            ).items()
        },
    }


def own_config(config: Mapping[str, Any], path: Path) -> BLTConfig:
    """Our settings of a BLT, from those of a checkpoint.

    Args:
        config: its `config.json`.
        path: of that file, for errors.

    Raises:
        CheckpointError: it is an architecture that our BLT hasn't.
        ConfigError: a setting is of the wrong type or out of range.
    """
    top = read_settings(TopSettings, config, str(path))
    places = {name: f"{path}, {name}" for name in ("encoder_config", "decoder_config", "global_config")}
    encoder = read_settings(_Encoder, sub_config(config, "encoder_config", path), places["encoder_config"])
    decoder = read_settings(_Decoder, sub_config(config, "decoder_config", path), places["decoder_config"])
    latent = read_settings(_Latent, sub_config(config, "global_config", path), places["global_config"])
    if top.local_attention_window_len is None:
        raise CheckpointError(
            f"{path}, key 'local_attention_window_len' is null, so a byte sees all before it, and {OURS} has a window; write one there: a "
            "number above the length of every document changes nothing."
        )
    theta = rope_theta(encoder, places["encoder_config"], OURS)
    try:
        own = BLTConfig(
            local_dim=encoder.hidden_size,
            encoder_layers=encoder.num_hidden_layers,
            decoder_layers=decoder.num_hidden_layers,
            local_heads=encoder.num_attention_heads,
            local_ffn_dim=encoder.ffn_dim,
            window=top.local_attention_window_len,
            latent_dim=latent.hidden_size,
            latent_layers=latent.num_hidden_layers,
            latent_heads=latent.num_attention_heads,
            latent_ffn_dim=latent.ffn_dim,
            queries_per_patch=top.cross_attn_k,
            ngram_sizes=top.encoder_hash_byte_group_size or (3, 4, 5, 6, 7, 8),
            hash_rows=top.encoder_hash_byte_group_vocab,
            hash_functions=top.encoder_hash_byte_group_nb_functions,
            rope_theta=theta,
            norm_eps=encoder.rms_norm_eps,
        )
    except ConfigError as error:
        raise ConfigError(f"{path} makes no BLT: {error}") from error
    refuse_other(top, {"vocab_size": VOCAB_SIZE}, str(path), OURS)
    shared = {"vocab_size": VOCAB_SIZE, "cross_attn_k": own.queries_per_patch}
    _check_blocks(encoder, own, own.local_heads, places["encoder_config"], shared)
    decoded = {"hidden_size": own.local_dim, "intermediate_size": own.local_ffn_dim, "hidden_size_global": own.latent_dim}
    if own.decoder_layers > 1:
        decoded["cross_attn_all_layers"] = True
    _check_blocks(decoder, own, own.local_heads, places["decoder_config"], shared | decoded)
    _check_blocks(latent, own, own.latent_heads, places["global_config"], {})
    if encoder.cross_attn_all_layers and own.encoder_layers > 1:
        raise CheckpointError(
            f"{places['encoder_config']}, key 'cross_attn_all_layers' is true with {own.encoder_layers} layers, where transformers pools "
            "the bytes anew after each; a BLT pools them once, so give a checkpoint with one layer or with cross-attention after the last."
        )
    return own


def _check_blocks(settings: BlockSettings, own: BLTConfig, heads: int, where: str, needed: Mapping[str, Any]) -> None:
    """Refuse what a part has otherwise than our BLT, in which some settings are those of all parts."""
    common: dict[str, Any] = {
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "head_dim": settings.hidden_size // heads,
        "hidden_act": "silu",
        "rms_norm_eps": own.norm_eps,
    }
    refuse_other(settings, {**needed, **common}, where, OURS)
    theta = rope_theta(settings, where, OURS)
    if theta != own.rope_theta:
        raise CheckpointError(f"{where} has a rope_theta of {theta:g}; {OURS} like this has {own.rope_theta:g} in all of its parts.")


def _check_expressible(config: BLTConfig) -> None:
    if config.pooling != "max":
        raise ConfigError(f"The BLT's pooling is {config.pooling!r}, and transformers knows 'max' only; train one with that to export it.")
    if config.encoder_cross_attentions > 1:
        raise ConfigError(
            f"The BLT's encoder_cross_attention is 'all' with {config.encoder_layers} encoder layers, and transformers would pool the "
            "bytes anew after each; train one with 'last', or with one layer, to export it."
        )


def _cross_attention(theirs: str, ours: str) -> dict[str, str]:
    return {theirs + their_name: ours + our_name for their_name, our_name in CROSS_ATTENTION_NAMES.items()}
