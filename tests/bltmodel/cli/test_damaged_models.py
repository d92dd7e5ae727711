"""Whatever is wrong with a model's folder, each command that reads it ends in one sentence, and leaves nothing."""

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from click.testing import CliRunner

from bltmodel.cli import main
from tests.bltmodel.conftest import Trained
from tests.bltmodel.datasets import opinionated_blt

COMMANDS: dict[str, Callable[[Path, Trained, Path], list[str | Path]]] = {
    "evaluate": lambda model, trained, out: ["evaluate", "--model", model, "--shards", trained.shards / "validation", "--markdown", out],
    "generate": lambda model, trained, out: ["generate", "--model", model, "--entropy-model", trained.entropy_model, "--prompt", "a"],
    "export": lambda model, trained, out: ["export", model, "--entropy-model", trained.entropy_model, "--out", out],
    "summary": lambda model, trained, out: ["summary", "--model", model],
}
READS_WEIGHTS = ("evaluate", "generate", "export")


def cut(path: Path, kept: float) -> None:
    os.truncate(path, int(kept * path.stat().st_size))


def change(config: Path, **changes: Any) -> None:
    """Change what `config.json` says; None takes a setting of the architecture out."""
    about = json.loads(config.read_text(encoding="utf-8"))
    for name, value in changes.items():
        if name in ("kind", "format_version"):
            about[name] = value
        elif value is None:
            del about["config"][name]
        else:
            about["config"][name] = value
    config.write_text(json.dumps(about), encoding="utf-8")


def another_ones_weights(path: Path) -> None:
    safetensors.torch.save_file(opinionated_blt(local_ffn_dim=32).state_dict(), path)


def nothing_but_a_state(path: Path) -> None:
    torch.save({"model": {}}, path)


CONFIGS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "missing": (Path.unlink, r"holds no model \(config\.json is missing\); give the folder that training wrote"),
    "empty": (lambda path: cut(path, 0), r"config\.json can't be read \(.*\); copy the checkpoint again or train it again"),
    "truncated": (lambda path: cut(path, 0.6), r"config\.json can't be read \(.*\); copy the checkpoint again or train it again"),
    "no text": (lambda path: path.write_bytes(b"\xff\xfe\x00"), r"config\.json can't be read \(.*\); copy the checkpoint again or"),
    "of transformers": (
        lambda path: path.write_text('{"model_type": "blt", "architectures": ["BltForCausalLM"]}'),
        r"holds something else, but bltmodel\.BLT is wanted here; give another folder",
    ),
    "of an entropy model": (
        lambda path: change(path, kind="bltdata.EntropyModel"),
        r"holds bltdata\.EntropyModel, but bltmodel\.BLT is wanted here; give another folder",
    ),
    "of an old version": (
        lambda path: change(path, format_version=0),
        r"config\.json has format version 0, and this version reads 1; train the model again",
    ),
    "of a newer version": (lambda path: change(path, format_version=2), r"config\.json has format version 2, and this version reads 1;"),
    "with a setting of the future": (lambda path: change(path, gates=3), r"config of the BLT has an unknown key 'gates'"),
    "without a setting": (lambda path: change(path, window=None), r"config of the BLT lacks the key 'window'"),
    "with a setting of another type": (lambda path: change(path, window="wide"), r"config of the BLT, key 'window' is 'wide'; it must be"),
    "with an impossible setting": (lambda path: change(path, local_heads=3), r"local_dim is 16 with 3 heads; it must be a multiple of 6"),
}
WEIGHTS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "missing": (Path.unlink, r"model\.safetensors is missing: the checkpoint is incomplete; train it again or copy the whole folder"),
    "empty": (lambda path: cut(path, 0), r"model\.safetensors can't be read \(.*\); copy the checkpoint again or train it again"),
    "cut in its header": (lambda path: cut(path, 0.001), r"model\.safetensors can't be read \(.*\); copy the checkpoint again or train"),
    "truncated": (lambda path: cut(path, 0.9), r"model\.safetensors can't be read \(.*\); copy the checkpoint again or train it again"),
    "a file of torch": (nothing_but_a_state, r"model\.safetensors can't be read \(.*\); copy the checkpoint again or train it again"),
    "of other sizes": (another_ones_weights, r"doesn't fit the architecture in config\.json: \S+ has shape \[.*\], and \[.*\] is needed"),
    "of other layers": (
        lambda path: safetensors.torch.save_file(opinionated_blt(decoder_layers=3).state_dict(), path),
        r"doesn't fit the architecture in config\.json: it has decoder\S+, which isn't part of it; give a matching pair of files",
    ),
}
PROBLEMS = {f"config {name}": ("config.json", *problem) for name, problem in CONFIGS.items()} | {
    f"weights {name}": ("model.safetensors", *problem) for name, problem in WEIGHTS.items()
}


@pytest.mark.parametrize("problem", PROBLEMS)
def test_one_sentence_and_nothing_else(trained, tmp_path, problem):
    file, spoil, message = PROBLEMS[problem]
    shutil.copytree(trained.blt, tmp_path / "blt")
    spoil(tmp_path / "blt" / file)
    for name, command in COMMANDS.items():
        if file == "model.safetensors" and name not in READS_WEIGHTS:
            continue
        result = CliRunner().invoke(main, [*map(str, command(tmp_path / "blt", trained, tmp_path / "out"))])
        assert (result.exit_code, result.stdout) == (1, ""), name
        assert re.fullmatch(f"Error: [^\n]*{message}[^\n]*\\.\n", result.stderr), (name, result.stderr)
        assert str(tmp_path / "blt") in result.stderr or "local_dim" in message, name
        assert sorted(path.name for path in tmp_path.iterdir()) == ["blt"], name


@pytest.mark.parametrize("options", [[], ["--temperature", "0"], ["--num-beams", "2"], ["--no-cache"], ["--interactive"]])
def test_weights_that_are_no_numbers(trained, tmp_path, options):
    shutil.copytree(trained.blt, tmp_path / "blt")
    weights = safetensors.torch.load_file(tmp_path / "blt" / "model.safetensors")
    weights["decoder.norm.weight"][0] = torch.nan
    safetensors.torch.save_file(weights, tmp_path / "blt" / "model.safetensors")
    arguments = [*COMMANDS["generate"](tmp_path / "blt", trained, tmp_path), *options]
    result = CliRunner().invoke(main, [*map(str, arguments)], input="b\n")
    assert result.exit_code == 1
    # The prompt had been written by then, or not yet.
    assert result.stdout in ("", "a", "a\n")
    assert result.stderr.endswith("Error: What the BLT predicts are no numbers; it is damaged, train it again.\n")
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("problem", ["config of an old version", "config truncated", "weights truncated", "weights missing"])
def test_an_entropy_model_likewise(trained, tmp_path, problem):
    file, spoil, message = PROBLEMS[problem]
    shutil.copytree(trained.entropy_model, tmp_path / "entropy-model")
    spoil(tmp_path / "entropy-model" / file)
    noise = ["--noise", "drop", "--entropy-model", tmp_path / "entropy-model"]
    damaged = trained._replace(entropy_model=tmp_path / "entropy-model")
    for name in READS_WEIGHTS:
        arguments = [*COMMANDS[name](trained.blt, damaged, tmp_path / "out"), *(noise if name == "evaluate" else [])]
        result = CliRunner().invoke(main, [*map(str, arguments)])
        assert (result.exit_code, result.stdout) == (1, ""), name
        assert re.fullmatch(f"Error: [^\n]*entropy-model[^\n]*{message}[^\n]*\\.\n", result.stderr), (name, result.stderr)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["entropy-model"], name
