"""Texts that are in no shard, cut into patches as the shards were that a BLT was trained on."""

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from bltdata.entropy import EntropyModel
from bltdata.errors import CheckpointError, ConfigError
from bltdata.patching.sources import SourceRules
from bltdata.shards import round_entropies
from bltdata.shards.precision import Precision as EntropyPrecision
from bltmodel.training_data import trained_on


class Cutter:
    """Cuts texts into patches.

    Args:
        entropy_model: the one that made the shards; None where no rule reads entropies.
        rules: those that cut the shards.
        entropy_precision: how the shards stored entropies.
        dtype: type of matrix products that the shards were scored with.
        reset_at_newline: whether they were scored line by line.
    """

    def __init__(
        self,
        entropy_model: EntropyModel | None,
        rules: SourceRules,
        *,
        entropy_precision: EntropyPrecision = "grid",
        dtype: torch.dtype = torch.float32,
        reset_at_newline: bool = False,
    ) -> None:
        self.entropy_model = entropy_model
        self.rules = rules
        self.entropy_precision: EntropyPrecision = entropy_precision
        self._dtype = dtype
        self.reset_at_newline = reset_at_newline

    @classmethod
    def for_blt(cls, metadata: dict[str, Any], folder: Path, entropy_folder: Path | None, device: torch.device) -> Self:
        """What cuts as the shards were cut that a BLT was trained on.

        Args:
            metadata: everything in the BLT's `config.json`.
            folder: the BLT's, for errors.
            entropy_folder: the entropy model of those shards; may be missing where no rule reads entropies.
            device: where to compute entropies.

        Raises:
            CheckpointError: the BLT doesn't say what it was trained on, the entropy model is another, or nobody knows which it was.
            ConfigError: there is no entropy model, and a rule reads entropies.
        """
        data = trained_on(metadata, folder)
        rules = SourceRules.from_mapping(data, f"What {folder} says of its data")
        context = data["entropy_model"].get("context") or {}
        return cls(
            _entropy_model(data["entropy_model"]["fingerprint"], rules, folder, entropy_folder, device),
            rules,
            entropy_precision=data["entropy_precision"],
            dtype=torch.bfloat16 if context.get("precision") == "bfloat16" else torch.float32,
            reset_at_newline=bool(context.get("reset_at_newline", False)),
        )

    def starts(self, texts: Iterable[tuple[str, bytes]]) -> Iterator[np.ndarray]:
        """Whether a patch starts at each position of each text.

        Args:
            texts: source label and bytes of each; read as the results are taken, about a thousand tokens ahead.

        Yields:
            bool `[n + 1]` for a text of `n` bytes.
        """
        texts, read = itertools.tee(texts)
        for (source, data), entropy_nats in zip(texts, self._entropies(data for _, data in read), strict=True):
            starts = np.zeros(len(data) + 1, dtype=bool)
            starts[self.rules.rule_for(source).starts(data, entropy_nats)] = True
            yield starts

    def _entropies(self, texts: Iterable[bytes]) -> Iterator[np.ndarray | None]:
        if self.entropy_model is None:
            yield from (None for _ in texts)
            return
        scores = self.entropy_model.score_positions(texts, self._dtype, reset_at_newline=self.reset_at_newline)
        yield from (round_entropies(score.entropy_nats, self.entropy_precision) for score in scores)


def _entropy_model(
    named: str | None, rules: SourceRules, folder: Path, entropy_folder: Path | None, device: torch.device
) -> EntropyModel | None:
    if not any(rule.needs_entropies for rule in (rules.default, *rules.by_source.values())):
        return None
    if named is None:
        raise CheckpointError(
            f"Nobody knows which entropy model made the shards that {folder} was trained on, because they were converted from Arrow files, "
            "so a text can't be cut as they were; train on shards of build-shards."
        )
    if entropy_folder is None:
        raise ConfigError(f"Texts are to be cut as the shards were that {folder} was trained on; give their entropy model.")
    model = EntropyModel.load(entropy_folder).to(device)
    if model.fingerprint != named:
        raise CheckpointError(f"{entropy_folder} isn't the entropy model of the shards that {folder} was trained on; give that one.")
    return model
