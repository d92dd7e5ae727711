import json
import re
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from bltdata.cli import main
from bltdata.lock import exclusive
from bltdata.patching import PatchRule
from bltdata.shards import Manifest, open_shards
from tests.bltdata.killing import run_killed
from tests.bltdata.small import numbered_lines, opinionated_model


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return numbered_lines(tmp_path_factory.mktemp("corpora") / "lines.txt", 200)


@pytest.fixture
def settings(lines: Path, model_folder: Path, tmp_path: Path) -> list[str | Path]:
    """The options that every build here has."""
    corpus = f"files:{lines}#document=line&source=lines"
    return ["--corpus", corpus, "--entropy-model", model_folder, "--out", tmp_path / "shards", "--workers", "1"]


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["build-shards", *map(str, arguments)])


def sentence(result: Result) -> str:
    """The one line of an error."""
    assert result.exit_code == 1, result.output + repr(result.exception)
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    return result.stderr.strip().splitlines()[-1]


def rule_of(folder: Path) -> PatchRule:
    return PatchRule(**Manifest.read(folder).patch_rule)


def test_it_builds_and_says_what_there_is(settings, tmp_path):
    result = run(*settings, "--threshold", "4.4", "--min-bytes", "10")
    assert result.exit_code == 0, result.output
    assert result.stdout == ""
    totals = open_shards(tmp_path / "shards").manifest.totals
    assert re.fullmatch(
        rf"{totals.num_documents} documents, [\d.]+ kB, {totals.num_patches:,} patches of {totals.mean_patch_length:.3f} bytes on average "
        rf"in 1 shard in {tmp_path / 'shards'}, \d+ left out \(other split\), \d+ left out \(too short\)\.",
        result.stderr.splitlines()[-1],
    )


def test_json(settings, tmp_path):
    result = run(*settings, "--threshold", "4.4", "--json")
    (line,) = result.stdout.splitlines()
    printed = json.loads(line)
    manifest = Manifest.read(tmp_path / "shards")
    assert (printed["folder"], printed["fingerprint"]) == (str(tmp_path / "shards"), manifest.fingerprint)
    assert printed["mean_patch_length"] == manifest.totals.mean_patch_length
    assert printed["num_documents"] == manifest.totals.num_documents
    assert printed["left_out"] == manifest.totals.left_out
    assert (printed["patch_rule"], printed["source_rules"]) == (manifest.patch_rule, {})


def test_splits(settings, tmp_path, lines):
    counts = {}
    for split in ("train", "validation", "test", "all"):
        run(*settings, "--threshold", "4.4", "--split", split, "--out", tmp_path / split)
        counts[split] = len(open_shards(tmp_path / split))
    assert counts["train"] + counts["validation"] + counts["test"] == counts["all"] == 200
    assert counts["train"] > 150


def test_calibration(settings, tmp_path):
    result = run(*settings, "--target-patch-length", "3", "--split", "all")
    assert result.exit_code == 0, result.output
    assert result.stderr.startswith("Calibrated on 200 documents (")
    assert Manifest.read(tmp_path / "shards").totals.mean_patch_length == pytest.approx(3, abs=0.1)


def test_the_rule_of_another_dataset(settings, tmp_path):
    run(*settings, "--target-patch-length", "3", "--min-length", "2")
    result = run(*settings, "--rule-from", tmp_path / "shards", "--split", "validation", "--out", tmp_path / "validation")
    assert result.exit_code == 0, result.output
    assert rule_of(tmp_path / "validation") == rule_of(tmp_path / "shards")
    assert rule_of(tmp_path / "shards").min_length == 2


def test_a_rule_of_shards_that_were_scored_line_by_line_comes_with_a_word(settings, tmp_path):
    run(*settings, "--target-patch-length", "3", "--reset-scoring-at-newline")
    rest = ["--rule-from", tmp_path / "shards", "--split", "validation"]
    result = run(*settings, *rest, "--out", tmp_path / "validation")
    assert (result.exit_code, result.stderr.count("shards was scored line by line, and this isn't to be")) == (0, 1)
    result = run(*settings, *rest, "--reset-scoring-at-newline", "--out", tmp_path / "alike")
    assert (result.exit_code, result.stderr.count("line by line")) == (0, 0)


def test_settings_of_a_rule_come_together_from_file_and_options(settings, tmp_path):
    path = tmp_path / "settings.toml"
    path.write_text('[rule]\nmin_length = 2\nthreshold = 1.0\n\n[build]\nentropy_precision = "float16"\nfragment_bytes = 3000\n')
    result = run(*settings, "--config", path, "--threshold", "4.4", "--max-length", "9")
    assert result.exit_code == 0, result.output
    assert rule_of(tmp_path / "shards") == PatchRule(threshold=4.4, min_length=2, max_length=9)
    manifest = Manifest.read(tmp_path / "shards")
    assert manifest.entropy_precision == "float16"
    assert len(manifest.shards) > 1


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        (["--scheme", "fixed", "--stride", "4"], PatchRule(scheme="fixed", stride=4)),
        (["--scheme", "space"], PatchRule(scheme="space")),
        (["--threshold", "4.4", "--reset-at-newline"], PatchRule(threshold=4.4, reset_at_newline=True)),
        (["--relative-threshold", "-0.5"], PatchRule(relative_threshold=-0.5)),
    ],
)
def test_rules(settings, tmp_path, arguments, rule):
    result = run(*settings, *arguments)
    assert result.exit_code == 0, result.output
    assert rule_of(tmp_path / "shards") == rule


def test_running_it_again(settings, tmp_path):
    run(*settings, "--threshold", "4.4")
    before = {path.name: path.read_bytes() for path in (tmp_path / "shards").iterdir()}
    again = run(*settings, "--threshold", "4.4")
    assert again.stderr.splitlines()[0] == f"{tmp_path / 'shards'} has 1 of 1 shards already; 0 to go."
    assert {path.name: path.read_bytes() for path in (tmp_path / "shards").iterdir()} == before
    assert "was begun with other settings; choose another folder" in sentence(run(*settings, "--threshold", "4.3"))


def test_ctrl_c(settings, tmp_path, monkeypatch):
    options = [*settings, "--threshold", "4.4", "--fragment-bytes", "1000", "--split", "all"]
    run(*options, "--out", tmp_path / "undisturbed")

    @contextmanager
    def progress(*_: Any) -> Iterator[Any]:
        yield lambda amount, note: signal.raise_signal(signal.SIGINT) if note == "part-00002.parquet" else None

    with monkeypatch.context() as patch:
        patch.setattr("bltdata.cli.progress.progress", progress)
        result = run(*options)
    assert result.exit_code == 130
    assert result.stderr.strip() == "Interrupted; what was finished is kept: run the same command again to go on."
    assert not (tmp_path / "shards" / "manifest.json").exists()
    assert "shards has 3 of 7 shards already; 4 to go." in run(*options).stderr
    undisturbed, shards = ({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("undisturbed", "shards"))
    assert shards == undisturbed


def test_killed_at_random_moments(settings, tmp_path):
    # The time to calibrate is a good one to die, too.
    options = [*settings[:4], "--workers", "1", "--target-patch-length", "3", "--fragment-bytes", "1000", "--split", "all"]
    run(*options, "--out", tmp_path / "undisturbed")
    lives = run_killed(2, 7, "build-shards", *options, "--out", tmp_path / "killed")
    assert lives[-1] == "exit 0"
    assert len(lives) >= 3
    undisturbed, killed = ({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("undisturbed", "killed"))
    assert len(undisturbed) > 6
    assert killed == undisturbed


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "The rule 'entropy' has no threshold: give --threshold, or --target-patch-length to calibrate one."),
        (["--threshold", "-1"], r"threshold is -1\.0; it must lie between 0 and ln 260"),
        (["--threshold", "nan"], "--threshold is nan; it must be a finite number"),
        (["--threshold", "inf"], "--threshold is inf; it must be a finite number"),
        (["--threshold", "6"], r"threshold is 6\.0; it must lie between 0 and ln 260"),
        (["--target-patch-length", "nan"], "--target-patch-length is nan; it must be a finite number"),
        (["--target-patch-length", "-3"], "target_patch_length is -3; it must be a number of bytes, at least 1"),
        (["--target-patch-length", "3000"], "No threshold makes patches of 3000 bytes"),
        (["--threshold", "1", "--target-patch-length", "4"], r"Both a threshold \(1\) and a target patch length \(4\) are given"),
        (["--threshold", "1", "--stride", "4"], "stride is 4 and the rule 'entropy' doesn't read it"),
        (["--scheme", "fixed"], "The rule 'fixed' needs a stride"),
        (["--scheme", "space", "--target-patch-length", "4"], "The rule 'space' has no threshold to calibrate"),
        (["--threshold", "1", "--split", "trian"], "There is no split 'trian'; .*'train'"),
        (["--threshold", "1", "--split", "al"], r"There is no split 'al'; the nearest is 'all'\."),
        (["--threshold", "1", "--split", "xyz"], r"There is no split 'xyz'; known are all, test, train, validation\."),
        (["--threshold", "1", "--validation-corpus", "b.txt", "--split", "xyz"], r"'xyz'; known are all, train, validation\."),
        (["--threshold", "1", "--corpus", "nowhere/*.txt"], "nowhere"),
        (["--threshold", "1", "--entropy-model", "nowhere"], "nowhere"),
        (["--threshold", "1", "--rule-from", "nowhere"], "nowhere|Both --rule-from"),
        (["--threshold", "1", "--fragment-bytes", "0"], "fragment_bytes is 0; it must be at least 1"),
        (["--threshold", "1", "--min-bytes", "5000"], r"has no documents.*; all there is was left out: .*\(too short\)"),
        (["--threshold", "1", "--config", "nowhere.toml"], r"nowhere\.toml"),
        (["--threshold", "1", "--shard-index", "1"], "--shard-index and --shard-count belong together; give both, or neither"),
        (["--threshold", "1", "--shard-count", "1"], "--shard-index and --shard-count belong together; give both, or neither"),
        (["--threshold", "1", "--shard-index", "2", "--shard-count", "2"], "--shard-index is 2; with --shard-count 2 it must lie"),
        (["--threshold", "1", "--plan-only", "--shard-index", "0", "--shard-count", "2"], "--plan-only makes no shards"),
    ],
)
def test_mistakes(settings, tmp_path, arguments, expected):
    message = sentence(run(*settings, *arguments))
    assert re.search(expected, message), message
    assert not list(tmp_path.glob("shards/*.parquet"))
    assert not (tmp_path / "shards" / "manifest.json").exists()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[rule]\ntreshold = 1.0", r"\[rule\].* unknown key 'treshold'.*'threshold'"),
        ("[build]\ntarget_patch_lenght = 1.0", r"\[build\].* unknown key 'target_patch_lenght'.*'target_patch_length'"),
        ("[bild]\nx = 1", "unknown section 'bild'.*'build'"),
        ("[rule]\nthreshold = nan", "is nan; it must be a finite number"),
        ("[rule]\nthreshold = 'high'", "is 'high'; it must be of type float"),
        ("[rule]\nscheme = 'entropie'", "'entropie'; it must be one of 'entropy'"),
    ],
)
def test_mistakes_in_the_file(settings, tmp_path, text, expected):
    path = tmp_path / "settings.toml"
    path.write_text(text)
    message = sentence(run(*settings, "--config", path))
    assert re.search(expected, message), message
    assert not (tmp_path / "shards").exists()


def test_a_rule_twice(settings, tmp_path):
    run(*settings, "--threshold", "4.4")
    for more in (["--min-length", "3"], ["--threshold", "4"]):
        message = sentence(run(*settings, "--rule-from", tmp_path / "shards", *more, "--out", tmp_path / "other"))
        assert message.endswith("Both --rule-from and settings of a rule are given; leave one of them out.")
    target = sentence(run(*settings, "--rule-from", tmp_path / "shards", "--target-patch-length", "3", "--out", tmp_path / "other"))
    assert "Both a threshold (4.4) and a target patch length (3) are given" in target


def test_another_entropy_model(settings, tmp_path):
    run(*settings, "--threshold", "4.4")
    opinionated_model(seed=3, num_layers=1).save(tmp_path / "other")
    message = sentence(run(*settings, "--threshold", "4.4", "--entropy-model", tmp_path / "other"))
    assert message.endswith("was begun with another entropy model; choose another folder, or delete this one to build it anew.")


def test_a_folder_that_is_no_entropy_model(settings, tmp_path, model_folder):
    (tmp_path / "empty").mkdir()
    assert "holds no model" in sentence(run(*settings, "--threshold", "1", "--entropy-model", tmp_path / "empty"))
    shutil.copytree(model_folder, tmp_path / "other")
    config = tmp_path / "other" / "config.json"
    config.write_text(config.read_text().replace("bltdata.EntropyModel", "bltmodel.BLT"))
    message = sentence(run(*settings, "--threshold", "1", "--entropy-model", tmp_path / "other"))
    assert "holds bltmodel.BLT, but bltdata.EntropyModel is wanted here" in message
    config.write_bytes((model_folder / "config.json").read_bytes())
    (tmp_path / "other" / "model.safetensors").write_bytes(b"cut")
    assert "model.safetensors can't be read" in sentence(run(*settings, "--threshold", "1", "--entropy-model", tmp_path / "other"))


def test_jobs_of_an_array(settings, tmp_path):
    options = [*settings, "--target-patch-length", "3", "--fragment-bytes", "1000", "--split", "all"]
    run(*options, "--out", tmp_path / "undisturbed")
    planned = run(*options, "--plan-only", "--json")
    assert planned.exit_code == 0, planned.output
    printed = json.loads(planned.stdout)
    assert (printed["folder"], printed["num_shards"]) == (str(tmp_path / "shards"), 7)
    assert PatchRule(**printed["patch_rule"]) == rule_of(tmp_path / "undisturbed")
    assert not list((tmp_path / "shards").glob("*.parquet"))
    said = run(*options, "--plan-only")
    assert (said.stdout, said.stderr) == ("", f"7 shards are planned in {tmp_path / 'shards'}.\n")
    first = run(*options, "--shard-index", "1", "--shard-count", "2", "--json")
    assert json.loads(first.stdout) == {"folder": str(tmp_path / "shards"), "fingerprint": None, "shard_index": 1, "shard_count": 2}
    assert first.stderr.splitlines() == [
        f"{tmp_path / 'shards'} has 0 of 3 shards of job 1 of 2 already; 3 to go.",
        "3 of all 7 shards are made; whichever job makes the last one writes manifest.json.",
    ]
    last = run(*options, "--shard-index", "0", "--shard-count", "2", "--json")
    assert json.loads(last.stdout)["fingerprint"] == Manifest.read(tmp_path / "undisturbed").fingerprint
    undisturbed, shards = (
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir() if path.name != ".jobs"} for name in ("undisturbed", "shards")
    )
    assert shards == undisturbed


def test_a_device_in_the_file(settings, tmp_path):
    path = tmp_path / "settings.toml"
    path.write_text('[build]\ndevice = "cpu"\n')
    assert run(*settings, "--threshold", "4.4", "--config", path).exit_code == 0
    assert "device" not in Manifest.read(tmp_path / "shards").entropy_model["context"]
    path.write_text('[build]\ndevice = "tpu"\n')
    assert "'tpu'; it must be one of 'cpu', 'cuda'" in sentence(run(*settings, "--threshold", "4.4", "--config", path))


def test_two_at_once(settings, tmp_path):
    with exclusive(tmp_path / "shards"):
        assert "Another process is writing to" in sentence(run(*settings, "--threshold", "1"))


def test_usage():
    assert run("--threshold", "1").exit_code == 2
    assert run("--workers", "0").exit_code == 2


def test_help_names_every_setting():
    shown = run("-h").output
    for option in ("--corpus", "--split", "--entropy-model", "--scheme", "--threshold", "--stride", "--rule-from", "--target-patch-length",
                   "--entropy-precision", "--workers", "--engine", "--device", "--shard-index", "--shard-count", "--plan-only",
                   "--config"):  # fmt: skip
        assert option in shown
