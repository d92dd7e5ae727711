import importlib
import sys

import pytest


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package that offers `value` of its module `heavy`."""
    folder = tmp_path / "lazy_probe"
    folder.mkdir()
    (folder / "__init__.py").write_text(
        "from bltdata.lazy import lazy_names\n"
        "own = 1\n"
        "__getattr__, __dir__ = lazy_names(__name__, {'value': 'lazy_probe.heavy', 'gone': 'lazy_probe.heavy'})\n"
    )
    (folder / "heavy.py").write_text("value = object()\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("lazy_probe")
    for name in ("lazy_probe", "lazy_probe.heavy"):
        sys.modules.pop(name, None)


def test_loaded_on_first_use(package):
    assert "lazy_probe.heavy" not in sys.modules
    assert {"own", "value"} <= set(dir(package))
    assert "lazy_probe.heavy" not in sys.modules
    value = package.value
    assert value is sys.modules["lazy_probe.heavy"].value
    assert vars(package)["value"] is value


def test_from_import(package):
    from lazy_probe import own, value

    assert (own, value) == (1, package.value)


@pytest.mark.parametrize("name", ["nonsense", "gone"])
def test_no_such_name(package, name):
    with pytest.raises(AttributeError, match=f"has no attribute '{name}'"):
        getattr(package, name)
