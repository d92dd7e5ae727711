import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from bltdata.cli import main
from bltdata.patching import PatchRule
from bltdata.shards import open_shards
from bltdata.shards.calibration import calibrate_shards


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["calibrate", *map(str, arguments)])


@pytest.fixture
def shards(dataset_folder, rows) -> Path:
    return dataset_folder(rows(40), rows(40, seed=1))


def test_json_is_one_object_and_all_of_it(shards):
    result = run("--shards", shards, "--target-patch-length", "4.5", "--by", "source", "--max-length", "20", "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.count("\n") == 1
    dataset = open_shards(shards)
    expected = calibrate_shards(dataset, PatchRule(max_length=20), 4.5, by_source=True).to_mapping()
    assert json.loads(result.stdout) == {"shards": str(shards), "fingerprint": dataset.manifest.fingerprint, **expected}
    assert expected["sources"]["code"]["own"]["rule"]["max_length"] == 20


def test_tables(shards, dataset_folder, rows):
    plain = run("--shards", shards, "--target-patch-length", "4.5")
    assert (plain.exit_code, plain.stderr) == (0, "")
    found = calibrate_shards(open_shards(shards), PatchRule(), 4.5).found
    assert f"A threshold of {found.overall.threshold} nats gives patches of {found.overall.mean_patch_length:.4f}" in plain.stdout
    words = [line.split() for line in plain.stdout.splitlines()]
    assert ["0", "1.000", "1.000", "1.000"] in words
    assert [line[:2] for line in words if line and line[0] in found.under_overall] == [
        [name, f"{counts.num_documents:,}"] for name, counts in found.under_overall.items()
    ]
    held_out = dataset_folder(rows(30, seed=2, sources=["news", "poems [b]"]), name="held-out")
    both = run("--shards", shards, "--target-patch-length", "4.5", "--by", "source", "--validation-shards", held_out)
    assert both.exit_code == 0
    lines = {line.split("  ")[1]: line.split() for line in both.stdout.splitlines() if line.startswith("  ") and line.split()}
    assert len(lines["news"]) == 8
    # Not among those that were calibrated on.
    assert lines["poems [b]"][2:5] == ["-", "-", "-"]
    assert f"On {held_out} it gives 4." in both.stdout


def test_a_mean_that_no_threshold_brings_near_is_explained(dataset_folder, rows):
    # Equal entropies at every second position of one source: patches of about two bytes, or whole documents.
    some = rows(40)
    for row in some:
        if row["source"] == "news":
            row["entropy_nats"] = np.where(np.arange(len(row["entropy_nats"])) % 2, 2.0, 0.5).astype(np.float16)
    shards = dataset_folder(some)
    result = run("--shards", shards, "--target-patch-length", "3", "--by", "source")
    assert result.exit_code == 0
    assert "No threshold comes nearer to 3 bytes for" in result.stdout
    missed = next(line for line in result.stdout.splitlines() if line.startswith("No threshold"))
    assert "the source 'news'" in missed
    assert "the source 'code'" not in missed
    assert "No threshold" not in run("--shards", dataset_folder(rows(40), name="fine"), "--target-patch-length", "3").stdout


def test_settings_from_a_file(shards, tmp_path):
    (tmp_path / "rule.toml").write_text("[rule]\nrelative_threshold = 0.0\n")
    result = run("--shards", shards, "--target-patch-length", "4.5", "--config", tmp_path / "rule.toml", "--json")
    assert json.loads(result.stdout)["field"] == "relative_threshold"


def test_a_mistake_ends_in_one_sentence(shards, tmp_path):
    for arguments, message in [
        (["--target-patch-length", "500"], "No threshold makes patches of 500 bytes on average of these documents; the nearest mean"),
        (["--target-patch-length", "0.5"], "target_patch_length is 0.5; it must be a number of bytes, at least 1."),
        (["--target-patch-length", "nan"], "target_patch_length is nan"),
        (["--target-patch-length", "4.5", "--threshold", "1"], "Both a threshold (1) and a target patch length (4.5) are given"),
        (["--target-patch-length", "4.5", "--scheme", "space"], "The rule 'space' has no threshold to find; leave --scheme out, or"),
        (
            ["--target-patch-length", "4.5", "--scheme", "fixed"],
            "The rule 'fixed' has no threshold to find; leave --scheme out, or cut the",
        ),
        (["--target-patch-length", "4.5", "--validation-shards", tmp_path / "no"], "There is no folder"),
    ]:
        result = run("--shards", shards, *arguments)
        assert (result.exit_code, result.stdout) == (1, ""), message
        assert message in result.stderr
        assert result.stderr.count("\n") == 1
    assert run("--shards", shards, "--target-patch-length", "4.5", "--by", "color").exit_code == 2
