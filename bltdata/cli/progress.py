"""What a person at a terminal sees while work goes on: a bar with rate and time left, and lines beside it.

All of it goes to stderr; stdout is for results. When stderr is no terminal (a log, a pipe, a test) there is no bar at
all, and `say` prints plain lines.
"""

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Protocol

import click

if TYPE_CHECKING:
    from rich.progress import ProgressColumn, Task
    from rich.text import Text


class Advance(Protocol):
    """Moves a bar on."""

    def __call__(self, amount: float = 1, note: str | None = None) -> None:
        """Add `amount` to what is done; `note`, when given, is shown after the bar until the next one, e.g. a loss."""


@contextlib.contextmanager
def progress(total: float | None, description: str, unit: str) -> Iterator[Advance]:
    """A progress bar on stderr for as long as the block runs.

    Args:
        total: how many units there are to do, or None when nobody knows: then there is no time left to show.
        description: what is being done, e.g. `Scoring`.
        unit: what is counted, in the plural, e.g. `steps`; `bytes` are shown as kB, MB, GB.

    Yields:
        A function that is called with how many units were done since the last call.
    """
    if not sys.stderr.isatty():
        yield _advance_nothing
        return

    # Imported here because it takes longer than all of `--help`.
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
    from rich.table import Column

    bar = Progress(
        TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True)),
        BarColumn(bar_width=20),
        _rate_column(unit),
        TimeRemainingColumn(elapsed_when_finished=True),
        TextColumn("{task.fields[note]}", markup=False, table_column=Column(no_wrap=True)),
        console=Console(stderr=True),
        # A result printed meanwhile must reach stdout, not the bar's console.
        redirect_stdout=False,
    )
    with bar:
        task = bar.add_task(description, total=total, note="")

        def advance(amount: float = 1, note: str | None = None) -> None:
            if note is not None:
                bar.update(task, note=note)
            bar.advance(task, amount)

        yield advance


@contextlib.contextmanager
def progress_once_known(description: str, unit: str) -> Iterator[tuple[Callable[[float | None], None], Advance]]:
    """A bar like that of `progress`, which is there once it is known how long it must be.

    Yields:
        A function that is called once, with the total, and the one that moves the bar on after that.
    """
    with contextlib.ExitStack() as bars:
        bar: list[Advance] = []

        def planned(total: float | None) -> None:
            bar.append(bars.enter_context(progress(total, description, unit)))

        def advance(amount: float = 1, note: str | None = None) -> None:
            bar[0](amount, note)

        yield planned, advance


def say(text: str) -> None:
    """Print a line about the work, not its result, on stderr; above the bar if there is one."""
    click.echo(text, err=True)


def format_amount(amount: float, unit: str) -> str:
    """A count with its unit, as short as it stays readable.

    >>> format_amount(1_234_567, "bytes"), format_amount(300, "bytes"), format_amount(12_345, "steps"), format_amount(0.25, "steps")
    ('1.2 MB', '300 bytes', '12,345 steps', '0.25 steps')
    >>> format_amount(1, "bytes")
    '1 byte'
    """
    if unit == "bytes":
        for size, name in ((10**12, "TB"), (10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
            if amount >= size:
                return f"{amount / size:.1f} {name}"
    if amount == 1:
        return f"1 {unit.removesuffix('s')}"
    return f"{amount:,.0f} {unit}" if amount >= 10 or amount == int(amount) else f"{amount:.2f} {unit}"


def _advance_nothing(amount: float = 1, note: str | None = None) -> None:
    """Stand in for a bar where nobody watches."""


def _rate_column(unit: str) -> "ProgressColumn":
    from rich.progress import ProgressColumn
    from rich.table import Column
    from rich.text import Text

    class RateColumn(ProgressColumn):
        def render(self, task: "Task") -> "Text":
            done = format_amount(task.completed, unit)
            if task.total is not None:
                done = f"{done} of {format_amount(task.total, unit)}"
            speed = task.finished_speed or task.speed
            return Text(f"{done}, {format_amount(speed, unit)}/s" if speed else done)

    return RateColumn(table_column=Column(no_wrap=True))
