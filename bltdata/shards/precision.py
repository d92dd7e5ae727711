"""How an entropy is stored: float16, by default on a grid of 1/256 nat, after a check that it is possible at all.

Between 4 and 8 a float16 has steps of 1/256, so the grid costs nothing in exactness where entropies are largest; below it
drops digits that are noise and saves a third of the compressed size. Patches are computed from what is stored.
"""

from typing import Literal

import numpy as np

from bltdata.errors import ConfigError, ShardError
from bltdata.vocab import MAX_ENTROPY_NATS

Precision = Literal["grid", "float16"]

GRID_STEPS_PER_NAT = 256
TOLERANCE_NATS = 2e-3
"""Rounding, in the entropy model or to half a grid step here, may leave a value this far outside of what is possible."""

MAX_STORED_NATS = float(np.float16(MAX_ENTROPY_NATS))
"""5.5625: ln 260 rounded to the grid, and to float16 too."""
MAX_STORED_CODE = int(np.float16(MAX_STORED_NATS).view(np.uint16))
"""Bits of that value. Bits of non-negative float16 values order as the values do; negative values, infinities and NaN lie above."""


def round_entropies(entropy_nats: np.ndarray, precision: Precision = "grid") -> np.ndarray:
    """Entropies as a shard stores them.

    Args:
        entropy_nats: floating point `[n + 1]`, nats; each finite and within `TOLERANCE_NATS` of `0 ... ln 260`, where those
            outside are moved to the border.
        precision: `grid` rounds to multiples of 1/256 nat, `float16` to the nearest float16.

    Returns:
        float16 `[n + 1]` in `0 ... 5.5625`. Rounding it again changes nothing.

    Raises:
        ShardError: a value is not finite or out of range; the message names its position.
        ConfigError: an unknown precision.

    >>> round_entropies(np.array([0.0, 1.0 / 3.0, 5.5606816], dtype=np.float32)).tolist()
    [0.0, 0.33203125, 5.5625]
    """
    if precision not in ("grid", "float16"):
        raise ConfigError(f"Entropy precision {precision!r} is unknown; it must be 'grid' or 'float16'.")
    values = np.asarray(entropy_nats)
    values = values if values.dtype == np.float64 else values.astype(np.float32)
    _check_range(values)
    # Adding zero turns -0.0 into 0.0, so that equal values have equal bits.
    values = np.clip(values, 0.0, MAX_ENTROPY_NATS) + values.dtype.type(0.0)
    if precision == "grid":
        values = np.rint(values * GRID_STEPS_PER_NAT) / GRID_STEPS_PER_NAT
    return values.astype(np.float16)


def check_stored(entropy_nats: np.ndarray, where: str) -> None:
    """Check that float16 entropies are what `round_entropies` may return.

    Raises:
        ShardError: one isn't; the message starts with `where` and names the position.
    """
    impossible = entropy_nats.view(np.uint16) > MAX_STORED_CODE
    if impossible.any():
        position = int(np.argmax(impossible))
        raise ShardError(
            f"{where} has an entropy of {entropy_nats[position]:.6g} nats at position {position}; "
            f"it must lie in 0 ... {MAX_STORED_NATS} (ln 260, rounded), so check the entropy model's output or its unit."
        )


def _check_range(values: np.ndarray) -> None:
    if values.size == 0:
        return
    # Written so that a NaN, which compares false with everything, fails it.
    if values.min() >= -TOLERANCE_NATS and values.max() <= MAX_ENTROPY_NATS + TOLERANCE_NATS:
        return
    possible = (values >= -TOLERANCE_NATS) & (values <= MAX_ENTROPY_NATS + TOLERANCE_NATS)
    position = int(np.argmin(possible))
    raise ShardError(
        f"The entropy at position {position} is {values.flat[position]:.6g} nats; it must lie in 0 ... {MAX_ENTROPY_NATS:.4f} "
        f"(ln 260), so check the entropy model's output or its unit."
    )
