import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from bltdata.patching import PatchRule
from bltmodel.cli import main
from tests.bltmodel.interop.checkpoints import data, saved


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["export", *map(str, arguments)])


def test_with_an_entropy_model(tmp_path):
    blt, patcher = saved(tmp_path, described=data())
    result = run(blt, "--entropy-model", patcher, "--out", tmp_path / "out")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "open it with BltForCausalLM.from_pretrained." in result.stderr
    # Of 4.55 among entropies in steps of 1/256.
    assert "transformers starts a patch where an entropy is above 4.54883 nats." in result.stderr
    assert json.loads((tmp_path / "out" / "config.json").read_text())["patching_threshold"] == 1164.5 / 256


def test_without_one(tmp_path):
    blt, _ = saved(tmp_path, described=data(PatchRule(scheme="space")))
    result = run(blt, "--out", tmp_path / "out")
    assert "takes every byte for a patch unless it is given patch_lengths." in result.stderr
    report = json.loads(run(blt, "--out", tmp_path / "again", "--json").stdout)
    assert report.keys() == {"folder", "num_parameters", "threshold"}
    assert report["threshold"] is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "was trained on were cut by the rule 'space'; export it without --entropy-model and give transformers patch lengths, or say"),
        (["--threshold", "9"], "threshold is 9.0; it must lie between 0 and ln 260"),
    ],
)
def test_a_mistake_ends_in_one_sentence(tmp_path, options, message):
    blt, patcher = saved(tmp_path, described=data(PatchRule(scheme="space")))
    result = run(blt, "--entropy-model", patcher, *options, "--out", tmp_path / "out")
    assert (result.exit_code, result.stdout) == (1, "")
    assert message in result.stderr
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
