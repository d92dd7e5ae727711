import importlib.util
import json
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from bltdata.cli import main
from bltdata.entropy import PRESETS, EntropyModel
from bltdata.entropy.config import TRAINING
from bltdata.lock import exclusive
from bltdata.training.config import TrainingConfig
from tests.bltdata.killing import run_killed
from tests.bltdata.small import random_documents, write_lines

SETTINGS = """
[corpus]
corpus = ["files:{lines}#document=line"]
validation_corpus = ["files:{lines}#document=line"]

[entropy_model]
preset = "tiny"
dim = 16
num_layers = 1
num_heads = 2
ffn_dim = 24
window = 8

[training]
steps = 8
row_tokens = 24
batch_rows = 2
warmup_steps = 2
evaluate_every = 3
validation_bytes = 300
precision = "float32"
"""

MEASURED = ("bytes_per_second", "memory_bytes", "seconds")


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("settings")
    lines = write_lines(folder / "lines.txt", random_documents(30, 40, seed=1, num_symbols=90))
    path = folder / "small.toml"
    path.write_text(SETTINGS.format(lines=lines))
    return path


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["train-entropy-model", *map(str, arguments)])


def sentence(result: Result, code: int = 1) -> str:
    """The one line of an error."""
    assert result.exit_code == code, result.output + repr(result.exception)
    assert result.stdout == ""
    lines = result.stderr.strip().splitlines()
    assert "Traceback" not in result.stderr
    return lines[-1]


def outcome(folder: Path) -> tuple[bytes, list[dict[str, Any]]]:
    metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return (folder / "model.safetensors").read_bytes(), [{k: v for k, v in line.items() if k not in MEASURED} for line in metrics]


def test_it_trains_and_says_how_it_goes(settings, tmp_path):
    out = tmp_path / "model"
    result = run("--config", settings, "--out", out)
    assert result.exit_code == 0, result.output
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    evaluations = [line for line in lines if line.startswith("step ")]
    assert [line.split()[1] for line in evaluations] == ["3", "6", "8"]
    for word in ("loss", "bits/byte", "accuracy", "perplexity", "confidence", "lr", "/s", "memory", "epoch"):
        assert word in evaluations[0]
    best = json.loads((out / "config.json").read_text())["validation"]
    assert lines[-1] == f"The best model, {best['bits_per_byte']:.3f} bits per byte at step {best['step']}, is in {out}."
    model = EntropyModel.load(out)
    assert (model.config.dim, model.config.window) == (16, 8)


def test_a_preset_brings_how_it_is_trained(settings, tmp_path):
    def recorded(name: str, *options: str | Path) -> dict[str, Any]:
        out = tmp_path / name
        result = run(*options, "--steps", "1", "--row-tokens", "24", "--out", out)
        assert result.exit_code == 0, result.output
        return json.loads((out / "config.json").read_text())["training"]

    text = settings.read_text()
    bare = tmp_path / "bare.toml"
    bare.write_text(text[: text.index("[training]")])
    tiny = recorded("tiny", "--config", bare)
    assert {name: tiny[name] for name in TRAINING["tiny"]} == TRAINING["tiny"] | {"steps": 1}
    in_file = recorded("in-file", "--config", settings)
    assert (in_file["evaluate_every"], in_file["learning_rate"]) == (3, TRAINING["tiny"]["learning_rate"])
    given = recorded("option", "--config", bare, "--learning-rate", "0.001", "--optimiser", "adamw")
    # A setting that was added later and has its default isn't written.
    assert (given["learning_rate"], "optimiser" in given) == (0.001, False)
    plain = recorded("plain", "--config", bare, "--preset", "base")
    assert ("optimiser" in plain, plain["batch_rows"]) == (False, TrainingConfig().batch_rows)


def test_help_says_what_a_preset_brings():
    shown = " ".join(run("-h").stdout.split())
    tiny = TRAINING["tiny"]
    assert f"[default: {tiny['batch_rows']} for tiny, {TRAINING['small']['batch_rows']} for small, 2 for medium, 8 for others]" in shown
    assert f"{tiny['optimiser']} for tiny" in shown


def test_json(settings, tmp_path):
    result = run("--config", settings, "--out", tmp_path / "model", "--json")
    (line,) = result.stdout.splitlines()
    printed = json.loads(line)
    best = json.loads((tmp_path / "model" / "config.json").read_text())["validation"]
    assert printed == {"folder": str(tmp_path / "model"), **best}


def test_options_win_over_the_file(settings, tmp_path):
    result = run("--config", settings, "--out", tmp_path / "model", "--steps", "2", "--preset", "small", "--seed", "7")
    assert result.exit_code == 0, result.output
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert (config["training"]["steps"], config["training"]["seed"], config["training"]["row_tokens"]) == (2, 7, 24)
    # The preset's own, where the file changes nothing.
    assert config["config"]["rope_theta"] == PRESETS["small"].rope_theta
    assert config["config"]["dim"] == 16


def test_the_preset_of_the_file(settings, tmp_path):
    path = tmp_path / "medium.toml"
    path.write_text(settings.read_text().replace('"tiny"', '"medium"').replace("num_heads = 2\n", ""))
    result = run("--config", path, "--out", tmp_path / "model", "--steps", "1")
    assert result.exit_code == 0, result.output
    assert EntropyModel.load(tmp_path / "model").config.num_heads == PRESETS["medium"].num_heads


def test_running_it_again_and_anew(settings, tmp_path):
    out = tmp_path / "model"
    run("--config", settings, "--out", out)
    again = run("--config", settings, "--out", out)
    assert again.stderr.splitlines()[0] == f"It had finished already: {out} holds this run at step 8 of 8."
    other = run("--config", settings, "--out", out, "--steps", "9")
    assert "holds another run: its training.steps is 8, this one's is 9" in sentence(other)
    anew = run("--config", settings, "--out", out, "--steps", "9", "--no-resume")
    assert anew.exit_code == 0, anew.output
    assert json.loads((out / "config.json").read_text())["training"]["steps"] == 9


def test_states_to_go_back_to_and_the_last_model(settings, tmp_path):
    undisturbed, out = tmp_path / "undisturbed", tmp_path / "model"
    run("--config", settings, "--out", undisturbed)
    assert run("--config", settings, "--out", out, "--keep-last", "2").exit_code == 0
    state = out / "training_state.pt"
    state.unlink()
    state.write_bytes(b"half of it")
    problem = f"{state} is damaged, so the run can't go on from it; go on from the state of step 8 with --resume-from 8, or start"
    assert problem in sentence(run("--config", settings, "--out", out))
    again = run("--config", settings, "--out", out, "--keep-last", "2", "--resume-from", "6")
    assert again.exit_code == 0, again.output
    assert again.stderr.splitlines()[0] == f"Going on: {out} holds this run at step 6 of 8."
    assert outcome(out) == outcome(undisturbed)
    assert EntropyModel.load(out / "last").config == EntropyModel.load(out).config


def test_tensorboard_without_the_package(settings, tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    message = sentence(run("--config", settings, "--out", tmp_path / "model", "--tensorboard"))
    assert message == "Error: TensorBoard is not installed; run pip install 'blt-toolkit[tensorboard]', or leave --tensorboard out."
    assert not (tmp_path / "model").exists()


def press_ctrl_c_after(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    taken = 0

    @contextmanager
    def progress(*_: Any) -> Iterator[Any]:
        def advance(amount: float = 1, note: str | None = None) -> None:
            nonlocal taken
            taken += amount
            if amount and taken == steps:
                signal.raise_signal(signal.SIGINT)

        yield advance

    monkeypatch.setattr("bltdata.cli.training_options.progress", progress)


@pytest.mark.parametrize("steps", [1, 5, 6])
def test_ctrl_c(settings, tmp_path, monkeypatch, steps):
    undisturbed, out = tmp_path / "undisturbed", tmp_path / "model"
    run("--config", settings, "--out", undisturbed)
    with monkeypatch.context() as patch:
        press_ctrl_c_after(patch, steps)
        result = run("--config", settings, "--out", out)
    assert sentence(result, code=130) == "Interrupted; what was finished is kept: run the same command again to go on."
    again = run("--config", settings, "--out", out)
    assert f"Going on: {out} holds this run at step {steps} of 8." in again.stderr
    assert outcome(out) == outcome(undisturbed)


def test_killed_at_random_moments(settings, tmp_path):
    run("--config", settings, "--out", tmp_path / "undisturbed")
    lives = run_killed(1, 7, "train-entropy-model", "--config", settings, "--out", tmp_path / "killed")
    assert lives[-1] == "exit 0"
    assert len(lives) >= 4
    assert outcome(tmp_path / "killed") == outcome(tmp_path / "undisturbed")
    names = [{path.name for path in (tmp_path / name).iterdir()} for name in ("killed", "undisturbed")]
    assert names[0] == names[1]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--preset", "tinny"], "There is no entropy model preset 'tinny'; .*'tiny'"),
        (["--corpus", "nowhere/*.txt"], "nowhere"),
        (["--corpus", "files:nowhere.txt"], "nowhere.txt"),
        (["--corpus", "python-docz:"], "python-docs"),
        (["--batch-rows", "0"], "The training setting batch_rows is 0; it must be at least 1."),
        (["--learning-rate", "nan"], "finite"),
        (["--learning-rate", "-1"], "The training setting learning_rate is -1.0; it must be above 0."),
        (["--micro-batch-rows", "0"], "The training setting micro_batch_rows is 0; it must be at least 1."),
        (
            ["--decay-share", "0.2"],
            "The training setting decay_share is 0.2; it must be left alone with the schedule cosine, or given",
        ),
        (["--keep-last", "0"], "keep_last is 0; it must be at least 1."),
        (["--resume-from", "3"], "has no state of step 3; it has none that can be read; runs keep several with --keep-last."),
        (["--resume-from", "3", "--no-resume"], "--no-resume deletes the state of step 3; leave it or --resume-from out."),
        (["--device", "abacus"], "The device 'abacus' can't be used here; --device cpu always can."),
        (["--min-bytes", "1000"], r"has no documents.*; all there is was left out: .*\(too short\)"),
        (["--min-bytes", "10", "--max-bytes", "5"], "max_bytes|min_bytes"),
    ],
)
def test_mistakes(settings, tmp_path, arguments, expected):
    message = sentence(run("--config", settings, "--out", tmp_path / "model", *arguments))
    assert re.search(expected, message), message
    assert not (tmp_path / "model" / "config.json").exists()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[training]\nstepz = 3", r"\[training\].* unknown key 'stepz'.*'steps'"),
        ("[training]\nsteps = 'many'", r"\[training\].*'steps' is 'many'; it must be of type int\."),
        ("[trainin]\nsteps = 3", "unknown section 'trainin'.*'training'"),
        ("[entropy_model]\nwindov = 3", r"\[entropy_model\].* unknown key 'windov'.*'window'"),
        ("[entropy_model]\npreset = 3", "There is no entropy model preset '3'"),
        ("[entropy_model]\ndim = 17", "The entropy model's dim is 17 with 4 heads; it must be a multiple of 8"),
        ("[corpus]\ncorpuz = ['a']", r"\[corpus\].* unknown key 'corpuz'.*'corpus'"),
        ("[corpus", "is not valid TOML"),
    ],
)
def test_mistakes_in_the_file(tmp_path, text, expected):
    path = tmp_path / "settings.toml"
    path.write_text(text)
    message = sentence(run("--config", path, "--out", tmp_path / "model"))
    assert re.search(expected, message), message
    assert str(path) in message or "entropy model" in message
    assert not (tmp_path / "model").exists()


def test_no_file_and_no_folder(settings, tmp_path):
    assert "nowhere.toml" in sentence(run("--config", tmp_path / "nowhere.toml", "--out", tmp_path / "model"))
    assert run("--config", settings).exit_code == 2


def test_two_at_once(settings, tmp_path):
    with exclusive(tmp_path / "model"):
        assert "Another process is writing to" in sentence(run("--config", settings, "--out", tmp_path / "model"))


def test_out_is_a_file(settings, tmp_path):
    (tmp_path / "file").touch()
    assert "file" in sentence(run("--config", settings, "--out", tmp_path / "file"))


def test_help_names_every_setting():
    shown = run("-h").output
    for option in ("--preset", "--steps", "--learning-rate", "--patience", "--micro-batch-rows", "--no-resume", "--device", "--config"):
        assert option in shown
    assert "tiny, small, medium, base" in " ".join(shown.split())
