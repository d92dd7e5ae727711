"""The patch rules: where a patch may start.

A rule looks at the *positions* 0 ... n of a document of n bytes; position n is where the document ends. At position `i` two things
are known: `before[i]`, the byte in front of it, and `entropy_nats[i]`, the uncertainty about what stands at it. Byte `i` itself is
not known, and no rule gets to see it: its patch has to be chosen before it is predicted.

Each rule is one pure function that returns a flag for every position. It looks at position `i` and its predecessor only, so arrays
can be cut into blocks that overlap by one, documents can lie end to end, and generation can ask for one position at a time. The
first position of a document always starts a patch, whatever its flag says; `boundaries` sees to that, and to the lengths allowed.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bltdata.patching.settings import RuleSettings

BOS_BYTE = 0
"""Stands for BOS in `before`: NUL is space-like, as BOS is, and no newline."""

NEWLINE = 0x0A

_FLOAT16_INF = 0x7C00
"""The code of float16 infinity; codes of finite values are below, those of NaN and of negative values above."""


@dataclass(frozen=True, slots=True)
class Positions:
    """A run of positions and what is known at each."""

    count: int
    """How many."""
    before: np.ndarray | None = None
    """uint8 [count], the byte before each position; None where the rule reads no bytes."""
    entropy_nats: np.ndarray | None = None
    """float16 or float32 [count], nats; None where the rule reads no entropies."""

    def block(self, begin: int, end: int) -> "Positions":
        """The positions from `begin` up to `end`, without copying."""
        return Positions(
            end - begin,
            None if self.before is None else self.before[begin:end],
            None if self.entropy_nats is None else self.entropy_nats[begin:end],
        )


def global_flags(entropy_nats: np.ndarray, threshold: float) -> np.ndarray:
    """Global threshold: a patch may start at `i` if `entropy_nats[i] > threshold`.

    Compared in float32; NaN never starts a patch, infinity does. Equal to the reference at every position.
    Source: arXiv:2412.09871, section 2.3, global constraint.

    Args:
        entropy_nats: float16 or float32 [positions], nats.
        threshold: nats, at least 0.

    Returns:
        bool [positions].

    >>> global_flags(np.array([0.5, 2.0, 0.3, 1.0, 1.5], dtype=np.float32), 1.0).tolist()
    [False, True, False, False, True]
    """
    if entropy_nats.dtype != np.float16:
        return entropy_nats > np.float32(threshold)
    # Codes of float16 values from 0 up have the order of the values, and integers compare many times as fast. The subtraction
    # wraps around, so that what lies outside of (threshold, infinity], NaN and negatives too, ends above the limit.
    first = float16_floor_code(threshold) + 1
    return (entropy_nats.view(np.uint16) - np.uint16(first)) <= np.uint16(_FLOAT16_INF - first)


def relative_flags(entropy_nats: np.ndarray, relative_threshold: float) -> np.ndarray:
    """Approximate monotonic constraint: a patch may start at `i` if `entropy_nats[i] - entropy_nats[i - 1] > relative_threshold`.

    The difference is taken in float32. Entry 0 has no predecessor and is False.
    Source: arXiv:2412.09871, section 2.3, approximate monotonic constraint.

    Deviations from the reference (`monotonicity=True`, and `threshold_add` when both thresholds are given): it always starts a
    patch at byte 1 too, and with `threshold_add` never one at byte 2; both are side effects of how it builds its list. Here the rule
    alone decides. All other positions are equal.

    Args:
        entropy_nats: float16 or float32 [positions], nats.
        relative_threshold: nats; may be negative.

    Returns:
        bool [positions].

    >>> relative_flags(np.array([0, 0, 2, 3, 4, 5, 0, 3], dtype=np.float32), 1.5).tolist()
    [False, False, True, False, False, False, False, True]
    """
    wide = _widened(entropy_nats)
    flags = np.zeros(wide.size, dtype=bool)
    with np.errstate(invalid="ignore"):  # infinity minus infinity is NaN and starts nothing, as in the reference
        np.greater(wide[1:] - wide[:-1], np.float32(relative_threshold), out=flags[1:])
    return flags


def space_flags(before: np.ndarray) -> np.ndarray:
    r"""Word ends: a patch may start after the first byte of a run of space-like bytes.

    Space-like is all but ASCII letters, digits and UTF-8 continuation bytes: white space, punctuation, controls, UTF-8 lead bytes,
    and BOS. So a patch can start inside a character of several bytes, after its lead byte. Equal to the reference.
    Source: arXiv:2412.09871, section 2.2; arXiv:2404.14408 (SpaceByte).

    Args:
        before: uint8 [positions], the byte in front of each position, `BOS_BYTE` in front of the first.

    Returns:
        bool [positions]; entry 0 is False.

    >>> before = np.frombuffer(b"\0" + b"hello world, foo", dtype=np.uint8)
    >>> np.flatnonzero(space_flags(before)).tolist()
    [6, 12]
    """
    # In uint8 a difference below zero wraps around to a large one, so a range takes one comparison.
    plain = ((before | np.uint8(0x20)) - np.uint8(ord("a"))) < np.uint8(26)
    plain |= (before - np.uint8(ord("0"))) < np.uint8(10)
    plain |= (before - np.uint8(0x80)) < np.uint8(0x40)
    flags = np.zeros(before.size, dtype=bool)
    np.less(plain[1:], plain[:-1], out=flags[1:])  # space-like now, plain the byte before
    return flags


def newline_flags(before: np.ndarray) -> np.ndarray:
    r"""Line starts: the positions right after a newline byte.

    >>> newline_flags(np.frombuffer(b"\0" + b"a\nb", dtype=np.uint8)).tolist()
    [False, False, True, False]
    """
    flags: np.ndarray = before == np.uint8(NEWLINE)
    return flags


def _entropy(positions: Positions, rule: RuleSettings) -> np.ndarray:
    assert positions.entropy_nats is not None
    if rule.relative_threshold is None:
        assert rule.threshold is not None
        return global_flags(positions.entropy_nats, rule.threshold)
    flags = relative_flags(positions.entropy_nats, rule.relative_threshold)
    if rule.threshold is not None:
        flags &= global_flags(positions.entropy_nats, rule.threshold)
    return flags


def _fixed(positions: Positions, rule: RuleSettings) -> np.ndarray:
    # A patch of `stride` bytes is full, and that alone starts the next: see `longest_patch`.
    return np.zeros(positions.count, dtype=bool)


def _space(positions: Positions, rule: RuleSettings) -> np.ndarray:
    assert positions.before is not None
    return space_flags(positions.before)


def _byte(positions: Positions, rule: RuleSettings) -> np.ndarray:
    return np.ones(positions.count, dtype=bool)


@dataclass(frozen=True, kw_only=True)
class Scheme:
    """An entry of the registry: a rule by its name."""

    flags: Callable[[Positions, RuleSettings], np.ndarray]
    """Positions and rule -> bool [positions]: where a patch may start."""
    reads: tuple[str, ...]
    """The fields of `PatchRule` that mean something to it; any other is refused."""
    needs_entropies: bool = False
    """Whether it reads entropies."""
    needs_bytes: bool = False
    """Whether it reads the bytes before a position."""
    is_incremental: bool = True
    """Whether it can decide about a position from what comes before, as generation must."""


SCHEMES: dict[str, Scheme] = {
    "entropy": Scheme(
        flags=_entropy,
        reads=("threshold", "relative_threshold", "min_length", "max_length", "reset_at_newline"),
        needs_entropies=True,
    ),
    "fixed": Scheme(flags=_fixed, reads=("stride",)),
    "space": Scheme(flags=_space, reads=("min_length", "max_length"), needs_bytes=True),
    "byte": Scheme(flags=_byte, reads=()),
}
"""Every rule by name. A new one is a function above and a line here."""


def longest_patch(rule: RuleSettings) -> int | None:
    """The length at which a patch is full, or None."""
    return rule.stride if rule.scheme == "fixed" else rule.max_length


def reads_bytes(rule: RuleSettings) -> bool:
    """Whether the rule needs the bytes of a document."""
    return SCHEMES[rule.scheme].needs_bytes or rule.reset_at_newline


def float16_floor_code(value: float) -> int:
    """The code of the largest float16 that isn't above the float32 of `value`, which is at least 0.

    >>> float16_floor_code(1.0) == float16_floor_code(1.0009) == 0x3C00
    True
    """
    wanted = np.float32(value)
    nearest = np.float16(wanted)
    return int(nearest.view(np.uint16)) - int(np.float32(nearest) > wanted)


def _widened(entropy_nats: np.ndarray) -> np.ndarray:
    """The entropies as float32, exactly."""
    if entropy_nats.dtype != np.float16:
        return entropy_nats
    codes = entropy_nats.view(np.uint16)
    if codes.size == 0 or codes.max() >= _FLOAT16_INF:
        return entropy_nats.astype(np.float32)
    # The same bits, moved to where float32 has them, are the value over 2**112. numpy's own conversion is several times slower.
    wide = codes.astype(np.uint32)
    wide <<= np.uint32(13)
    values = wide.view(np.float32)
    values *= np.float32(2.0**112)
    return values
