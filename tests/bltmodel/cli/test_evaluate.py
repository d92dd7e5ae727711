import json
import os
import re
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from bltdata.patching import PatchRule
from bltdata.shards import open_shards
from bltdata.shards.schema import COLUMNS
from bltmodel.cli import main
from bltmodel.evaluation import EvaluationConfig, add_noise, evaluate, to_markdown
from bltmodel.evaluation.sections import notes, sections
from bltmodel.training_data import open_training_data
from tests.bltmodel.datasets import entropy_model, opinionated_blt, texts, write_dataset


def run(*arguments: str | Path, **environment: str) -> Result:
    return CliRunner().invoke(main, ["evaluate", *map(str, arguments), "--device", "cpu"], env=environment)


@pytest.mark.parametrize("columns", ["30", "300"])
def test_every_number_is_whole_however_narrow_the_screen(trained, columns):
    shards = trained.shards / "validation"
    result = run("--model", trained.blt, "--shards", shards, COLUMNS=columns)
    assert (result.exit_code, result.stderr) == (0, "")
    report = evaluate(trained.blt, shards, device="cpu").report()
    lines = result.stdout.splitlines()
    for section in sections(report):
        assert any(section.title in line for line in lines)
        for row in section.rows:
            assert any(line.split() == " ".join(row).split() for line in lines), row
    assert result.stdout.endswith("\n".join(notes(report)) + "\n")
    assert "Contexts of 32 tokens" in result.stdout


def test_names_of_sources_are_shown_as_they_are(tmp_path, trained):
    name = "[red]" + "a/long/path/" * 20 + "[/nonsense]"
    shards = write_dataset(tmp_path / "shards", [(name, b"something"), ("empty", b"")])
    result = run("--model", trained.blt, "--shards", shards)
    assert result.exit_code == 0
    assert name in result.stdout
    assert re.search(r"empty +1 +0 +- +- +- +- +- ", result.stdout)


def test_json(trained):
    shards = trained.shards / "validation"
    settings = {
        "max_bytes": 200,
        "context_tokens": 50,
        "stride": 20,
        "level": 0.5,
        "resamples": 200,
        "seed": 4,
        "noise": ("swap=0.5", "drop"),
    }
    options = [part for name, value in settings.items() for part in (f"--{name.replace('_', '-')}", value)]
    options[-1] = ",".join(options[-1])
    entropy_model = ["--entropy-model", trained.entropy_model]
    result = run("--model", trained.blt, "--shards", shards, *entropy_model, *map(str, options), "--noise-rate", "0.2", "--json")
    config = EvaluationConfig(**settings, noise_rate=0.2)
    report = evaluate(trained.blt, shards, config, entropy_model=trained.entropy_model, device="cpu").report()
    assert json.loads(result.stdout) == {"model": str(trained.blt), **report}
    assert result.stdout.count("\n") == 1


def test_settings_from_a_file(trained, tmp_path):
    (tmp_path / "evaluation.toml").write_text('[evaluation]\nstride = 5\nmax_bytes = 100\nnoise = ["drop"]\n')
    folders = ["--model", trained.blt, "--shards", trained.shards / "validation", "--entropy-model", trained.entropy_model]
    report = json.loads(run(*folders, "--config", tmp_path / "evaluation.toml", "--stride", "7", "--json").stdout)
    assert (report["stride"], list(report["noise"])) == (7, ["drop"])
    assert report["overall"]["bytes"] <= 100


def test_noise_needs_no_entropy_model_where_the_rule_reads_no_entropies(tmp_path):
    shards = write_dataset(tmp_path / "shards", texts(6), rule=PatchRule(scheme="space"))
    opinionated_blt().save(tmp_path / "blt", {"training": {"row_tokens": 32}, "data": open_training_data(shards).describe()})
    result = run("--model", tmp_path / "blt", "--shards", shards, "--noise", "ant=1", "--json")
    noised = json.loads(result.stdout)["overall"]["noise"]["ant"]
    lengths = [PatchRule(scheme="space").lengths(add_noise(row.data, "ant", 1.0)) for row in open_shards(shards)]
    assert noised["mean_patch_length"] == sum(map(sum, lengths)) / sum(map(len, lengths))


def test_markdown(trained, tmp_path):
    shards = trained.shards / "validation"
    result = run("--model", trained.blt, "--shards", shards, "--markdown", tmp_path / "report.md", "--json")
    report = json.loads(result.stdout)
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert text == to_markdown(report, f"Evaluation of {trained.blt} on {shards}")
    assert f"| {report['overall']['bits_per_byte']:.3f} |" in text


def test_precision(trained):
    arguments = ["--model", trained.blt, "--shards", trained.shards / "validation", "--json"]
    exact, rounded = (
        json.loads(run(*arguments, "--precision", precision).stdout)["overall"]["loss"] for precision in ("float32", "bfloat16")
    )
    assert exact != rounded
    assert exact == pytest.approx(rounded, rel=0.02)


def damage_text(shard: Path) -> None:
    """Flip a bit in the bytes of a shard's documents."""
    begin = pq.read_metadata(shard).row_group(0).column(COLUMNS.index("data")).data_page_offset
    data = bytearray(shard.read_bytes())
    data[begin + 40] ^= 1
    shard.write_bytes(data)


def test_a_mistake_ends_in_one_sentence(tmp_path, trained):
    shards = trained.shards / "validation"
    for name in ("unfinished", "cut", "flipped"):
        shutil.copytree(shards, tmp_path / name)
    (tmp_path / "unfinished" / "manifest.json").unlink()
    os.truncate(tmp_path / "cut" / "part-00001.parquet", 1000)
    damage_text(tmp_path / "flipped" / "part-00000.parquet")
    write_dataset(tmp_path / "other-rule", texts(3), rule=PatchRule(scheme="byte"))
    write_dataset(tmp_path / "other-model", texts(3), model=entropy_model(1))
    for name in ("damaged", "older"):
        shutil.copytree(trained.blt, tmp_path / name)
    os.truncate(tmp_path / "damaged" / "model.safetensors", 1000)
    config = tmp_path / "older" / "config.json"
    config.write_text(config.read_text().replace('"format_version": 1', '"format_version": 0'))
    for model, folder, message in [
        (trained.blt, tmp_path / "nothing", "There is no folder .*nothing; give the folder that build-shards wrote"),
        (trained.blt, tmp_path / "unfinished", "has no manifest.json: the build did not finish, or not all of it was copied"),
        (trained.blt, tmp_path / "cut", r"part-00001.parquet has 1000 bytes instead of \d+; delete it and run build-shards again"),
        (trained.blt, tmp_path / "flipped", r"part-00000.parquet .*damaged"),
        (trained.blt, tmp_path / "other-rule", "was cut by another patch rule than the shards"),
        (trained.blt, tmp_path / "other-model", "was made by another entropy model than the shards"),
        (tmp_path / "nothing", shards, "nothing holds no model"),
        (trained.entropy_model, shards, "holds bltdata.EntropyModel, but bltmodel.BLT is wanted here"),
        (tmp_path / "damaged", shards, "damaged/model.safetensors can't be read"),
        (tmp_path / "older", shards, "has format version 0, and this version reads 1"),
        (config, shards, "config.json"),
    ]:
        result = run("--model", model, "--shards", folder, "--json")
        assert result.exit_code == 1, message
        assert re.fullmatch(f"Error: [^\n]*{message}[^\n]*\\.\n", result.stderr), result.stderr
        assert result.stdout == ""


def test_what_an_interrupt_says(trained, tmp_path, monkeypatch):
    def interrupted(*arguments, **settings):
        raise KeyboardInterrupt

    monkeypatch.setattr("bltmodel.evaluation.evaluator.score", interrupted)
    result = run("--model", trained.blt, "--shards", trained.shards / "validation", "--markdown", tmp_path / "report.md")
    assert (result.exit_code, result.stdout, result.stderr) == (130, "", "\nInterrupted; the same command would begin anew.\n")
    assert not [*tmp_path.iterdir()]


def test_settings_that_make_no_sense(tmp_path, trained):
    folders = ["--model", trained.blt, "--shards", trained.shards / "validation"]
    for options, message in [
        (["--context-tokens", "1"], "The context is 1 tokens; it must be at least 2"),
        (["--stride", "33"], "The stride is 33 tokens; it must be at most 32, the context"),
        (["--noise", "drop"], f"The rule of the shards that {trained.blt} was trained on reads entropies; give the entropy model"),
        (["--noise", "dorp", "--entropy-model", trained.entropy_model], "There is no noise 'dorp'; the nearest is 'drop'"),
        (["--entropy-model", tmp_path / "any"], "any, but nothing reads it without --noise; leave it out, or give a kind of noise"),
        (["--markdown", tmp_path], "is a folder; give a file to write the tables to"),
    ]:
        result = run(*folders, *options)
        assert (result.exit_code, result.stdout) == (1, ""), message
        assert message in result.stderr
        assert result.stderr.count("\n") == 1
    assert run("--model", trained.blt).exit_code == 2
    assert run(*folders, "--precision", "float64").exit_code == 2
