"""Continuing a prompt, byte by byte.

At each step the entropy model says how uncertain the next byte is, the patch rule whether a patch starts there, and the
BLT what it is. The entropy model carries its keys and values along; the BLT reads the whole document at every step. That
is slow and plainly right: the reference for anything faster.

Source: arXiv:2412.09871, section 2.3 (patching while generating).
"""

from collections.abc import Generator
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from bltdata.entropy import EntropyModel
from bltdata.entropy.scoring import NEWLINE_ID, entropy_and_nll
from bltdata.errors import ConfigError
from bltdata.nn import KeysValues
from bltdata.patching import PatchRule
from bltdata.shards import round_entropies
from bltdata.shards.precision import Precision as EntropyPrecision
from bltdata.vocab import BOS_ID, BYTE_OFFSET, EOS_ID
from bltmodel.sampling import sample
from bltmodel.sampling_config import SamplingConfig


class NextByteModel(Protocol):
    """What predicts bytes from a document and its patches: a BLT."""

    def logits(self, data: bytes, patch_lengths: np.ndarray) -> Tensor:
        """Float32 `[n + 1, 260]`; row `n` predicts what stands after the `n` bytes."""


def generate(
    model: NextByteModel,
    prompt: bytes,
    *,
    entropy_model: EntropyModel,
    rule: PatchRule,
    max_new_bytes: int,
    sampling: SamplingConfig | None = None,
    seed: int = 0,
    entropy_precision: EntropyPrecision = "grid",
    reset_at_newline: bool = False,
) -> bytes:
    """Continue a prompt.

    Args:
        model: the BLT, in eval mode.
        prompt: any bytes; none to begin a document.
        entropy_model: the one that made the shards the BLT was trained on.
        rule: the one that cut them.
        max_new_bytes: the continuation ends after so many, or before, at the end of the document.
        sampling: how bytes are chosen; plain sampling by default.
        seed: fixes the choices.
        entropy_precision: how the shards stored entropies.
        reset_at_newline: whether the shards were scored line by line.

    Returns:
        The new bytes, without the prompt.

    Raises:
        ConfigError: `max_new_bytes` is negative.
        PatchingError: the rule needs the whole document before it can cut it.
    """
    if max_new_bytes < 0:
        raise ConfigError(f"The number of new bytes is {max_new_bytes}; it must be 0 or more.")
    sampling = sampling or SamplingConfig()
    generator = torch.Generator().manual_seed(seed)
    patches = _Patches(entropy_model, rule, entropy_precision, reset_at_newline)
    for byte in prompt:
        patches.append(byte)
    data = bytearray(prompt)
    while len(data) < len(prompt) + max_new_bytes:
        chosen = sample(model.logits(bytes(data), patches.lengths())[-1], sampling, generator)
        if chosen == EOS_ID:
            break
        data.append(chosen - BYTE_OFFSET)
        patches.append(data[-1])
    return bytes(data[len(prompt) :])


class _Patches:
    """The patches of a document that grows: for `n` bytes so far, whether one starts at each of `0 ... n`."""

    def __init__(self, entropy_model: EntropyModel, rule: PatchRule, precision: EntropyPrecision, reset_at_newline: bool) -> None:
        self._entropies = _entropies(entropy_model, precision, reset_at_newline)
        self._stepper = rule.stepper()
        self._starts = [self._stepper.step(next(self._entropies), None)]

    def append(self, byte: int) -> None:
        """The document's next byte is `byte`."""
        self._starts.append(self._stepper.step(self._entropies.send(byte), byte))

    def lengths(self) -> np.ndarray:
        """Patch lengths, their sum `n + 1`: where the next byte stands counts already."""
        starts = np.flatnonzero(self._starts)
        return np.diff(starts, append=len(self._starts))


def _entropies(model: EntropyModel, precision: EntropyPrecision, reset_at_newline: bool) -> Generator[float, int, None]:
    """A generator of the entropy at position 0, and then of that after each byte that is sent to it."""
    model.eval()
    device = next(model.parameters()).device
    past: list[KeysValues] | None = None
    token = BOS_ID
    while True:
        with torch.no_grad():
            ids = torch.tensor([[token]], device=device)
            # What the carried keys and values hold is all of this document.
            logits, past = model.forward_chunk(ids, torch.zeros_like(ids), past)
        entropy, _ = entropy_and_nll(logits[0], ids[0])
        byte = yield float(round_entropies(entropy.cpu().numpy(), precision)[0])
        token = byte + BYTE_OFFSET
        if reset_at_newline and token == NEWLINE_ID:
            past = None
