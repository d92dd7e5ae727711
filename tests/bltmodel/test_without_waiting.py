"""What a step on a GPU must not do: wait, or mix devices.

No GPU is needed to see it: the device `meta` takes the ways of a GPU, has shapes but no values to wait for, and takes no tensor from
elsewhere.
"""

import contextlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from bltdata.entropy import EntropyModel, EntropyModelConfig, scoring
from bltdata.nn.loss import negative_log_likelihood_sum
from bltdata.training.config import TrainingConfig
from bltdata.training.packing import Packer, ShuffledRows, shuffled_order
from bltdata.training.validation import ValidationRows
from bltdata.training.world import World
from bltmodel.data import ShardStore
from bltmodel.masks import PackedBatch
from bltmodel.model import BLT
from bltmodel.training import BLTTask
from tests.bltmodel.documents import pack, random_document, tiny_config


@pytest.fixture(autouse=True)
def without_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch has no autocast on `meta`, and doesn't say so but fails."""
    asked = torch.is_autocast_enabled
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device: device != "meta" and asked(device))


@pytest.fixture
def batch() -> PackedBatch:
    rng = np.random.default_rng(0)
    return pack([[random_document(rng, 20), random_document(rng, 10)], [random_document(rng, 30)]], num_tokens=40)


def task(tmp_path: Path, budget: int | None) -> BLTTask:
    with torch.device("meta"):
        model = BLT(tiny_config())
    store = ShardStore.__new__(ShardStore)
    store.lengths = np.array([1])
    learned, judged = ShuffledRows(Packer(store, shuffled_order(1, 0), 40), 0), ValidationRows(store, 1, 40)
    return BLTTask(model, learned, judged, TrainingConfig(), tmp_path, {}, World(), budget)


@pytest.mark.parametrize("budget", [None, 3, 35])
def test_a_training_step_of_a_blt(tmp_path: Path, batch: PackedBatch, budget: int | None):
    blt = task(tmp_path, budget)

    blt.loss(blt.to_device(batch)).backward()

    assert all(parameter.grad.is_meta for parameter in blt.model.parameters())


def test_of_a_batch_that_was_not_counted_it_would(batch: PackedBatch):
    """The test above can fail."""
    with torch.device("meta"):
        model = BLT(tiny_config())
    with pytest.raises(RuntimeError, match="meta"):
        model(PackedBatch(*(tensor.to("meta") for tensor in batch)))


def test_a_training_step_and_a_chunk_of_an_entropy_model(batch: PackedBatch):
    config = EntropyModelConfig(dim=16, num_layers=2, num_heads=2, ffn_dim=24, window=8)
    with torch.device("meta"):
        model = EntropyModel(config)
    ids, targets, visible_from = (tensor.to("meta") for tensor in batch[:3])

    negative_log_likelihood_sum(model(ids, visible_from), targets).backward()
    with torch.no_grad():
        _, past = model.forward_chunk(ids, visible_from, None)
        logits, _ = model.forward_chunk(ids, visible_from, past)

    assert logits.is_meta


def test_scores_are_asked_for_when_the_next_chunk_is_launched(monkeypatch: pytest.MonkeyPatch):
    with torch.device("meta"):
        model = EntropyModel(EntropyModelConfig(dim=16, num_layers=2, num_heads=2, ffn_dim=24, window=8))
    happened = []

    def sent(values: torch.Tensor) -> tuple[torch.Tensor, SimpleNamespace]:
        # Whoever asks for a value of `meta` fails, so these are sent in its place.
        assert values.is_meta
        number = happened.count("sent")
        happened.append("sent")
        return torch.zeros(values.shape), SimpleNamespace(synchronize=lambda: happened.append(f"{number} awaited"))

    monkeypatch.setattr(scoring, "_sent", sent)
    monkeypatch.setattr(scoring, "GPU_CHUNK_TOKENS", 16)
    monkeypatch.setattr(scoring, "autocast", lambda *_: contextlib.nullcontext())

    scores = list(model.score([bytes(40)], reset_at_newline=True))

    assert [len(entropies) for entropies in scores] == [41]
    assert happened == ["sent", "sent", "0 awaited", "sent", "1 awaited", "2 awaited"]
