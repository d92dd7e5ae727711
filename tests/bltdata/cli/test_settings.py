from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import click
import pytest
from click.testing import CliRunner

from bltdata.cli.common import command
from bltdata.cli.settings import config_option, field_docs, merged, options_from, read_sections, settings
from bltdata.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Inner:
    momentum: float = 0.9
    """How much of the last step is kept."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    steps: int = 10
    """Number of optimiser steps,
    in all."""
    rate: float | None = None
    """Largest learning rate."""
    shuffle: bool = True
    """Draw documents in random order."""
    kind: Literal["cosine", "linear"] = "cosine"
    """How the rate falls."""
    sizes: tuple[int, ...] = (3, 4)
    """N-gram sizes."""
    names: tuple[str, ...] | None = None
    """What it is called."""
    folder: Path | None = None
    """Where to."""
    inner: Inner = field(default_factory=Inner)
    extra: dict[str, int] = field(default_factory=dict)


def build(*arguments, defaults=None):
    """What a command that reads `Settings` from options and `--config` makes of `arguments`."""
    built = []

    @command(example="probe")
    @options_from(Settings)
    @options_from(Inner, prefix="inner")
    @config_option("training", "model")
    @click.option("--other", default=1)
    @click.pass_context
    def probe(ctx, config_file, **_):
        """Probe."""
        table = read_sections(config_file, ["training", "model"])["training"]
        built.append(settings(ctx, Settings, table, defaults=defaults, where=f"{config_file}, section [training]"))

    result = CliRunner().invoke(probe, [str(argument) for argument in arguments])
    return built[0] if built else result


@pytest.fixture
def toml(tmp_path):
    def write(text):
        path = tmp_path / "recipe.toml"
        path.write_text(text)
        return path

    return write


def test_nothing_given_gives_the_defaults():
    assert build() == Settings()
    assert build("--other", 2) == Settings()


def test_later_places_win(toml):
    path = toml("[training]\nsteps = 20\nrate = 0.5\n[training.inner]\nmomentum = 0.5\n")
    assert build(defaults={"steps": 15, "kind": "linear"}) == Settings(steps=15, kind="linear")
    from_file = build("--config", path, defaults={"steps": 15, "kind": "linear"})
    assert from_file == Settings(steps=20, rate=0.5, kind="linear", inner=Inner(momentum=0.5))
    assert build("--config", path, "--steps", 10, "--momentum", 0.1) == Settings(steps=10, rate=0.5, inner=Inner(momentum=0.1))


def test_an_option_that_repeats_its_default_still_wins(toml):
    path = toml("[training]\nsteps = 20\nshuffle = false\nsizes = [1]\nrate = 1\n")
    given = build("--config", path, "--steps", 10, "--shuffle", "--sizes", "3,4", "--rate", "none")
    assert given == Settings()


def test_every_kind_of_field():
    given = build("--no-shuffle", "--kind", "linear", "--sizes", "1, 2,3", "--folder", "a/b", "--rate", "1e-3")
    assert given == Settings(shuffle=False, kind="linear", sizes=(1, 2, 3), folder=Path("a/b"), rate=1e-3)


def test_help_comes_from_the_docstrings():
    shown = " ".join(build("-h").stdout.split())
    assert "--steps INTEGER Number of optimiser steps, in all. [default: 10]" in shown
    assert "--rate FLOAT|none Largest learning rate. [default: none]" in shown
    assert "--shuffle / --no-shuffle Draw documents in random order. [default: on]" in shown
    assert "--kind [cosine|linear] How the rate falls. [default: cosine]" in shown
    assert "--sizes INTEGER,... N-gram sizes. [default: 3,4]" in shown
    assert "--extra" not in shown
    assert "--inner " not in shown


def test_which_fields_become_options():
    @command(example="x")
    @options_from(Settings, exclude=["shuffle", "kind", "sizes", "names", "folder", "rate"], show_defaults=False)
    def probe(**_):
        """Probe."""

    assert [parameter.name for parameter in probe.params] == ["steps", "debug"]
    assert "default" not in CliRunner().invoke(probe, ["-h"]).stdout


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[training]\nstesp = 1\n", r"recipe.toml, section \[training\] has an unknown key 'stesp'; the nearest is 'steps'"),
        ("[training.inner]\nmomentun = 1\n", "unknown key 'momentun'; the nearest is 'momentum'"),
        ("[trainign]\nsteps = 1\n", r"recipe.toml has an unknown section 'trainign'; the nearest is 'training'"),
        ("training = 1\n", r"recipe.toml has a value 'training' where the section \[training\] should be"),
        ("[training]\nsteps = true\n", "key 'steps' is True; it must be of type int"),
        ("[training\n", "is not valid TOML"),
    ],
)
def test_mistakes_in_a_file(toml, text, message):
    result = build("--config", toml(text))
    assert result.exit_code == 1
    with pytest.raises(ConfigError, match=message):
        raise ConfigError(result.stderr)


def test_a_number_is_blamed_on_who_gave_it(toml):
    path = toml("[training]\nrate = nan\n")
    assert "recipe.toml, section [training], key 'rate' is nan; it must be a finite number." in build("--config", path).stderr
    for option, value in (("--rate", "nan"), ("--rate", "-inf"), ("--momentum", "inf")):
        assert build("--config", path, option, value).stderr == f"Error: {option} is {value}; it must be a finite number.\n"
    # What an option replaces is nobody's mistake.
    assert build("--config", path, "--rate", 0.5).rate == 0.5


def test_missing_file(tmp_path):
    result = build("--config", tmp_path / "none.toml")
    assert result.exit_code == 1
    assert "Cannot read the configuration" in result.stderr


def test_wrong_option_value_is_a_usage_error():
    assert build("--steps", "many").exit_code == 2
    assert build("--kind", "square").exit_code == 2


def test_merging_changes_nothing_in_place():
    first, second = {"t": {"x": 1}}, {"t": {"y": 2}}
    assert merged(first, second) == {"t": {"x": 1, "y": 2}}
    assert (first, second) == ({"t": {"x": 1}}, {"t": {"y": 2}})


def test_docs_of_inherited_fields():
    @dataclass(frozen=True)
    class Child(Inner):
        decay: float = 0.0
        """Weight decay."""
        silent: int = 0

    assert field_docs(Child) == {"momentum": "How much of the last step is kept.", "decay": "Weight decay."}


def test_a_list_takes_commas_and_several_options():
    assert build("--sizes", "5,6", "--sizes", "7").sizes == (5, 6, 7)
    assert build("--names", "a", "--names", "b, c").names == ("a", "b", "c")
    assert build("--names", "none").names is None
    assert build().sizes == (3, 4)
    result = build("--names", "a", "--names", "none")
    assert result.exit_code == 2
    assert "give `none` alone" in result.output
