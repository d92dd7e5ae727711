import contextlib
import fcntl
import io
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from bltdata.cli import main
from bltdata.patching import PatchRule, calibrate, starts_of_lengths
from bltdata.shards import Manifest, open_shards, round_entropies
from tests.bltdata.small import opinionated_model

MakeRow = Callable[..., dict[str, Any]]
MakeDataset = Callable[..., Path]

ESCAPE = re.compile(r"\x1b\[[0-9;]*m")
CLEAN = {"NO_COLOR": "", "FORCE_COLOR": "", "COLUMNS": ""}
HOSTILE = b"plain \x1b[31mred\x07 \xff\xfe\n\nend \xe6\x97\xa5"


def run(*arguments: str | Path, **environment: str) -> Result:
    return CliRunner(env=CLEAN | environment).invoke(main, ["show", *map(str, arguments)])


def shown(*arguments: str | Path, **environment: str) -> str:
    result = run(*arguments, **environment)
    assert result.exit_code == 0, result.output
    return result.stdout


def as_json(*arguments: str | Path) -> dict[str, Any]:
    output = shown(*arguments, "--json")
    assert output.count("\n") == 1
    mapping: dict[str, Any] = json.loads(output)
    return mapping


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "model"
    opinionated_model().save(folder)
    return folder


@pytest.fixture
def dataset(dataset_folder: MakeDataset, row: MakeRow) -> Path:
    rows = [row(f"doc {i}", f"document {i}, with some text in it".encode() * (i + 1)) for i in range(5)]
    return dataset_folder(rows[:3], rows[3:], row_group_bytes=100)


# ------------------------------------------------------------------------------------------------------- text and files


def test_a_text_without_colours() -> None:
    assert shown("--text", "hello world, foo", "--scheme", "space") == (
        "hello |world,| foo\n\n| stands between patches.\n"
        "--text: 3 patches of 16 bytes and the end, 5.67 positions on average; rule space.\n"
    )


def test_a_text_is_scored_and_cut_as_a_build_would(model_folder: Path) -> None:
    data = "d\u00e9j\u00e0 vu".encode()
    entropies = round_entropies(next(opinionated_model().score([data])))
    rule = PatchRule(threshold=3.0, max_length=4)
    found = as_json("--text", data.decode(), "--entropy-model", model_folder, "--threshold", "3.0", "--max-length", "4")
    assert found["entropy_nats"] == entropies.tolist()
    assert found["lengths"] == rule.lengths(data, entropies).tolist()
    assert found["starts"] == rule.starts(data, entropies).tolist()
    assert (found["num_bytes"], found["num_bytes_left_out"], found["num_patches"]) == (len(data), 0, len(found["starts"]))
    assert found["mean_patch_length"] == (len(data) + 1) / found["num_patches"]
    assert found["patch_rule"]["max_length"] == 4


def test_a_threshold_calibrated_on_the_text(model_folder: Path) -> None:
    data = b"some text that is long enough to be cut into a few patches"
    entropies = round_entropies(next(opinionated_model().score([data])))
    expected = calibrate([(data, entropies)], PatchRule(), 3.0)
    found = as_json("--text", data.decode(), "--entropy-model", model_folder, "--target-patch-length", "3")
    assert found["patch_rule"]["threshold"] == expected.threshold
    assert found["mean_patch_length"] == expected.mean_patch_length


def test_the_rule_of_a_dataset(model_folder: Path, dataset: Path, dataset_folder: MakeDataset, row: MakeRow) -> None:
    result = run("--text", "abc", "--entropy-model", model_folder, "--rule-from", dataset, "--json")
    assert json.loads(result.stdout)["patch_rule"]["threshold"] == Manifest.read(dataset).patch_rule["threshold"]
    assert "isn't the model that the rule's threshold was found for" in result.stderr
    same = dataset_folder([row("a", b"abc")], name="same", entropy_model={"fingerprint": opinionated_model().fingerprint})
    assert run("--text", "abc", "--entropy-model", model_folder, "--rule-from", same).stderr == ""


def test_scored_line_by_line_if_the_dataset_was(model_folder: Path, dataset_folder: MakeDataset, row: MakeRow) -> None:
    described = {"fingerprint": opinionated_model().fingerprint, "context": {"reset_at_newline": True}}
    folder = dataset_folder([row("a", b"abc")], entropy_model=described)
    expected = round_entropies(next(opinionated_model().score([b"ab\ncd"], reset_at_newline=True)))
    found = as_json("--text", "ab\ncd", "--entropy-model", model_folder, "--rule-from", folder)
    assert found["entropy_nats"] == expected.tolist()
    assert found["entropy_nats"] != round_entropies(next(opinionated_model().score([b"ab\ncd"]))).tolist()


def test_a_rule_from_a_file_of_settings(tmp_path: Path) -> None:
    config = tmp_path / "show.toml"
    config.write_text('[rule]\nscheme = "fixed"\nstride = 2\n')
    assert shown("--text", "abcde", "--config", config).startswith("ab|cd|e\n")
    assert shown("--text", "abcde", "--config", config, "--stride", "3").startswith("abc|de\n")


def test_the_standard_input() -> None:
    options = ["--file", "-", "--scheme", "fixed", "--stride", "4", "--max-bytes", "10", "--json"]
    result = CliRunner(env=CLEAN).invoke(main, ["show", *options], input=b"any bytes \xff of a pipe")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert (found["document"], found["num_bytes"], found["num_bytes_left_out"], found["lengths"]) == ("stdin", 10, 11, [4, 4, 3])


def test_a_file_of_any_bytes(tmp_path: Path) -> None:
    path = tmp_path / "any"
    path.write_bytes(HOSTILE)
    for environment in ({}, {"FORCE_COLOR": "1"}):
        text = shown("--file", path, "--scheme", "fixed", "--stride", "100", **environment)
        plain = ESCAPE.sub("", text)
        assert plain.startswith("plain \\x1b[31mred\\x07 \\xff\\xfe\u23ce\n\u23ce\nend \u65e5\n")
        assert "\x1b[31m" not in text
        assert all(character.isprintable() or character == "\n" for character in plain)
    path.write_bytes(b"")
    assert "1 patch of 0 bytes and the end, 1.00 positions on average" in shown("--file", path, "--scheme", "byte")


def test_a_name_cannot_steer_the_terminal(tmp_path: Path) -> None:
    path = tmp_path / "a\x1b[31m\nb"
    path.write_bytes(b"text")
    for arguments in ([], ["--html", tmp_path / "page.html"]):
        text = shown("--file", path, "--scheme", "byte", *arguments)
        assert "\x1b" not in text
        assert "a\\x1b[31m\u23ceb: 5 patches" in text


def test_what_stdout_cannot_hold_is_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    stdout = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stdout)
    main(["show", "--text", "d\u00e9j\u00e0\n", "--scheme", "fixed", "--stride", "9"], standalone_mode=False)
    stdout.flush()
    assert stdout.buffer.getvalue().startswith(b"d\\xe9j\\xe0\\u23ce\n")  # type: ignore[attr-defined]


# -------------------------------------------------------------------------------------------------------------- datasets


def test_a_document_with_its_stored_patches(dataset: Path) -> None:
    for arguments, index in (([], 0), (["--document", "doc 3"], 3)):
        stored = list(open_shards(dataset))[index]
        found = as_json("--shards", dataset, *arguments)
        assert found["document"] == stored.doc_id
        assert found["lengths"] == stored.patch_lengths.tolist()
        assert found["starts"] == starts_of_lengths(stored.patch_lengths).tolist()
        assert found["entropy_nats"] == stored.entropy_nats.tolist()
        assert found["patch_rule"]["threshold"] == Manifest.read(dataset).patch_rule["threshold"]


def test_a_document_is_cut_again_where_a_rule_is_given(dataset: Path) -> None:
    stored = open_shards(dataset).document("doc 4")
    for arguments, rule in (
        (["--threshold", "1.25"], PatchRule(threshold=1.25)),
        (["--scheme", "space"], PatchRule(scheme="space")),
        (["--target-patch-length", "5"], calibrate([(stored.data, stored.entropy_nats)], PatchRule(), 5.0).rule),
    ):
        found = as_json("--shards", dataset, "--document", "doc 4", *arguments)
        assert found["lengths"] == rule.lengths(stored.data, stored.entropy_nats).tolist()


def test_the_rule_of_a_source(dataset_folder: MakeDataset, row: MakeRow) -> None:
    rules = {"news": {"scheme": "entropy", "threshold": 1.75}}
    folder = dataset_folder([row("a", b"abc", "code"), row("b", b"abc", "news")], source_rules=rules)
    assert "threshold 2.5." in shown("--shards", folder)
    assert "threshold 1.75." in shown("--shards", folder, "--document", "b")


# --------------------------------------------------------------------------------------------------------- long documents


def test_what_is_left_out_is_said(tmp_path: Path, dataset: Path) -> None:
    path = tmp_path / "long"
    path.write_bytes(b"0123456789" * 3000)
    arguments = ["--file", path, "--scheme", "fixed", "--stride", "10"]
    text = shown(*arguments)
    assert ": 2,000 patches in the first 20,000 bytes, 10.00 bytes on average; rule fixed, stride 10. 10,000 more" in text
    assert "10,000 more bytes are left out; --max-bytes takes in more." in text
    assert shown(*arguments, "--max-bytes", "15").startswith("0123456789|01234...\n")
    # Nor is the one counted that begins after what is shown.
    assert ": 2 patches in the first 15 bytes, 7.50 bytes on average;" in shown(*arguments, "--max-bytes", "15")
    assert ": 2 patches in the first 20 bytes, 10.00 bytes on average;" in shown(*arguments, "--max-bytes", "20")
    assert " 1 more byte is left out;" in shown(*arguments, "--max-bytes", "29999")
    # An end that isn't the document's is not shown as one.
    assert shown(*arguments, "--max-bytes", "20").startswith("0123456789|0123456789...\n")
    found = as_json(*arguments)
    assert (found["num_bytes"], found["num_bytes_left_out"], sum(found["lengths"])) == (30_000, 0, 30_001)
    found = as_json(*arguments, "--max-bytes", "15")
    assert (found["num_bytes"], found["num_bytes_left_out"], found["lengths"]) == (15, 29_985, [10, 6])

    stored = open_shards(dataset).document("doc 4")
    found = as_json("--shards", dataset, "--document", "doc 4", "--max-bytes", "40")
    starts = starts_of_lengths(stored.patch_lengths)
    assert found["starts"] == starts[starts <= 40].tolist()
    assert found["entropy_nats"] == stored.entropy_nats[:41].tolist()
    assert found["num_bytes_left_out"] == stored.num_bytes - 40


def test_a_limit_falls_between_characters(tmp_path: Path) -> None:
    path = tmp_path / "japanese"
    path.write_bytes("\u65e5\u672c\u8a9e".encode())
    assert shown("--file", path, "--scheme", "fixed", "--stride", "9", "--max-bytes", "5").startswith("\u65e5...\n")
    assert as_json("--file", path, "--scheme", "byte", "--max-bytes", "5")["num_bytes_left_out"] == 6


def test_the_first_patches_of_a_file_are_those_of_all_of_it(model_folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "long"
    path.write_bytes(np.random.default_rng(0).bytes(6000))
    arguments = ["--file", path, "--entropy-model", model_folder, "--threshold", "4.5"]
    whole, part = as_json(*arguments), as_json(*arguments, "--max-bytes", "5000")
    assert part["starts"] == [start for start in whole["starts"] if start <= part["num_bytes"]]


# ------------------------------------------------------------------------------------------------------------- terminals


@pytest.mark.parametrize(
    ("environment", "coloured"),
    [
        ({}, False),
        ({"FORCE_COLOR": "1"}, True),
        ({"FORCE_COLOR": "0"}, False),
        ({"NO_COLOR": "1"}, False),
        ({"NO_COLOR": "1", "FORCE_COLOR": "1"}, False),
    ],
)
def test_colours_are_asked_for(environment: dict[str, str], coloured: bool, dataset: Path) -> None:
    text = shown("--shards", dataset, **environment)
    assert bool(ESCAPE.search(text)) == coloured
    assert ("A patch starts where it is underlined." in text) == coloured
    assert ("nats" in text) == coloured
    assert ("| stands between patches." in text) != coloured


def test_lines_are_wrapped_where_there_is_a_width(dataset: Path) -> None:
    text = ESCAPE.sub("", shown("--shards", dataset, "--document", "doc 4", FORCE_COLOR="1", COLUMNS="20"))
    document = text.partition("\n\n")[0].split("\n")
    assert {len(line) for line in document[:-1]} == {20}
    assert len(shown("--shards", dataset, "--document", "doc 4").partition("\n")[0]) > 155


def test_on_a_terminal() -> None:
    controller, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 11, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in CLEAN} | {"TERM": "xterm-256color"}
    command = [sys.executable, "-c", "from bltdata.cli import main; main()", "show", "--text", "one two \x1b[31mthree", "--scheme", "space"]
    with subprocess.Popen(command, stdout=terminal, env=environment) as process:
        os.close(terminal)
        output = b""
        with contextlib.suppress(OSError):  # what reading ends with where the other side is closed
            while block := os.read(controller, 1 << 16):
                output += block
    os.close(controller)
    assert process.returncode == 0
    lines = ESCAPE.sub("", output.decode()).split("\r\n")
    assert lines[:3] == ["one two ", "\\x1b[31mthr", "ee"]
    assert b"\x1b[31m" not in output
    assert b"\x1b[0;1;4;38;5;16;48;5;" in output


# ----------------------------------------------------------------------------------------------------------------- pages


def test_a_page(dataset: Path, tmp_path: Path) -> None:
    page = tmp_path / "pages" / "page.html"
    text = shown("--shards", dataset, "--html", page)
    assert text.startswith("doc 0: ")
    assert text.endswith(f"Wrote {page}.\n")
    assert os.listdir(page.parent) == ["page.html"]
    written = page.read_text(encoding="utf-8")
    stored = next(iter(open_shards(dataset)))
    assert "<title>doc 0</title>" in written
    assert written.count("<span title=") == stored.num_patches
    assert f"{stored.entropy_nats[0]:.3f} nats" in written


def test_a_page_beside_json(dataset: Path, tmp_path: Path) -> None:
    assert as_json("--shards", dataset, "--html", tmp_path / "page.html")["document"] == "doc 0"
    assert (tmp_path / "page.html").exists()


# -------------------------------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "None of --text, --file and --shards given; give one of the three."),
        (["--text", "a", "--file", "b"], "--text and --file given"),
        (["--text", "a", "--document", "b"], "--document is given without --shards"),
        (["--shards", "{dataset}", "--entropy-model", "m"], "leave the model out"),
        (["--shards", "{dataset}", "--document", "doc 9\x1b"], "has no document 'doc 9\\x1b'; the first one is 'doc 0'"),
        (["--shards", "{dataset}", "--min-length", "2"], "The rule 'entropy' has no threshold"),
        (["--shards", "{dataset}", "--rule-from", "{dataset}", "--threshold", "1"], "Both --rule-from and settings of a rule"),
        (["--shards", "{dataset}", "--target-patch-length", "4", "--threshold", "1"], "Both a threshold (1) and a target patch length (4)"),
        (["--shards", "{dataset}", "--target-patch-length", "4", "--scheme", "space"], "'space' has no threshold to calibrate"),
        (["--shards", "{tmp}/nothing"], "There is no folder"),
        (["--text", "a"], "There is no rule to cut the document"),
        (["--text", "a", "--threshold", "1"], "The rule 'entropy' needs entropies: give --entropy-model"),
        (["--text", "a", "--threshold", "9"], "threshold is 9.0; it must lie between"),
        (["--text", "a", "--threshold", "1", "--entropy-model", "{tmp}/nothing"], "nothing"),
        (["--file", "{tmp}/nothing", "--scheme", "byte"], "There is no file or folder"),
        (["--file", "{tmp}", "--scheme", "byte"], "Is a directory"),
        (["--text", "a", "--scheme", "byte", "--html", "{tmp}"], "is a folder; give a file"),
        (["--text", "a", "--threshold", "1", "--entropy-model", "nowhere", "--html", "{tmp}"], "is a folder; give a file"),
    ],
)
def test_a_mistake_ends_in_one_sentence(dataset: Path, tmp_path: Path, arguments: list[str], message: str) -> None:
    result = run(*[argument.format(dataset=dataset, tmp=tmp_path) for argument in arguments])
    assert result.exit_code == 1
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


def test_a_dataset_without_documents(dataset_folder: MakeDataset) -> None:
    folder = dataset_folder([])
    assert "has no documents, so there is nothing to show" in run("--shards", folder).stderr
    assert "has no document 'x'; it has none at all" in run("--shards", folder, "--document", "x").stderr
