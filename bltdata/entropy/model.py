"""The entropy model: a small causal byte transformer that says how hard each next byte is to guess.

Source: arXiv:2412.09871, section 2.3.
Letters: B rows, T tokens, D model dimension.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from bltdata.config import from_mapping, to_mapping
from bltdata.entropy.config import EntropyModelConfig, preset
from bltdata.entropy.scoring import PositionScores, Score, score_positions
from bltdata.nn import KeysValues, RMSNorm, TransformerBlock, banded_mask, draw_weights, rotary_table, truncated_normal_, without_weights
from bltdata.training.checkpoint import load_model, save_model
from bltdata.vocab import VOCAB_SIZE

KIND = "bltdata.EntropyModel"


class EntropyModel(nn.Module):
    """Next-byte distributions from the last `window` tokens of the same document.

    Args:
        config: the architecture.
        seed: fixes the initial weights; the global random state is neither read nor changed.
    """

    def __init__(self, config: EntropyModelConfig, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        with without_weights():
            self.embedding = nn.Embedding(VOCAB_SIZE, config.dim)
            self.layers = nn.ModuleList(
                TransformerBlock(config.dim, config.num_heads, config.ffn_dim, config.norm_eps) for _ in range(config.num_layers)
            )
            self.norm = RMSNorm(config.dim, config.norm_eps)
            self.head = nn.Linear(config.dim, VOCAB_SIZE, bias=False)
        draw_weights(self, seed, lambda generator: truncated_normal_(self.embedding.weight, config.dim**-0.5, generator))

    @classmethod
    def from_preset(cls, name: str, seed: int = 0) -> Self:
        """An untrained model of a named size: `tiny`, `small`, `medium` or `base`.

        Raises:
            ConfigError: there is no such name.
        """
        return cls(preset(name), seed)

    @classmethod
    def load(cls, folder: Path | str) -> Self:
        """Read a model that `save` or training wrote, in eval mode.

        Raises:
            CheckpointError: there is none, it is damaged, or it is of another architecture.
        """
        where = f"{folder}, config of the entropy model"
        model, _ = load_model(folder, KIND, lambda config: cls(from_mapping(EntropyModelConfig, config, where)))
        return model

    def save(self, folder: Path | str, extra: dict[str, Any] | None = None) -> None:
        """Write the model as `config.json` and `model.safetensors`; `extra` goes into the former."""
        save_model(folder, KIND, to_mapping(self.config), self, extra or {})

    @property
    def fingerprint(self) -> str:
        """16 hex digits that name the architecture and every weight."""
        digest = hashlib.blake2b(repr(sorted(to_mapping(self.config).items())).encode(), digest_size=8)
        for name, tensor in sorted(self.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().float().contiguous().numpy().tobytes())
        return digest.hexdigest()

    @property
    def num_parameters(self) -> int:
        """Weights, embeddings among them."""
        return sum(parameter.numel() for parameter in self.parameters())

    def forward(self, ids_BT: Tensor, visible_from_BT: Tensor) -> Tensor:
        """Logits of what stands after each token.

        Args:
            ids_BT: int64 `[B, T]`, rows of packed documents.
            visible_from_BT: int64 `[B, T]`, where in the row each token's document begins.

        Returns:
            `[B, T, 260]`.
        """
        return self._logits(ids_BT, visible_from_BT, None, None)

    def forward_chunk(self, ids_BT: Tensor, visible_from_BT: Tensor, past: Sequence[KeysValues] | None) -> tuple[Tensor, list[KeysValues]]:
        """Logits of a chunk of a stream, given what stands before it.

        Args:
            ids_BT: int64 `[B, T]`.
            visible_from_BT: int64 `[B, T]`, where each token's document begins, counted from the first past key.
            past: each layer's keys and values of the tokens before the chunk, as the call before returned them.

        Returns:
            Logits `[B, T, 260]`, and each layer's last `window` keys and values.
        """
        carried: list[KeysValues] = []
        return self._logits(ids_BT, visible_from_BT, past, carried), carried

    def score(self, documents: Iterable[bytes], *, reset_at_newline: bool = False) -> Iterator[np.ndarray]:
        """Entropies of documents, in nats, in their order.

        Args:
            documents: any bytes; read as the results are taken.
            reset_at_newline: start the context afresh at each newline byte, which then plays the part of BOS: what follows is
                scored as if nothing stood before that newline. Against the drift of entropies in long repetitive documents.
                Source: arXiv:2412.09871, section 4.4.

        Yields:
            float32 `[n + 1]` for a document of `n` bytes: entry `i` is the uncertainty about byte `i` given BOS and the
            bytes before it, entry `n` the uncertainty about the document's end.

        Raises:
            CheckpointError: they are no numbers, because the model is damaged.
        """
        return (score.entropy_nats for score in self.score_positions(documents, reset_at_newline=reset_at_newline))

    def score_with_nll(
        self, documents: Iterable[bytes], precision: torch.dtype = torch.float32, *, reset_at_newline: bool = False
    ) -> Iterator[Score]:
        """Like `score`, with the negative log-likelihood of each document, summed in float64."""
        for entropy_nats, nll_nats in self.score_positions(documents, precision, reset_at_newline=reset_at_newline):
            yield Score(entropy_nats, float(nll_nats.sum(dtype=np.float64)))

    def score_positions(
        self, documents: Iterable[bytes], precision: torch.dtype = torch.float32, *, reset_at_newline: bool = False
    ) -> Iterator[PositionScores]:
        """Like `score`, with the negative log-likelihood of what stands at each position."""
        return score_positions(self, documents, precision, reset_at_newline=reset_at_newline)

    def _logits(
        self, ids_BT: Tensor, visible_from_BT: Tensor, past: Sequence[KeysValues] | None, carried: list[KeysValues] | None
    ) -> Tensor:
        """Logits, as `forward_chunk` has them; `carried` gets what a chunk after this one needs."""
        window = self.config.window
        num_past = past[0].keys.shape[2] if past else 0
        num_keys = num_past + ids_BT.shape[1]
        # A window that is longer than all there is costs no more than one that isn't.
        mask = banded_mask(visible_from_BT, min(window, num_keys), num_past)
        rope = rotary_table(num_keys, self.config.dim // self.config.num_heads, self.config.rope_theta, ids_BT.device)
        x_BTD = self.embedding(ids_BT)
        for index, layer in enumerate(self.layers):
            x_BTD, keys_values = layer(x_BTD, rope, mask, past[index] if past else None)
            if carried is not None:
                # Copies: a view would keep the keys and values of the whole chunk.
                carried.append(KeysValues(*(tensor[:, :, -window:].clone() for tensor in keys_values)))
        return self.head(self.norm(x_BTD))
