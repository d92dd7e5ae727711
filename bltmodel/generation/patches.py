"""Where patches start, in documents that grow side by side.

Letters: B rows, T tokens.
"""

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from bltdata.entropy import EntropyModel
from bltdata.entropy.scoring import NEWLINE_ID, chunk_tokens, entropy_and_nll
from bltdata.shards import round_entropies
from bltdata.vocab import encode
from bltmodel.generation.layers import Blocks, NewTokens, Product
from bltmodel.generation.settings import GenerationSettings
from bltmodel.generation.window_cache import WindowCache


class Patches(Protocol):
    """Which positions of some documents start a patch. A document of `n` bytes has `n + 1` positions, the next byte's among them.

    Attributes:
        prompt_starts: bool `[n + 1]` for each document, as it was first.
        starts: whether a patch starts at each document's next byte.
        entropy_nats: the entropy model's uncertainty about each document's next byte; None where it isn't asked.
    """

    prompt_starts: list[np.ndarray]
    starts: list[bool]
    entropy_nats: list[float | None]

    def append(self, values: Sequence[int]) -> None:
        """Each document's next byte."""

    def select(self, rows: Tensor) -> None:
        """Keep these documents, in this order; one may be kept several times."""


class PatchesOfRule:
    """The starts that the rule of the shards gives, from entropies rounded as theirs are.

    Args:
        prompts: the documents.
        settings: rule, entropy model, and how the shards have its entropies.
    """

    def __init__(self, prompts: Sequence[bytes], settings: GenerationSettings) -> None:
        self._precision = settings.entropy_precision
        self._entropies: GrowingEntropies | None = None
        self._steppers = [settings.rule.stepper() for _ in prompts]
        of_prompts: list[np.ndarray | None] = [None] * len(prompts)
        if settings.needs_entropies:
            assert settings.entropy_model is not None
            self._entropies = GrowingEntropies(
                settings.entropy_model, prompts, settings.scoring_dtype, reset_at_newline=settings.reset_at_newline
            )
            of_prompts = [self._rounded(entropies) for entropies in self._entropies.of_prompts]
        together = zip(self._steppers, prompts, of_prompts, strict=True)
        self.prompt_starts = [stepper.read(prompt, entropies) for stepper, prompt, entropies in together]
        self.starts = [bool(starts[-1]) for starts in self.prompt_starts]
        self.entropy_nats: list[float | None] = [None if entropies is None else float(entropies[-1]) for entropies in of_prompts]

    def append(self, values: Sequence[int]) -> None:
        """Each document's next byte."""
        if self._entropies is not None:
            self.entropy_nats = self._rounded(self._entropies.append(values)).tolist()
        together = zip(self._steppers, self.entropy_nats, values, strict=True)
        self.starts = [stepper.step(entropy_nats, value) for stepper, entropy_nats, value in together]

    def select(self, rows: Tensor) -> None:
        """Keep these documents, in this order; one may be kept several times."""
        kept = rows.tolist()
        if self._entropies is not None:
            self._entropies.select(rows)
        self._steppers = [self._steppers[row].copy() for row in kept]
        self.starts = [self.starts[row] for row in kept]
        self.entropy_nats = [self.entropy_nats[row] for row in kept]

    def _rounded(self, entropies: np.ndarray) -> np.ndarray:
        return round_entropies(entropies, self._precision)


class GrowingEntropies:
    """The entropy model's uncertainty about what stands next, with its keys and values of the last window kept.

    Args:
        model: is put into eval mode. Its weights are copied, so it must not be trained in the meantime.
        prompts: the documents.
        precision: type of matrix products.
        reset_at_newline: start the context afresh at each newline byte.
    """

    of_prompts: list[np.ndarray]
    """float32 `[n + 1]` for each prompt, nats."""

    def __init__(
        self, model: EntropyModel, prompts: Sequence[bytes], precision: torch.dtype = torch.float32, *, reset_at_newline: bool
    ) -> None:
        self._model = model.eval()
        self._device = next(model.parameters()).device
        self._reset_at_newline = reset_at_newline
        self._precision = precision
        self._blocks = Blocks(model.layers, precision)
        self._head = Product([model.head], model.norm, precision)
        config = model.config
        self._cache = WindowCache(
            num_layers=config.num_layers,
            head_dim=config.dim // config.num_heads,
            rope_theta=config.rope_theta,
            window=config.window,
            lengths=[len(prompt) + 1 for prompt in prompts],
            device=self._device,
        )
        self.of_prompts = [np.concatenate([*self._of_prompt(row, prompt)]) for row, prompt in enumerate(prompts)]

    def append(self, values: Sequence[int]) -> np.ndarray:
        """Each document's next byte; returns float32 `[B]`, the entropies of what stands after it."""
        ids = encode(bytes(values))
        for row in np.flatnonzero((ids == NEWLINE_ID) & self._reset_at_newline).tolist():
            self._cache.restart(row)
        return self._run(self._cache.step(), ids[:, None])[:, 0]

    def select(self, rows: Tensor) -> None:
        """Keep these documents, in this order; one may be kept several times."""
        self._cache.select(rows)

    def _of_prompt(self, row: int, prompt: bytes) -> Iterator[np.ndarray]:
        ids = encode(prompt, bos=True)
        places = np.arange(len(ids))
        begins = np.maximum.accumulate(np.where((ids == NEWLINE_ID) & self._reset_at_newline, places, 0))
        size = chunk_tokens(self._device.type)
        for done in range(0, len(ids), size):
            begins_T = torch.from_numpy(begins[done : done + size]).to(self._device)
            yield self._run(self._cache.chunk(row, done, begins_T), ids[None, done : done + size])[0]
        if begins[-1]:
            self._cache.restart(row, len(ids) - int(begins[-1]))

    @torch.inference_mode()
    def _run(self, tokens: NewTokens, ids_BT: np.ndarray) -> np.ndarray:
        ids = torch.from_numpy(ids_BT).to(self._device)
        logits_NV = self._head(self._blocks(self._model.embedding(ids), tokens)).flatten(0, 1)
        entropy, _ = entropy_and_nll(logits_NV, ids.flatten())
        return entropy.cpu().numpy().reshape(ids_BT.shape)
