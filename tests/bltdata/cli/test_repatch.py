import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from bltdata.cli import main
from bltdata.patching import PatchRule
from bltdata.shards import Manifest, open_shards


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["repatch", "--workers", "1", *map(str, arguments)])


@pytest.fixture
def shards(dataset_folder, rows) -> Path:
    return dataset_folder(rows(40), rows(40, seed=1))


def test_another_rule(shards, tmp_path):
    result = run("--shards", shards, "--threshold", "1.5", "--min-length", "2", "--out", tmp_path / "out")
    assert (result.exit_code, result.stdout) == (0, "")
    rule = PatchRule(threshold=1.5, min_length=2)
    dataset = open_shards(tmp_path / "out")
    assert PatchRule(**dataset.manifest.patch_rule) == rule
    assert all(row.patch_lengths.tolist() == rule.lengths(row.data, row.entropy_nats).tolist() for row in dataset)
    # What is left out of shards stays so when they are cut again.
    assert result.stderr.endswith(f" in 2 shards in {tmp_path / 'out'}, 1 left out (too short).\n")
    assert f"80 documents, {dataset.manifest.totals.num_bytes / 1000:.1f} kB, " in result.stderr
    again = run("--shards", shards, "--threshold", "1.5", "--min-length", "2", "--out", tmp_path / "out")
    assert f"{tmp_path / 'out'} has 2 of 2 shards already; 0 to go." in again.stderr


def test_json_and_rules_by_source(shards, tmp_path):
    options = ["--target-patch-length", "4.5", "--by", "source", "--json"]
    result = run("--shards", shards, *options, "--out", tmp_path / "out")
    manifest = Manifest.read(tmp_path / "out")
    report = json.loads(result.stdout)
    assert result.stdout.count("\n") == 1
    assert list(report["source_rules"]) == ["code", "news"]
    assert (report["source_rules"], report["patch_rule"]) == (manifest.source_rules, manifest.patch_rule)
    assert report["mean_patch_length"] == pytest.approx(4.5, rel=0.005)
    # A dataset that takes them over.
    taken = run("--shards", shards, "--rule-from", tmp_path / "out", "--out", tmp_path / "taken")
    assert taken.exit_code == 0
    assert Manifest.read(tmp_path / "taken") == manifest


def test_settings_from_a_file(shards, tmp_path):
    (tmp_path / "rule.toml").write_text('[rule]\nscheme = "fixed"\nstride = 4\n')
    assert run("--shards", shards, "--config", tmp_path / "rule.toml", "--out", tmp_path / "out").exit_code == 0
    assert Manifest.read(tmp_path / "out").patch_rule["stride"] == 4


def test_a_mistake_ends_in_one_sentence(shards, tmp_path):
    out = ["--out", tmp_path / "out"]
    for arguments, message in [
        (["--threshold", "1", "--out", shards], "is the folder of the shards themselves; choose another one"),
        (out, "The rule 'entropy' has no threshold: give --threshold, or --target-patch-length"),
        (["--threshold", "1", "--by", "source", *out], "--by source is given, but nothing to calibrate to"),
        (["--threshold", "9", *out], "threshold is 9.0; it must lie between 0 and ln 260"),
        (["--rule-from", shards, "--stride", "4", *out], "Both --rule-from and settings of a rule are given"),
        (["--rule-from", shards, "--target-patch-length", "4", *out], "Both --rule-from and settings of a rule are given"),
        (["--rule-from", tmp_path / "no", *out], "There is no folder"),
    ]:
        result = run("--shards", shards, *arguments)
        assert (result.exit_code, result.stdout) == (1, ""), message
        assert message in result.stderr
        assert result.stderr.count("\n") == 1


def test_a_build_takes_no_rules_by_source(shards, tmp_path):
    run("--shards", shards, "--target-patch-length", "4.5", "--by", "source", "--out", tmp_path / "out")
    arguments = ["build-shards", "--entropy-model", tmp_path, "--rule-from", tmp_path / "out", "--out", tmp_path / "built"]
    result = CliRunner().invoke(main, [*map(str, arguments)])
    assert result.exit_code == 1
    assert f"then run bltdata repatch with --rule-from {tmp_path / 'out'}.\n" in result.stderr
