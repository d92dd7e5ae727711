import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from bltdata.entropy import EntropyModel
from bltdata.patching import PatchRule
from bltmodel.cli import main
from bltmodel.interop import export_blt
from bltmodel.model import BLT
from tests.bltmodel.datasets import entropy_model
from tests.bltmodel.interop.checkpoints import data, exported, saved


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [*map(str, arguments)])


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return exported(tmp_path / "in")


def test_with_its_entropy_model(tmp_path, checkpoint):
    result = run("import", checkpoint, "--out", tmp_path / "blt", "--entropy-model-out", tmp_path / "entropy-model")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "Its patches are cut by the rule entropy, threshold 4.55." in result.stderr
    assert BLT.load(tmp_path / "blt").config == BLT.load(tmp_path / "in-made-of" / "blt").config
    assert EntropyModel.load(tmp_path / "entropy-model").fingerprint == entropy_model().fingerprint


@pytest.mark.parametrize("threshold", [0.0, 1.0])
def test_the_rule_is_told_whatever_its_numbers_are(tmp_path, threshold):
    blt, _ = saved(tmp_path, described=data(PatchRule(threshold=threshold)))
    export_blt(blt, tmp_path / "in")
    assert f"by the rule entropy, threshold {threshold}." in run("import", tmp_path / "in", "--out", tmp_path / "out").stderr


def test_as_json(tmp_path, checkpoint):
    report = json.loads(run("import", checkpoint, "--out", tmp_path / "blt", "--json").stdout)
    assert report["folder"] == str(tmp_path / "blt")
    assert report["num_parameters"] == sum(BLT.load(tmp_path / "blt").num_parameters().values())
    assert (report["patch_rule"]["threshold"], report["entropy_model"]) == (4.55, entropy_model().fingerprint)


def test_what_was_imported_generates(tmp_path, checkpoint):
    run("import", checkpoint, "--out", tmp_path / "blt", "--entropy-model-out", tmp_path / "entropy-model")
    options = ("--prompt", "abc", "--max-new-bytes", "5", "--json")
    again = run("generate", "--model", tmp_path / "blt", "--entropy-model", tmp_path / "entropy-model", *options)
    made_of = tmp_path / "in-made-of"
    first = run("generate", "--model", made_of / "blt", "--entropy-model", made_of / "entropy-model", *options)
    assert (again.exit_code, first.exit_code) == (0, 0), again.output
    assert again.stdout == first.stdout


def test_without_a_patcher_it_says_what_is_missing(tmp_path):
    blt, _ = saved(tmp_path)
    export_blt(blt, tmp_path / "in")
    result = run("import", tmp_path / "in", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "Nobody knows how its documents were cut: it has no patcher" in result.stderr


def test_without_a_patcher_the_rule_of_the_shards_is_known(tmp_path):
    blt, _ = saved(tmp_path, described=data())
    export_blt(blt, tmp_path / "in")
    result = run("import", tmp_path / "in", "--out", tmp_path / "out", "--json")
    report = json.loads(result.stdout)
    assert (report["patch_rule"]["threshold"], report["entropy_model"]) == (4.55, None)


def test_a_mistake_ends_in_one_sentence(tmp_path):
    result = run("import", tmp_path, "--out", tmp_path / "out")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == (
        f"Error: {tmp_path} holds no transformers checkpoint (config.json is missing); give what save_pretrained wrote.\n"
    )
