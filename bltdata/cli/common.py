"""What every command of both packages shares: lazy groups, errors as sentences, `--debug`, `--json`, `-h`, examples.

A command makes a configuration, calls one function of the library, and prints. So its file imports click and this
module at the top, and what is heavy (torch, pyarrow, polars) in its body: `--help` stays instant.

    @command(example="bltdata entropy-stats runs/quickstart/shards --json")
    @click.argument("shards", type=ANY_PATH)
    @json_option
    def entropy_stats(shards: Path, as_json: bool) -> None:
        \"\"\"Report the entropies, patches and bits per byte of a folder of shards.\"\"\"
"""

import contextlib
import dataclasses
import errno
import importlib
import json
import os
import sys
import tempfile
import textwrap
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from bltdata.errors import BltError, ConfigError
from bltdata.remote import RemotePath, as_path

if TYPE_CHECKING:
    from rich.table import Table

CONTEXT_SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 110}


class _AnyPath(click.Path):
    """A path of this machine; where a dataset is meant, an address of a store, such as `s3://bucket/shards`, as well."""

    def __init__(self, *, may_be_remote: bool) -> None:
        super().__init__(path_type=Path)
        self._may_be_remote = may_be_remote

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Make it a `Path`, or a `RemotePath`."""
        try:
            path = as_path(value)
        except ConfigError as error:
            self.fail(str(error), param, ctx)
        if isinstance(path, Path):
            return super().convert(str(path), param, ctx)
        if not self._may_be_remote:
            self.fail(f"{str(path)!r} is remote, and this works with files of this machine only; give a local path.", param, ctx)
        return path


ANY_PATH = _AnyPath(may_be_remote=False)
"""What is there is for the library to check: its errors say what a folder must hold and who writes it."""

DATASET_PATH = _AnyPath(may_be_remote=True)
"""The same for a folder of shards, which may be remote; it arrives as a `bltdata.remote.AnyPath`."""

FOLDED_WIDTH = 16
"""Cells that a column keeps which is folded on a narrow terminal."""

INTERRUPTED = "Interrupted; what was finished is kept: run the same command again to go on."
INTERRUPTED_FOR_GOOD = "Interrupted; the same command would begin anew."
"""Of a command that can't go on after a stop. What it has printed by then may be of use, so it doesn't say that all is lost."""
INTERRUPTED_EARLY = "Interrupted before anything was done."
EXIT_INTERRUPTED = 130
"""128 + SIGINT, as shells report it."""


class Command(click.Command):
    """A click command whose help ends with examples, and whose failures are one sentence each."""

    def __init__(self, *args: Any, example: str, resumes: bool, **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.resumes = resumes
        self.example = textwrap.dedent(example).strip("\n")
        debug = click.Option(
            ["--debug"], is_flag=True, expose_value=False, callback=_remember_debug, help="Show the traceback of an error as well."
        )
        self.params.append(debug)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples as they stand: click would join and wrap their lines."""
        formatter.write_paragraph()
        formatter.write("Example:\n" + textwrap.indent(self.example, "  ") + "\n")

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command's function."""
        with _failures_as_sentences(ctx, INTERRUPTED if self.resumes else INTERRUPTED_FOR_GOOD):
            result = super().invoke(ctx)
            # Whoever reads our output may have gone; better to notice here than in the interpreter's last moments.
            sys.stdout.flush()
            return result


def command(name: str | None = None, *, example: str, resumes: bool = False, **attributes: Any) -> Callable[[Callable[..., Any]], Command]:
    """Make a function a command of `bltdata` or `bltmodel`; its docstring is the help.

    Args:
        name: how it is called; by default the function's name with dashes.
        example: one or more command lines that work, shown verbatim at the end of the help.
        resumes: whether what it finished before a stop is kept, and the same command goes on from there; its help must say so.
        **attributes: what `click.command` takes.
    """

    def decorate(function: Callable[..., Any]) -> Command:
        dashed = name or function.__name__.replace("_", "-")
        make = click.command(dashed, cls=Command, example=example, resumes=resumes, context_settings=CONTEXT_SETTINGS, **attributes)
        made: Command = make(function)
        return made

    return decorate


@dataclasses.dataclass(frozen=True)
class LazyCommand:
    """Where a command is, and the line that the list of commands shows for it."""

    target: str
    """`module:attribute`."""
    help: str

    def load(self) -> click.Command:
        """Import the command."""
        module, attribute = self.target.split(":")
        loaded = getattr(importlib.import_module(module), attribute)
        assert isinstance(loaded, click.Command), f"{self.target} is not a click command"
        return loaded


class LazyGroup(click.Group):
    """A group that knows its commands by name and imports the one that is called."""

    def __init__(self, *args: Any, lazy_commands: Mapping[str, LazyCommand], **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.lazy_commands = dict(lazy_commands)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of the table, which is the order of the work."""
        return list(self.lazy_commands)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command, or None where there is none of that name."""
        lazy = self.lazy_commands.get(cmd_name)
        return lazy.load() if lazy else None

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that `args` begin with; for an unknown one the error names the nearest."""
        try:
            return super().resolve_command(ctx, args)
        except click.exceptions.NoSuchCommand as error:
            raise click.exceptions.NoSuchCommand(args[0], possibilities=self.lazy_commands, ctx=ctx) from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands from the table alone."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, lazy.help) for name, lazy in self.lazy_commands.items()])

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; Ctrl-C while it is being imported ends as politely as later."""
        with _failures_as_sentences(ctx, INTERRUPTED_EARLY):
            return super().invoke(ctx)


def lazy_group(name: str, commands: Mapping[str, LazyCommand], *, version: str, help: str) -> LazyGroup:
    """The main command of a package: `-h`, `--version`, and its commands."""
    group = LazyGroup(name, lazy_commands=commands, help=help, context_settings=CONTEXT_SETTINGS)
    return click.version_option(version, prog_name=name, message="%(prog)s %(version)s")(group)


def json_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--json`, which arrives as `as_json: bool`; the result is then `print_json`ed."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")(function)


def out_option(help: str, *, kind: click.ParamType = ANY_PATH) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add `--out FOLDER`, which arrives as `out`: the one name for the folder that a command writes to; `kind` is one of those above."""
    return click.option("--out", type=kind, required=True, metavar="FOLDER", help=help)


def print_json(value: Any) -> None:
    """Print `value` as one line of JSON on stdout, which is the last line a command prints there.

    Raises:
        ValueError: `value` holds NaN or an infinity, which JSON hasn't.
    """
    click.echo(json.dumps(value, allow_nan=False))


def print_tables(*tables: "Table") -> None:
    """Print tables on stdout, every number whole.

    A file or a pipe has no width, so there a table is as wide as what it holds. On a terminal columns that may be folded make room, and
    where that is not enough, lines go on below instead of losing digits.
    """
    from rich.console import Console

    console = Console(highlight=False)
    unlimited = console.options.update(max_width=1 << 16)
    natural = max(console.measure(table, options=unlimited).maximum for table in tables)
    if not console.is_terminal:
        console.width = natural
    elif natural > console.width:
        for column in (column for table in tables for column in table.columns if column.overflow == "fold"):
            column.max_width = FOLDED_WIDTH
        console.width = max(console.width, *(console.measure(table, options=unlimited).minimum for table in tables))
    console.print(*tables)


def wants_colour() -> bool:
    """Whether to colour stdout, as other programs decide it: NO_COLOR wins, then FORCE_COLOR, then whether somebody looks."""
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return os.environ["FORCE_COLOR"] != "0"
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


_DEBUG = f"{__name__}.debug"


def _remember_debug(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    ctx.meta[_DEBUG] = value


@contextlib.contextmanager
def _failures_as_sentences(ctx: click.Context, interrupted: str) -> Iterator[None]:
    """Turn what a user can cause into one sentence on stderr and an exit code; our own mistakes keep their traceback.

    Args:
        ctx: the command's.
        interrupted: what Ctrl-C is answered with.
    """
    try:
        yield
    except KeyboardInterrupt:
        _show_traceback(ctx)
        # The empty line closes the terminal's `^C`.
        click.echo(f"\n{interrupted}", err=True)
        ctx.exit(EXIT_INTERRUPTED)
    except BltError as error:
        _fail(ctx, str(error), error)
    except click.ClickException:
        raise
    except Exception as error:
        sentence = _disk_full_sentence(error, ctx) or _file_sentence(error, ctx)
        if sentence is None:
            raise
        _fail(ctx, sentence, error)


def _fail(ctx: click.Context, sentence: str, error: Exception) -> NoReturn:
    _show_traceback(ctx)
    raise click.ClickException(sentence) from error


def _show_traceback(ctx: click.Context) -> None:
    if ctx.meta.get(_DEBUG):
        traceback.print_exc()


def _disk_full_sentence(error: Exception, ctx: click.Context) -> str | None:
    # safetensors raises an error of its own, with the system's text in it and no number.
    is_full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    if not is_full and "No space left on device" not in str(error):
        return None
    # A failing write knows no name; then the folder that the command was told to write to is what is full.
    filename = getattr(error, "filename", None)
    place = Path(filename).parent if isinstance(filename, str) else ctx.params.get("out")
    if isinstance(place, RemotePath):
        # Shards are made here before they are sent.
        place = tempfile.gettempdir()
    below = f" below {place}" if place else ""
    return f"The disk is full: free some space{below} and run the same command again."


def _is_on_the_way(filename: object, out: object) -> bool:
    """Whether a file is what shall be written, or a folder that it is to be in."""
    if not isinstance(filename, str) or not isinstance(out, Path):
        return False
    return Path(filename).absolute() in (out.absolute(), *out.absolute().parents)


def _file_sentence(error: Exception, ctx: click.Context) -> str | None:
    if not isinstance(error, OSError) or error.filename is None:
        return None
    # Such as below /proc: what is to be written needn't be there, so that it isn't is no mistake.
    if isinstance(error, FileNotFoundError) and _is_on_the_way(error.filename, ctx.params.get("out")):
        return f"Nothing can be written to {str(ctx.params['out'])!r}: give another path for --out."
    if isinstance(error, FileNotFoundError):
        return f"There is no file or folder {str(error.filename)!r}: check the path."
    if isinstance(error, PermissionError):
        return f"Not allowed to use {str(error.filename)!r}: check who owns it and its permissions."
    return f"Cannot use {str(error.filename)!r}: {error.strerror}."
