"""`bltdata show`: where the patches of a document are, in colours."""

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bltdata.cli.common import ANY_PATH, DATASET_PATH, command, json_option, print_json, wants_colour
from bltdata.cli.inputs import read_input
from bltdata.cli.one_document import Beginning, entropies_as_built, first_bytes
from bltdata.cli.outputs import check_file
from bltdata.cli.settings import config_option, options_from, read_sections, section_name, settings
from bltdata.config import from_mapping, number_of, to_mapping
from bltdata.errors import ConfigError, ShardError
from bltdata.patching.settings import RuleSettings
from bltdata.remote import AnyPath

if TYPE_CHECKING:
    import numpy as np

    from bltdata.patching import Patches, PatchRule
    from bltdata.shards import Manifest

DEFAULT_BYTES = 20_000

SECTIONS = ("rule",)
"""Of a file that is given with `--config`."""


@command(
    example="""
    bltdata show --text 'Once upon a time' --entropy-model runs/entropy-model --threshold 1.5
    bltdata show --file story.txt --entropy-model runs/entropy-model --rule-from runs/train --html story.html
    bltdata show --shards runs/train --document python-docs/topics/assert --max-length 8 --threshold 1.5
    """
)
@click.option("--text", metavar="TEXT", help="Show this text.")
@click.option("--file", "file", type=ANY_PATH, metavar="FILE", help="Show this file, whatever its bytes are; - is the standard input.")
@click.option(
    "--shards", type=DATASET_PATH, metavar="FOLDER", help="Show a document of this dataset, with its stored entropies and patches."
)
@click.option("--document", metavar="DOC_ID", help="Which document of the dataset.  [default: the first]")
@click.option("--entropy-model", "model_folder", type=ANY_PATH, metavar="FOLDER", help="The model that scores the text or the file.")
@options_from(RuleSettings, prefix="rule")
@click.option("--rule-from", type=DATASET_PATH, metavar="FOLDER", help="Take the patch rule of this dataset, threshold included.")
@click.option("--target-patch-length", type=float, help="Calibrate the threshold on this one document, to this mean length.")
@click.option(
    "--max-bytes",
    type=click.IntRange(min=1),
    help=f"Look at so many bytes of the document at most.  [default: {DEFAULT_BYTES}; all with --json]",
)
@click.option("--html", "html_file", type=ANY_PATH, metavar="FILE", help="Write a page with the patches there instead.")
@config_option(*SECTIONS)
@json_option
@click.pass_context
def show(
    ctx: click.Context,
    text: str | None,
    file: Path | None,
    shards: AnyPath | None,
    document: str | None,
    model_folder: Path | None,
    rule_from: AnyPath | None,
    target_patch_length: float | None,
    max_bytes: int | None,
    html_file: Path | None,
    config_file: Path | None,
    as_json: bool,
    **_: Any,
) -> None:
    """Show where the patches of a text, a file or a document of a dataset are, in colours.

    Colours are entropies, and the first character of a patch is underlined; without colours (where there is no
    terminal, or NO_COLOR is set; FORCE_COLOR turns them on) there is a mark between each two patches. What can't be printed is shown as an
    escape. A document of a dataset is cut again if a rule is given.
    """
    _check_sources(text, file, shards, document, model_folder)
    check_file(html_file, "the page")
    sections = read_sections(config_file, SECTIONS)
    rule_settings = settings(ctx, RuleSettings, sections["rule"], prefix="rule", where=section_name(config_file, "rule"))
    wanted = _wanted(rule_settings, rule_from, target_patch_length)
    limit = max_bytes if max_bytes is not None or as_json else DEFAULT_BYTES

    if shards is not None:
        shown = _from_shards(shards, document, wanted, limit)
    else:
        name, begin = read_input(text, file, limit)
        shown = _scored(begin, name, model_folder, wanted)
    if html_file is not None:
        _write_page(shown, html_file)
    if as_json:
        print_json(_mapping(shown))
    elif html_file is not None:
        _echo(f"{_summary(shown)}\nWrote {html_file}.")
    else:
        _print(shown)


@dataclass(frozen=True)
class _Wanted:
    """What the options say about a rule."""

    rule: "PatchRule | None"
    """None where they say nothing."""
    target_patch_length: float | None
    manifest: "Manifest | None"
    """Of the dataset whose rule it is."""

    def patches(self, data: bytes, entropy_nats: "np.ndarray | None", name: str) -> "Patches":
        """The document cut by the rule, calibrated first if that is wanted."""
        from bltdata.patching import calibrate, patch

        assert self.rule is not None, "there is something to cut by"
        rule = self.rule
        if self.target_patch_length is not None:
            rule = calibrate([(data, entropy_nats)], rule, self.target_patch_length).rule
        return patch(data, entropy_nats, rule, document=name)


@dataclass(frozen=True)
class _Shown:
    """What is shown of a document."""

    patches: "Patches"
    name: str
    num_left_out: int

    @property
    def limit(self) -> int | None:
        """The `num_shown` of `bltdata.patching.display`."""
        return len(self.patches.data) if self.num_left_out else None


def _check_sources(text: str | None, file: Path | None, shards: AnyPath | None, document: str | None, model_folder: Path | None) -> None:
    given = [name for name, value in (("--text", text), ("--file", file), ("--shards", shards)) if value is not None]
    if len(given) != 1:
        raise ConfigError(f"{' and '.join(given) or 'None of --text, --file and --shards'} given; give one of the three.")
    if shards is None and document is not None:
        raise ConfigError("--document is given without --shards; say which dataset it is in.")
    if shards is not None and model_folder is not None:
        raise ConfigError("Both --shards and --entropy-model are given; leave the model out, a dataset holds its entropies.")


def _wanted(rule_settings: RuleSettings, rule_from: AnyPath | None, target: float | None) -> _Wanted:
    from bltdata.patching import PatchRule
    from bltdata.patching.calibration import check_target
    from bltdata.shards import Manifest

    if rule_from is not None:
        if rule_settings != RuleSettings() or target is not None:
            raise ConfigError("Both --rule-from and settings of a rule are given; leave one of them out.")
        manifest = Manifest.read(rule_from)
        return _Wanted(from_mapping(PatchRule, manifest.patch_rule, f"The patch rule of {rule_from}"), None, manifest)
    if rule_settings == RuleSettings() and target is None:
        return _Wanted(None, None, None)
    rule = from_mapping(PatchRule, to_mapping(rule_settings))
    check_target(rule, target)
    return _Wanted(rule, target, None)


def _from_shards(folder: AnyPath, document: str | None, wanted: _Wanted, limit: int | None) -> _Shown:
    from bltdata.patching import Patches, PatchRule
    from bltdata.shards import open_shards

    dataset = open_shards(folder)
    row = dataset.document(document) if document is not None else next(iter(dataset), None)
    if row is None:
        raise ShardError(f"{folder} has no documents, so there is nothing to show.")
    if wanted.rule is not None:
        patches = wanted.patches(row.data, row.entropy_nats, row.doc_id)
    else:
        manifest = dataset.manifest
        rule = from_mapping(PatchRule, manifest.source_rules.get(row.source, manifest.patch_rule), f"The patch rule of {folder}")
        patches = Patches(data=row.data, entropy_nats=row.entropy_nats, rule=rule, lengths=row.patch_lengths)
    begin = first_bytes(row.data, limit)
    return _Shown(patches.head(len(begin.data)), row.doc_id, begin.num_left_out)


def _scored(begin: Beginning, name: str, model_folder: Path | None, wanted: _Wanted) -> _Shown:
    if wanted.rule is None:
        raise ConfigError("There is no rule to cut the document: give --threshold, --target-patch-length, --rule-from or --scheme.")
    if model_folder is None and wanted.rule.needs_entropies:
        raise ConfigError(f"The rule {wanted.rule.scheme!r} needs entropies: give --entropy-model, the folder of a trained entropy model.")
    entropy_nats = entropies_as_built(begin.data, model_folder, wanted.manifest) if model_folder is not None else None
    return _Shown(wanted.patches(begin.data, entropy_nats, name), name, begin.num_left_out)


def _mapping(shown: _Shown) -> dict[str, Any]:
    patches = shown.patches
    return {
        "document": shown.name,
        "num_bytes": len(patches.data),
        "num_bytes_left_out": shown.num_left_out,
        "num_patches": len(patches),
        "mean_patch_length": patches.mean_length,
        "patch_rule": to_mapping(patches.rule),
        "starts": patches.starts.tolist(),
        "lengths": patches.lengths.tolist(),
        "entropy_nats": None if patches.entropy_nats is None else patches.entropy_nats.tolist(),
    }


def _write_page(shown: _Shown, path: Path) -> None:
    from bltdata.atomic import write_bytes
    from bltdata.patching.display import html_page

    write_bytes(path, html_page(shown.patches, shown.name, [_summary(shown)], shown.limit).encode())


def _print(shown: _Shown) -> None:
    from bltdata.patching import display

    # A file or a pipe has no width.
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() or os.environ.get("COLUMNS") else None
    if wants_colour():
        text = display.coloured_text(shown.patches, width, shown.limit)
        legend = [display.coloured_legend(width)] if shown.patches.entropy_nats is not None else []
        legend.append("A patch starts where it is underlined.")
    else:
        text = display.marked_text(shown.patches, width, shown.limit)
        legend = [f"{display.mark_for(shown.patches.data)} stands between patches."]
    if display.PART_SIGN in text:
        legend.append(f"{display.PART_SIGN} stands for bytes of the next character, which is cut there.")
    _echo("\n".join([text if text.endswith("\n") else text + "\n", *legend, _summary(shown)]))


def _echo(text: str) -> None:
    """Print what stdout can hold, the rest as escapes. All escape sequences in it are ours: click must not remove them."""
    encoding = sys.stdout.encoding or "utf-8"
    click.echo(text.encode(encoding, errors="backslashreplace").decode(encoding), color=True)


def _summary(shown: _Shown) -> str:
    from bltdata.patching import display

    more = number_of(shown.num_left_out, "more byte is", "more bytes are")
    rest = f" {more} left out; --max-bytes takes in more." if shown.num_left_out else ""
    counts, rule = display.summary(shown.patches, shown.limit), display.rule_in_words(shown.patches.rule)
    return display.printable_line(f"{shown.name}: {counts}; {rule}.{rest}")
