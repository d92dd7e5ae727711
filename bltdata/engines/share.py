"""How several jobs share one build without talking to each other: job `index` of `count` makes every `count`-th shard."""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from bltdata.errors import ConfigError
from bltdata.lock import exclusive, one_of, turn
from bltdata.remote import AnyPath

T = TypeVar("T")


@dataclass(frozen=True)
class Share:
    """The part of a build that one job does; there is one job, which does all of it, unless others are said to be.

    >>> Share(index=1, count=3).of(["a", "b", "c", "d", "e"])
    ['b', 'e']
    """

    index: int = 0
    """Which of the jobs this is, from 0."""
    count: int = 1
    """How many jobs there are."""

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ConfigError(f"--shard-count is {self.count}; it must be at least 1.")
        if not 0 <= self.index < self.count:
            raise ConfigError(f"--shard-index is {self.index}; with --shard-count {self.count} it must lie between 0 and {self.count - 1}.")

    def of(self, items: Sequence[T]) -> Sequence[T]:
        """This job's items."""
        return items[self.index :: self.count]

    def writing(self, folder: AnyPath, waiting: Callable[[str], None] = lambda text: None) -> contextlib.AbstractContextManager[None]:
        """A block in which nobody else does this part of the build in `folder`; `waiting` is told if it takes a while to begin.

        Raises:
            BuildError: another process is at it.
        """
        return exclusive(folder, waiting) if self.count == 1 else one_of(folder, self.index, self.count)

    def turn(
        self, folder: AnyPath, name: str = "turn", waiting: Callable[[], None] = lambda: None
    ) -> contextlib.AbstractContextManager[None]:
        """A block for what concerns all jobs: one does it at a time, the others wait. See `bltdata.lock.turn`."""
        if self.count == 1:
            return contextlib.nullcontext()
        assert isinstance(folder, Path), "jobs share local folders only"
        return turn(folder, name, waiting)


WHOLE = Share()
"""All of a build."""
