"""Good datasets, made once by the public functions."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from bltdata.build import BuildConfig, build_shards
from bltdata.corpus import Corpus, open_corpus
from bltdata.patching import PatchRule
from bltdata.repatch import RepatchConfig, repatch_shards
from tests.bltdata.small import opinionated_model, random_documents, write_lines

RULE = PatchRule(threshold=4.4)


@dataclass(frozen=True)
class Made:
    """A corpus of two sources and the folder of a model; tests change neither."""

    corpus: Corpus
    model: Path
    folder: Path

    def build(self, name: str, corpus: Corpus | None = None, **config: object) -> Path:
        settings = {"rule": RULE, "fragment_bytes": 800} | config
        build_shards(corpus or self.corpus, self.model, BuildConfig(**settings), self.folder / name)
        return self.folder / name

    def repatch(self, name: str, **config: object) -> Path:
        repatch_shards(self.folder / "grid", RepatchConfig(**({"rule": RULE} | config)), self.folder / name)
        return self.folder / name


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("verified")
    opinionated_model(num_layers=1).save(folder / "model")
    specs = []
    for number, source in enumerate(("left", "right")):
        documents = [b"%d " % line + data for line, data in enumerate(random_documents(30, 60, seed=number))]
        specs.append(f"files:{write_lines(folder / f'{source}.txt', documents)}#document=line&source={source}")
    made = Made(open_corpus(specs), folder / "model", folder)
    made.build("grid")
    return made


@pytest.fixture(scope="session")
def good(made: Made) -> Path:
    """A dataset of four or so shards; tests read it and change nothing."""
    return made.folder / "grid"


@pytest.fixture
def copy(good: Path, tmp_path: Path) -> Callable[..., Path]:
    """Makes a copy of a dataset, the good one unless another is given, to plant faults in."""

    def copy(dataset: Path = good, name: str = "copy") -> Path:
        return Path(shutil.copytree(dataset, tmp_path / name))

    return copy
