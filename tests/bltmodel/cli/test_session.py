import contextlib
import json
import os
import re
import signal

import pytest
from click.testing import CliRunner, Result

from bltmodel.cli import main, session
from bltmodel.cli.session import COMMANDS, in_colours
from bltmodel.generation import GenerationSettings, NewByte, new_bytes
from bltmodel.model import BLT
from bltmodel.sampling_config import SamplingConfig
from tests.bltmodel.datasets import RULE, entropy_model, opinionated_blt

STYLE = re.compile(r"\x1b\[[0-9;]*m")


@pytest.fixture(scope="module")
def folders(trained, tmp_path_factory) -> list[str]:
    about = json.loads((trained.blt / "config.json").read_text(encoding="utf-8"))
    blt = tmp_path_factory.mktemp("session") / "blt"
    opinionated_blt(1).save(blt, {"data": about["data"]})
    return ["--model", str(blt), "--entropy-model", str(trained.entropy_model)]


def converse(folders: list[str], typed: bytes, *options: str, colours: bool = False) -> Result:
    arguments = ["generate", *folders, "--interactive", "--max-new-bytes", "6", "--no-stop-at-eos", *options]
    return CliRunner(env={"FORCE_COLOR": "1"} if colours else {"NO_COLOR": "1"}).invoke(main, arguments, input=typed)


def goes_on(folders: list[str], text: bytes, seed: int) -> bytes:
    sampling = SamplingConfig(stop_at_eos=False)
    (new,) = BLT.load(folders[1]).generate([text], entropy_model=entropy_model(), rule=RULE, max_new_bytes=6, seed=seed, sampling=sampling)
    return new


def test_the_text_so_far_is_the_context(folders):
    text, shown = b"Say: ", b"Say: \n"
    for seed, typed in enumerate((b"one ", b"", b"two"), start=5):
        text += typed
        new = goes_on(folders, text, seed)
        text, shown = text + new, shown + new + b"\n"
    result = converse(folders, b"one \n\ntwo", "--prompt", "Say: ", "--seed", "5")
    assert (result.exit_code, result.stdout_bytes) == (0, shown)
    # It said how to use it, and not to those who read the text.
    assert all(name in result.stderr for name in COMMANDS)


def test_commands(folders):
    result = converse(folders, b"one\n/reset\none\n/help\n/rest\n/quit\nmore\n")
    first, second = goes_on(folders, b"one", 0), goes_on(folders, b"one", 1)
    assert result.stdout_bytes == first + b"\n" + second + b"\n"
    assert result.stderr.count("forget the text so far") == 2
    assert "There is no command /rest; the nearest is '/reset'" in result.stderr


def test_line_breaks_and_slashes_can_be_typed(folders):
    result = converse(folders, b"a\\\n//b\n")
    first = goes_on(folders, b"a\n", 0)
    assert result.stdout_bytes == first + b"\n" + goes_on(folders, b"a\n" + first + b"/b", 1) + b"\n"


def test_ctrl_c_ends_the_continuation_and_not_the_session(folders, monkeypatch):
    turns = []

    def interrupted(model, prompts, settings):
        turns.append(prompts[0])
        yield NewByte(0, ord("x"), True, 1.0)
        yield NewByte(0, ord("y"), False, 1.0)
        if len(turns) == 1:
            signal.raise_signal(signal.SIGINT)
        yield NewByte(0, ord("z"), False, 1.0)

    monkeypatch.setattr("bltmodel.generation.new_bytes", interrupted)
    result = converse(folders, b"a\nb\n")
    assert (result.exit_code, result.stdout_bytes) == (0, b"xy\nxyz\n")
    # What had come by then is part of the text.
    assert turns == [b"a", b"axyb"]


def test_ctrl_c_between_the_turns_says_how_to_end(folders, monkeypatch):
    lines = iter([KeyboardInterrupt, b"a\n"])

    class Keyboard:
        def readline(self) -> bytes:
            line = next(lines, b"")
            if line is KeyboardInterrupt:
                raise KeyboardInterrupt
            return line

        def isatty(self) -> bool:
            return False

        @property
        def buffer(self):
            return self

    written, said = [], []
    monkeypatch.setattr(session.sys, "stdin", Keyboard())
    monkeypatch.setattr(session, "_write", written.append)
    monkeypatch.setattr(session, "say", said.append)
    settings = GenerationSettings(rule=RULE, entropy_model=entropy_model(), max_new_bytes=3)
    session.converse(opinionated_blt(1), settings, b"", 0, coloured=False)
    assert "\nCtrl-D or /quit ends the session." in said
    assert b"".join(written).endswith(b"\n")


def what_a_terminal_shows(keyboard: int) -> bytes:
    """All of it, what was typed too, after the other side was closed."""
    seen = b""
    with open(keyboard, "rb", buffering=0) as screen, contextlib.suppress(OSError):
        while piece := screen.read(1000):
            seen += piece
    return seen


@pytest.mark.parametrize("shown", [True, False], ids=["terminal", "file"])
def test_a_prompt_is_for_who_types(monkeypatch, capfd, tmp_path, shown):
    """It is on the terminal, and never in a file that is to have the text."""
    monkeypatch.setattr("bltmodel.generation.new_bytes", lambda model, prompts, settings: iter([NewByte(0, ord("x"), True, 1.0)]))
    keyboard, terminal = os.openpty()
    os.write(keyboard, b"a\n\nb\n\x04")
    settings = GenerationSettings(rule=RULE, entropy_model=entropy_model(), max_new_bytes=3)
    with open(terminal) as stdin, open(terminal if shown else tmp_path / "text", "w", closefd=not shown) as stdout:
        monkeypatch.setattr(session.sys, "stdin", stdin)
        monkeypatch.setattr(session.sys, "stdout", stdout)
        session.converse(opinionated_blt(1), settings, b"", 0, coloured=False)
    seen, said = what_a_terminal_shows(keyboard), capfd.readouterr().err
    assert seen.count(b"> ") == (4 if shown else 0)
    assert said.count("> ") == (0 if shown else 4)
    if not shown:
        assert (tmp_path / "text").read_bytes() == b"x\n" * 3


def test_an_end_at_once_is_said(folders, monkeypatch):
    monkeypatch.setattr("bltmodel.generation.new_bytes", lambda model, prompts, settings: iter(()))
    result = converse(folders, b"a\n")
    assert result.stdout_bytes == b"\n"
    assert "Nothing comes after this text" in result.stderr


def test_a_terminal_shows_entropies_and_patches(folders):
    result = converse(folders, b"one\n", "--max-new-bytes", "40", colours=True)
    sampling = SamplingConfig(stop_at_eos=False)
    settings = GenerationSettings(rule=RULE, entropy_model=entropy_model(), max_new_bytes=40, sampling=sampling)
    news = [*new_bytes(BLT.load(folders[1]), [b"one"], settings)]
    assert result.stdout == "".join(in_colours(news)) + "\n"
    # Both are there to be seen, an untrained model's entropies being all of them high; and neither where nobody asks for colours.
    assert {new.starts_patch for new in news} == {True, False}
    assert set(re.findall(r"48;5;(\d+)", result.stdout)) == {"196"}
    assert converse(folders, b"one\n", "--max-new-bytes", "40").stdout_bytes == bytes(new.byte for new in news) + b"\n"


def test_a_character_has_the_highest_entropy_of_its_bytes_and_is_underlined_where_a_patch_starts():
    given_so_far, came = [], []

    def new():
        for value, starts, entropy_nats in [
            (0x61, True, 0.1),
            (0xC3, False, 0.2),
            (0xA9, True, 4.1),
            (0x0A, False, 0.0),
            (0x1B, False, 1.0),
        ]:
            given_so_far.append(value)
            yield NewByte(0, value, starts, entropy_nats)

    for piece in in_colours(new()):
        came.append((piece, len(given_so_far)))
    assert [(STYLE.sub("", piece), count) for piece, count in came] == [("a", 1), ("\u00e9", 3), ("\u23ce\n", 4), ("\\x1b", 5)]
    assert ["1;4" in piece for piece, _ in came] == [True, True, False, False]
    # From grey over yellow to red; nothing is left open.
    assert [re.findall(r"48;5;(\d+)", piece) for piece, _ in came] == [["250"], ["196"], ["250"], ["222"]]
    assert all(piece.rstrip("\n").endswith("\x1b[0m") for piece, _ in came)


def test_without_entropies_patches_take_turns():
    news = [NewByte(0, value, starts, None) for value, starts in zip(b"abcd", (True, False, True, True), strict=True)]
    colours = [re.findall(r"48;5;(\d+)", piece)[0] for piece in in_colours(news)]
    assert colours[0] == colours[1] != colours[2] != colours[3]
