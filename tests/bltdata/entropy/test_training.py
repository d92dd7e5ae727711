"""Does it learn what there is to learn, and nothing else?"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bltdata.entropy.training import train_entropy_model
from bltdata.errors import ConfigError
from bltdata.nn.attention import AttentionMask, banded_mask
from tests.bltdata.small import Documents, architecture, training

NUM_SYMBOLS = 16


def uniform_documents(count: int, seed: int) -> Documents:
    """Independent bytes, each one of 16: nobody can predict them with less than 4 bits, and the documents' ends come on top."""
    rng = np.random.default_rng(seed)
    return Documents([rng.integers(0, NUM_SYMBOLS, int(rng.integers(50, 150)), dtype=np.uint8).tobytes() for _ in range(count)])


def bits_per_byte_along_a_run(folder: Path, train: Documents, validation: Documents, **changes: Any) -> list[float]:
    fast = {"steps": 60, "row_tokens": 64, "batch_rows": 8, "learning_rate": 2e-2, "warmup_steps": 5, "evaluate_every": 10}
    config = training(**(fast | {"validation_bytes": 3000} | changes))
    train_entropy_model(architecture(window=16), config, train, validation, folder, data={}, device=torch.device("cpu"))
    return [json.loads(line)["bits_per_byte"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("seed", [0, 1])
def test_independent_bytes_are_never_predicted(tmp_path, seed):
    along = bits_per_byte_along_a_run(tmp_path, uniform_documents(300, seed), uniform_documents(40, seed + 100), seed=seed)
    assert min(along) >= 4.0 - 0.02
    # It has learned which bytes there are; so it could also have learned to cheat.
    assert along[0] > 4.5
    assert along[-1] < 4.3


def test_a_planted_leak_breaks_the_floor(tmp_path, monkeypatch):
    def leaking(visible_from: Tensor, window: int, num_past: int = 0) -> AttentionMask:
        mask = banded_mask(visible_from, window, num_past)
        mask.bias.masked_fill_(mask.visible.roll(1, -1), 0.0)
        return mask

    monkeypatch.setattr("bltdata.entropy.model.banded_mask", leaking)
    along = bits_per_byte_along_a_run(tmp_path, uniform_documents(300, 0), uniform_documents(40, 100), steps=100)
    assert along[-1] < 3.5


def test_what_is_certain_is_learned(tmp_path):
    documents = Documents([bytes(range(start, start + 100)) for start in range(20)])
    along = bits_per_byte_along_a_run(tmp_path, documents, documents, steps=80)
    assert along[-1] < 1.0


def test_an_optimiser_for_tables_that_it_hasnt_is_an_error(tmp_path):
    documents = uniform_documents(4, seed=1)
    with pytest.raises(ConfigError, match="table_optimiser is adamw, but an entropy model has no n-gram tables; leave it out"):
        bits_per_byte_along_a_run(tmp_path, documents, documents, table_optimiser="adamw")
