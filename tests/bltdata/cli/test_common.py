import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from rich.table import Table

from bltdata.cli import main
from bltdata.cli.common import LazyCommand, command, json_option, lazy_group, out_option, print_json, print_tables
from bltdata.errors import CorpusError


def raising(error, **attributes):
    """A command that fails with `error`."""

    @command(example="probe --out here", **attributes)
    @click.option("--out", type=click.Path(path_type=Path))
    def probe(out):
        """Fail."""
        raise error

    return probe


def run(made, *arguments):
    return CliRunner().invoke(made, list(arguments))


def test_user_error_is_one_sentence():
    result = run(raising(CorpusError("No corpus in 'x': name a file.")))
    assert result.exit_code == 1
    assert result.stderr == "Error: No corpus in 'x': name a file.\n"
    assert result.stdout == ""


def test_debug_shows_the_traceback_too():
    result = run(raising(CorpusError("No corpus.")), "--debug")
    assert result.exit_code == 1
    assert "Traceback" in result.stderr
    assert result.stderr.endswith("Error: No corpus.\n")


def test_own_mistakes_keep_their_traceback():
    result = run(raising(ZeroDivisionError("ours")))
    assert isinstance(result.exception, ZeroDivisionError)


@pytest.mark.parametrize("debug", [[], ["--debug"]])
@pytest.mark.parametrize(
    ("resumes", "sentence"),
    [
        (True, "Interrupted; what was finished is kept: run the same command again to go on."),
        (False, "Interrupted; the same command would begin anew."),
    ],
)
def test_interrupt(resumes, sentence, debug):
    result = run(raising(KeyboardInterrupt(), resumes=resumes), *debug)
    assert result.exit_code == 130
    assert result.stderr.endswith(f"\n{sentence}\n")
    assert ("Traceback" in result.stderr) == bool(debug)


@pytest.mark.parametrize(
    ("error", "arguments", "sentence"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/data/run/part-0"), [], "The disk is full: free some space below /data/run and"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), ["--out", "runs/a"], "The disk is full: free some space below runs/a and"),
        (OSError(errno.ENOSPC, "No space left on device"), [], "The disk is full: free some space and"),
        (RuntimeError("I/O error: No space left on device (os error 28)"), ["--out", "b"], "The disk is full: free some space below b and"),
    ],
)
def test_full_disk(error, arguments, sentence):
    result = run(raising(error), *arguments)
    assert result.exit_code == 1
    assert result.stderr == f"Error: {sentence} run the same command again.\n"


def test_files_that_fail():
    missing = run(raising(FileNotFoundError(errno.ENOENT, "No such file or directory", "a.txt")))
    assert (missing.exit_code, missing.stderr) == (1, "Error: There is no file or folder 'a.txt': check the path.\n")
    denied = run(raising(PermissionError(errno.EACCES, "Permission denied", "a.txt")))
    assert denied.stderr == "Error: Not allowed to use 'a.txt': check who owns it and its permissions.\n"
    other = run(raising(IsADirectoryError(errno.EISDIR, "Is a directory", "folder")))
    assert other.stderr == "Error: Cannot use 'folder': Is a directory.\n"
    nameless = run(raising(OSError(errno.EIO, "Input/output error")))
    assert isinstance(nameless.exception, OSError)


def test_a_place_where_nothing_can_be_written():
    def missing(path, *arguments):
        return run(raising(FileNotFoundError(errno.ENOENT, "No such file or directory", path)), *arguments).stderr

    for path in ("/proc/runs/a", "/proc/runs"):
        assert missing(path, "--out", "/proc/runs/a") == "Error: Nothing can be written to '/proc/runs/a': give another path for --out.\n"
    assert missing("/proc/other", "--out", "/proc/runs") == "Error: There is no file or folder '/proc/other': check the path.\n"
    assert missing(b"runs", "--out", "runs/a") == "Error: There is no file or folder \"b'runs'\": check the path.\n"
    assert missing("runs", "--out", "runs/a") == "Error: Nothing can be written to 'runs/a': give another path for --out.\n"
    assert missing("runs/a", "--out", "runs/a") == "Error: Nothing can be written to 'runs/a': give another path for --out.\n"


def test_reader_of_our_output_leaves(tmp_path):
    script = tmp_path / "talk.py"
    script.write_text(
        "from bltdata.cli.common import command\n"
        "@command(example='talk')\n"
        "def talk():\n"
        "    '''Talk.'''\n"
        "    for number in range(100_000):\n"
        "        print(number)\n"
        "talk()\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as talker:
        assert talker.stdout.readline() == b"0\n"
        talker.stdout.close()
        assert talker.stderr.read() == b""
    assert talker.returncode == 1


def test_examples_stand_verbatim():
    @command(
        example="""
        probe one \\
            --two
        probe three
        """
    )
    def probe():
        """Probe.

        More about it.
        """

    result = run(probe, "-h")
    assert result.exit_code == 0
    assert result.stdout.endswith("\nExample:\n  probe one \\\n      --two\n  probe three\n")
    assert "More about it." in result.stdout
    assert probe.name == "probe"


def test_names_have_dashes():
    @command(example="x")
    def two_words():
        """Two."""

    assert two_words.name == "two-words"
    assert command("other", example="x")(lambda: None).name == "other"


def test_json_and_out(tmp_path):
    @command(example="x")
    @out_option("Where to.")
    @json_option
    def probe(out, as_json):
        """Print."""
        print_json({"out": out.name, "as_json": as_json})

    result = run(probe, "--out", str(tmp_path), "--json")
    assert json.loads(result.stdout) == {"out": tmp_path.name, "as_json": True}
    assert run(probe).exit_code == 2
    with pytest.raises(ValueError, match="JSON"):
        print_json(float("nan"))


@pytest.mark.parametrize("terminal", [{}, {"FORCE_COLOR": "1"}], ids=["pipe", "terminal"])
@pytest.mark.parametrize("columns", ["10", "1000"])
def test_tables_cut_no_number(columns, terminal):
    @command(example="x")
    def probe():
        """Print."""
        tables = [Table(title=f"Table {number}", box=None) for number in (1, 2)]
        for number, table in enumerate(tables, start=1):
            table.add_column("a long name", overflow="fold")
            for _ in range(number * 4):
                table.add_column("count", justify="right")
            table.add_row("x" * 300, *(f"{10**12 * number + place:,}" for place in range(number * 4)))
        print_tables(*tables)

    result = CliRunner().invoke(probe, env={"COLUMNS": columns, **terminal})
    assert result.exit_code == 0
    for number in (1, 2):
        assert all(f"{10**12 * number + place:,}" in result.stdout for place in range(number * 4))
    assert "\u2026" not in result.stdout
    # What may be folded is folded on a narrow terminal only.
    assert ("x" * 17 in result.stdout) == (not terminal or columns == "1000")


@pytest.fixture
def lazy_program(tmp_path, monkeypatch):
    """A group whose command `present` exists, and whose command `broken` can't be imported."""
    (tmp_path / "lazily_loaded_probe.py").write_text(
        "from bltdata.cli.common import command\n@command(example='x')\ndef present():\n    '''Be there.'''\n    print('here')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "lazily_loaded_probe", raising=False)
    table = {"present": LazyCommand("lazily_loaded_probe:present", "Be there."), "broken": LazyCommand("no_such_module:x", "Break.")}
    return lazy_group("probe", table, version="1.2.3", help="Probes.")


def test_listing_imports_no_command(lazy_program):
    result = run(lazy_program, "-h")
    assert result.exit_code == 0
    assert "  present  Be there.\n  broken   Break.\n" in result.stdout
    assert "lazily_loaded_probe" not in sys.modules


def test_calling_imports_the_one(lazy_program):
    assert run(lazy_program, "present").stdout == "here\n"
    assert run(lazy_program, "--version").stdout == "probe 1.2.3\n"


def test_unknown_command_names_the_nearest(lazy_program):
    result = run(lazy_program, "presnt")
    assert result.exit_code == 2
    assert "'presnt'" in result.stderr
    assert "present" in result.stderr
    assert "build-shards" in run(main, "build-shard").stderr
    assert run(lazy_program, "--nonsense").exit_code == 2


def test_interrupt_while_importing(lazy_program, monkeypatch):
    def interrupt(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(LazyCommand, "load", interrupt)
    result = run(lazy_program, "present")
    assert (result.exit_code, result.stderr) == (130, "\nInterrupted before anything was done.\n")
