"""A patch rule one position at a time: what generation uses, where the next byte isn't known yet."""

import copy

import numpy as np

from bltdata.errors import PatchingError
from bltdata.patching import inputs
from bltdata.patching.quantile import NO_LIMIT, QuantileState
from bltdata.patching.schemes import BOS_BYTE, NEWLINE, SCHEMES, Positions, longest_patch
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

    def copy(self) -> "PatchStepper":
        """An independent stepper in the same state."""
        twin = copy.copy(self)
        twin._quantile = copy.deepcopy(self._quantile)
        return twin

    def _starts(self, before: int, entropy_nats: float) -> bool:
        rule = self._rule
        if self._quantile is not None:
            entropy, first = np.array([entropy_nats], dtype=np.float32), np.array([self._position == 0])
            longest = min(rule.max_length or NO_LIMIT, NO_LIMIT)
            return bool(self._quantile.starts(entropy, first, min(rule.min_length, NO_LIMIT), longest)[0])
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
