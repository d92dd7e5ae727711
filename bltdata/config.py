"""Settings: frozen dataclasses, read strictly from TOML or JSON, and identified by a fingerprint.

Every part owns the dataclass it is built from; this module only reads, writes and names them. A key that no field has
is an error that names the nearest field, and a value of the wrong type is an error too: a setting that was given is a
setting that is used.
"""

import dataclasses
import difflib
import hashlib
import itertools
import json
import math
import tomllib
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from bltdata.address import is_url
from bltdata.errors import ConfigError

T = TypeVar("T")

ADDED_LATER = types.MappingProxyType({"added_later": True})
"""Metadata of a dataclass field that joined after settings were stored: at its default `to_mapping` leaves it out, so that settings
which don't use it keep their mapping and their fingerprint."""


def from_mapping(cls: type[T], mapping: Mapping[str, Any], where: str = "the configuration") -> T:
    """Build the dataclass `cls` from plain values.

    Args:
        cls: a dataclass; its fields may be int, float, bool, str, Path, Literal, tuple, other dataclasses, or these or None.
        mapping: field name -> value, as TOML or JSON give them.
        where: how an error names the place, e.g. a file and a section.

    Raises:
        ConfigError: an unknown key (with the nearest field), a missing field, or a value of another type.
    """
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}  # type: ignore[arg-type]
    for key in mapping:
        if key not in fields:
            raise ConfigError(f"{where} has an unknown key {key!r}{nearest(key, fields)}.")
    values = {key: _convert(hints[key], value, f"{where}, key {key!r}") for key, value in mapping.items()}
    for name, field in fields.items():
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and name not in values:
            raise ConfigError(f"{where} lacks the key {name!r}.")
    return cls(**values)


def to_mapping(config: Any) -> dict[str, Any]:
    """The plain values of a dataclass, as JSON can hold them; `from_mapping` reads them back."""
    told = (field for field in dataclasses.fields(config) if field.init and _is_told(config, field))
    return {field.name: _plain(getattr(config, field.name)) for field in told}


def fingerprint(value: Any) -> str:
    """16 hex digits that name a configuration: equal values give equal names, on every machine.

    >>> fingerprint({"b": 1, "a": 2}) == fingerprint({"a": 2, "b": 1})
    True
    """
    text = json.dumps(_plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def read_toml(path: Path | str) -> dict[str, Any]:
    """Read a TOML file.

    Raises:
        ConfigError: it is missing, or isn't TOML.
    """
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"Cannot read the configuration {path}: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}.") from error


def nearest(name: str, known: Iterable[str]) -> str:
    """`; the nearest is 'x'` or the list of what is known: the end of an error about a name.

    >>> nearest("treshold", ["threshold", "stride"])
    "; the nearest is 'threshold'"
    >>> nearest("zzz", ["threshold", "stride"])
    '; known are stride, threshold'
    """
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1)
    return f"; the nearest is {close[0]!r}" if close else f"; known are {', '.join(known)}"


def number_of(number: int, noun: str, plural: str | None = None) -> str:
    """So many of something, in words.

    >>> number_of(1, "document"), number_of(2_000, "document"), number_of(0, "patch", "patches")
    ('1 document', '2,000 documents', '0 patches')
    """
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


def merged(*mappings: Mapping[str, Any]) -> dict[str, Any]:
    """One mapping from several, the last winning, tables merged key by key.

    >>> merged({"a": 1, "t": {"x": 1, "y": 1}}, {"t": {"y": 2}}, {"a": 3})
    {'a': 3, 't': {'x': 1, 'y': 2}}
    """
    result: dict[str, Any] = {}
    for key, value in itertools.chain.from_iterable(mapping.items() for mapping in mappings):
        both_are_tables = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = merged(result[key], value) if both_are_tables else value
    return result


def _is_told(config: Any, field: dataclasses.Field[Any]) -> bool:
    return "added_later" not in field.metadata or getattr(config, field.name) != field.default


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return to_mapping(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    return value


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        (inner,) = [argument for argument in arguments if argument is not type(None)]
        return _convert(inner, value, where)
    if origin is typing.Literal:
        if value not in arguments:
            expected = ", ".join(repr(argument) for argument in arguments)
            raise ConfigError(f"{where} is {value!r}; it must be one of {expected}.")
        return value
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise ConfigError(f"{where} is {value!r}; it must be a list.")
        return tuple(_convert(arguments[0], item, where) for item in value)
    if origin is dict:
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where} is {value!r}; it must be a table.")
        return {key: _convert(arguments[1], item, where) for key, item in value.items()}
    if dataclasses.is_dataclass(hint):
        if dataclasses.is_dataclass(value):
            return value
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where} is {value!r}; it must be a table.")
        return from_mapping(typing.cast(type, hint), value, where)
    return _convert_scalar(hint, value, where)


def _convert_scalar(hint: Any, value: Any, where: str) -> Any:
    if hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        if not math.isfinite(value):
            raise ConfigError(f"{where} is {value!r}; it must be a finite number.")
        return float(value)
    if hint is Path and isinstance(value, (str, Path)):
        if is_url(value):
            raise ConfigError(f"{where} is the address of something remote; give a path of this machine.")
        return Path(value)
    # bool is an int to Python, but not to a user who wrote `true` for a count.
    if isinstance(value, hint) and isinstance(value, bool) == (hint is bool):
        return value
    raise ConfigError(f"{where} is {value!r}; it must be of type {hint.__name__}.")
