"""`bltdata import-entropy-model` and `bltdata export-entropy-model`, which undo each other."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from bltdata.cli import main
from bltdata.entropy import EntropyModel, export_patcher
from bltdata.shards import open_shards
from tests.bltdata.small import opinionated_model, write_lines


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, list(map(str, arguments)))


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    export_patcher(opinionated_model(), tmp_path / "patcher")
    return tmp_path / "patcher"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_an_imported_model_is_like_any_other(tmp_path: Path, checkpoint: Path) -> None:
    result = run("import-entropy-model", checkpoint, "--out", tmp_path / "model")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == f"The entropy model, 13,232 parameters with a window of 8 bytes, is in {tmp_path / 'model'}.\n".replace(
        "13,232", f"{opinionated_model().num_parameters:,}"
    )
    assert EntropyModel.load(tmp_path / "model").fingerprint == opinionated_model().fingerprint
    assert json.loads((tmp_path / "model" / "config.json").read_text())["imported_from"] == "patcher"
    lines = write_lines(tmp_path / "lines.txt", [b"one document", b"and another one"])
    built = run("build-shards", "--corpus", f"files:{lines}#document=line", "--entropy-model", tmp_path / "model", "--threshold", "3.0",
                "--split", "all", "--workers", "1", "--out", tmp_path / "shards")  # fmt: skip
    assert built.exit_code == 0, built.output
    assert open_shards(tmp_path / "shards").manifest.entropy_model["fingerprint"] == opinionated_model().fingerprint


def test_import_as_json_with_another_window(tmp_path: Path, checkpoint: Path) -> None:
    result = run("import-entropy-model", checkpoint, "--window", "5", "--json", "--out", tmp_path / "model")
    model = EntropyModel.load(tmp_path / "model")
    assert json.loads(result.stdout) == {
        "folder": str(tmp_path / "model"),
        "fingerprint": model.fingerprint,
        "num_parameters": model.num_parameters,
        "window": 5,
    }
    assert model.config.window == 5


def test_there_and_back(tmp_path: Path, checkpoint: Path) -> None:
    run("import-entropy-model", checkpoint, "--out", tmp_path / "model")
    result = run("export-entropy-model", tmp_path / "model", "--out", tmp_path / "back", "--json")
    model = opinionated_model()
    assert json.loads(result.stdout) == {
        "folder": str(tmp_path / "back"),
        "fingerprint": model.fingerprint,
        "num_parameters": model.num_parameters,
    }
    assert {name: (tmp_path / "back" / name).read_bytes() for name in names(tmp_path / "back")} == {
        name: (checkpoint / name).read_bytes() for name in names(checkpoint)
    }


def test_export_says_what_opens_it(tmp_path: Path) -> None:
    opinionated_model().save(tmp_path / "model")
    result = run("export-entropy-model", tmp_path / "model", "--out", tmp_path / "patcher")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr.endswith(f"is in {tmp_path / 'patcher'}; open it with transformers' BltPatcher.from_pretrained.\n")


@pytest.mark.parametrize("command", ["import-entropy-model", "export-entropy-model"])
def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path, checkpoint: Path, command: str) -> None:
    opinionated_model().save(tmp_path / "model")
    source = checkpoint if command.startswith("import") else tmp_path / "model"
    before = (source / "model.safetensors").read_bytes()
    result = run(command, source, "--out", source)
    assert result.exit_code == 1
    assert result.stderr == f"Error: {source} isn't empty; give a folder that doesn't exist or is empty.\n"
    assert (source / "model.safetensors").read_bytes() == before


def test_a_failed_import_leaves_nothing(tmp_path: Path) -> None:
    opinionated_model().save(tmp_path / "model")
    result = run("import-entropy-model", tmp_path / "model", "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert "key 'model_type' is None; give a transformers checkpoint" in result.stderr
    assert names(tmp_path) == ["model"]


def test_a_failed_export_leaves_nothing(tmp_path: Path) -> None:
    result = run("export-entropy-model", tmp_path / "nothing", "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert "nothing holds no model" in result.stderr
    assert names(tmp_path) == []
