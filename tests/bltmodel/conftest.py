"""Shards to train on, and a BLT with all that made it."""

from pathlib import Path
from typing import NamedTuple

import pytest

from tests.bltmodel.datasets import entropy_model, texts, train, write_dataset


class Trained(NamedTuple):
    """Folders of what belongs together; tests read them and change nothing."""

    entropy_model: Path
    shards: Path
    """Two datasets, `train` and `validation`, the latter with the sources `prose` and `code`."""
    blt: Path


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("trained")
    entropy_model().save(folder / "entropy-model")
    write_dataset(folder / "shards" / "train", texts(60))
    sources = [("prose" if number % 3 else "code", text) for number, text in enumerate(texts(30, seed=2))]
    write_dataset(folder / "shards" / "validation", sources[:20], sources[20:])
    return Trained(folder / "entropy-model", folder / "shards", train(folder / "shards", folder / "blt", steps=20, evaluate_every=10))


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One dataset, from which training holds documents out; tests change nothing of it."""
    return write_dataset(tmp_path_factory.mktemp("training") / "shards", texts(60), texts(60, seed=1))


@pytest.fixture(scope="session")
def split_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two datasets; tests change nothing of it."""
    folder = tmp_path_factory.mktemp("training") / "split"
    write_dataset(folder / "train", texts(60))
    write_dataset(folder / "validation", texts(30, seed=2))
    return folder
