"""What predicts the next bytes of documents that grow side by side: the quick way, which computes nothing twice.

Each new byte goes through the local encoder and decoder, which remember a window of keys and values. The states of a patch's bytes
are kept until the next byte starts another one. Then the patch is complete: it asks its bytes, the latent transformer takes one
step, and what the decoder's layers see of it is kept until the next is complete. So no latent state is ever computed from a patch
that may still grow.

Source: arXiv:2412.09871, section 3; every part is the one of `BLT.forward`, to which a test holds each step.
Letters: B rows, R rows whose patch is complete, T tokens, P patches, D local dimension, L latent dimension, Q queries a patch.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from bltdata.nn import autocast
from bltdata.vocab import BOE_ID, encode
from bltmodel.generation.latent_cache import LatentCache
from bltmodel.generation.layers import Asking, Blocks, NewTokens, Product
from bltmodel.generation.patches import Patches
from bltmodel.generation.window_cache import WindowCache
from bltmodel.pooling import attend_over_bytes, attend_over_queries

if TYPE_CHECKING:
    from bltmodel.model import BLT

CHUNK_TOKENS = 2048
"""Tokens of a prompt that go through the model at once, so that the memory for a long prompt is bounded."""


class CachedDecoding:
    """Remembers keys and values, and the bytes of the patches that aren't complete.

    Args:
        model: is put into eval mode. Most of its weights are copied, so it must not be trained in the meantime.
        prompts: the documents. Each is read by itself, so that what stands beside it changes nothing.
        patches: where their patches start.
        precision: type of matrix products.
    """

    def __init__(self, model: "BLT", prompts: Sequence[bytes], patches: Patches, precision: torch.dtype = torch.float32) -> None:
        config = model.config
        self.patches = patches
        self._model = model.eval()
        self._device = model.head.weight.device
        self._precision = precision
        self._encoder_blocks, self._latent_blocks, self._decoder_blocks = (
            Blocks(part.layers, precision) for part in (model.encoder, model.latent, model.decoder)
        )
        asked = ((index, model.encoder.cross_attention_after(index)) for index in range(config.encoder_layers))
        self._asked_after = {index: Asking(module, precision) for index, module in asked if module is not None}
        """With what patches ask their bytes after layers of the encoder."""
        self._asking = [Asking(module, precision) for module in model.decoder.cross_attentions]
        self._head = Product([model.head], model.decoder.norm, precision)
        lengths = [len(prompt) + 1 for prompt in prompts]
        local_head, latent_head = config.local_dim // config.local_heads, config.latent_dim // config.latent_heads
        self._encoder_cache, self._decoder_cache = (
            WindowCache(
                num_layers=num_layers,
                head_dim=local_head,
                rope_theta=config.rope_theta,
                window=config.window,
                lengths=lengths,
                device=self._device,
            )
            for num_layers in (config.encoder_layers, config.decoder_layers)
        )
        self._latent_cache = LatentCache(
            num_layers=config.latent_layers,
            head_dim=latent_head,
            rope_theta=config.rope_theta,
            num_rows=len(prompts),
            device=self._device,
        )
        # As many tokens as the longest n-gram has; id 0 stands before a document.
        self._history_BN = torch.full((len(prompts), max(config.ngram_sizes)), BOE_ID, device=self._device)
        self._open: list[list[Tensor]] = [[] for _ in prompts]
        """For each row the states of the bytes whose patch isn't complete, after each layer that patches ask: `[layers, T, D]` each."""
        self._complete: list[tuple[Tensor, Tensor]] = []
        """For each decoder layer what it sees of each row's last complete patch: keys and values `[B, 1, Q, H, K]`."""
        self.logits_BV = torch.cat([self._read(row, prompt) for row, prompt in enumerate(prompts)])

    @property
    def size_bytes(self) -> int:
        """Memory of what is remembered."""
        states = (tensor for row in self._open for tensor in row)
        seen = (tensor for layer in self._complete for tensor in layer)
        caches = (self._encoder_cache, self._decoder_cache, self._latent_cache)
        return sum(cache.buffers.size_bytes for cache in caches) + sum(tensor.nbytes for tensor in (*states, *seen))

    @torch.inference_mode()
    def append(self, values: Sequence[int]) -> None:
        """Each document's next byte."""
        self.patches.append(values)
        with autocast(self._device, self._precision):
            ids_B1 = torch.from_numpy(encode(bytes(values)))[:, None].to(self._device)
            self._history_BN = torch.cat((self._history_BN[:, 1:], ids_B1), dim=1)
            x_BTD = self._encode(self._model.embedding.of_last(self._history_BN), self._encoder_cache.step(), range(len(values)))
            completed = [row for row, starts in enumerate(self.patches.starts) if starts]
            if completed:
                self._complete_patches(completed)
            last_BT = torch.zeros(len(values), 1, dtype=torch.int64, device=self._device)
            self.logits_BV = self._decode(x_BTD, self._decoder_cache.step(), self._complete, last_BT)

    @torch.inference_mode()
    def select(self, rows: Sequence[int]) -> None:
        """Keep these documents, in this order; one may be kept several times."""
        kept = torch.tensor(rows)
        self.patches.select(kept)
        self.logits_BV = self.logits_BV[kept]
        kept = kept.to(self._device)
        for cache in (self._encoder_cache, self._decoder_cache, self._latent_cache):
            cache.select(kept)
        self._history_BN = self._history_BN[kept]
        self._open = [[*self._open[row]] for row in rows]
        self._complete = [(keys[kept], values[kept]) for keys, values in self._complete]

    @torch.inference_mode()
    def _read(self, row: int, prompt: bytes) -> Tensor:
        """Take in a prompt, chunk by chunk; returns the logits of what stands after it, `[1, V]`."""
        ids_T, starts_T = encode(prompt, bos=True), self.patches.prompt_starts[row].copy()
        # BOS is complete before the first byte.
        starts_T[0] = True
        complete: list[tuple[Tensor, Tensor]] = []
        logits = torch.empty(0)
        with autocast(self._device, self._precision):
            for done in range(0, len(ids_T), CHUNK_TOKENS):
                chunk = slice(done, done + CHUNK_TOKENS)
                complete, logits = self._read_chunk(row, done, ids_T[chunk], starts_T[chunk], complete)
        self._complete = [_end_to_end(*both, dim=0) for both in zip(self._complete, complete, strict=True)] if row else complete
        return logits

    def _read_chunk(
        self, row: int, done: int, ids_T: np.ndarray, next_starts_T: np.ndarray, complete: list[tuple[Tensor, Tensor]]
    ) -> tuple[list[tuple[Tensor, Tensor]], Tensor]:
        """Take in a part of a prompt.

        Args:
            row: which.
            done: tokens of it that were taken in before.
            ids_T: its next tokens.
            next_starts_T: bool, whether a patch starts after each.
            complete: what each decoder layer sees of the last patch that was complete before, `[1, 1, Q, H, K]`; empty at first.

        Returns:
            The same after the last token, and the logits of what stands next.
        """
        model = self._model
        ids_1T = torch.from_numpy(ids_T)[None].to(self._device)
        begins_T = torch.zeros(len(ids_T), dtype=torch.int64, device=self._device)
        history_1N = self._history_BN[row : row + 1]
        with_history = torch.cat((history_1N, ids_1T), dim=1)
        self._history_BN[row] = with_history[0, -history_1N.shape[1] :]
        embedded = model.embedding(with_history, torch.zeros_like(with_history))[:, history_1N.shape[1] :]
        x_1TD = self._encode(embedded, self._encoder_cache.chunk(row, done, begins_T), [row])
        # Of the patches at hand, the first is the one that was complete before.
        seen_T = torch.from_numpy(next_starts_T.cumsum() - (0 if complete else 1)).to(self._device)
        if next_starts_T.any():
            new = self._patches_of_row(row, next_starts_T)
            complete = [_end_to_end(*both) for both in zip(complete, new, strict=True)] if complete else new
        logits = self._decode(x_1TD, self._decoder_cache.chunk(row, done, begins_T), complete, seen_T[None])
        return [(keys[:, -1:], values[:, -1:]) for keys, values in complete], logits

    def _encode(self, x_BTD: Tensor, tokens: NewTokens, rows: Sequence[int]) -> Tensor:
        """Byte states of new tokens, which join their rows' open patches."""
        states = []
        for index in range(len(self._encoder_blocks)):
            x_BTD = self._encoder_blocks.one(index, x_BTD, tokens)
            if index in self._asked_after:
                states.append(x_BTD)
        for row, state in zip(rows, torch.stack(states, dim=1), strict=True):
            self._open[row].append(state)
        return x_BTD

    def _complete_patches(self, rows: list[int]) -> None:
        """The open patches of some rows are complete: the latent transformer takes a step in each of these rows."""
        parts = [torch.cat(self._open[row], dim=1) for row in rows]
        own = np.repeat(np.arange(len(rows)), [part.shape[1] for part in parts])
        patches_1RE = self._ask(torch.cat(parts, dim=1), own, len(rows))
        seen = self._advance(rows, patches_1RE.transpose(0, 1))
        for row in rows:
            self._open[row] = []
        if len(rows) == len(self._open):
            self._complete = seen
        else:
            which = torch.tensor(rows, device=self._device)
            self._complete = [
                (keys.index_copy(0, which, new_keys), values.index_copy(0, which, new_values))
                for (keys, values), (new_keys, new_values) in zip(self._complete, seen, strict=True)
            ]

    def _patches_of_row(self, row: int, next_starts_T: np.ndarray) -> list[tuple[Tensor, Tensor]]:
        """What the decoder's layers see of the patches that end with tokens of a chunk, `[1, P, Q, H, K]`."""
        states = torch.cat(self._open[row], dim=1)
        # Tokens after the last start belong to the patch that stays open.
        ends = np.flatnonzero(next_starts_T) + 1 + states.shape[1] - len(next_starts_T)
        own = np.repeat(np.arange(len(ends)), np.diff(ends, prepend=0))
        self._open[row] = [states[:, ends[-1] :].clone()] if ends[-1] < states.shape[1] else []
        return self._advance([row], self._ask(states[:, : ends[-1]], own, len(ends)))

    def _ask(self, states: Tensor, own_T: np.ndarray, num_patches: int) -> Tensor:
        """Encoded patches `[1, P, Q * D]` of bytes that lie end to end, `[layers, T, D]`."""
        own_1T = torch.from_numpy(own_T)[None].to(self._device)
        patches: Tensor | None = None
        for asking, state in zip(self._asked_after.values(), states, strict=True):
            if patches is None:
                patches = self._model.encoder.queries(state[None], own_1T, num_patches)
            patches = asking(patches, state[None], lambda q, k, v: attend_over_bytes(q, k, v, own_1T))
        assert patches is not None
        return patches.flatten(2)

    def _advance(self, rows: list[int], patches_RPE: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Let the latent transformer read new patches; returns what the decoder's layers see of them, `[R, P, Q, H, K]` each."""
        latent, decoder = self._model.latent, self._model.decoder
        new = self._latent_cache.extend(rows, patches_RPE.shape[1])
        x_RPL = self._latent_blocks(latent.patch_proj(patches_RPE), new)
        patches_RPQD = decoder.patch_proj(x_RPL).unflatten(-1, (decoder.queries_per_patch, -1))
        return [asking.keys_values(patches_RPQD) for asking in self._asking]

    def _decode(self, x_BTD: Tensor, tokens: NewTokens, seen: list[tuple[Tensor, Tensor]], seen_BT: Tensor) -> Tensor:
        """Logits of what stands after the last token, `[B, V]`; `seen_BT` says which of the patches each token knows."""
        for index, asking in enumerate(self._asking):
            x_BTD = asking.ask(x_BTD, *seen[index], lambda q, k, v: attend_over_queries(q, k, v, seen_BT))
            x_BTD = self._decoder_blocks.one(index, x_BTD, tokens)
        return self._head(x_BTD[:, -1]).float().cpu()


def _end_to_end(old: tuple[Tensor, Tensor], new: tuple[Tensor, Tensor], dim: int = 1) -> tuple[Tensor, Tensor]:
    return torch.cat((old[0], new[0]), dim), torch.cat((old[1], new[1]), dim)
