"""A configuration from three places: its own defaults, a TOML file, and options, each winning over the one before.

The dataclass is written once. Its fields become options, their docstrings the help; `--config FILE.toml` reads the same
fields from a section of a file:

    @command(example="bltdata train-entropy-model --config recipe.toml --learning-rate 1e-3 --out runs/entropy")
    @options_from(TrainingConfig)
    @config_option("model", "training")
    @click.pass_context
    def train_entropy_model(ctx: click.Context, config_file: Path | None, **_: Any) -> None:
        sections = read_sections(config_file, ["model", "training"])
        config = settings(ctx, TrainingConfig, sections["training"])

So that `--help` stays instant, a dataclass used like this lives in a module that imports nothing heavy.
"""

import ast
import dataclasses
import inspect
import itertools
import math
import textwrap
import types
import typing
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from bltdata.cli.common import ANY_PATH
from bltdata.config import from_mapping, merged, nearest, read_toml
from bltdata.errors import ConfigError

T = TypeVar("T")
Function = Callable[..., Any]

SEPARATOR = "__"
"""Between the names in a parameter such as `optimizer__learning_rate`, which sets a field of a field."""

_GIVEN = (ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT, ParameterSource.PROMPT)


def config_option(*sections: str) -> Callable[[Function], Function]:
    """Add `--config FILE.toml`, which arrives as `config_file: Path | None`; `sections` are those that `read_sections` will know."""
    named = [f"[{name}]" for name in sections]
    listed = f"the section {named[0]}" if len(named) == 1 else f"the sections {', '.join(named[:-1])} and {named[-1]}"
    return click.option(
        "--config",
        "config_file",
        type=ANY_PATH,
        metavar="FILE.toml",
        help=f"Read settings from a TOML file, with {listed}; options given here win over it.",
    )


def options_from(
    cls: type,
    *,
    prefix: str = "",
    exclude: Collection[str] = (),
    show_defaults: bool = True,
    other_defaults: Mapping[str, str] | None = None,
) -> Callable[[Function], Function]:
    """Add an option for each field of a dataclass, for `settings` to read back.

    `learning_rate: float` becomes `--learning-rate FLOAT`, a bool `--name / --no-name`, a Literal a choice, a tuple one
    value with commas, several options, or both, and a field that may be None also takes `none`. A field that holds a
    dataclass or a dict gets no option: call this again with its class and a prefix.

    Args:
        cls: the dataclass; the docstring under each field is its help.
        prefix: the field (or the section) that `cls` stands in; it isn't part of the option's name.
        exclude: the fields that get none.
        show_defaults: show the dataclass's defaults; not when something else, e.g. a preset, supplies them.
        other_defaults: field -> what to show as its default instead of the dataclass's.
    """
    hints, docs = typing.get_type_hints(cls), field_docs(cls)
    options = []
    for field in dataclasses.fields(cls):
        name = field.name
        kind = _parameter_type(hints[name])
        if not field.init or name in exclude or kind is None:
            continue
        dashed = name.replace("_", "-")
        declaration = f"--{dashed}/--no-{dashed}" if kind is click.BOOL else f"--{dashed}"
        help = docs.get(name, "")
        if show_defaults and field.default is not dataclasses.MISSING:
            help = f"{help}  [default: {(other_defaults or {}).get(name) or shown(field.default)}]"
        parameter = f"{prefix}{SEPARATOR}{name}" if prefix else name
        more: dict[str, Any] = {"multiple": True, "callback": _joined} if _is_listed(kind) else {}
        options.append(click.option(declaration, parameter, type=kind, default=None, help=help.strip(), **more))

    def decorate(function: Function) -> Function:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def read_sections(config_file: Path | None, known: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Read the top-level sections of the file given with `--config`.

    Args:
        config_file: the file, or None where none was given.
        known: the sections it may have.

    Returns:
        Section -> its table, for every known section: one that the file hasn't is empty.

    Raises:
        ConfigError: the file can't be read, has another section (the error names the nearest), or a value outside of one.
    """
    sections: dict[str, dict[str, Any]] = {name: {} for name in known}
    for name, table in (read_toml(config_file) if config_file else {}).items():
        if name not in sections:
            raise ConfigError(f"{config_file} has an unknown section {name!r}{nearest(name, sections)}.")
        if not isinstance(table, dict):
            raise ConfigError(f"{config_file} has a value {name!r} where the section [{name}] should be.")
        sections[name] = table
    return sections


def section_name(config_file: Path | None, section: str) -> str:
    """What an error calls the place of a setting, for the `where` of `settings`; without a file only options can be wrong."""
    return f"Section [{section}] of {config_file}" if config_file else "The configuration"


def settings(
    ctx: click.Context,
    cls: type[T],
    table: Mapping[str, Any],
    *,
    defaults: Mapping[str, Any] | None = None,
    prefix: str = "",
    where: str = "The configuration",
) -> T:
    """Build `cls` from its defaults, `defaults`, the table of a file, and the options that were given, the last winning.

    Args:
        ctx: the command's context; an option counts only if the user gave it.
        cls: the dataclass.
        table: what the TOML file says, e.g. from `read_sections`.
        defaults: what wins over the dataclass's own defaults, e.g. the fields of a preset.
        prefix: that of `options_from`.
        where: how an error about a key names the file.

    Raises:
        ConfigError: an unknown key (the error names the nearest), a value of another type, or one out of range.
    """
    given = given_options(ctx, {field.name for field in dataclasses.fields(cls)}, prefix)  # type: ignore[arg-type]
    # An option has its type from click; this is all of it that `from_mapping` would refuse, and take for the file's.
    _check_finite(given)
    return from_mapping(cls, merged(defaults or {}, table, given), where)


def given_options(ctx: click.Context, fields: Collection[str], prefix: str = "") -> dict[str, Any]:
    """The options of a command that the user gave and that set one of `fields`, nested as their parameters say."""
    start = [prefix] if prefix else []
    given: dict[str, Any] = {}
    for parameter, value in ctx.params.items():
        path = parameter.split(SEPARATOR)
        if ctx.get_parameter_source(parameter) not in _GIVEN or path[: len(start)] != start:
            continue
        *outer, last = path[len(start) :]
        if (*outer, last)[0] not in fields:
            continue
        place = given
        for name in outer:
            place = place.setdefault(name, {})
        place[last] = value
    return given


def _check_finite(given: Mapping[str, Any]) -> None:
    for name, value in given.items():
        if isinstance(value, Mapping):
            _check_finite(value)
            continue
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, float) and not math.isfinite(number):
                raise ConfigError(f"--{name.replace('_', '-')} is {number!r}; it must be a finite number.")


def field_docs(cls: type) -> dict[str, str]:
    """Field -> the docstring under it, on one line; inherited fields too. Python keeps these only in the source."""
    docs = {}
    for owner in reversed(cls.__mro__):
        if not dataclasses.is_dataclass(owner):
            continue
        (definition,) = ast.parse(textwrap.dedent(inspect.getsource(owner))).body
        assert isinstance(definition, ast.ClassDef)
        for statement, after in itertools.pairwise(definition.body):
            match statement, after:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                    docs[name] = " ".join(text.split())
    return docs


class _OrNone(click.ParamType):
    """A type that also takes `none`."""

    def __init__(self, inner: click.ParamType) -> None:
        self.inner = inner
        self.name = inner.name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return None if value == "none" else self.inner.convert(value, param, ctx)

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        return f"{self.inner.get_metavar(param, ctx) or self.name.upper()}|none"


class _Listed(click.ParamType):
    """Values with commas between them."""

    def __init__(self, inner: click.ParamType) -> None:
        self.inner = inner
        self.name = f"{inner.name},..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, tuple):
            return value
        return tuple(self.inner.convert(item.strip(), param, ctx) for item in value.split(",") if item.strip())


def _is_listed(kind: click.ParamType) -> bool:
    return isinstance(kind.inner if isinstance(kind, _OrNone) else kind, _Listed)


def _joined(ctx: click.Context, param: click.Parameter, values: tuple[tuple[Any, ...] | None, ...]) -> tuple[Any, ...] | None:
    """The values of a list option that may have been given several times."""
    lists = [value for value in values if value is not None]
    if len(lists) < len(values) and len(values) > 1:
        raise click.BadParameter("give `none` alone, or leave it out.", ctx, param)
    return tuple(itertools.chain.from_iterable(lists)) if lists else None


def _parameter_type(hint: Any) -> click.ParamType | None:
    """The click type for a field's annotation, or None where an option can't give such a value."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        inner = [_parameter_type(argument) for argument in arguments if argument is not type(None)]
        return _OrNone(inner[0]) if len(inner) == 1 and inner[0] is not None else None
    if origin is typing.Literal:
        return click.Choice(arguments)
    if origin is tuple:
        item = _parameter_type(arguments[0])
        return _Listed(item) if item else None
    simple = {bool: click.BOOL, int: click.INT, float: click.FLOAT, str: click.STRING, Path: ANY_PATH}
    return simple.get(hint)


def shown(value: Any) -> str:
    """A default as help shows it."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return ",".join(map(str, value)) or "none"
    return "none" if value is None else str(value)
