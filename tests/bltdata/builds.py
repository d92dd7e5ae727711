"""Builds for tests: small ones, with what is asked of them again and again, and how they are stopped and damaged."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bltdata.build import BuildConfig, BuildReporter, Share, build_shards, build_share
from bltdata.corpus import Corpus
from bltdata.patching import PatchRule
from bltdata.remote import AnyPath
from bltdata.shards import Manifest, ShardRecord
from tests.bltdata.damage import flip
from tests.bltdata.small import line_corpus

RULE = PatchRule(threshold=4.4)
CONFIG = BuildConfig(rule=RULE, fragment_bytes=400)
CALIBRATED = BuildConfig(rule=PatchRule(), target_patch_length=2.5, fragment_bytes=400)


@dataclass(frozen=True)
class Builder:
    """Builds into folders below `place`, everything as it was before unless it is given."""

    lines: Path
    model: Path
    place: Path

    def __call__(
        self, corpus: Corpus | None = None, model: Path | None = None, config: BuildConfig = CONFIG, folder: str = "shards", **options: Any
    ) -> Manifest:
        return build_shards(corpus or line_corpus(self.lines), model or self.model, config, self.place / folder, **options)

    def job(self, index: int, count: int, config: BuildConfig = CONFIG, **options: Any) -> Manifest | None:
        """Make a share of `place/shards`."""
        return build_share(line_corpus(self.lines), self.model, config, self.place / "shards", Share(index, count), **options)


def contents(folder: AnyPath) -> dict[str, bytes]:
    """The files of a folder that are no locks."""
    names = [path.name for path in folder.iterdir()]
    return {name: (folder / name).read_bytes() for name in names if not name.startswith((".lock", ".jobs"))}


class Stopped(Exception):
    """Stands for whatever ends a build early."""


def stop_after(count: int) -> BuildReporter:
    built: list[ShardRecord] = []

    def note(record: ShardRecord) -> None:
        built.append(record)
        if len(built) == count:
            raise Stopped

    return BuildReporter(built=note)


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "empty": lambda path: path.write_bytes(b""),
    "cut short": lambda path: path.write_bytes(path.read_bytes()[:-20]),
    "no Parquet": lambda path: path.write_bytes(b"PAR1 something else PAR1"),
    "a bit of the footer": lambda path: flip(path, -200, 2),
    "a bit of a page's header": lambda path: flip(path, 60, 2),
    "a bit of a page": lambda path: flip(path, path.stat().st_size // 3, 2),
    "missing": lambda path: path.unlink(),
}
