"""A session at the terminal: a text that a person and a model write in turn."""

import dataclasses
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import click

from bltdata.cli.progress import say
from bltdata.config import nearest

if TYPE_CHECKING:
    from bltmodel.generation import GenerationSettings, NewByte
    from bltmodel.model import BLT

COMMANDS = {
    "/reset": "forget the text so far",
    "/help": "show this",
    "/quit": "end the session, as Ctrl-D does",
}

HELP = "\n".join(
    [
        "What you type is added to the text so far, and the model goes on. An empty line lets it go on without.",
        "A backslash at the end of a line stands for a line break, and // at its beginning for one slash.",
        "Ctrl-C ends the continuation; what is there of it stays.",
        *(f"  {name:<8}{what}" for name, what in COMMANDS.items()),
    ]
)


def converse(model: "BLT", settings: "GenerationSettings", text: bytes, seed: int, *, coloured: bool) -> None:
    """Read lines from stdin until it ends, and let the model go on after each.

    Args:
        model: what goes on.
        settings: how; its seed is replaced.
        text: the text so far.
        seed: of the first turn; each turn has the next.
        coloured: show where patches start and how uncertain each byte was, instead of the bytes as they are.
    """
    say(HELP)
    _write(text + b"\n" if text else b"")
    while (line := _next_line()) is not None:
        if line.startswith(b"/") and not line.startswith(b"//"):
            if line == b"/quit":
                return
            if line == b"/reset":
                text = b""
            else:
                say(HELP if line == b"/help" else _unknown(line))
            continue
        text += _typed(line)
        text += _turn(model, text, dataclasses.replace(settings, seed=seed), coloured=coloured)
        seed += 1


def _turn(model: "BLT", text: bytes, settings: "GenerationSettings", *, coloured: bool) -> bytes:
    """Let the model go on, and show what comes; returns that, also if Ctrl-C ends it."""
    from bltmodel.generation import in_characters, new_bytes

    said = bytearray()

    def heard() -> Iterator["NewByte"]:
        for new in new_bytes(model, [text], settings):
            said.append(new.byte)
            yield new

    try:
        if coloured:
            for piece in in_colours(heard()):
                _write(piece.encode(sys.stdout.encoding or "utf-8", errors="backslashreplace"))
        else:
            for data in in_characters(bytes([new.byte]) for new in heard()):
                _write(data)
    except KeyboardInterrupt:
        # What was said stays part of the text, so the model can go on from there.
        pass
    _write(b"\n")
    if not said and settings.max_new_bytes:
        say("Nothing comes after this text: the model would end it here. Type more, or /reset.")
    return bytes(said)


def in_colours(new: "Iterable[NewByte]") -> Iterator[str]:
    """Characters in a terminal's colours, each as soon as its last byte is there.

    A character has the colour of the highest entropy among its bytes, and is underlined where a patch starts.
    """
    from bltdata.patching.display import coloured_piece, printable_parts
    from bltmodel.generation import in_characters

    waiting: list[NewByte] = []
    patch = 0

    def bytes_of() -> Iterator[bytes]:
        for each in new:
            waiting.append(each)
            yield bytes([each.byte])

    for data in in_characters(bytes_of()):
        (pieces,) = printable_parts(data, [len(data)])
        for piece in pieces:
            own, waiting[: piece.num_bytes] = waiting[: piece.num_bytes], []
            is_first = any(each.starts_patch for each in own)
            patch += is_first
            entropies = [each.entropy_nats for each in own if each.entropy_nats is not None]
            yield coloured_piece(piece.text, max(entropies, default=None), patch, is_first=is_first)


def _next_line() -> bytes | None:
    """A line without its end; None where there is no more."""
    while True:
        try:
            if sys.stdin.isatty():
                if sys.stdout.isatty():
                    return input("> ").encode(errors="surrogateescape")
                # `input` would write it into the file or the pipe that is to have the text alone.
                click.echo("> ", nl=False, err=True)
            line = sys.stdin.buffer.readline()
            return line.removesuffix(b"\n") if line else None
        except EOFError:
            return None
        except KeyboardInterrupt:
            say("\nCtrl-D or /quit ends the session.")


def _typed(line: bytes) -> bytes:
    if line.startswith(b"//"):
        line = line[1:]
    return line.removesuffix(b"\\") + b"\n" if line.endswith(b"\\") else line


def _unknown(line: bytes) -> str:
    name = line.decode(errors="replace").split()[0]
    return f"There is no command {name}{nearest(name, COMMANDS)}; /help lists them, and a text that begins with / is typed with //."


def _write(data: bytes) -> None:
    """Bytes for whoever looks, at once."""
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
