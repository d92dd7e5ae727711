"""A patch rule one position at a time: what generation uses, where the next byte isn't known yet."""

import copy
from typing import Any

import numpy as np

from bltdata.errors import PatchingError
from bltdata.patching import inputs
from bltdata.patching.quantile import NO_LIMIT, QuantileState
from bltdata.patching.schemes import BOS_BYTE, NEWLINE, SCHEMES, Positions, longest_patch, newline_flags
from bltdata.patching.settings import RuleSettings


class PatchStepper:
    """Decides, position after position, whether a patch starts there; the answers are those of `PatchRule.starts`.

    It keeps a few numbers, whatever the length of the document, and `copy` gives an independent one, for trying several
    continuations. The entropies must be rounded as those of the shards were if the patches shall be those of the shards.

    >>> from bltdata.patching import PatchRule
    >>> stepper = PatchRule(threshold=1.0).stepper()
    >>> [stepper.step(0.2, None), stepper.step(0.5, ord("a")), stepper.step(1.5, ord("b"))]
    [True, False, True]
    """

    __slots__ = ("_before", "_entropy_nats", "_length", "_position", "_quantile", "_rule")

    def __init__(self, rule: RuleSettings) -> None:
        """Stand before the first position of a document; use `PatchRule.stepper`, which checks that the rule allows it."""
        self._rule = rule
        self._position = 0
        self._length = 0
        self._before = BOS_BYTE
        self._entropy_nats = 0.0
        self._quantile = QuantileState.of(rule) if SCHEMES[rule.scheme].flags is None else None

    @property
    def position(self) -> int:
        """The position that the next `step` decides about."""
        return self._position

    @property
    def patch_length(self) -> int:
        """How many positions the patch that is being filled has so far."""
        return self._length

    def step(self, entropy_next: float | None, previous_byte: int | None) -> bool:
        """Whether a patch starts at the next position.

        Args:
            entropy_next: nats, the uncertainty about what will stand there; None is fine for a rule that reads none.
            previous_byte: the byte before it; None at the first position, and only there.

        Raises:
            PatchingError: the entropy is missing, no number, NaN, infinite, negative or above ln 260; or the byte is missing, or isn't one.
        """
        before = self._checked_byte(previous_byte)
        entropy_nats = self._checked_entropy(entropy_next)
        starts = self._starts(before, entropy_nats)
        self._position += 1
        self._length = 1 if starts else self._length + 1
        self._before = before
        self._entropy_nats = entropy_nats
        return starts

    def read(self, data: Any, entropy_nats: Any = None) -> np.ndarray:
        """Take in the beginning of a document at once, with the answers and the state that a `step` for each of its positions gives.

        Args:
            data: its n bytes.
            entropy_nats: float16 or float32 [n + 1], nats; None is fine for a rule that reads none.

        Returns:
            bool [n + 1], whether a patch starts at each position, that of the byte to come among them.

        Raises:
            PatchingError: the entropies are missing, of another number, NaN, infinite, negative or above ln 260; or some of the document
                was taken in before.

        >>> from bltdata.patching import PatchRule
        >>> stepper = PatchRule(threshold=1.0).stepper()
        >>> stepper.read(b"ab", [0.2, 0.5, 1.5]).tolist(), stepper.step(0.3, ord("c"))
        ([True, False, True], False)
        """
        if self._position:
            raise PatchingError(f"The stepper stands at position {self._position} of a document; read a document with a new one.")
        array = inputs.as_bytes(data)
        before = np.concatenate([np.array([BOS_BYTE], dtype=np.uint8), array])
        entropies = np.zeros(before.size, dtype=np.float32)
        if SCHEMES[self._rule.scheme].needs_entropies:
            if entropy_nats is None:
                raise PatchingError(f"The rule {self._rule.scheme!r} needs {before.size} entropies, and there are none.")
            entropies = inputs.as_entropies(entropy_nats).astype(np.float32)
            inputs.check_entropies(entropies, array.size, "the document")
        starts = self._all_starts(before, entropies)
        self._position = starts.size
        self._length = starts.size - int(starts.nonzero()[0][-1])
        self._before = int(before[-1])
        self._entropy_nats = float(entropies[-1])
        return starts

    def copy(self) -> "PatchStepper":
        """An independent stepper in the same state."""
        twin = copy.copy(self)
        twin._quantile = copy.deepcopy(self._quantile)
        return twin

    def _starts(self, before: int, entropy_nats: float) -> bool:
        rule = self._rule
        if self._quantile is not None:
            first = np.array([self._position == 0])
            return bool(self._quantile_starts(self._quantile, np.array([entropy_nats], dtype=np.float32), first)[0])
        if self._position == 0 or (rule.reset_at_newline and before == NEWLINE) or self._length == longest_patch(rule):
            return True
        if self._length < rule.min_length:
            return False
        # The very function that the batch form uses, on two positions, so that there is one definition of each rule.
        pair = Positions(
            2, np.array([self._before, before], dtype=np.uint8), np.array([self._entropy_nats, entropy_nats], dtype=np.float32)
        )
        flags_of = SCHEMES[rule.scheme].flags
        assert flags_of is not None
        return bool(flags_of(pair, rule)[1])

    def _all_starts(self, before: np.ndarray, entropy_nats: np.ndarray) -> np.ndarray:
        """Whether a patch starts at each position from 0 on."""
        # Not by `PatchRule.lengths`, whose compiled loops take longer to load than this takes for a megabyte.
        rule = self._rule
        must = newline_flags(before) if rule.reset_at_newline else np.zeros(before.size, dtype=bool)
        must[0] = True
        if self._quantile is not None:
            return self._quantile_starts(self._quantile, entropy_nats, must)
        flags_of = SCHEMES[rule.scheme].flags
        assert flags_of is not None
        may = flags_of(Positions(before.size, before, entropy_nats), rule)
        longest = longest_patch(rule)
        if rule.min_length == 1 and longest is None:
            must |= may
            return must
        starts, length = np.empty_like(must), 0
        for position, (asked, forced) in enumerate(zip(may.tolist(), must.tolist(), strict=True)):
            starts[position] = start = forced or length == longest or (asked and length >= rule.min_length)
            length = 1 if start else length + 1
        return starts

    def _quantile_starts(self, quantile: QuantileState, entropy_nats: np.ndarray, firsts: np.ndarray) -> np.ndarray:
        min_length, max_length = min(self._rule.min_length, NO_LIMIT), min(self._rule.max_length or NO_LIMIT, NO_LIMIT)
        return quantile.starts(entropy_nats, firsts, min_length, max_length)

    def _checked_byte(self, previous_byte: int | None) -> int:
        if (previous_byte is None) != (self._position == 0):
            place = "is none before position 0" if self._position == 0 else f"is one before position {self._position}"
            raise PatchingError(f"The previous byte is {previous_byte!r} and there {place}; give None at position 0 and a byte after.")
        if previous_byte is None:
            return BOS_BYTE
        if not isinstance(previous_byte, int | np.integer) or not 0 <= previous_byte <= 255:
            raise PatchingError(f"The previous byte is {previous_byte!r}; it must be from 0 to 255, not a token id.")
        return int(previous_byte)

    def _checked_entropy(self, entropy_next: float | None) -> float:
        if not SCHEMES[self._rule.scheme].needs_entropies:
            return 0.0
        if entropy_next is None:
            raise PatchingError(f"The rule {self._rule.scheme!r} needs the entropy at position {self._position}, and it is None.")
        # As the batch form takes it, so that it is refused here where it is refused there.
        (entropy_nats,) = inputs.as_entropies([entropy_next])
        if not 0 <= entropy_nats <= inputs.MAX_STORED_ENTROPY_NATS:
            raise inputs.entropy_error(entropy_nats, self._position, "the document")
        return float(entropy_nats)
