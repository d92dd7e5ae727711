"""Where a plan runs: an engine maps a function over its items, and that is all it does, so results are the same on each."""

from bltdata.engines.local import run_local

__all__ = ["run_local"]
