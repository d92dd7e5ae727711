"""Choosing the next id from logits."""

import torch
from torch import Tensor

from bltdata.vocab import BYTE_OFFSET, EOS_ID
from bltmodel.sampling_config import SamplingConfig


def sample(logits: Tensor, config: SamplingConfig, generator: torch.Generator) -> int:
    """Choose an id: that of a byte, or EOS where that may be chosen.

    Args:
        logits: float32 `[260]`.
        config: how.
        generator: on the CPU; it alone decides, so a seed fixes the choice on every device.

    >>> logits = torch.zeros(260)
    >>> logits[70] = 1.0
    >>> sample(logits, SamplingConfig(temperature=0.0), torch.Generator())
    70
    """
    logits = logits.detach().float().cpu().clone()
    end = logits[EOS_ID].item()
    logits[:BYTE_OFFSET] = -torch.inf
    if config.stop_at_eos:
        logits[EOS_ID] = end
    if config.temperature == 0:
        return int(logits.argmax())
    # In float64 and with the largest at 0, so that a temperature of next to nothing makes no infinities.
    scaled = (logits - logits.max()).double() / config.temperature
    ordered, ids = scaled.softmax(-1).sort(descending=True, stable=True)
    keep = torch.arange(len(ids)) < (config.top_k or len(ids))
    # An id belongs to the nucleus if those before it don't reach top_p yet, so the first always does.
    keep &= ordered.cumsum(-1) - ordered < config.top_p
    chosen = torch.multinomial(ordered * keep, 1, generator=generator)
    return int(ids[chosen])
