"""`bltdata calibrate`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bltdata.cli.common import DATASET_PATH, command, json_option, print_json, print_tables
from bltdata.cli.progress import progress
from bltdata.cli.settings import config_option, options_from, read_sections, section_name, settings
from bltdata.config import number_of, to_mapping
from bltdata.errors import ConfigError
from bltdata.patching.settings import RuleSettings
from bltdata.remote import AnyPath

if TYPE_CHECKING:
    from rich.table import Table

_NEAR = 0.005
"""How far a mean may be from the wanted one, as a part of it, before the command says why."""

_MOST_SOURCES = 6
"""Sources that have a column of their own in the table of the curve; JSON has them all."""

SECTIONS = ("rule",)
"""Of a file that is given with `--config`."""


@command(
    example="""
    bltdata calibrate --shards runs/shards/train --target-patch-length 4.5
    bltdata calibrate --shards runs/shards/train --target-patch-length 4.5 --by source --validation-shards runs/shards/validation
    """
)
@click.option(
    "--shards", type=DATASET_PATH, required=True, metavar="FOLDER", help="Documents to calibrate on, with their stored entropies."
)
@click.option("--target-patch-length", type=float, required=True, help="Mean patch length that is wanted, e.g. 4.5.")
@click.option("--by", type=click.Choice(["source"]), help="Find a threshold for each source as well.")
@click.option("--validation-shards", type=DATASET_PATH, metavar="FOLDER", help="Documents to try the thresholds on.")
@options_from(RuleSettings, prefix="rule")
@config_option(*SECTIONS)
@json_option
@click.pass_context
def calibrate(
    ctx: click.Context,
    shards: AnyPath,
    target_patch_length: float,
    by: str | None,
    validation_shards: AnyPath | None,
    config_file: Path | None,
    as_json: bool,
    **_: Any,
) -> None:
    """Find the threshold that gives patches a wanted mean length, from stored entropies.

    Nothing is written: see repatch. A rule of one threshold takes one pass over the shards; one with lengths, resets or a second
    threshold some ten. --relative-threshold alone is what is calibrated, beside --threshold it stays and --threshold is calibrated.
    """
    sections = read_sections(config_file, SECTIONS)
    rule_settings = settings(ctx, RuleSettings, sections["rule"], prefix="rule", where=section_name(config_file, "rule"))
    if rule_settings.scheme != "entropy":
        raise ConfigError(
            f"The rule {rule_settings.scheme!r} has no threshold to find; leave --scheme out, or cut the shards by that rule with "
            "bltdata repatch."
        )

    from bltdata.patching import PatchRule
    from bltdata.patching.calibration import check_target
    from bltdata.shards import open_shards
    from bltdata.shards.calibration import calibrate_shards

    rule = PatchRule(**to_mapping(rule_settings))
    check_target(rule, target_patch_length)
    dataset = open_shards(shards)
    held_out = None if validation_shards is None else open_shards(validation_shards)
    with progress(None, "Counting", "bytes") as advance:
        found = calibrate_shards(
            dataset, rule, target_patch_length, by_source=by == "source", held_out=held_out, progress=lambda num_bytes: advance(num_bytes)
        )
    report = {"shards": str(shards), "fingerprint": dataset.manifest.fingerprint, **found.to_mapping()}
    if as_json:
        print_json(report)
        return
    print_tables(_sources(report), _curve(report))
    field = report["field"].replace("_", " ")
    click.echo(
        f"A {field} of {report['threshold']} nats gives patches of {report['mean_patch_length']:.4f} bytes on average "
        f"of {number_of(report['documents'], 'document')}."
    )
    if report["held_out"] is not None:
        click.echo(f"On {validation_shards} it gives {_length(report['held_out']['mean_patch_length'])}.")
    missed = _missed(report)
    if missed:
        click.echo(
            f"No {field} comes nearer to {target_patch_length:g} bytes for {', '.join(missed)}, as many entropies are equal there; "
            "a relative threshold or the quantile rule may."
        )


def _missed(report: dict[str, Any]) -> list[str]:
    """What the thresholds that were found don't bring near the wanted mean, though no other brings it nearer."""
    own = {f"the source {name!r}": source["own"] for name, source in report["sources"].items() if source["own"]}
    return [
        name
        for name, found in ({"all documents": report} | own).items()
        if abs(found["mean_patch_length"] / report["target_patch_length"] - 1) > _NEAR
    ]


def _sources(report: dict[str, Any]) -> "Table":
    """What the one threshold does to each source, and what the source's own would."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    has_own = any(source["own"] for source in report["sources"].values())
    held_out = report["held_out"]
    table = Table(box=box.SIMPLE, title="Mean patch length by source", title_justify="left")
    table.add_column("source", overflow="fold", vertical="bottom")
    headings = ["documents", "bytes", f"with\n{report['threshold']} nats", *(["held out"] if held_out else [])]
    headings += ["own\nthreshold", "with it", *(["held out"] if held_out else [])] if has_own else []
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    names = dict.fromkeys([*report["sources"], *(held_out["sources"] if held_out else ())])
    for name in names:
        seen, tried = report["sources"].get(name), held_out["sources"].get(name) if held_out else None
        cells = ["-", "-", "-"]
        if seen:
            cells = [f"{seen['documents']:,}", f"{seen['bytes']:,}", _length(seen["mean_patch_length"])]
        cells += [_length(tried["mean_patch_length"] if tried else None)] if held_out else []
        if has_own:
            own = seen["own"] if seen else None
            cells += [f"{own['threshold']}", _length(own["mean_patch_length"])] if own else ["-", "-"]
            cells += [_length(tried["own_mean_patch_length"] if tried else None)] if held_out else []
        # As a Text, because a name may hold what rich takes for markup.
        table.add_row(Text(name), *cells)
    return table


def _curve(report: dict[str, Any]) -> "Table":
    """What other thresholds would do."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE, title="Mean patch length by threshold", title_justify="left")
    sources = list(report["sources"]) if 1 < len(report["sources"]) <= _MOST_SOURCES else []
    table.add_column("nats", justify="right", vertical="bottom")
    table.add_column("all", justify="right", vertical="bottom")
    for name in sources:
        table.add_column(Text(name), justify="right", overflow="fold", vertical="bottom")
    for point in report["curve"]:
        lengths = [point["mean_patch_length"], *(point["sources"][name] for name in sources)]
        table.add_row(f"{point['threshold']:g}", *map(_length, lengths))
    return table


def _length(value: float | None) -> str:
    return "-" if value is None else f"{value:,.3f}"
