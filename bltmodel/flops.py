"""What a BLT is made of and what it costs: parameters and FLOPs a byte, part by part.

Source: arXiv:2412.09871, section 4.5. A multiplication and its addition count 2, look-ups nothing, and so
do norms, softmaxes and activations; a backward pass costs twice the forward pass. The figures differ from the paper's
formulas in what these leave out: a full window is seen whole and not half, every query of a patch sees all of its bytes, and
the projections between byte and latent states count.
"""

from dataclasses import dataclass

import torch

from bltdata.entropy.config import EntropyModelConfig
from bltdata.errors import ConfigError
from bltdata.vocab import VOCAB_SIZE
from bltmodel.config import BLTConfig
from bltmodel.model import BLT


@dataclass(frozen=True)
class Summary:
    """Parameters and forward FLOPs per byte of each part.

    Attributes:
        parameters: weights.
        flops_per_byte: forward pass.
        mean_patch_length: bytes a patch that the FLOPs are for.
        context_bytes: length of the documents that they are for.
    """

    parameters: dict[str, int]
    flops_per_byte: dict[str, float]
    mean_patch_length: float
    context_bytes: int

    @property
    def total_parameters(self) -> int:
        """Weights of all parts."""
        return sum(self.parameters.values())

    @property
    def total_flops_per_byte(self) -> float:
        """Forward FLOPs per byte of all parts."""
        return sum(self.flops_per_byte.values())


def summarise(config: BLTConfig, mean_patch_length: float = 4.5, context_bytes: int = 8192) -> Summary:
    """Count a model's parameters and FLOPs without building it in memory.

    Args:
        config: the architecture.
        mean_patch_length: bytes a patch, at least 1.
        context_bytes: length of a document in bytes, at least 1; attention costs more in longer ones.

    Raises:
        ConfigError: one of the two numbers is below 1.
    """
    for name, value in (("mean patch length", mean_patch_length), ("context", context_bytes)):
        if not value >= 1:
            raise ConfigError(f"The {name} is {value}; it must be at least 1 byte.")
    with torch.device("meta"):
        parameters = BLT(config).num_parameters()
    return Summary(parameters, flops_per_byte(config, mean_patch_length, context_bytes), mean_patch_length, context_bytes)


def flops_per_byte(config: BLTConfig, mean_patch_length: float, context_bytes: int) -> dict[str, float]:
    """Forward FLOPs per byte of each part that multiplies; see `summarise`."""
    local, latent, vectors = config.local_dim, config.latent_dim, config.queries_per_patch
    patches = 1 / mean_patch_length
    byte_keys = _mean_keys(context_bytes, config.window)
    patch_keys = _mean_keys(context_bytes * patches, None)
    byte_block = _block(local, config.local_ffn_dim, byte_keys)
    latent_block = _block(latent, config.latent_ffn_dim, patch_keys)
    # A patch has `vectors` vectors on its side of a cross-attention, and a byte meets those of one patch.
    one_side, meeting = 4 * local**2, 4 * local * vectors
    cross_attention = one_side + one_side * vectors * patches + meeting
    between = 2 * latent * config.patch_dim * patches
    return {
        "local encoder": config.encoder_layers * byte_block
        + 2 * local * config.patch_dim * patches
        + config.encoder_cross_attentions * cross_attention,
        "latent transformer": config.latent_layers * latent_block * patches + (between if config.patch_dim != latent else 0.0),
        "local decoder": config.decoder_layers * (byte_block + cross_attention) + between,
        "head": 2.0 * local * VOCAB_SIZE,
    }


def entropy_model_flops_per_byte(config: EntropyModelConfig, context_bytes: int) -> float:
    """Forward FLOPs per byte of an entropy model, on documents of `context_bytes`; none of `flops_per_byte` are its."""
    keys = _mean_keys(context_bytes, config.window)
    return config.num_layers * _block(config.dim, config.ffn_dim, keys) + 2.0 * config.dim * VOCAB_SIZE


def _block(dim: int, ffn_dim: int, keys: float) -> float:
    """FLOPs of a transformer block at one position that sees `keys` positions."""
    return 2 * (4 * dim**2 + 3 * dim * ffn_dim) + 4 * dim * keys


def _mean_keys(length: float, window: int | None) -> float:
    """Positions that a position of a document sees on average: all up to itself, the last `window` at most.

    >>> _mean_keys(4, None), _mean_keys(4, 2)
    (2.5, 1.75)
    """
    if window is None or length <= window:
        return (length + 1) / 2
    return window - window * (window - 1) / (2 * length)
