"""Continuing prompts, byte by byte.

At each step the entropy model says how uncertain the next byte is, the patch rule whether a patch starts there, and the BLT what it
is. Prompts of any lengths go on side by side; what comes of one doesn't depend on the others.

Source: arXiv:2412.09871, section 2.3 (patching while generating).
"""

import reprlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, cast

import torch

from bltdata.errors import ConfigError
from bltdata.vocab import BYTE_OFFSET, EOS_ID
from bltmodel.generation import beams
from bltmodel.generation.cached import CachedDecoding
from bltmodel.generation.decoding import Decoding, NextByteModel, PlainDecoding
from bltmodel.generation.patches import PatchesOfRule
from bltmodel.generation.settings import GenerationSettings, NewByte
from bltmodel.generation.stopping import StopStrings
from bltmodel.sampling import sample

if TYPE_CHECKING:
    from bltmodel.model import BLT


def generate(model: NextByteModel, prompts: Sequence[bytes], settings: GenerationSettings) -> list[bytes]:
    """Continue prompts.

    Args:
        model: the BLT, in eval mode; whatever else has `logits` works with `use_cache=False`.
        prompts: any bytes; none to begin a document.
        settings: how.

    Returns:
        The new bytes of each, without the prompt.

    Raises:
        ConfigError: there are more or fewer seeds than prompts, a prompt is no bytes, or stands where a list of them should.
        CheckpointError: what the model predicts are no numbers.
    """
    prompts = _as_bytes(prompts)
    if settings.sampling.num_beams > 1:
        # Nothing is drawn, and a mistake is one all the same.
        settings.seeds(len(prompts))
        if not settings.max_new_bytes:
            return [b""] * len(prompts)
        return [beams.search(_start(model, [prompt], settings), prompt, settings) for prompt in prompts]
    continuations = [bytearray() for _ in prompts]
    for new in new_bytes(model, prompts, settings):
        continuations[new.row].append(new.byte)
    return [bytes(continuation) for continuation in continuations]


def new_bytes(model: NextByteModel, prompts: Sequence[bytes], settings: GenerationSettings) -> Iterator[NewByte]:
    """The bytes that continue prompts, each as soon as it is certain that it begins no stop string; arguments and errors as for `generate`.

    Raises:
        ConfigError: a beam search is asked for, in which nothing is certain before its end.
    """
    if settings.sampling.num_beams > 1:
        raise ConfigError(f"num_beams is {settings.sampling.num_beams}, and a beam search has no byte to give before its end; take 1 beam.")
    prompts = _as_bytes(prompts)
    seeds = settings.seeds(len(prompts))
    rows = [_Row(number, prompt, seed, settings) for number, (prompt, seed) in enumerate(zip(prompts, seeds, strict=True))]
    return _continue(model, rows, settings) if rows and settings.max_new_bytes else iter(())


def _as_bytes(prompts: Sequence[bytes]) -> list[bytes]:
    given: Sequence[object] = prompts
    if isinstance(given, bytes | bytearray | str):
        raise ConfigError(f"prompts is {given[:20]!r}; give a list of byte strings, even for one.")
    for prompt in given:
        # Of a number, `bytes` would make as many zeros.
        if not isinstance(prompt, bytes | bytearray | memoryview):
            shown, kind = reprlib.repr(prompt), type(prompt).__name__
            raise ConfigError(f"The prompt {shown} is of type {kind}; give bytes, for a text its text.encode().")
    return [*map(bytes, prompts)]


def _start(model: NextByteModel, prompts: Sequence[bytes], settings: GenerationSettings) -> Decoding:
    patches = PatchesOfRule(prompts, settings)
    if settings.use_cache:
        return CachedDecoding(cast("BLT", model), prompts, patches, settings.precision)
    return PlainDecoding(model, prompts, patches, settings.precision)


def _continue(model: NextByteModel, rows: list["_Row"], settings: GenerationSettings) -> Iterator[NewByte]:
    decoding = _start(model, [bytes(row.data) for row in rows], settings)
    while True:
        for place, row in enumerate(rows):
            yield from row.choose(decoding, place)
        going_on = [place for place, row in enumerate(rows) if not row.ended]
        if not going_on:
            return
        if len(going_on) < len(rows):
            decoding.select(going_on)
            rows = [rows[place] for place in going_on]
        decoding.append([row.data[-1] for row in rows])


class _Row:
    """A prompt and what comes after it."""

    def __init__(self, number: int, prompt: bytes, seed: int, settings: GenerationSettings) -> None:
        self.data = bytearray(prompt)
        self.ended = False
        self._number = number
        self._end = len(prompt) + settings.max_new_bytes
        self._sampling = settings.sampling
        self._generator = torch.Generator().manual_seed(seed)
        self._stops = StopStrings(settings.stop)

    def choose(self, decoding: Decoding, place: int) -> list[NewByte]:
        """Choose the next byte, or the end; returns the bytes that are certain by now."""
        entropy_nats = decoding.patches.entropy_nats[place]
        recent = bytes(self.data[-self._sampling.repetition_window :])
        chosen = sample(decoding.logits_BV[place], self._sampling, self._generator, recent=recent, entropy_nats=entropy_nats)
        if chosen == EOS_ID:
            self.ended = True
            return self._stops.flush()
        self.data.append(chosen - BYTE_OFFSET)
        certain = self._stops.feed(NewByte(self._number, self.data[-1], decoding.patches.starts[place], entropy_nats))
        self.ended = self._stops.found or len(self.data) == self._end
        return certain + self._stops.flush() if self.ended else certain
