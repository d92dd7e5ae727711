"""`PatchRule`: which rule cuts documents into patches, with every parameter."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bltdata.config import nearest
from bltdata.errors import ConfigError, PatchingError
from bltdata.patching import boundaries, bpe, inputs
from bltdata.patching.schemes import SCHEMES, reads_bytes
from bltdata.patching.settings import RuleSettings
from bltdata.patching.stepper import PatchStepper
from bltdata.vocab import MAX_ENTROPY_NATS


@dataclass(frozen=True, kw_only=True)
class PatchRule(RuleSettings):
    r"""Where patches start, decided from what comes before (by `bpe` alone: from the whole document).

    A patch starts at position `i` of 0 ... n (byte `i`, or for `i = n` the end of the document)

    - if `i` is 0, or `reset_at_newline` is set and byte `i - 1` is a newline;
    - or if the last patch is at least `min_length` long by then and the scheme says so;
    - or if the last patch is `max_length` long.

    The schemes: `entropy` starts a patch where the entropy is above `threshold` and rises by more than `relative_threshold` (both,
    if both are given); `fixed` every `stride` bytes; `space` after the first of a run of space-like bytes, with `characters` never
    inside a UTF-8 character; `byte` everywhere; `quantile` where the entropy is above a threshold that follows the document, so that
    its mean length is `target_length`; `bpe` where the tokenizer in the file `tokenizer` starts a token.
    `schemes` has their exact definitions and sources. An `entropy` rule without any threshold is a form that `calibrate` fills in.

    Raises:
        ConfigError: a field is out of range, is missing, contradicts another, or means nothing to the scheme.

    >>> entropies = np.array([3, 0.1, 0.2, 2, 0.1, 0.1, 0.3, 4], dtype=np.float16)
    >>> rule = PatchRule(threshold=1.0, max_length=3)
    >>> rule.starts(b"abcdefg", entropies).tolist()
    [0, 3, 6, 7]
    >>> rule.lengths(b"abcdefg", entropies).tolist()
    [3, 3, 1, 1]
    """

    def __post_init__(self) -> None:
        """Check every field alone and against the scheme."""
        if not isinstance(self.scheme, str) or self.scheme not in SCHEMES:
            raise ConfigError(f"There is no patch rule {self.scheme!r}{nearest(str(self.scheme), SCHEMES)}.")
        for name in ("threshold", "relative_threshold", "target_length"):
            if getattr(self, name) is not None:
                # As a float, and never as -0.0, so that equal rules have equal fingerprints.
                object.__setattr__(self, name, _number(name, getattr(self, name)) + 0.0)
        for name in ("stride", "min_length", "max_length"):
            if getattr(self, name) is not None or name == "min_length":
                object.__setattr__(self, name, _count(name, getattr(self, name)))
        for name in ("reset_at_newline", "characters"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigError(f"{name} is {getattr(self, name)!r}; it must be true or false.")
        # As float32, as it is compared: ln 260 itself may have been rounded up.
        if self.threshold is not None and not (self.threshold >= 0 and np.float32(self.threshold) <= np.float32(MAX_ENTROPY_NATS)):
            raise ConfigError(f"threshold is {self.threshold!r}; it must lie between 0 and ln 260 = {MAX_ENTROPY_NATS:.4f} nats.")
        if self.target_length is not None and self.target_length < 1:
            raise ConfigError(f"target_length is {self.target_length:g}; it must be a number of bytes, at least 1.")
        self._check_scheme()
        if self.max_length is not None and self.min_length > self.max_length:
            raise ConfigError(f"min_length is {self.min_length}; it must not be above max_length, which is {self.max_length}.")

    def _check_scheme(self) -> None:
        reads = SCHEMES[self.scheme].reads
        for name, unset in _UNSET.items():
            if name not in reads and getattr(self, name) != unset:
                known = f"it reads {', '.join(reads)}" if reads else "it has no settings"
                raise ConfigError(f"{name} is {getattr(self, name)!r} and the rule {self.scheme!r} doesn't read it: {known}.")
        if "stride" in reads and self.stride is None:
            raise ConfigError(f"The rule {self.scheme!r} needs a stride, the bytes of a patch; give one, such as stride=4.")
        if "target_length" in reads and self.target_length is None:
            raise ConfigError(f"The rule {self.scheme!r} needs a target_length, the mean length to hold; give one, such as 4.5.")
        if "tokenizer" in reads:
            self._identify_tokenizer()
        if self.characters and self.max_length is not None:
            raise ConfigError(
                f"max_length is {self.max_length} and characters is set, but a patch that is full could end inside a character; "
                "leave one of them out."
            )

    def _identify_tokenizer(self) -> None:
        if self.tokenizer is None:
            raise ConfigError(f"The rule {self.scheme!r} needs a tokenizer, the path of a tokenizer.json; give one.")
        object.__setattr__(self, "tokenizer", str(self.tokenizer))
        if self.tokenizer_fingerprint is None:
            object.__setattr__(self, "tokenizer_fingerprint", bpe.tokenizer_fingerprint(str(self.tokenizer)))

    @property
    def needs_entropies(self) -> bool:
        """Whether the rule reads entropies."""
        return SCHEMES[self.scheme].needs_entropies

    @property
    def needs_bytes(self) -> bool:
        """Whether the rule reads the bytes before a position."""
        return reads_bytes(self)

    @property
    def is_incremental(self) -> bool:
        """Whether the rule can be used while generating: every start is decided by what comes before it."""
        return SCHEMES[self.scheme].is_incremental

    @property
    def is_calibrated(self) -> bool:
        """Whether the rule can be used: an `entropy` rule needs a threshold."""
        return self.scheme != "entropy" or self.threshold is not None or self.relative_threshold is not None

    def lengths(self, data: Any, entropy_nats: Any = None, *, document: str = "the document") -> np.ndarray:
        """Patch lengths of a document of n bytes.

        Args:
            data: its bytes.
            entropy_nats: float16 or float32 [n + 1], nats; None for a rule that reads none.
            document: what errors call it.

        Returns:
            uint32 [patches], none of them 0, their sum n + 1.

        Raises:
            PatchingError: the entropies are missing, of another number, NaN, infinite, negative or above ln 260; or the rule has no
                threshold yet.
        """
        array = inputs.as_bytes(data)
        if entropy_nats is not None:
            entropy_nats = inputs.as_entropies(entropy_nats)
            inputs.check_count(entropy_nats.size, array.size, document)
            if not self.needs_entropies:
                inputs.check_entropies(entropy_nats, array.size, document)
        lengths, _ = self.lengths_of_documents(array, [0, array.size], entropy_nats, names=[document])
        return lengths

    def starts(self, data: Any, entropy_nats: Any = None, *, document: str = "the document") -> np.ndarray:
        """Positions where the patches of a document start: int64 [patches], the first 0. Arguments and errors as for `lengths`."""
        return starts_of_lengths(self.lengths(data, entropy_nats, document=document))

    def lengths_of_documents(
        self, data: Any, data_offsets: Any, entropy_nats: Any = None, *, names: Sequence[str] | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Patch lengths of documents that lie end to end; see `boundaries.patch_lengths_of_documents`."""
        self._require_threshold()
        return boundaries.patch_lengths_of_documents(data, data_offsets, entropy_nats, self, names=names)

    def stepper(self) -> PatchStepper:
        """The rule one position at a time, for generation.

        Raises:
            PatchingError: the rule has no threshold yet, or needs to see the whole document.
        """
        self._require_threshold()
        if not self.is_incremental:
            raise PatchingError(
                f"The rule {self.scheme!r} needs the whole document before it can cut it, and while generating there is only its "
                "beginning; generate with a model that was trained on another rule."
            )
        return PatchStepper(self)

    def _require_threshold(self) -> None:
        if not self.is_calibrated:
            raise PatchingError(
                "The rule 'entropy' has neither threshold nor relative_threshold yet; "
                "give one, or calibrate the rule to a mean patch length."
            )


def starts_of_lengths(lengths: np.ndarray) -> np.ndarray:
    """Where patches of these lengths start, int64.

    >>> starts_of_lengths(np.array([2, 3, 2], dtype=np.uint32)).tolist()
    [0, 2, 5]
    """
    starts = np.zeros(len(lengths), dtype=np.int64)
    np.cumsum(lengths[:-1], out=starts[1:])
    return starts


_FLOAT32_MAX = float(np.finfo(np.float32).max)

_UNSET = {field.name: field.default for field in dataclasses.fields(RuleSettings) if field.name != "scheme"}


def _number(name: str, value: Any) -> float:
    is_number = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    # In this order, as there are whole numbers that no float holds; NaN fails too.
    if not is_number or not abs(value) <= _FLOAT32_MAX:
        raise ConfigError(f"{name} is {value!r}; it must be a finite number of {'bytes' if name == 'target_length' else 'nats'}.")
    return float(value)


def _count(name: str, value: Any) -> int:
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < 1:
        raise ConfigError(f"{name} is {value!r}; it must be a whole number of bytes, at least 1.")
    return int(value)
