"""Documents, models and training runs that are small enough for a test."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bltdata.corpus import Corpus, open_corpus
from bltdata.entropy import EntropyModel, EntropyModelConfig
from bltdata.training.config import TrainingConfig


class Documents:
    """Documents in memory, as the trainer reads them."""

    def __init__(self, documents: Sequence[bytes]) -> None:
        self._documents = [np.frombuffer(document, dtype=np.uint8) for document in documents]
        self.lengths = np.array([len(document) for document in documents], dtype=np.int64)

    def document(self, index: int) -> np.ndarray:
        return self._documents[index]


def random_documents(count: int, longest: int, seed: int = 0, num_symbols: int = 256) -> list[bytes]:
    """Documents of 0 to `longest` bytes, uniform over the first so many byte values."""
    rng = np.random.default_rng(seed)
    return [rng.integers(0, num_symbols, int(rng.integers(0, longest + 1)), dtype=np.uint8).tobytes() for _ in range(count)]


def architecture(**changes: Any) -> EntropyModelConfig:
    return EntropyModelConfig(**({"dim": 16, "num_layers": 2, "num_heads": 2, "ffn_dim": 24, "window": 8} | changes))


def training(**changes: Any) -> TrainingConfig:
    small = {"steps": 6, "row_tokens": 24, "batch_rows": 2, "warmup_steps": 2, "learning_rate": 1e-2, "evaluate_every": 2}
    return TrainingConfig(**(small | {"validation_bytes": 200, "precision": "float32"} | changes))


def opinionated_model(seed: int = 0, **changes: Any) -> EntropyModel:
    """An untrained model whose entropies differ widely, whatever the initial weights of a real one are."""
    model = EntropyModel(architecture(**changes))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.normal_(0, 1.5 * parameter.shape[1] ** -0.5, generator=generator)
    return model.eval()


def write_lines(path: Path, documents: Sequence[bytes]) -> Path:
    """A file with a document a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(document.replace(b"\n", b" ") + b"\n" for document in documents))
    return path


def numbered_lines(path: Path, count: int, seed: int = 1) -> Path:
    """A file of random lines that are all different; a blank one would be no document."""
    return write_lines(path, [b"%d " % number + data for number, data in enumerate(random_documents(count, 60, seed=seed))])


def line_corpus(path: Path, split: str | None = None, **limits: Any) -> Corpus:
    return open_corpus(f"files:{path}#document=line&source=lines", split, **limits)
