"""Training and evaluation on shards in a store: fsspec's own in memory; the reader is tested against S3 where it is."""

import json
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from click.testing import CliRunner

from bltdata.remote import RemotePath, as_path
from bltmodel.cli import main
from bltmodel.training_data import open_training_data
from tests.bltmodel.conftest import Trained


@pytest.fixture
def shards(trained: Trained) -> Iterator[RemotePath]:
    """The shards of `trained`, in memory."""
    address = "memory://shards-to-train-on"
    for path in trained.shards.rglob("*"):
        if path.is_file():
            RemotePath(f"{address}/{path.relative_to(trained.shards)}").write_bytes(path.read_bytes())
    yield RemotePath(address)
    fsspec.filesystem("memory").rm(address, recursive=True)


def test_the_data_are_those_of_local_shards(trained, shards):
    here, there = open_training_data(trained.shards), open_training_data(shards)
    assert there.describe() == here.describe()
    assert [there.train.document(index).tobytes() for index in range(60)] == [here.train.document(index).tobytes() for index in range(60)]
    alone = open_training_data(shards / "train", shards / "validation")
    assert alone.describe() == here.describe()


def run(*arguments: str | Path | RemotePath) -> dict[str, object]:
    result = CliRunner().invoke(main, [*map(str, arguments), "--json"])
    assert result.exit_code == 0, result.output
    reply: dict[str, object] = json.loads(result.stdout)
    return reply


def test_the_commands_read_remote_shards(trained, shards, tmp_path):
    small = ["--preset", "tiny", "--steps", "1", "--row-tokens", "64", "--batch-rows", "1", "--device", "cpu", "--precision", "float32"]
    report = run("train", "--shards", shards, *small, "--out", tmp_path / "blt")
    assert report["folder"] == str(tmp_path / "blt")
    measured = ["evaluate", "--model", trained.blt, "--device", "cpu", "--shards"]
    assert run(*measured, as_path(f"{shards}/validation")) == run(*measured, trained.shards / "validation")
