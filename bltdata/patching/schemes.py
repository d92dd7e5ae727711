"""The patch rules: where a patch may start.

A rule looks at the *positions* 0 ... n of a document of n bytes; position n is where the document ends. At position `i` two things
are known: `before[i]`, the byte in front of it, and `entropy_nats[i]`, the uncertainty about what stands at it. Byte `i` itself is
not known, and no rule gets to see it: its patch has to be chosen before it is predicted.

Each rule is one pure function that returns a flag for every position. It looks at position `i` and its predecessor only, so arrays
can be cut into blocks that overlap by one, documents can lie end to end, and generation can ask for one position at a time. The
first position of a document always starts a patch, whatever its flag says; `boundaries` sees to that, and to the lengths allowed.

Two rules are of another kind. `quantile` carries one number from position to position, a threshold that follows the patches made so
far. `bpe` needs the whole document: a tokenizer looks ahead.

| rule | settings | function |
|---|---|---|
| global | `entropy` with `threshold` | `global_flags` |
| relative | `entropy` with `relative_threshold` | `relative_flags` |
| global + relative | `entropy` with both | `global_and_relative_flags` |
| fixed | `fixed` with `stride` | none: a patch that is full ends, see `longest_patch` |
| space | `space` | `space_flags` |
| space between characters | `space` with `characters` | `ascii_space_flags` |
| byte | `byte` | `byte_flags` |
| running quantile | `quantile` with `target_length` | `quantile.quantile_flags` |
| tokens | `bpe` with `tokenizer` | `bpe.token_flags` |
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bltdata.patching import bpe, kernels
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
    marks: np.ndarray | None = None
    """bool [count], what a rule that needs whole documents said of them; None for all others."""

    def block(self, begin: int, end: int) -> "Positions":
        """The positions from `begin` up to `end`, without copying."""
        return Positions(
            end - begin,
            None if self.before is None else self.before[begin:end],
            None if self.entropy_nats is None else self.entropy_nats[begin:end],
            None if self.marks is None else self.marks[begin:end],
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
    # Codes of float16 values from 0 up have the order of the values, and integers compare many times as fast. Where there are others,
    # the subtraction wraps around, so that what lies outside of (threshold, infinity], NaN and negatives too, ends above the limit.
    codes = entropy_nats.view(np.uint16)
    floor = float16_floor_code(threshold)
    if codes.size == 0 or codes.max() <= _FLOAT16_INF:
        return codes > np.uint16(floor)
    return (codes - np.uint16(floor + 1)) <= np.uint16(_FLOAT16_INF - floor - 1)


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
    wide = widened(entropy_nats)
    flags = np.zeros(wide.size, dtype=bool)
    with np.errstate(invalid="ignore"):  # infinity minus infinity is NaN and starts nothing, as in the reference
        np.greater(wide[1:] - wide[:-1], np.float32(relative_threshold), out=flags[1:])
    return flags


def global_and_relative_flags(entropy_nats: np.ndarray, threshold: float, relative_threshold: float) -> np.ndarray:
    """Both constraints: a patch may start at `i` if the entropy is above `threshold` and has risen by more than `relative_threshold`.

    Deviations from the reference (`threshold_add`) are those of `relative_flags`.
    Source: arXiv:2412.09871, section 2.3; in the reference implementation `threshold` and `threshold_add`.

    Args:
        entropy_nats: float16 or float32 [positions], nats.
        threshold: nats, at least 0.
        relative_threshold: nats; may be negative.

    Returns:
        bool [positions].

    >>> global_and_relative_flags(np.array([0, 0, 2, 3, 4, 5, 0, 3], dtype=np.float32), 2.5, 0.5).tolist()
    [False, False, False, True, True, True, False, True]
    """
    flags = relative_flags(entropy_nats, relative_threshold)
    flags &= global_flags(entropy_nats, threshold)
    return flags


def byte_flags(count: int) -> np.ndarray:
    """Every byte a patch. Source: arXiv:2412.09871, section 2; the BLT is a plain byte model then.

    >>> byte_flags(3).tolist()
    [True, True, True]
    """
    return np.ones(count, dtype=bool)


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
    flags: np.ndarray = kernels.word_end_flags(before, 0x40)
    return flags


def ascii_space_flags(before: np.ndarray) -> np.ndarray:
    r"""Word ends between characters: a patch may start after the first byte of a run of ASCII bytes that are no letters or digits.

    The `space` rule with `characters`. All bytes from 0x80 up, which are those of characters of several bytes, count as plain, lead
    bytes too. So a patch starts after an ASCII byte only, and there no character is under way, whatever byte `i` and the bytes after
    it turn out to be; that holds of bytes which are no UTF-8 as well. A text without ASCII between its words, such as Chinese, is one
    patch: there a rule that reads entropies cuts better.

    Deviation from the reference, on purpose: there lead bytes are space-like, and patches start after them, inside characters. On
    ASCII the two are equal.

    Args:
        before: uint8 [positions], the byte in front of each position, `BOS_BYTE` in front of the first.

    Returns:
        bool [positions]; entry 0 is False.

    >>> before = np.frombuffer(b"\0" + "d\u00e9j\u00e0 vu".encode(), dtype=np.uint8)
    >>> np.flatnonzero(space_flags(before)).tolist(), np.flatnonzero(ascii_space_flags(before)).tolist()
    ([2, 5, 7], [7])
    """
    flags: np.ndarray = kernels.word_end_flags(before, 0x80)
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
    if rule.threshold is None:
        return relative_flags(positions.entropy_nats, rule.relative_threshold)
    return global_and_relative_flags(positions.entropy_nats, rule.threshold, rule.relative_threshold)


def _fixed(positions: Positions, rule: RuleSettings) -> np.ndarray:
    """Fixed stride: a patch starts at every multiple of `stride`, counted from the start of the document.

    Deviation from the reference (`static`): it strides over BOS as over a byte, so its first patch has a byte less.
    Source: arXiv:2412.09871, section 2.1 (strided patching).
    """
    # A patch of `stride` bytes is full, and that alone starts the next: see `longest_patch`.
    return np.zeros(positions.count, dtype=bool)


def _space(positions: Positions, rule: RuleSettings) -> np.ndarray:
    assert positions.before is not None
    return ascii_space_flags(positions.before) if rule.characters else space_flags(positions.before)


def _byte(positions: Positions, rule: RuleSettings) -> np.ndarray:
    return byte_flags(positions.count)


def _bpe(positions: Positions, rule: RuleSettings) -> np.ndarray:
    assert positions.marks is not None
    return positions.marks.copy()


def _bpe_marks(data: bytes, rule: RuleSettings) -> np.ndarray:
    assert rule.tokenizer is not None
    assert rule.tokenizer_fingerprint is not None
    return bpe.token_flags(data, bpe.load_tokenizer(rule.tokenizer, rule.tokenizer_fingerprint))


@dataclass(frozen=True, kw_only=True)
class Scheme:
    """An entry of the registry: a rule by its name."""

    flags: Callable[[Positions, RuleSettings], np.ndarray] | None
    """Positions and rule -> bool [positions]: where a patch may start. None for `quantile`, which carries a state."""
    marks: Callable[[bytes, RuleSettings], np.ndarray] | None = None
    """A document of n bytes and the rule -> bool [n + 1], for a rule that needs whole documents; `flags` finds them in `marks`."""
    reads: tuple[str, ...]
    """The fields of `PatchRule` that mean something to it; any other is refused."""
    needs_entropies: bool = False
    """Whether it reads entropies."""
    needs_bytes: bool = False
    """Whether it reads the bytes before a position."""

    @property
    def is_incremental(self) -> bool:
        """Whether it can decide about a position from what comes before, as generation must."""
        return self.marks is None


SCHEMES: dict[str, Scheme] = {
    "entropy": Scheme(
        flags=_entropy,
        reads=("threshold", "relative_threshold", "min_length", "max_length", "reset_at_newline"),
        needs_entropies=True,
    ),
    "fixed": Scheme(flags=_fixed, reads=("stride",)),
    "space": Scheme(flags=_space, reads=("min_length", "max_length", "characters"), needs_bytes=True),
    "byte": Scheme(flags=_byte, reads=()),
    "quantile": Scheme(flags=None, reads=("threshold", "target_length", "min_length", "max_length"), needs_entropies=True),
    "bpe": Scheme(
        flags=_bpe,
        marks=_bpe_marks,
        reads=("tokenizer", "tokenizer_fingerprint", "min_length", "max_length"),
        needs_bytes=True,
    ),
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


def widened(entropy_nats: np.ndarray) -> np.ndarray:
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
