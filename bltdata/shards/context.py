"""How an entropy model was asked for the entropies of shards, as their manifest has it under `entropy_model`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, kw_only=True)
class EntropyContext:
    """What it takes to get the same entropies again.

    >>> EntropyContext.of({"fingerprint": "0a1b", "context": {"precision": "bfloat16"}})
    EntropyContext(fingerprint='0a1b', precision='bfloat16', reset_at_newline=False)
    """

    fingerprint: str | None = None
    """Names the model; None where nobody knows it, as of entropies that were converted."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Type of its matrix products."""
    reset_at_newline: bool = False
    """Whether each line was scored as if nothing stood before it."""

    @staticmethod
    def of(entropy_model: Mapping[str, Any]) -> "EntropyContext":
        """What a manifest, or the `config.json` of a BLT, says of it; what it doesn't say is as a build has it by default."""
        context, fingerprint = entropy_model.get("context"), entropy_model.get("fingerprint")
        context = context if isinstance(context, Mapping) else {}
        return EntropyContext(
            fingerprint=None if fingerprint is None else str(fingerprint),
            precision="bfloat16" if context.get("precision") == "bfloat16" else "float32",
            reset_at_newline=context.get("reset_at_newline") is True,
        )
