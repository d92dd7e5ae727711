import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from bltdata.entropy import EntropyModel
from bltmodel.cli import main
from bltmodel.config import PRESETS
from bltmodel.flops import entropy_model_flops_per_byte, summarise
from bltmodel.model import BLT
from tests.bltmodel.documents import tiny_config


def run(*arguments: str | Path, **environment: str) -> Result:
    return CliRunner().invoke(main, ["summary", *map(str, arguments)], env=environment)


@pytest.mark.parametrize("columns", ["20", "300"])
def test_every_number_is_whole_however_narrow_the_screen(columns):
    result = run("--preset", "8b", "--patch-length", "6", COLUMNS=columns)
    assert (result.exit_code, result.stderr) == (0, "")
    cells = {line.strip().split("  ")[0]: line.split()[-2:] for line in result.stdout.splitlines() if line.strip()}
    expected = summarise(PRESETS["8b"], 6.0)
    for part, count in expected.parameters.items():
        assert cells[part] == [f"{count:,}", f"{expected.flops_per_byte.get(part, 0):,.0f}"]
    assert cells["all"] == [f"{expected.total_parameters:,}", f"{expected.total_flops_per_byte:,.0f}"]
    assert "patches of 6 bytes, documents of 8,192 bytes" in result.stdout


def test_json_of_a_trained_model(tmp_path):
    BLT(tiny_config()).save(tmp_path / "blt")
    result = run("--model", tmp_path / "blt", "--patch-length", "3", "--context-bytes", "100", "--json")
    report, expected = json.loads(result.stdout), summarise(tiny_config(), 3.0, 100)
    assert report["parameters"] == expected.parameters
    assert report["flops_per_byte"] == expected.flops_per_byte
    assert report["total"] == {"parameters": expected.total_parameters, "flops_per_byte": expected.total_flops_per_byte}
    assert result.stdout.count("\n") == 1


def test_the_entropy_model_is_counted_apart(tmp_path):
    model = EntropyModel.from_preset("tiny")
    model.save(tmp_path / "entropy-model")
    options = ("--preset", "tiny", "--entropy-model", tmp_path / "entropy-model", "--context-bytes", "1000")
    expected = {"parameters": model.num_parameters, "flops_per_byte": entropy_model_flops_per_byte(model.config, 1000)}
    report, without = (
        json.loads(run(*options, "--json").stdout),
        json.loads(run("--preset", "tiny", "--context-bytes", 1000, "--json").stdout),
    )
    assert report.pop("entropy_model") == expected
    assert report == without
    line = next(line for line in run(*options).stdout.splitlines() if "entropy model, apart" in line)
    assert line.split()[-2:] == [f"{model.num_parameters:,}", f"{expected['flops_per_byte']:,.0f}"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Give either --preset or --model."),
        (["--preset", "tiny", "--model", "x"], "Give either --preset or --model."),
        (["--preset", "tinny"], "There is no BLT preset 'tinny'; the nearest is 'tiny'."),
        (["--preset", "tiny", "--patch-length", "0.5"], "The mean patch length is 0.5; it must be at least 1 byte."),
        (["--preset", "tiny", "--context-bytes", "0"], "The context is 0; it must be at least 1 byte."),
        (
            ["--preset", "tiny", "--entropy-model", "nowhere"],
            "nowhere holds no model (config.json is missing); give the folder that training wrote.",
        ),
        (["--model", "nowhere"], "nowhere holds no model (config.json is missing); give the folder that training wrote."),
    ],
)
def test_a_mistake_ends_in_one_sentence(arguments, message):
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == f"Error: {message}\n"
