"""Where a command's results go, and what is said of shards that were made.

Paths are looked at before the work: what took hours to compute must not be lost to one that was mistyped.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from bltdata.cli.common import print_json
from bltdata.cli.progress import format_amount, say
from bltdata.config import number_of, to_mapping
from bltdata.errors import ConfigError
from bltdata.remote import AnyPath

if TYPE_CHECKING:
    from bltdata.shards import Manifest


def check_file(path: Path | None, what: str) -> None:
    """Refuse a path that no file can be written to.

    Args:
        path: of an option; None where it wasn't given. What is there already will be replaced.
        what: is to be written there, such as `the page`.

    Raises:
        ConfigError: it is a folder, or there can be no file there.
    """
    if path is None:
        return
    if path.is_dir():
        raise ConfigError(f"{path} is a folder; give a file to write {what} to.")
    _check_place(path, what)


def check_folder(path: Path | None, what: str) -> None:
    """Refuse a path that no folder of files can be written to; see `check_file`.

    Raises:
        ConfigError: it is a file, or there can be no folder there.
    """
    if path is None:
        return
    if path.exists() and not path.is_dir():
        raise ConfigError(f"{path} is a file; give a folder to write {what} to.")
    _check_place(path / what, what)


def tell_of_shards(manifest: "Manifest", folder: AnyPath, as_json: bool) -> None:
    """Say what a dataset that was made comes to, or print it as JSON."""
    totals = manifest.totals
    if as_json:
        rules = {"patch_rule": manifest.patch_rule, "source_rules": manifest.source_rules}
        counts = {"mean_patch_length": totals.mean_patch_length, **to_mapping(totals)}
        print_json({"folder": str(folder), "fingerprint": manifest.fingerprint, **rules, **counts})
        return
    from bltdata.corpus.corpus import left_out_in_words

    say(
        f"{number_of(totals.num_documents, 'document')}, {format_amount(totals.num_bytes, 'bytes')}, "
        f"{number_of(totals.num_patches, 'patch', 'patches')} of {totals.mean_patch_length or 0:.3f} bytes on average "
        f"in {number_of(totals.num_shards, 'shard')} in {folder}{left_out_in_words(totals.left_out)}."
    )


def _check_place(path: Path, what: str) -> None:
    """See that the folders that `path` lies in are there or can be made."""
    nearest = next(parent for parent in path.absolute().parents if parent.exists())
    if not nearest.is_dir():
        raise ConfigError(f"{nearest} is a file, and so {what} can't be written below it; give another path.")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise ConfigError(f"Not allowed to write {what} to {nearest}: check who owns it and its permissions, or give another path.")
