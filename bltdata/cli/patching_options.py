"""How shards are cut whose entropies are there already: the options that `repatch` and `convert` share."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bltdata.cli.common import DATASET_PATH
from bltdata.cli.settings import options_from, section_name, settings
from bltdata.config import to_mapping
from bltdata.errors import ConfigError
from bltdata.patching.settings import RuleSettings

if TYPE_CHECKING:
    from bltdata.repatch import RepatchConfig

CUT_OPTIONS = ("rule_from", "target_patch_length", "by")
"""Parameters that `cut_options` adds beside those of the rule."""


def cut_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of a patch rule, `--rule-from`, `--target-patch-length` and `--by`, for `cut_config` to read."""
    by = click.option("--by", type=click.Choice(["source"]), help="Calibrate a threshold for each source.")
    target = click.option(
        "--target-patch-length", type=float, help="Calibrate the threshold so that patches have this mean length, e.g. 4.5."
    )
    rule_from = click.option(
        "--rule-from", type=DATASET_PATH, metavar="FOLDER", help="Take the rule of this dataset, or its rules by source."
    )
    return options_from(RuleSettings, prefix="rule")(rule_from(target(by(function))))


def cut_config(ctx: click.Context, table: Mapping[str, Any], config_file: Path | None) -> "RepatchConfig":
    """What the options and the section `[rule]` of a file say.

    Args:
        ctx: of a command with `cut_options`.
        table: the section.
        config_file: the file, for errors.

    Raises:
        ConfigError: settings that make no sense, alone or together.
    """
    from bltdata.patching import PatchRule
    from bltdata.patching.sources import SourceRules
    from bltdata.repatch import RepatchConfig
    from bltdata.shards import Manifest

    rule_from, target, by = (ctx.params[name] for name in CUT_OPTIONS)
    rules = settings(ctx, RuleSettings, table, prefix="rule", where=section_name(config_file, "rule"))
    if rule_from is not None:
        if rules != RuleSettings() or target is not None:
            raise ConfigError("Both --rule-from and settings of a rule are given; leave one of them out.")
        taken = SourceRules.from_mapping(to_mapping(Manifest.read(rule_from)), f"The manifest of {rule_from}")
        return RepatchConfig(rule=taken.default, source_rules=taken.by_source, by_source=by == "source")
    return RepatchConfig(rule=PatchRule(**to_mapping(rules)), target_patch_length=target, by_source=by == "source")
