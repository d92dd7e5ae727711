"""The figures of an evaluation, as plain values."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bltdata.compressors import bits_per_raw_byte
from bltmodel.evaluation.bootstrap import MIN_DOCUMENTS, interval_of_ratio
from bltmodel.evaluation.config import EvaluationConfig
from bltmodel.evaluation.noise import NOISES
from bltmodel.evaluation.scores import TOP, Scores


@dataclass(frozen=True)
class SourceEvaluation:
    """Figures of the documents of one source, or of all.

    Attributes:
        scores: what the predictions of the documents come to.
        compressed_bytes: compressor -> bytes it needs for the same documents.
        noised: kind of noise -> scores of the same documents, in their order, with it.
    """

    scores: Scores
    compressed_bytes: Mapping[str, int]
    noised: Mapping[str, Scores] = field(default_factory=dict)

    def __add__(self, other: "SourceEvaluation") -> "SourceEvaluation":
        return SourceEvaluation(
            self.scores + other.scores,
            {name: size + other.compressed_bytes[name] for name, size in self.compressed_bytes.items()},
            {kind: scores + other.noised[kind] for kind, scores in self.noised.items()},
        )

    def report(self, config: EvaluationConfig, *, patches_look_ahead: bool) -> dict[str, Any]:
        """Plain values; bits per byte are those of raw bytes, None where there are none."""
        figures = {**_figures(self.scores, config), **self.scores.calibration.report()}
        num_bytes = self.scores.predictions.num_bytes
        figures["compressors_bits_per_byte"] = bits_per_raw_byte(self.compressed_bytes, num_bytes)
        figures["reconstruction"] = None if patches_look_ahead else _reconstruction(self.scores)
        figures["noise"] = {kind: self._noise(scores, config) for kind, scores in self.noised.items()}
        return figures

    def _noise(self, noised: Scores, config: EvaluationConfig) -> dict[str, Any]:
        figures = _figures(noised, config)
        clean_nats, nats, clean_bytes = (float(self.scores.nats.sum()), float(noised.nats.sum()), int(self.scores.num_bytes.sum()))
        figures["bits_per_clean_byte"] = nats / math.log(2) / clean_bytes if clean_bytes else None
        clean, noisy = clean_nats / max(clean_bytes, 1), nats / max(int(noised.num_bytes.sum()), 1)
        figures["bits_per_byte_ratio"] = noisy / clean if figures["bits_per_byte"] is not None and clean else None
        return figures


@dataclass(frozen=True)
class Evaluation:
    """Figures by source, and of all documents together.

    Attributes:
        sources: source -> its figures, sources by name.
        config: what was asked for.
        about: what else a reader of the figures must know: context, stride, precision, the model's patches.
        patches_look_ahead: whether where patches start tells of bytes that are predicted; then no text can be reconstructed like that, and
            bits per byte are less than whoever doesn't know needs.
    """

    sources: Mapping[str, SourceEvaluation]
    config: EvaluationConfig
    about: Mapping[str, Any]
    patches_look_ahead: bool

    @property
    def overall(self) -> SourceEvaluation:
        """Of all documents."""
        first, *others = self.sources.values()
        for other in others:
            first += other
        return first

    def report(self) -> dict[str, Any]:
        """Plain values, as JSON can hold them."""
        config, looks_ahead = self.config, self.patches_look_ahead
        return {
            "overall": self.overall.report(config, patches_look_ahead=looks_ahead),
            "sources": {name: source.report(config, patches_look_ahead=looks_ahead) for name, source in self.sources.items()},
            **self.about,
            "patches_look_ahead": looks_ahead,
            "interval": {"over": "documents", "level": config.level, "resamples": config.resamples, "seed": config.seed},
            "noise": {
                kind: {"rate": rate, "seed": config.seed, "what": f"a character {NOISES[kind].what}"}
                for kind, rate in config.noise_rates.items()
            },
        }


def _figures(scores: Scores, config: EvaluationConfig) -> dict[str, Any]:
    metrics = {name: value if math.isfinite(value) else None for name, value in scores.predictions.metrics().items()}
    settings: dict[str, Any] = {"level": config.level, "resamples": config.resamples, "seed": config.seed}
    interval = interval_of_ratio(scores.nats / math.log(2), scores.num_bytes, **settings)
    num_bytes, num_patches = scores.predictions.num_bytes, int(scores.num_patches.sum())
    figures: dict[str, Any] = {
        "documents": scores.num_documents,
        "bytes": num_bytes,
        **metrics,
        "bits_per_byte_interval": None if interval is None else list(interval),
        f"top_{TOP}_accuracy": scores.num_in_top / max(scores.predictions.num_targets, 1),
        "mean_patch_length": scores.predictions.num_targets / num_patches if num_patches else None,
    }
    if interval is None:
        few = scores.num_documents < MIN_DOCUMENTS
        figures["no_interval_because"] = "there is one document only" if few else "there are no bytes"
    return figures


def _reconstruction(scores: Scores) -> dict[str, Any]:
    num_recalled, num_to_recall = int(scores.num_recalled.sum()), int(scores.num_to_recall.sum())
    some = scores.num_to_recall > 0
    num_documents = int(some.sum())
    return {
        "documents": num_documents,
        "bytes": num_to_recall,
        "recalled_bytes": num_recalled,
        "share": num_recalled / num_to_recall if num_to_recall else None,
        "mean_recalled_bytes": num_recalled / num_documents if num_documents else None,
        "whole_documents": int((scores.num_recalled == scores.num_to_recall)[some].sum()),
    }
