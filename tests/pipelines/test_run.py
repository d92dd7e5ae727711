"""The whole way, with models so small that it takes seconds."""

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from bltdata import open_shards
from bltdata.errors import BuildError
from bltdata.stats.assess import assess
from pipelines.cli import main

RECIPE = """
[corpus]
corpus = ["TEXTS#document=paragraph"]
[entropy_model]
dim = 16
num_layers = 1
num_heads = 2
ffn_dim = 32
window = 16
[entropy_training]
steps = 4
row_tokens = 64
batch_rows = 2
evaluate_every = 2
[shards]
target_patch_length = 4.5
fragment_bytes = 4000
[blt]
local_dim = 16
encoder_layers = 1
decoder_layers = 1
local_heads = 2
local_ffn_dim = 32
window = 16
latent_dim = 32
latent_layers = 1
latent_heads = 2
latent_ffn_dim = 32
hash_rows = 64
[blt_training]
steps = 3
row_tokens = 64
batch_rows = 2
evaluate_every = 3
[sample]
prompt = "Pa"
max_new_bytes = 4
"""


@pytest.fixture
def recipe(tmp_path):
    texts = tmp_path / "texts.txt"
    texts.write_text("".join(f"Paragraph {i}: {'the quick brown fox jumps ' * (i % 7)}{i * i}.\n\n" for i in range(120)))
    path = tmp_path / "mine.toml"
    path.write_text(RECIPE.replace("TEXTS", str(texts)))
    return path


def test_the_python_of_the_guides_runs_on_what_a_recipe_leaves(recipe, monkeypatch, capsys):
    guides = [Path(__file__).parents[2] / name for name in ("README.md", "docs/training.md")]
    readme, training = (re.findall(r"```python\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL) for path in guides)
    arguments = [str(recipe), "--out", str(recipe.parent / "runs" / "quickstart"), "--workers", "1"]
    assert CliRunner().invoke(main, arguments).exit_code == 0
    monkeypatch.chdir(recipe.parent)
    names: dict[str, Any] = {}
    for block in readme:
        exec(compile(block, "README.md", "exec"), names)
    for block in training:
        exec(compile(block, "training.md", "exec"), {})
    assert names["logits"].shape == (len(names["text"]) + 1, 260)
    assert str(names["report"]["overall"]["bits_per_byte"]) in capsys.readouterr().out


def run(recipe, *options):
    result = CliRunner().invoke(main, [str(recipe), "--out", str(recipe.parent / "out"), "--workers", "1", *options])
    assert result.exit_code == 0, result.output
    return result


def test_raw_bytes_to_a_trained_blt_once(recipe, monkeypatch):
    def assess_and_plant(*arguments, **options):
        report, statistics = assess(*arguments, **options)
        planted = {"name": "planted", "verdict": "error", "evidence": "It was planted.", "advice": "", "numbers": {}}
        report["diagnostics"].append(report["diagnostics"][0] | planted)
        return report, statistics

    monkeypatch.setattr("pipelines.run.assess", assess_and_plant)
    first = run(recipe)
    summary = json.loads(first.stdout.splitlines()[-1])
    assert {"bits_per_byte", "mean_patch_length", "entropy_model_bits_per_byte", "seconds"} <= summary.keys()
    assert all(math.isfinite(summary[name]) for name in ("bits_per_byte", "entropy_model_bits_per_byte"))
    out = recipe.parent / "out"
    train, validation = open_shards(out / "shards" / "train"), open_shards(out / "shards" / "validation")
    assert train.manifest.patch_rule == validation.manifest.patch_rule
    assert not {row.data for row in train} & {row.data for row in validation}
    assert summary["mean_patch_length"] == pytest.approx(train.manifest.totals.mean_patch_length)
    assert json.loads((out / "evaluation.json").read_text())["overall"]["bits_per_byte"] == summary["bits_per_byte"]
    assert (out / "sample.txt").read_bytes().startswith(b"Pa")
    assert {path.name for path in (out / "statistics" / "train").glob("*.png")} == {
        "entropy.png",
        "boundaries_per_document.png",
        "patch_length.png",
    }
    # What the diagnostics find, in documents too few and too alike for a model of four steps or planted, is told on.
    report = json.loads((out / "statistics" / "train" / "statistics.json").read_text())
    verdicts = {each["name"]: each["verdict"] for each in report["diagnostics"]}
    assert (verdicts["entropy range"], verdicts["splits are apart"]) == ("ok", "ok")
    assert [name for name in summary["diagnostic_errors"] if name.startswith("train: ")] == [
        f"train: {name}" for name, verdict in verdicts.items() if verdict == "error"
    ]
    assert {"train: planted", "validation: planted"} <= set(summary["diagnostic_errors"])
    assert "The shards have errors (" in first.stderr
    for split in ("train", "validation"):
        page = (out / "statistics" / split / "report.html").read_text()
        assert f"<h1>Statistics of the {split} shards</h1>" in page
        assert "Diagnostics" in page

    second = run(recipe)
    assert second.stderr.count("nothing has changed, skipped") == 7
    again = json.loads(second.stdout.splitlines()[-1])
    assert {**again, "seconds": 0} == {**summary, "seconds": 0}

    # Another seed of the BLT: what stands before it isn't done again.
    recipe.write_text(recipe.read_text().replace("steps = 3", "steps = 3\nseed = 1"))
    third = run(recipe)
    assert third.stderr.count("nothing has changed, skipped") == 4
    assert json.loads(third.stdout.splitlines()[-1])["bits_per_byte"] != summary["bits_per_byte"]


@pytest.mark.parametrize("reset", [True, False])
def test_the_newline_reset_of_scoring_reaches_the_build(recipe, monkeypatch, reset):
    configs = []

    def build(corpus, model_folder, config, folder, **_):
        configs.append(config)
        raise BuildError("That is enough.")

    monkeypatch.setattr("pipelines.run.build_shards", build)
    recipe.write_text(recipe.read_text().replace("[shards]\n", f"[shards]\nreset_at_newline = {str(reset).lower()}\n"))
    result = CliRunner().invoke(main, [str(recipe), "--out", str(recipe.parent / "out"), "--workers", "1"])
    assert "That is enough." in result.stderr
    (config,) = configs
    assert (config.reset_at_newline, config.rule.reset_at_newline) == (reset, False)


def test_a_mistake_is_one_sentence(tmp_path):
    result = CliRunner().invoke(main, ["quickstrat"])
    assert result.exit_code == 1
    assert result.stderr.strip() == "Error: There is no recipe 'quickstrat'; the nearest is 'quickstart'; or give the path of a TOML file."
