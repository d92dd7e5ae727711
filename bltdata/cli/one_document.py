"""What the commands that look at one text or file share: its beginning, and its entropies."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bltdata.cli.progress import say

if TYPE_CHECKING:
    import numpy as np

    from bltdata.shards import Manifest


@dataclass(frozen=True)
class Beginning:
    """The first bytes of a document, and how many come after them."""

    data: bytes
    num_left_out: int


def first_bytes(data: bytes, limit: int | None) -> Beginning:
    """So much of a document that a limit is kept and no character is cut; None for all of it."""
    from bltdata.patching.display import whole_characters

    end = len(data) if limit is None else whole_characters(data, limit)
    return Beginning(data[:end], len(data) - end)


def read_text(text: str, limit: int | None) -> Beginning:
    """A text of the command line, whatever bytes the shell gave."""
    return first_bytes(text.encode(errors="surrogateescape"), limit)


def read_file(path: Path, limit: int | None) -> Beginning:
    """A file, or so much of it that a limit can be kept: the rest is only counted."""
    with path.open("rb") as file:
        if limit is None:
            return Beginning(file.read(), 0)
        # A byte more tells whether a character goes on there.
        data = file.read(limit + 1)
        if file.seekable():
            num_unread = max(file.seek(0, os.SEEK_END) - len(data), 0)
        else:
            num_unread = 0
            while block := file.read(1 << 20):
                num_unread += len(block)
    kept = first_bytes(data, limit)
    return Beginning(kept.data, kept.num_left_out + num_unread)


def entropies_as_built(data: bytes, model_folder: Path, manifest: "Manifest | None") -> "np.ndarray":
    """Entropies as a build would store them: the patches shown are then those that it would make.

    Args:
        data: the document, n bytes.
        model_folder: of the entropy model.
        manifest: of the dataset whose build is meant, so that context and precision are its; None for the defaults.

    Returns:
        float16 [n + 1], nats.
    """
    from bltdata.entropy import EntropyModel
    from bltdata.nn import prepare_cpu, resolve_precision
    from bltdata.shards import EntropyContext, round_entropies

    prepare_cpu()
    model = EntropyModel.load(model_folder)
    context = EntropyContext() if manifest is None else EntropyContext.of(manifest.entropy_model)
    if context.fingerprint not in (None, model.fingerprint):
        say(f"{model_folder} isn't the model that the rule's threshold was found for: patches will have another mean length.")
    dtype = resolve_precision(context.precision, next(model.parameters()).device)
    (scores,) = model.score_positions([data], dtype, reset_at_newline=context.reset_at_newline)
    return round_entropies(scores.entropy_nats, manifest.entropy_precision if manifest is not None else "grid")
