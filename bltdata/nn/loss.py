"""What a prediction costs: sums that add up over batches, so that every figure divides by what was really counted."""

import math
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional

from bltdata.vocab import BYTE_OFFSET

IGNORED_TARGET = -1
"""The target of a token after which nothing is to be predicted (padding)."""


def negative_log_likelihood_sum(logits: Tensor, targets: Tensor) -> Tensor:
    """Sum of `-ln p(target)` over the targets that aren't `IGNORED_TARGET`, in nats, for training.

    Args:
        logits: `[..., 260]`.
        targets: int64 `[...]`.

    Returns:
        A float32 scalar that can be differentiated.
    """
    return functional.cross_entropy(logits.flatten(0, -2).float(), targets.flatten(), ignore_index=IGNORED_TARGET, reduction="sum")


@dataclass(frozen=True)
class PredictionSums:
    """Totals over predictions; `a + b` are the totals over both.

    A prediction is of a byte or of a document's end. Bits per byte divides the nats of all of them by the bytes alone.
    """

    nats: float = 0.0
    num_targets: int = 0
    num_bytes: int = 0
    num_correct: int = 0
    confidence_sum: float = 0.0
    confidence_min: float = math.inf
    confidence_max: float = -math.inf

    @classmethod
    def of(cls, logits: Tensor, targets: Tensor) -> Self:
        """Totals over the targets that aren't `IGNORED_TARGET`.

        Args:
            logits: `[..., 260]`.
            targets: int64 `[...]`.
        """
        counted = targets != IGNORED_TARGET
        logits, targets = logits[counted].float(), targets[counted]
        if targets.numel() == 0:
            return cls()
        log_probabilities = logits.log_softmax(-1)
        best = log_probabilities.max(-1)
        confidence = best.values.exp()
        nats = -log_probabilities.gather(-1, targets[:, None]).sum(dtype=torch.float64)
        return cls(
            nats=float(nats),
            num_targets=targets.numel(),
            num_bytes=int((targets >= BYTE_OFFSET).sum()),
            num_correct=int((best.indices == targets).sum()),
            confidence_sum=float(confidence.sum(dtype=torch.float64)),
            confidence_min=float(confidence.min()),
            confidence_max=float(confidence.max()),
        )

    def __add__(self, other: Self) -> Self:
        return type(self)(
            nats=self.nats + other.nats,
            num_targets=self.num_targets + other.num_targets,
            num_bytes=self.num_bytes + other.num_bytes,
            num_correct=self.num_correct + other.num_correct,
            confidence_sum=self.confidence_sum + other.confidence_sum,
            confidence_min=min(self.confidence_min, other.confidence_min),
            confidence_max=max(self.confidence_max, other.confidence_max),
        )

    @property
    def bits_per_byte(self) -> float:
        """Nats of all predictions / ln 2 / bytes predicted."""
        return self.nats / math.log(2) / self.num_bytes if self.num_bytes else math.nan

    def metrics(self) -> dict[str, float]:
        """Loss in nats a prediction, bits per byte, accuracy, perplexity, and confidence (the largest probability)."""
        count = max(self.num_targets, 1)
        loss = self.nats / count
        return {
            "loss": loss,
            "bits_per_byte": self.bits_per_byte,
            "accuracy": self.num_correct / count,
            # e ** 709 is the largest power that a float holds.
            "perplexity": math.exp(min(loss, 709.0)),
            "confidence_mean": self.confidence_sum / count,
            "confidence_min": self.confidence_min,
            "confidence_max": self.confidence_max,
        }
