"""Settings of both directions, as plain values."""

import re
from dataclasses import dataclass
from typing import Literal

from bltdata.errors import ConfigError

Framing = Literal["bos-eos", "bos", "eos", "none"]

_NAME = re.compile(r"\w[\w.-]*", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class ToArrowConfig:
    """How shards become Arrow files."""

    dataset_name: str | None = None
    """Name of the dataset: a folder below --out, and the beginning of each file's name; none for the name of the folder of shards."""
    entropy_model_name: str | None = None
    """What the trainer's `entropy_model_name` shall be, a folder below that; none for the entropy model's fingerprint."""
    num_chunks: int = 1
    """Groups of files that the trainer deals out to its processes: it wants a multiple of this number of them, and with fewer it
    leaves chunks unread."""
    invalid_utf8: Literal["refuse", "leave-out"] = "refuse"
    """What to do if documents are not valid UTF-8, which a `text` must be: convert nothing, or all others."""

    def __post_init__(self) -> None:
        if self.num_chunks < 1:
            raise ConfigError(f"num_chunks is {self.num_chunks}; it must be at least 1.")
        for field in ("dataset_name", "entropy_model_name"):
            name = getattr(self, field)
            if name is not None:
                check_name(name, field)


@dataclass(frozen=True, kw_only=True)
class FromArrowConfig:
    """How Arrow files are read; `bltdata.repatch.RepatchConfig` says how their documents are cut."""

    framing: Framing = "bos-eos"
    """Tokens beside the bytes that have an entropy: BOS and EOS (n + 2 values, as the reference writes them), one of them (n + 1), or
    none (n). Without BOS nothing is known of the first byte, and its entropy is stored as the largest there is, ln 260."""
    source: str | None = None
    """Label for all documents; none for what a file's name has before `.chunk.`, or the name."""
    doc_ids: Literal["sample", "row"] = "sample"
    """Names of documents: `sample_id`, which must be unique, or the file and the number of the row."""
    entropy_precision: Literal["float16", "grid"] = "float16"
    """How entropies are stored: as they are, or on a grid of 1/256 nat, which takes less space."""
    fragment_bytes: int = 32 << 20
    """Raw bytes a shard should have at most."""

    def __post_init__(self) -> None:
        if self.fragment_bytes < 1:
            raise ConfigError(f"fragment_bytes is {self.fragment_bytes}; it must be at least 1.")
        if self.source == "":
            raise ConfigError("The source is an empty text; give a name, or leave it out.")


def check_name(name: str, what: str) -> str:
    """A name that files can have and that says itself where it ends."""
    if not _NAME.fullmatch(name) or ".chunk." in name:
        raise ConfigError(f"{what} is {name!r}; it must be of letters, digits, '_', '-' and '.', without '.chunk.': give another one.")
    return name
