"""A BLT on shards whose sources have rules of their own."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from bltdata.config import to_mapping
from bltdata.errors import CheckpointError, ShardError
from bltdata.patching import PatchRule
from bltdata.repatch import RepatchConfig, repatch_shards
from bltmodel.cli import main
from bltmodel.evaluation import EvaluationConfig, evaluate
from bltmodel.model import BLT
from bltmodel.training_data import open_training_data
from tests.bltmodel.datasets import RULE, train

CODE = PatchRule(threshold=4.0)
PROSE = PatchRule(scheme="space")


@pytest.fixture(scope="module")
def shards(trained, tmp_path_factory) -> Path:
    """Documents of the sources `code` and `prose`, each with its rule."""
    folder = tmp_path_factory.mktemp("source-rules") / "shards"
    repatch_shards(trained.shards / "validation", RepatchConfig(rule=RULE, source_rules={"code": CODE, "prose": PROSE}), folder)
    return folder


@pytest.fixture(scope="module")
def blt(shards, tmp_path_factory) -> Path:
    return train(shards, tmp_path_factory.mktemp("source-rules") / "blt")


def generate(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["generate", "--max-new-bytes", "2", *map(str, arguments)])


def test_a_model_remembers_the_rules_and_is_judged_on_such_shards(shards, blt):
    about = json.loads((blt / "config.json").read_text(encoding="utf-8"))["data"]
    assert about["patch_rule"] == to_mapping(RULE)
    assert about["source_rules"] == {"code": to_mapping(CODE), "prose": to_mapping(PROSE)}
    assert set(evaluate(blt, shards, compressors=()).sources) == {"code", "prose"}


def test_shards_of_one_rule_are_others(shards, blt, trained):
    for model, folder in ((blt, trained.shards / "validation"), (trained.blt, shards)):
        with pytest.raises(CheckpointError, match=r"was cut by another patch rule than the shards .* repatch it with --rule-from those\.$"):
            evaluate(model, folder, compressors=())
    with pytest.raises(ShardError, match="were cut with different patch rules; build or repatch one of them with --rule-from the other"):
        open_training_data(trained.shards / "train", shards)
    assert open_training_data(shards).train.dataset.manifest.source_rules


def test_a_model_of_one_rule_says_nothing_of_sources(trained):
    assert "source_rules" not in json.loads((trained.blt / "config.json").read_text(encoding="utf-8"))["data"]


def test_generating_takes_the_rule_of_a_source(blt, trained, monkeypatch):
    rules = []
    monkeypatch.setattr(BLT, "stream", lambda self, prompt, settings: rules.append(settings.rule) or iter([b""]))
    folders = ["--model", blt, "--entropy-model", trained.entropy_model]
    assert generate(*folders, "--source", "code").exit_code == 0
    assert generate(*folders, "--source", "prose").exit_code == 0
    assert generate("--model", trained.blt, "--entropy-model", trained.entropy_model, "--source", "any").exit_code == 0
    assert rules == [CODE, PROSE, RULE]


def test_generating_needs_a_source(blt, trained):
    result = generate("--model", blt, "--entropy-model", trained.entropy_model)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "Nothing says with which rule to cut the text: " in result.stderr
    assert result.stderr.endswith("give --source, code, prose or any other.\n")


def test_a_source_without_a_rule_has_that_of_all_others(blt, trained, monkeypatch):
    rules = []
    monkeypatch.setattr(BLT, "stream", lambda self, prompt, settings: rules.append(settings.rule) or iter([b""]))
    result = generate("--model", blt, "--entropy-model", trained.entropy_model, "--source", "mail")
    assert (result.exit_code, rules) == (0, [RULE])
    assert result.stderr == "No rule is for the source 'mail' alone, so the text is cut by that of all sources without one.\n"


def test_noised_documents_are_cut_by_the_rule_of_their_source(shards, blt, trained):
    # Noise that changes nothing: the same documents, cut anew.
    config = EvaluationConfig(noise=("drop=1e-12",))
    report = evaluate(blt, shards, config, entropy_model=trained.entropy_model, compressors=()).report()
    for figures in (report["overall"], *report["sources"].values()):
        for name in ("bits_per_byte", "mean_patch_length"):
            assert figures["noise"]["drop"][name] == pytest.approx(figures[name], rel=1e-6)
