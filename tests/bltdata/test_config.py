import dataclasses
import json
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bltdata.config import fingerprint, from_mapping, nearest, read_toml, to_mapping
from bltdata.errors import BltError, ConfigError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inner:
    rate: float = 0.5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outer:
    steps: int
    name: str = "run"
    fast: bool = False
    kind: Literal["a", "b"] = "a"
    folder: Path | None = None
    sizes: tuple[int, ...] = (1, 2)
    shares: dict[str, float] = dataclasses.field(default_factory=dict)
    inner: Inner = Inner()
    inners: tuple[Inner, ...] = ()
    anything: Any = None


FULL = Outer(
    steps=3, name="x", fast=True, kind="b", folder=Path("a/b"), sizes=(), shares={"web": 1.0}, inner=Inner(rate=2), inners=(Inner(),)
)


@pytest.mark.parametrize("config", [Outer(steps=1), FULL])
def test_round_trip_through_json(config):
    assert from_mapping(Outer, json.loads(json.dumps(to_mapping(config)))) == config


def test_values_get_the_types_of_their_fields():
    config = from_mapping(Outer, {"steps": 1, "folder": "a", "sizes": [4, 5], "inner": {"rate": 3}, "shares": {"web": 1}})
    assert config == Outer(steps=1, folder=Path("a"), sizes=(4, 5), inner=Inner(rate=3.0), shares={"web": 1.0})
    assert isinstance(config.inner.rate, float)
    assert isinstance(config.shares["web"], float)


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"steps": 1, "fsat": True}, r"run\.toml has an unknown key 'fsat'.*'fast'"),
        ({"steps": 1, "qqqq": True}, r"unknown key 'qqqq'; known are anything, .*, steps"),
        ({"steps": 1, "inner": {"rat": 1}}, r"run\.toml, key 'inner' has an unknown key 'rat'.*'rate'"),
        ({"steps": 1, "inners": [{"rate": 1}, {"rat": 1}]}, r"key 'inners' has an unknown key 'rat'"),
        ({}, r"run\.toml lacks the key 'steps'"),
        ({"steps": 1.0}, r"key 'steps' is 1\.0; it must be of type int"),
        ({"steps": "1"}, r"key 'steps' is '1'; it must be of type int"),
        ({"steps": True}, r"key 'steps' is True; it must be of type int"),
        ({"steps": 1, "fast": 1}, r"key 'fast' is 1; it must be of type bool"),
        ({"steps": 1, "name": None}, r"key 'name' is None; it must be of type str"),
        ({"steps": 1, "kind": "c"}, r"key 'kind' is 'c'; it must be one of 'a', 'b'"),
        ({"steps": 1, "sizes": 3}, r"key 'sizes' is 3; it must be a list"),
        ({"steps": 1, "sizes": [1, "2"]}, r"key 'sizes' is '2'; it must be of type int"),
        ({"steps": 1, "shares": [1]}, r"key 'shares' is \[1\]; it must be a table"),
        ({"steps": 1, "inner": 1}, r"key 'inner' is 1; it must be a table"),
        ({"steps": 1, "folder": 1}, r"key 'folder' is 1; it must be of type Path"),
        ({"steps": 1, "inner": {"rate": float("nan")}}, r"key 'rate' is nan; it must be a finite number"),
        ({"steps": 1, "inner": {"rate": float("-inf")}}, r"key 'rate' is -inf; it must be a finite number"),
        ({"steps": 1, "inner": {"rate": True}}, r"key 'rate' is True; it must be of type float"),
    ],
)
def test_what_is_wrong_is_named(mapping, message):
    with pytest.raises(ConfigError, match=message):
        from_mapping(Outer, mapping, "run.toml")


def test_a_config_error_is_a_value_error_that_commands_catch():
    assert issubclass(ConfigError, BltError)
    assert issubclass(ConfigError, ValueError)


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(), st.lists, max_leaves=5
)


@given(st.dictionaries(st.text(), plain, max_size=5))
def test_fingerprint_knows_values_and_not_their_order(mapping):
    name = fingerprint(mapping)
    assert name == fingerprint(dict(reversed(mapping.items())))
    assert name == fingerprint({key: tuple(value) if isinstance(value, list) else value for key, value in mapping.items()})
    assert name != fingerprint(mapping | {"one more": 1})
    assert len(name) == 16
    assert int(name, 16) >= 0


def test_fingerprint_of_a_dataclass():
    assert fingerprint(FULL) == fingerprint(to_mapping(FULL))
    assert fingerprint(FULL) != fingerprint(dataclasses.replace(FULL, inner=Inner(rate=2.5)))


def test_fingerprint_is_the_same_for_ever():
    assert fingerprint({"steps": 1, "rate": 0.5, "names": ["\xe9"], "none": None}) == "17e88e977dcabea7"


def test_fingerprint_refuses_what_equals_nothing():
    with pytest.raises(ValueError, match="not JSON compliant"):
        fingerprint({"rate": float("nan")})


def test_read_toml(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text("steps = 3\n[inner]\nrate = 1\n")
    assert from_mapping(Outer, read_toml(path), str(path)) == Outer(steps=3, inner=Inner(rate=1.0))


@pytest.mark.parametrize("content", [b"steps = \n", b"name = '\xff'\n"])
def test_bad_toml(tmp_path, content):
    (tmp_path / "run.toml").write_bytes(content)
    with pytest.raises(ConfigError, match=r"run\.toml is not valid TOML: .+"):
        read_toml(tmp_path / "run.toml")


def test_missing_toml(tmp_path):
    with pytest.raises(ConfigError, match=r"Cannot read the configuration .*run\.toml: No such file or directory\."):
        read_toml(tmp_path / "run.toml")


def test_nearest_prefers_a_likely_slip_to_a_list():
    assert "'threshold'" in nearest("treshold", ["threshold", "stride"])
    assert nearest("zzz", ["threshold", "stride"]) == "; known are stride, threshold"
