"""Names that a package offers and loads when they are first used, so that importing it costs nothing."""

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any


def lazy_names(package: str, homes: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Make the module-level functions `__getattr__` and `__dir__` of a package (PEP 562).

        if TYPE_CHECKING:
            from bltdata.corpus import open_corpus

        __all__ = ["open_corpus"]
        __getattr__, __dir__ = lazy_names(__name__, {"open_corpus": "bltdata.corpus"})

    Args:
        package: the package's `__name__`.
        homes: name -> the module that defines it.
    """

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(homes[name]), name)
        # From now on Python finds it without asking.
        setattr(sys.modules[package], name, value)
        return value

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *homes})

    return get, names
