"""Choosing the next id from logits."""

import math

import torch
from torch import Tensor

from bltdata.errors import CheckpointError
from bltdata.vocab import BYTE_OFFSET, EOS_ID, MAX_ENTROPY_NATS
from bltmodel.sampling_config import SamplingConfig


def sample(
    logits: Tensor, config: SamplingConfig, generator: torch.Generator, *, recent: bytes = b"", entropy_nats: float | None = None
) -> int:
    """Choose an id: that of a byte, or EOS where that may be chosen.

    Args:
        logits: float32 `[260]`.
        config: how.
        generator: on the CPU; it alone decides, so a seed fixes the choice on every device.
        recent: the document so far, or as much of it as the repetition window has.
        entropy_nats: the entropy model's uncertainty here, where the temperature follows it.

    Raises:
        CheckpointError: the logits are no numbers.

    >>> logits = torch.zeros(260)
    >>> logits[70] = 1.0
    >>> sample(logits, SamplingConfig(temperature=0.0), torch.Generator())
    70
    """
    logits = allowed(logits, config, recent)
    temperature = config.temperature * temperature_factor(logits, config, entropy_nats)
    if temperature == 0:
        return int(logits.argmax())
    # In float64 and with the largest at 0, so that a temperature of next to nothing makes no infinities.
    scaled = (logits - logits.max()).double() / temperature
    ordered, ids = scaled.softmax(-1).sort(descending=True, stable=True)
    keep = torch.arange(len(ids)) < (config.top_k or len(ids))
    # An id belongs to the nucleus if those before it don't reach top_p yet, so the first always does.
    keep &= ordered.cumsum(-1) - ordered < config.top_p
    keep &= ordered >= config.min_p * ordered[0]
    chosen = torch.multinomial(ordered * keep, 1, generator=generator)
    return int(ids[chosen])


def allowed(logits: Tensor, config: SamplingConfig, recent: bytes) -> Tensor:
    """Logits of what may be chosen, with the penalty on bytes that came lately, and -inf for all else.

    The penalty makes a logit smaller whatever its sign: a positive one is divided, a negative one multiplied (arXiv:1909.05858,
    section 4.1, divides both, which favours what has a negative one). It doesn't touch EOS, and one occurrence counts as much as many.

    Args:
        logits: `[260]`, left as they are.
        config: how bytes are chosen.
        recent: the document so far.

    Returns:
        float32 `[260]`, on the CPU.

    Raises:
        CheckpointError: the logits are no numbers.
    """
    logits = logits.detach().float().cpu().clone()
    # NaN and infinity win over every number, and there is a number unless all are -inf.
    if not math.isfinite(logits.max()):
        raise CheckpointError("What the BLT predicts are no numbers; it is damaged, train it again.")
    end = logits[EOS_ID].item()
    logits[:BYTE_OFFSET] = -torch.inf
    if config.stop_at_eos:
        logits[EOS_ID] = end
    if config.repetition_penalty != 1 and recent:
        ids = torch.tensor(sorted(set(recent[-config.repetition_window :]))) + BYTE_OFFSET
        lately = logits[ids]
        logits[ids] = torch.where(lately > 0, lately / config.repetition_penalty, lately * config.repetition_penalty)
    return logits


def temperature_factor(logits: Tensor, config: SamplingConfig, entropy_nats: float | None) -> float:
    """What the temperature is multiplied with at a position: `low + (high - low) * H / ln 260`.

    `H` is the uncertainty there in nats, the entropy model's or that of the logits themselves. So what is plain is written down, and
    where a word begins there is room for choice. This is a heuristic of ours; no paper says that it is right.

    Args:
        logits: `[260]`, of what may be chosen.
        config: which entropy, and the factors at both ends.
        entropy_nats: that of the entropy model.

    >>> config = SamplingConfig(adaptive_temperature="entropy-model", adaptive_low=0.5, adaptive_high=1.5)
    >>> [round(temperature_factor(torch.zeros(260), config, nats), 3) for nats in (0.0, 2.7803, 5.5607)]
    [0.5, 1.0, 1.5]
    """
    if config.adaptive_temperature == "off":
        return 1.0
    if config.adaptive_temperature == "blt":
        entropy_nats = float(torch.special.entr(logits.double().softmax(-1)).sum())
    assert entropy_nats is not None
    share = min(entropy_nats / MAX_ENTROPY_NATS, 1.0)
    return config.adaptive_low + (config.adaptive_high - config.adaptive_low) * share
