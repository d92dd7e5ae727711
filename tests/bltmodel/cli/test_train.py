import contextlib
import functools
import json
import os
import random
import re
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result

from bltdata.cli.common import INTERRUPTED
from bltdata.patching import PatchRule
from bltdata.training.config import TrainingConfig
from bltmodel.cli import main
from bltmodel.config import PRESETS, TRAINING
from bltmodel.model import BLT
from bltmodel.rows import RowStream
from tests.bltmodel.datasets import texts, write_dataset
from tests.several import PROCESSES

RECIPE = """
[model]
preset = "tiny"
local_dim = 16
encoder_layers = 1
decoder_layers = 1
local_heads = 2
local_ffn_dim = 24
window = 16
latent_dim = 24
latent_layers = 1
latent_heads = 2
latent_ffn_dim = 32
ngram_sizes = [3, 4]
hash_rows = 101

[training]
steps = 40
row_tokens = 32
batch_rows = 2
warmup_steps = 2
evaluate_every = 4
validation_bytes = 300
precision = "float32"
"""
TIMES = ("seconds", "bytes_per_second", "memory_bytes")


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    (tmp_path / "recipe.toml").write_text(RECIPE)
    return tmp_path / "recipe.toml"


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["train", *map(str, arguments), "--device", "cpu"])


def options(shards: Path, recipe: Path, out: Path) -> list[str | Path]:
    return ["--shards", shards, "--config", recipe, "--out", out]


def metrics_of(out: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [{name: value for name, value in line.items() if name not in TIMES} for line in lines]


def what_remains(out: Path, run: Path | None = None) -> tuple[bytes, dict[str, Any], list[dict[str, Any]]]:
    """Weights and description of a model, and the metrics of its finished run, times aside."""
    about = json.loads((out / "config.json").read_text(encoding="utf-8"))
    about["validation"] = {name: value for name, value in about["validation"].items() if name not in TIMES}
    return (out / "model.safetensors").read_bytes(), about, metrics_of(run or out)


# ------------------------------------------------------------------------------------------------------------------ running


def test_a_run_tells_how_it_goes_and_leaves_a_model(trained, recipe, tmp_path):
    result = run(*options(trained.shards, recipe, tmp_path / "blt"), "--steps", "8")
    assert (result.exit_code, result.stdout) == (0, "")
    lines = result.stderr.splitlines()
    metrics = metrics_of(tmp_path / "blt")
    assert [line["step"] for line in metrics] == [4, 8]
    for line, figures in zip(lines, metrics, strict=False):
        assert line.startswith(f"step {figures['step']:>6}  loss {figures['loss']:.4f}  bits/byte {figures['bits_per_byte']:.4f}  ")
        assert all(name in line for name in ("accuracy", "perplexity", "confidence", "lr", "memory", "epoch", " s"))
    best = min(metrics, key=lambda line: line["loss"])
    assert lines[2:] == [f"The best model, {best['bits_per_byte']:.3f} bits per byte at step {best['step']}, is in {tmp_path / 'blt'}."]
    assert BLT.load(tmp_path / "blt").config.ngram_sizes == (3, 4)


def test_json_is_the_best_evaluation(trained, recipe, tmp_path):
    result = run(*options(trained.shards, recipe, tmp_path / "blt"), "--steps", "8", "--json")
    report = json.loads(result.stdout)
    assert report.pop("folder") == str(tmp_path / "blt")
    assert result.stdout.count("\n") == 1
    assert {name: value for name, value in report.items() if name not in TIMES} == min(
        metrics_of(tmp_path / "blt"), key=lambda m: m["loss"]
    )


def test_weights_of_sources_from_the_file_and_from_options(recipe, tmp_path):
    prose, code = ([(name, text) for text in texts(40, seed=seed)] for seed, name in enumerate(("a=prose", "code")))
    shards = write_dataset(tmp_path / "shards", prose, code)
    recipe.write_text(RECIPE + '[mixing]\n"a=prose" = 3\ncode = 2.5\n')
    result = run(*options(shards, recipe, tmp_path / "blt"), "--steps", "2", "--weight", "code=1")
    assert result.exit_code == 0
    assert result.stderr.startswith("Of the bytes that 2 steps learn from: a=prose 75.0% (")
    about = json.loads((tmp_path / "blt" / "config.json").read_text())
    assert about["data"]["mixing"] == {"a=prose": 3, "code": 1}
    # Of this run with other weights nothing can go on.
    result = run(*options(shards, recipe, tmp_path / "blt"), "--steps", "2")
    assert "its data.mixing.code is 1.0, this one's is 2.5" in result.stderr


@pytest.mark.parametrize(
    ("section", "arguments", "code", "message"),
    [
        ("prosa = 1", [], 1, r"shards has no source 'prosa' to give a weight; the nearest is 'prose'\."),
        ("prose = true", [], 1, r"Section \[mixing\] of .* gives source 'prose' the weight True; it must be a number\."),
        ("", ["--weight", "prose"], 2, "'prose' has no '='; write SOURCE=WEIGHT"),
        ("", ["--weight", "prose=much"], 2, "'prose=much' ends in no number; write SOURCE=WEIGHT"),
    ],
)
def test_weights_that_are_wrong(recipe, tmp_path, section, arguments, code, message):
    shards = write_dataset(tmp_path / "shards", [("prose", text) for text in texts(40)])
    recipe.write_text(f"{RECIPE}[mixing]\n{section}\n")
    result = run(*options(shards, recipe, tmp_path / "blt"), *arguments)
    assert result.exit_code == code
    assert re.search(message, result.stderr)


def test_options_win_over_the_file_and_the_file_over_the_preset(trained, recipe, tmp_path):
    arguments = [*options(trained.shards, recipe, tmp_path / "blt"), "--preset", "small", "--steps", "1", "--learning-rate", "0.5"]
    assert run(*arguments, "--patience", "none").exit_code == 0
    about = json.loads((tmp_path / "blt" / "config.json").read_text())
    assert about["config"]["local_dim"] == 16
    assert about["config"]["hash_functions"] == PRESETS["small"].hash_functions
    assert {name: about["training"][name] for name in ("steps", "learning_rate", "row_tokens", "patience")} == {
        "steps": 1,
        "learning_rate": 0.5,
        "row_tokens": 32,
        "patience": None,
    }


def test_a_preset_brings_how_it_is_trained(trained, recipe, tmp_path):
    text = recipe.read_text()
    bare = tmp_path / "bare.toml"
    bare.write_text(text[: text.index("[training]")])

    def recorded(name: str, *given: str) -> dict[str, Any]:
        result = run(*options(trained.shards, bare, tmp_path / name), "--steps", "1", "--row-tokens", "32", *given)
        assert result.exit_code == 0, result.output
        return json.loads((tmp_path / name / "config.json").read_text())["training"]

    tiny = recorded("tiny")
    assert {name: tiny[name] for name in TRAINING["tiny"]} == TRAINING["tiny"] | {"steps": 1}
    given = recorded("given", "--learning-rate", "0.001", "--optimiser", "adamw")
    # A setting that was added later and has its default isn't written.
    assert (given["learning_rate"], given["batch_rows"], "optimiser" in given) == (0.001, TRAINING["tiny"]["batch_rows"], False)
    # The sizes are the file's in both cases.
    plain = recorded("plain", "--preset", "100m")
    assert ("optimiser" in plain, plain["batch_rows"]) == (False, TrainingConfig().batch_rows)


def test_help_says_what_a_preset_brings():
    shown = " ".join(CliRunner().invoke(main, ["train", "-h"]).stdout.split())
    assert f"[default: {TRAINING['tiny']['batch_rows']} for tiny, {TrainingConfig().batch_rows} for others]" in shown
    assert "[default: muon for tiny, adamw for others]" in shown


def test_a_dataset_alone_holds_its_own_validation_documents_out(trained, recipe, tmp_path):
    result = run(*options(trained.shards / "train", recipe, tmp_path / "blt"), "--steps", "1")
    assert result.exit_code == 0
    assert json.loads((tmp_path / "blt" / "config.json").read_text())["data"]["validation_is_held_out"]


def test_validation_shards_by_name(trained, recipe, tmp_path):
    both = [*options(trained.shards / "train", recipe, tmp_path / "blt"), "--validation-shards", trained.shards / "validation"]
    assert run(*both, "--steps", "4").exit_code == 0
    assert run(*options(trained.shards, recipe, tmp_path / "again"), "--steps", "4").exit_code == 0
    assert what_remains(tmp_path / "blt") == what_remains(tmp_path / "again")


# ----------------------------------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("steps =", "stepps =", r"Section \[training\] of [^\n]*recipe.toml has an unknown key 'stepps'[^\n]*'steps'"),
        ("window =", "windw =", r"Section \[model\] of [^\n]*recipe.toml has an unknown key 'windw'[^\n]*'window'"),
        ("[training]", "[trainin]", r"recipe.toml has an unknown section 'trainin'[^\n]*'training'"),
        ("steps = 40", "steps = 'many'", r"Section \[training\] of [^\n]*recipe.toml, key 'steps' is 'many'; it must be of type int"),
        ("steps = 40", "steps = 0", r"The training setting steps is 0; it must be at least 1"),
        ('"tiny"', '"tinny"', r"There is no BLT preset 'tinny'[^\n]*'tiny'"),
        ('"tiny"', "3", r"There is no BLT preset '3'"),
        ("local_heads = 2", "local_heads = 3", r"The BLT's local_dim is 16 with 3 heads; it must be a multiple of 6"),
        ("[model]", "[model", r"recipe.toml is not valid TOML"),
        ('precision = "float32"', 'precision = "float8"', r"key 'precision' is 'float8'; it must be one of"),
    ],
)
def test_a_mistake_in_the_file_ends_in_one_sentence(trained, recipe, tmp_path, before, after, message):
    recipe.write_text(RECIPE.replace(before, after))
    result = run(*options(trained.shards, recipe, tmp_path / "blt"))
    assert result.exit_code == 1
    assert re.fullmatch(f"Error: [^\n]*{message}[^\n]*\\.\n", result.stderr), result.stderr
    assert not (tmp_path / "blt").exists()


def test_a_mistake_about_the_data_ends_in_one_sentence(trained, recipe, tmp_path):
    shutil.copytree(trained.shards / "train", tmp_path / "unfinished")
    (tmp_path / "unfinished" / "manifest.json").unlink()
    write_dataset(tmp_path / "other", texts(5), rule=PatchRule(scheme="byte"))
    (tmp_path / "file").write_text("")
    train = trained.shards / "train"
    for arguments, message in [
        (["--shards", tmp_path / "nothing"], "There is no folder"),
        (["--shards", tmp_path / "unfinished"], "has no manifest.json: the build did not finish"),
        (["--shards", tmp_path / "file"], "is a file, and a dataset is a folder"),
        (["--shards", train, "--validation-shards", tmp_path / "nothing"], "There is no folder"),
        (["--shards", train, "--validation-shards", tmp_path / "other"], "were cut with different patch rules"),
        (["--shards", train, "--config", tmp_path / "nothing.toml"], "Cannot read the configuration"),
        (["--shards", train, "--out", tmp_path / "file"], "file"),
    ]:
        result = run("--config", recipe, "--out", tmp_path / "blt", *arguments)
        assert (result.exit_code, result.stdout) == (1, ""), message
        assert message in result.stderr
        assert result.stderr.count("\n") == 1
    assert not (tmp_path / "blt").exists()


def test_another_run_in_the_folder(trained, recipe, tmp_path):
    arguments = options(trained.shards, recipe, tmp_path / "blt")
    assert run(*arguments, "--steps", "4").exit_code == 0
    other = run(*arguments, "--steps", "5")
    assert other.exit_code == 1
    assert "holds another run: its training.steps is 4, this one's is 5" in other.stderr
    assert run(*arguments, "--steps", "5", "--no-resume").exit_code == 0
    assert [line["step"] for line in metrics_of(tmp_path / "blt")] == [4, 5]
    (tmp_path / "blt" / "training_state.pt").write_bytes(b"not a state")
    damaged = run(*arguments, "--steps", "5")
    assert damaged.exit_code == 1
    assert "training_state.pt is damaged, so the run can't go on from it; start it again with --no-resume." in damaged.stderr


# ------------------------------------------------------------------------------------------------------------- interruptions


@pytest.fixture(scope="module")
def uninterrupted(trained, tmp_path_factory) -> tuple[Path, Path]:
    """A recipe, and the folder of the run that it describes."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    (folder / "recipe.toml").write_text(RECIPE)
    assert run(*options(trained.shards, folder / "recipe.toml", folder / "blt")).exit_code == 0
    return folder / "recipe.toml", folder / "blt"


def train_in_a_process(arguments: list[str]) -> None:
    """What a process runs that tests kill."""
    main(["train", *arguments, "--device", "cpu"])


@contextlib.contextmanager
def training_process(arguments: list[str | Path]) -> Iterator[ForkServerProcess]:
    process = PROCESSES.Process(target=train_in_a_process, args=(list(map(str, arguments)),))
    process.start()
    try:
        yield process
    finally:
        process.kill()
        process.join()


def wait_for_metrics(process: ForkServerProcess, out: Path, num_lines: int) -> None:
    """Wait until the run has come so far, or ended."""
    while process.is_alive() and not ((out / "metrics.jsonl").exists() and (out / "metrics.jsonl").read_bytes().count(b"\n") >= num_lines):
        time.sleep(0.001)


def test_a_run_that_is_killed_again_and_again_ends_as_if_it_had_not_been(trained, uninterrupted, tmp_path):
    recipe, whole = uninterrupted
    arguments, out = options(trained.shards, recipe, tmp_path / "blt"), tmp_path / "blt"
    rng, kills = random.Random(0), 0
    # The first kill may come before anything is written; each of the others after some evaluation of its own.
    for num_lines in (0, 1, 4, 7, 100):
        with training_process(arguments) as process:
            wait_for_metrics(process, out, num_lines)
            if process.is_alive():
                time.sleep(rng.uniform(0, 0.05))
                process.kill()
            process.join()
            kills += process.exitcode == -signal.SIGKILL
            if process.exitcode == 0:
                break
    assert kills >= 3
    assert process.exitcode == 0
    assert what_remains(out) == what_remains(whole)
    assert not list(out.glob(".*.tmp"))


def train_and_die(arguments: list[str], step: int, delay_seconds: float) -> None:
    """What a process runs that kills itself once it has taken a step, or a moment later, whatever it is at then."""
    taken = 0
    kill = functools.partial(os.kill, os.getpid(), signal.SIGKILL)

    @contextlib.contextmanager
    def progress(*_: Any) -> Iterator[Any]:
        def advance(amount: int) -> None:
            nonlocal taken
            before, taken = taken, taken + amount
            if before < step <= taken:
                threading.Timer(delay_seconds, kill).start() if delay_seconds else kill()

        yield advance

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bltdata.cli.training_options.progress", progress)
        train_in_a_process(arguments)


def assert_equal(one: Any, other: Any) -> None:
    """Compare parts of a state, bit for bit."""
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key, value in one.items():
            assert_equal(value, other[key])
    else:
        assert one == other


def state_of(out: Path) -> dict[str, Any]:
    return torch.load(out / "training_state.pt", weights_only=True)


def test_a_damaged_state_and_the_ones_before_it(trained, uninterrupted, tmp_path):
    recipe, whole = uninterrupted
    out = tmp_path / "blt"
    arguments = [*options(trained.shards, recipe, out), "--keep-last", "3"]
    process = PROCESSES.Process(target=train_and_die, args=([*map(str, arguments)], 30, 0.0))
    process.start()
    process.join()
    assert [path.name for path in sorted(out.glob("training_state-*"))] == [f"training_state-{step:08d}.pt" for step in (20, 24, 28)]
    # It is the last state too: one file with two names.
    os.truncate(out / "training_state-00000028.pt", (out / "training_state.pt").stat().st_size // 2)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    problem = "is damaged, so the run can't go on from it; go on from the state of step 24 with --resume-from 24, or start the run again"
    for asked, sentence in [
        ([], f"Error: {out / 'training_state.pt'} {problem} with --no-resume.\n"),
        (["--resume-from", "28"], f"Error: {out / 'training_state-00000028.pt'} {problem} with --no-resume.\n"),
        (["--resume-from", "27"], f"Error: {out} has no state of step 27; it has those of 20, 24; runs keep several with --keep-last.\n"),
        (["--resume-from", "24", "--steps", "50"], f"Error: {out} holds another run: its training.steps is 40, this one's is 50; "),
    ]:
        result = run(*arguments, *asked)
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr.startswith(sentence)
        assert result.stderr.count("\n") == 1
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    went_on = run(*arguments, "--resume-from", "24")
    assert (went_on.exit_code, went_on.stderr.splitlines()[0]) == (0, f"Going on: {out} holds this run at step 24 of 40.")
    assert what_remains(out) == what_remains(whole)
    assert what_remains(out / "last", out) == what_remains(whole / "last", whole)


@pytest.mark.slow
def test_killed_at_20_random_steps(recipe, tmp_path):
    # So few documents that the run goes through several epochs.
    shards = write_dataset(tmp_path / "shards", texts(12), texts(12, seed=1))
    whole, out = tmp_path / "whole", tmp_path / "blt"
    assert run(*options(shards, recipe, whole)).exit_code == 0
    assert metrics_of(whole)[-1]["epoch"] > 2
    arguments = [*map(str, options(shards, recipe, out)), "--keep-last", "2"]
    rng, kills = random.Random(1), 0
    for number, step in enumerate(sorted(rng.sample(range(1, 41), 20))):
        # Every other one between two steps, the rest within a step, an evaluation or the writing of a state.
        delay_seconds = rng.uniform(0, 0.03) if number % 2 else 0.0
        process = PROCESSES.Process(target=train_and_die, args=(arguments, step, delay_seconds))
        process.start()
        process.join()
        # A moment later it may have ended, but not in any other way.
        assert process.exitcode in ((-signal.SIGKILL, 0) if delay_seconds else (-signal.SIGKILL,))
        kills += process.exitcode == -signal.SIGKILL
        if process.exitcode == 0:
            break
    assert kills >= 15
    assert run(*arguments).exit_code == 0
    assert what_remains(out) == what_remains(whole)
    assert what_remains(out / "last", out) == what_remains(whole / "last", whole)
    ours, theirs = state_of(out), state_of(whole)
    for name in ("guard", "model", "optimiser"):
        assert_equal(ours[name], theirs[name])


def test_an_interrupt_leaves_a_state_to_go_on_from(trained, uninterrupted, tmp_path):
    recipe, whole = uninterrupted
    arguments, out = options(trained.shards, recipe, tmp_path / "blt"), tmp_path / "blt"
    with training_process(arguments) as process:
        wait_for_metrics(process, out, 2)
        os.kill(process.pid, signal.SIGINT)
        process.join()
        assert process.exitcode == 130
    assert 2 <= len(metrics_of(out)) < 10
    result = run(*arguments)
    assert result.exit_code == 0
    assert re.match(rf"Going on: {out} holds this run at step \d+ of 40\.\n", result.stderr)
    assert what_remains(out) == what_remains(whole)


def test_what_an_interrupt_says(trained, uninterrupted, tmp_path, monkeypatch):
    batches = []

    def interrupting(self, *arguments):
        batches.append(arguments)
        if len(batches) == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return read(self, *arguments)

    read = RowStream.read
    monkeypatch.setattr(RowStream, "read", interrupting)
    result = run(*options(trained.shards, uninterrupted[0], tmp_path / "blt"), "--json")
    assert (result.exit_code, result.stdout, result.stderr) == (130, "", f"\n{INTERRUPTED}\n")
    # The step was finished, and counts.
    assert "at step 3 of 40" in run(*options(trained.shards, uninterrupted[0], tmp_path / "blt")).stderr


class Crash(BaseException):
    """The machine stops."""


def test_a_crash_after_any_file_was_written(trained, recipe, tmp_path, monkeypatch):
    """Weights, description, metrics and state are four files; between any two of them the run may end."""
    short = ["--steps", "4", "--evaluate-every", "2"]
    replace, left = os.replace, [1 << 30]

    def crashing(source, target):
        if left[0] == 0:
            raise Crash
        left[0] -= 1
        replace(source, target)

    monkeypatch.setattr(os, "replace", crashing)
    assert run(*options(trained.shards, recipe, tmp_path / "whole"), *short).exit_code == 0
    num_files = (1 << 30) - left[0]
    # In the end the last model comes on top.
    assert num_files == 1 + 2 * 4 + 2
    for survivors in range(num_files):
        out, left[0] = tmp_path / f"after-{survivors}", survivors
        with pytest.raises(Crash):
            run(*options(trained.shards, recipe, out), *short)
        left[0] = 1 << 30
        assert run(*options(trained.shards, recipe, out), *short).exit_code == 0
        assert what_remains(out) == what_remains(tmp_path / "whole"), survivors
