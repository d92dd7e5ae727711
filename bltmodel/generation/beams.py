"""Beam search: the most probable continuation that a bounded search finds, by log-probability over length.

Nothing is drawn: the same model and prompt give the same bytes. Each beam is a row of the decoding with its own state; when one
goes on in several ways, or in none, the rows are chosen anew.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from bltdata.vocab import BYTE_OFFSET, EOS_ID
from bltmodel.generation.decoding import Decoding
from bltmodel.generation.settings import GenerationSettings
from bltmodel.sampling import allowed
from bltmodel.sampling_config import SamplingConfig


class Beam(NamedTuple):
    """A continuation so far.

    Attributes:
        data: its bytes.
        log_probability: of these bytes given the prompt, and of its end where it has one.
        length: how many choices that is.
    """

    data: bytes
    log_probability: float
    length: int

    def score(self, length_penalty: float) -> float:
        """What beams are compared by."""
        return self.log_probability / max(self.length, 1) ** length_penalty


def search(decoding: Decoding, prompt: bytes, settings: GenerationSettings) -> bytes:
    """The best continuation of a prompt among those that the beams have seen.

    A beam is finished at EOS, at a stop string, which is cut off, or after `max_new_bytes`. The search ends when no beam can become
    better than the best finished one.

    Args:
        decoding: one row, which stands after the prompt.
        prompt: the prompt.
        settings: how many beams, and when they end.
    """
    sampling = settings.sampling
    beams, finished = [Beam(b"", 0.0, 0)], []
    while beams:
        grown: list[tuple[int, Beam]] = []
        for parent, beam, value in _choices(decoding.logits_BV, beams, prompt, sampling):
            ended = None if value is None else _before_stop(beam.data, settings)
            if value is None or ended is not None or len(beam.data) == settings.max_new_bytes:
                finished.append(beam if ended is None else beam._replace(data=ended))
            else:
                grown.append((parent, beam))
        best = max((beam.score(sampling.length_penalty) for beam in finished), default=-torch.inf)
        grown = [(parent, beam) for parent, beam in grown if _can_reach(beam, best, settings)]
        parents = [parent for parent, _ in grown]
        if parents and parents != list(range(len(beams))):
            decoding.select(parents)
        beams = [beam for _, beam in grown]
        if beams:
            decoding.append([beam.data[-1] for beam in beams])
    # Of equals the first that was found.
    return max(finished, key=lambda beam: beam.score(sampling.length_penalty)).data


def _choices(logits_BV: Tensor, beams: list[Beam], prompt: bytes, sampling: SamplingConfig) -> list[tuple[int, Beam, int | None]]:
    """The most probable ways on, as many as there may be beams: whose, the beam then, and the byte (None for the end).

    Of equals the one of the earlier beam, and there the smaller id, comes first.
    """
    # A prompt may be long, and no more of it is looked at.
    recent = prompt[-sampling.repetition_window :]
    log_probabilities = torch.stack(
        [
            beam.log_probability + allowed(logits, sampling, recent + beam.data).double().log_softmax(-1)
            for logits, beam in zip(logits_BV, beams, strict=True)
        ]
    )
    ordered, places = log_probabilities.flatten().sort(descending=True, stable=True)
    choices: list[tuple[int, Beam, int | None]] = []
    for total, place in zip(ordered[: sampling.num_beams].tolist(), places.tolist(), strict=False):
        parent, token = divmod(place, logits_BV.shape[1])
        if total == -torch.inf:
            break
        value = None if token == EOS_ID else token - BYTE_OFFSET
        data = beams[parent].data + (b"" if value is None else bytes([value]))
        choices.append((parent, Beam(data, total, beams[parent].length + 1), value))
    return choices


def _before_stop(data: bytes, settings: GenerationSettings) -> bytes | None:
    """What stands before the stop string that data ends with; None where it ends with none."""
    ended = [len(string) for string in settings.stop if data.endswith(string)]
    return data[: len(data) - max(ended)] if ended else None


def _can_reach(beam: Beam, best: float, settings: GenerationSettings) -> bool:
    """Whether a beam may still score above `best`: at most, all that is to come is certain and as long as may be."""
    penalty = settings.sampling.length_penalty
    return beam._replace(length=settings.max_new_bytes).score(penalty) > best
