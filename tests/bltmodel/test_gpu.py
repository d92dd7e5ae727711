"""A GPU computes what a CPU does, up to rounding. Skipped where there is none."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from bltdata.nn.loss import negative_log_likelihood_sum
from bltmodel.generation import GenerationSettings, generate
from bltmodel.sampling_config import SamplingConfig
from bltmodel.training import train_blt
from bltmodel.training_data import open_training_data
from tests.bltmodel.datasets import RULE, entropy_model, opinionated_blt, texts, training
from tests.bltmodel.documents import pack, random_document, tiny_config

pytestmark = pytest.mark.gpu

GPU = torch.device("cuda")


@pytest.fixture(autouse=True)
def exact_products() -> None:
    """Float32, and not TF32, which is another type of matrix products."""
    torch.backends.cuda.matmul.allow_tf32 = False


@pytest.mark.parametrize("reset_at_newline", [False, True])
def test_scores(reset_at_newline: bool):
    documents = texts(40, longest=3000)
    on_cpu = list(entropy_model().score(documents, reset_at_newline=reset_at_newline))
    for one, other in zip(on_cpu, copy.deepcopy(entropy_model()).to(GPU).score(documents, reset_at_newline=reset_at_newline), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-4)


@pytest.mark.parametrize("num_patches", [None, 60])
def test_a_step(num_patches: int | None):
    rng = np.random.default_rng(0)
    batch = pack([[random_document(rng, 20), random_document(rng, 10)], [random_document(rng, 30)]], num_tokens=40)
    found = []
    for device in ("cpu", GPU):
        model = opinionated_blt().to(device).train()
        model.embedding.ngrams.sparse = True
        placed = batch.to(device)
        loss = negative_log_likelihood_sum(model(placed, num_patches), placed.targets_BT)
        loss.backward()
        found.append([loss, *(parameter.grad.to_dense() for parameter in model.parameters())])
    for on_cpu, on_gpu in zip(*found, strict=True):
        torch.testing.assert_close(on_gpu.cpu(), on_cpu, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_training(trained, tmp_path: Path, precision: str):
    train_blt(tiny_config(), training(steps=20, precision=precision), open_training_data(trained.shards), tmp_path, device="cuda")
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert lines[-1]["loss"] < lines[0]["loss"]
    assert lines[-1]["memory_bytes"] > 0


def test_continuations():
    prompts = [b"a few words", b"", *texts(3, longest=100)]
    sampling = SamplingConfig(temperature=0.0)
    settings = {"rule": RULE, "max_new_bytes": 20, "sampling": sampling}
    on_cpu = generate(opinionated_blt(), prompts, GenerationSettings(entropy_model=entropy_model(), **settings))
    scorer = copy.deepcopy(entropy_model()).to(GPU)
    for use_cache in (True, False):
        how = GenerationSettings(entropy_model=scorer, use_cache=use_cache, **settings)
        on_gpu = generate(opinionated_blt().to(GPU), prompts, how)
        assert on_gpu == on_cpu
