import io
import sys

import pytest

from bltdata.cli.progress import format_amount, progress, progress_once_known, say


class Terminal(io.StringIO):
    """A stderr that says it is a terminal."""

    def isatty(self):
        return True


@pytest.fixture
def open_terminal(monkeypatch):
    """Makes stderr a terminal. The test calls it, because pytest puts its own stderr back after the fixtures have run."""

    def make():
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setenv("COLUMNS", "120")
        monkeypatch.setattr(sys, "stderr", Terminal())
        return sys.stderr

    return make


def test_silent_without_a_terminal(capsys):
    with progress(3, "Scoring", "documents") as advance:
        advance(2)
        advance(1, note="loss 1.0")
    assert capsys.readouterr() == ("", "")


def test_bar_on_a_terminal(open_terminal):
    terminal = open_terminal()
    with progress(2_000_000, "Scoring", "bytes") as advance:
        advance(1_000_000)
        advance(1_000_000, note="loss 1.25")
    shown = terminal.getvalue()
    assert "Scoring" in shown
    assert "2.0 MB of 2.0 MB" in shown
    assert "/s" in shown
    assert "loss 1.25" in shown


def test_unknown_total(open_terminal):
    terminal = open_terminal()
    with progress(None, "Reading", "documents") as advance:
        advance(12)
    assert "12 documents" in terminal.getvalue()


def test_a_bar_that_waits_for_its_length(open_terminal):
    terminal = open_terminal()
    with progress_once_known("Cutting", "bytes") as (planned, advance):
        say("a remark before the first shard")
        assert "Cutting" not in terminal.getvalue()
        planned(2_000)
        advance(1_500, "part-00000.parquet")
        advance(500)
    shown = terminal.getvalue()
    assert "2.0 kB of 2.0 kB" in shown
    assert "part-00000.parquet" in shown
    with progress_once_known("Cutting", "bytes"):
        """Nothing need be planned, as when there is an error before."""


def test_results_do_not_go_through_the_bar(open_terminal, capsys):
    terminal = open_terminal()
    with progress(1, "Working", "steps") as advance:
        print("result")
        say("remark")
        advance()
    assert capsys.readouterr().out == "result\n"
    assert "remark" in terminal.getvalue()


def test_bar_ends_when_the_work_fails(open_terminal):
    terminal = open_terminal()
    with pytest.raises(ZeroDivisionError), progress(1, "Working", "steps"):
        raise ZeroDivisionError
    # Rich hides the cursor while a bar is shown; a terminal must get it back.
    assert terminal.getvalue().rstrip().endswith("\x1b[?25h")


def test_say_goes_to_stderr(capsys):
    say("reading")
    assert capsys.readouterr() == ("", "reading\n")


@pytest.mark.parametrize(("amount", "shown"), [(0, "0 bytes"), (999, "999 bytes"), (1000, "1.0 kB"), (2.5e9, "2.5 GB"), (3e12, "3.0 TB")])
def test_amounts_of_bytes(amount, shown):
    assert format_amount(amount, "bytes") == shown
