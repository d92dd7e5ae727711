"""The settings of a Byte Latent Transformer, and the sizes that have names."""

import itertools
import math
import typing
from dataclasses import dataclass, field
from typing import Any, Literal

from bltdata.config import ADDED_LATER, nearest
from bltdata.errors import ConfigError

MAX_HASH_FUNCTIONS = 11
"""As many primes as the released models know (`bltmodel.hashing.PRIMES`)."""

Pooling = Literal["max", "mean", "min"]
"""How the bytes of a patch become the vector that its queries are made of."""

CrossAttendedLayers = Literal["last", "all"]
"""After which layers of the local encoder patches ask their bytes."""


@dataclass(frozen=True, kw_only=True)
class BLTConfig:
    """The architecture of a BLT: a local encoder and decoder over bytes, and a latent transformer over patches.

    Source: arXiv:2412.09871, section 3; the released weights for `1b` and `8b`.
    """

    local_dim: int
    """Model dimension of the local encoder and decoder."""

    encoder_layers: int
    """Transformer blocks of the local encoder."""

    decoder_layers: int
    """Transformer blocks of the local decoder, with a cross-attention before each."""

    local_heads: int
    """Attention heads of the local blocks and of all cross-attention."""

    local_ffn_dim: int
    """Hidden size of the local feed-forward layers."""

    window: int
    """Tokens that a position of the local encoder or decoder sees, itself among them."""

    latent_dim: int
    """Model dimension of the latent transformer."""

    latent_layers: int
    """Transformer blocks of the latent transformer."""

    latent_heads: int
    """Attention heads of the latent transformer."""

    latent_ffn_dim: int
    """Hidden size of the latent feed-forward layers."""

    queries_per_patch: int = 2
    """Vectors of `local_dim` by which encoder and decoder know a patch (`k` in the paper)."""

    ngram_sizes: tuple[int, ...] = (3, 4, 5, 6, 7, 8)
    """Lengths of the byte n-grams that have hashed embeddings, increasing."""

    hash_rows: int = 500_002
    """Rows of each n-gram table; there is one for each hash function and size."""

    hash_functions: int = 1
    """Hash functions, each with tables of its own."""

    rope_theta: float = 500_000.0
    """Base of the rotary frequencies, in all transformers."""

    norm_eps: float = 1e-5
    """Epsilon of the norms."""

    pooling: Pooling = field(default="max", metadata=ADDED_LATER)
    """What the queries of a patch are made of: the largest, the mean or the smallest value of each channel among its bytes."""

    encoder_cross_attention: CrossAttendedLayers = field(default="last", metadata=ADDED_LATER)
    """After which layers of the local encoder patches ask their bytes. With `all` the bytes are pooled once, after the first layer,
    and each layer's cross-attention refines the patches; the released models have one layer, and so no choice."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if isinstance(value, int) and value < 1:
                raise ConfigError(f"The BLT's {name} is {value}; it must be at least 1.")
        for name in ("rope_theta", "norm_eps"):
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise ConfigError(f"The BLT's {name} is {value}; it must be a finite number above 0.")
            # A whole number comes back from a file as a float, and would have another fingerprint.
            object.__setattr__(self, name, float(value))
        for name, choices in (("pooling", Pooling), ("encoder_cross_attention", CrossAttendedLayers)):
            if getattr(self, name) not in typing.get_args(choices):
                known = ", ".join(typing.get_args(choices))
                raise ConfigError(f"The BLT's {name} is {getattr(self, name)!r}; it must be one of {known}.")
        self._check_heads("local", self.local_dim, self.local_heads)
        self._check_heads("latent", self.latent_dim, self.latent_heads)
        sizes = self.ngram_sizes
        if not sizes or sizes[0] < 1 or any(left >= right for left, right in itertools.pairwise(sizes)):
            raise ConfigError(f"The BLT's ngram_sizes are {list(sizes)}; they must be lengths in increasing order, like [3, 4, 5].")
        if self.hash_functions > MAX_HASH_FUNCTIONS:
            raise ConfigError(f"The BLT's hash_functions is {self.hash_functions}; there are {MAX_HASH_FUNCTIONS} at most.")

    @property
    def patch_dim(self) -> int:
        """Size of what the encoder knows of a patch: its `queries_per_patch` vectors, end to end."""
        return self.queries_per_patch * self.local_dim

    @property
    def num_hash_tables(self) -> int:
        """N-gram tables: one for each hash function and size."""
        return self.hash_functions * len(self.ngram_sizes)

    @property
    def encoder_cross_attentions(self) -> int:
        """Cross-attentions of the local encoder."""
        return self.encoder_layers if self.encoder_cross_attention == "all" else 1

    @staticmethod
    def _check_heads(part: str, dim: int, heads: int) -> None:
        if dim % (2 * heads):
            raise ConfigError(
                f"The BLT's {part}_dim is {dim} with {heads} heads; it must be a multiple of {2 * heads} (heads of an even size)."
            )


PRESETS: dict[str, BLTConfig] = {
    "tiny": BLTConfig(
        local_dim=128, encoder_layers=1, decoder_layers=2, local_heads=4, local_ffn_dim=384, window=128,
        latent_dim=256, latent_layers=3, latent_heads=4, latent_ffn_dim=768, hash_rows=16_384,
    ),
    "small": BLTConfig(
        local_dim=256, encoder_layers=1, decoder_layers=3, local_heads=4, local_ffn_dim=768, window=512,
        latent_dim=512, latent_layers=6, latent_heads=8, latent_ffn_dim=1536, hash_rows=50_002,
    ),
    "100m": BLTConfig(
        local_dim=512, encoder_layers=1, decoder_layers=4, local_heads=8, local_ffn_dim=1536, window=512,
        latent_dim=768, latent_layers=10, latent_heads=12, latent_ffn_dim=2048, hash_rows=100_002,
    ),
    "400m": BLTConfig(
        local_dim=768, encoder_layers=1, decoder_layers=7, local_heads=12, local_ffn_dim=2048, window=512,
        latent_dim=1280, latent_layers=24, latent_heads=10, latent_ffn_dim=3584,
    ),
    "1b": BLTConfig(
        local_dim=1024, encoder_layers=1, decoder_layers=9, local_heads=16, local_ffn_dim=2816, window=512,
        latent_dim=2048, latent_layers=25, latent_heads=16, latent_ffn_dim=5632,
    ),
    "8b": BLTConfig(
        local_dim=1280, encoder_layers=1, decoder_layers=6, local_heads=20, local_ffn_dim=3584, window=512,
        latent_dim=4096, latent_layers=32, latent_heads=32, latent_ffn_dim=11_008, queries_per_patch=4,
    ),
}  # fmt: skip
"""`tiny` trains in minutes on two cores; `1b` and `8b` are the released models. The names from `100m` on are sizes without
the n-gram tables; feed-forward layers are `8/3` of the dimension, rounded up to a multiple of 256."""


TRAINING: dict[str, dict[str, Any]] = {
    "tiny": {"optimiser": "muon", "steps": 4000, "batch_rows": 2, "learning_rate": 4e-3, "evaluate_every": 500},
}
"""How `bltmodel train` trains a preset where nothing else is asked for, in fields of `TrainingConfig`. Measured on two cores with the few
megabytes that it sees in minutes; larger presets have the plain defaults."""


def config_from_preset(name: str) -> BLTConfig:
    """The settings of a named size.

    Raises:
        ConfigError: there is no such name.
    """
    if name not in PRESETS:
        raise ConfigError(f"There is no BLT preset {name!r}{nearest(name, PRESETS)}.")
    return PRESETS[name]
