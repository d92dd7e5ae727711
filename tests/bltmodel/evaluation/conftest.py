import json
from pathlib import Path

import pytest

from tests.bltmodel.datasets import opinionated_blt


@pytest.fixture(scope="session")
def blt(trained, tmp_path_factory) -> Path:
    """The trained BLT with other weights: predictions that differ more from place to place."""
    about = json.loads((trained.blt / "config.json").read_text(encoding="utf-8"))
    folder = tmp_path_factory.mktemp("evaluation") / "blt"
    opinionated_blt().save(folder, {name: about[name] for name in ("training", "data")})
    return folder
