"""What every test can rely on: one thread, no display, repeatable draws, and nobody else's global state."""

import os
import random
import sys
from collections.abc import Iterator

# Before numpy, torch or matplotlib are imported anywhere: they read these once.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["MPLBACKEND"] = "Agg"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"

import hypothesis
import numpy as np
import pytest

# The same examples on every run, so that a change never fails for what another one did. To look for new ones:
# HYPOTHESIS_PROFILE=explore pytest
hypothesis.settings.register_profile("repeatable", deadline=None, derandomize=True, max_examples=100)
hypothesis.settings.register_profile("explore", deadline=None, max_examples=1000, print_blob=True)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))


@pytest.fixture(autouse=True)
def global_state() -> Iterator[None]:
    """Seed the global generators, and undo what a test does to them and to torch's own switches."""
    random_state, numpy_state = random.getstate(), np.random.get_state()
    random.seed(0)
    np.random.seed(0)
    # Most tests never touch torch, and importing it here would cost each worker seconds.
    torch = sys.modules.get("torch")
    if torch is None:
        yield
    else:
        before = (torch.get_default_dtype(), torch.get_rng_state(), torch.are_deterministic_algorithms_enabled(), torch.is_grad_enabled())
        torch.set_num_threads(1)
        torch.manual_seed(0)
        yield
        torch.set_num_threads(1)
        torch.set_default_dtype(before[0])
        torch.set_rng_state(before[1])
        torch.use_deterministic_algorithms(before[2])
        torch.set_grad_enabled(before[3])
    random.setstate(random_state)
    np.random.set_state(numpy_state)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a GPU where there is none."""
    on_gpu = [item for item in items if item.get_closest_marker("gpu")]
    if not on_gpu:
        return
    import torch

    if not torch.cuda.is_available():
        for item in on_gpu:
            item.add_marker(pytest.mark.skip(reason="needs CUDA"))
