"""The Byte Latent Transformer: how its parts are wired.

Bytes become states (local encoder), states of a patch's bytes become a patch, patches are modelled by the latent
transformer, and each byte predicts the next from its own state and the last patch that is complete (local decoder).
Nothing crosses from one document of a row to another.

Letters: B rows, T tokens, P patches, D local dimension.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from bltdata.config import from_mapping, to_mapping
from bltdata.entropy import EntropyModel
from bltdata.nn import banded_mask, dense_mask, draw_weights, rotary_table, without_weights
from bltdata.patching import PatchRule
from bltdata.shards.precision import Precision as EntropyPrecision
from bltdata.training.checkpoint import load_model, save_model
from bltdata.vocab import VOCAB_SIZE
from bltmodel.config import BLTConfig, config_from_preset
from bltmodel.decoder import LocalDecoder
from bltmodel.embeddings import ByteEmbedding
from bltmodel.encoder import LocalEncoder
from bltmodel.generation import GenerationSettings, generate, in_characters, new_bytes
from bltmodel.latent import LatentTransformer
from bltmodel.masks import PackedBatch, patch_layout
from bltmodel.sampling_config import SamplingConfig

KIND = "bltmodel.BLT"


class BLT(nn.Module):
    """A Byte Latent Transformer.

    Source: arXiv:2412.09871, section 3; the arithmetic is that of the released weights.

    Args:
        config: the architecture.
        seed: fixes the initial weights; the global random state is neither read nor changed.
    """

    def __init__(self, config: BLTConfig, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        with without_weights():
            self.embedding = ByteEmbedding(config)
            self.encoder = LocalEncoder(config)
            self.latent = LatentTransformer(config)
            self.decoder = LocalDecoder(config)
            self.head = nn.Linear(config.local_dim, VOCAB_SIZE, bias=False)
        draw_weights(self, seed, self.embedding.initialise)

    @classmethod
    def from_preset(cls, name: str, seed: int = 0) -> Self:
        """An untrained model of a named size: `tiny`, `small`, `100m`, `400m`, `1b` or `8b`.

        Raises:
            ConfigError: there is no such name.
        """
        return cls(config_from_preset(name), seed)

    @classmethod
    def load(cls, folder: Path | str) -> Self:
        """Read a model that `save` or training wrote, in eval mode.

        Raises:
            CheckpointError: there is none, it is damaged, or it is of another architecture.
        """
        where = f"{folder}, config of the BLT"
        model, _ = load_model(folder, KIND, lambda config: cls(from_mapping(BLTConfig, config, where)))
        return model

    def save(self, folder: Path | str, extra: dict[str, Any] | None = None) -> None:
        """Write the model as `config.json` and `model.safetensors`; `extra` goes into the former."""
        save_model(folder, KIND, to_mapping(self.config), self, extra or {})

    def num_parameters(self) -> dict[str, int]:
        """Weights of each part."""
        parts = {
            "byte embedding": self.embedding.tokens,
            "n-gram tables": self.embedding.ngrams,
            "local encoder": self.encoder,
            "latent transformer": self.latent,
            "local decoder": self.decoder,
            "head": self.head,
        }
        return {name: sum(parameter.numel() for parameter in part.parameters()) for name, part in parts.items()}

    def forward(self, batch: PackedBatch, num_patches: int | None = None) -> Tensor:
        """Logits of what stands after each token.

        Args:
            batch: packed rows of `T` tokens.
            num_patches: patches a row, as many as the fullest row has or more (`bltmodel.masks.patch_layout`); None takes
                just as many.

        Returns:
            float32 `[B, T, 260]`.
        """
        config = self.config
        layout = patch_layout(batch, num_patches)
        num_tokens, device = batch.ids_BT.shape[1], batch.ids_BT.device
        byte_rope = rotary_table(num_tokens, config.local_dim // config.local_heads, config.rope_theta, device)
        patch_rope = rotary_table(layout.num_patches, config.latent_dim // config.latent_heads, config.rope_theta, device)
        byte_mask = banded_mask(batch.visible_from_BT, min(config.window, num_tokens))

        embedded_BTD = self.embedding(batch.ids_BT, batch.visible_from_BT)
        x_BTD, patches = self.encoder(embedded_BTD, byte_rope, byte_mask, layout.own_BT, layout.num_patches)
        latents = self.latent(patches, patch_rope, dense_mask(layout.visible_from_BP))
        x_BTD = self.decoder(x_BTD, latents, byte_rope, byte_mask, layout.complete_BT)
        return self.head(x_BTD).float()

    @torch.no_grad()
    def logits(self, data: bytes, patch_lengths: Sequence[int] | np.ndarray) -> Tensor:
        """Logits of every byte of a document and of its end.

        Args:
            data: `n` bytes.
            patch_lengths: lengths of its patches; they sum to `n + 1`.

        Returns:
            float32 `[n + 1, 260]`; row `i` predicts what stands at `i`, from BOS and the bytes before.

        Raises:
            PatchingError: the lengths don't sum to `n + 1`, or one is below 1.
        """
        return self(PackedBatch.of_document(data, patch_lengths).to(self.head.weight.device))[0]

    def generate(
        self,
        prompts: Sequence[bytes],
        *,
        entropy_model: EntropyModel | None = None,
        rule: PatchRule,
        max_new_bytes: int,
        sampling: SamplingConfig | None = None,
        seed: int | Sequence[int] = 0,
        stop: Sequence[bytes] = (),
        entropy_precision: EntropyPrecision = "grid",
        reset_at_newline: bool = False,
        scoring_dtype: torch.dtype = torch.float32,
        precision: torch.dtype = torch.float32,
        use_cache: bool = True,
    ) -> list[bytes]:
        """Continue prompts of any lengths, side by side; see `bltmodel.generation.GenerationSettings`.

        Returns:
            The new bytes of each, as if it were alone.

        Raises:
            ConfigError: a setting is out of range or missing.
            PatchingError: the rule needs the whole document before it can cut it.
            CheckpointError: what the model predicts are no numbers.
        """
        settings = GenerationSettings(
            entropy_model=entropy_model,
            rule=rule,
            max_new_bytes=max_new_bytes,
            sampling=sampling or SamplingConfig(),
            seed=seed,
            stop=stop,
            entropy_precision=entropy_precision,
            reset_at_newline=reset_at_newline,
            scoring_dtype=scoring_dtype,
            precision=precision,
            use_cache=use_cache,
        )
        return generate(self.eval(), prompts, settings)

    def stream(self, prompt: bytes, settings: GenerationSettings) -> Iterator[bytes]:
        """Continue one prompt, piece by piece, as soon as a piece is certain.

        A piece ends with a whole UTF-8 character, and begins no stop string; what is no UTF-8 comes as it is.
        `bltmodel.generation.as_text` makes text of the pieces.

        Raises:
            ConfigError: a beam search is asked for, in which nothing is certain before its end.
            CheckpointError: what the model predicts are no numbers.
        """
        return in_characters(bytes([new.byte]) for new in new_bytes(self.eval(), [prompt], settings))
