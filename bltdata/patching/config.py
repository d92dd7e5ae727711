"""`PatchingConfig`: patching in the words of those who ask for it, as one configuration that `PatchRule` and scoring are made from."""

import re
from dataclasses import dataclass
from typing import Literal, get_args

from bltdata.errors import ConfigError
from bltdata.patching.rule import PatchRule
from bltdata.patching.schemes import SCHEMES

_NAMES = {
    "threshold": "entropy_threshold",
    "relative_threshold": "entropy_threshold",
    "reset_at_newline": "reset_context",
    "min_length": "min_patch_size",
    "max_length": "max_patch_size",
}
"""The fields of `PatchRule` -> what they are called here."""

_Scheme = Literal["entropy", "fixed", "space", "byte"]
_SCHEMES = get_args(_Scheme)


@dataclass(frozen=True, kw_only=True)
class PatchingConfig:
    """How documents are cut into patches, and whether newlines reset the context.

    Raises:
        ConfigError: a field is out of range, is missing, contradicts another, or means nothing to the scheme.

    >>> PatchingConfig(entropy_threshold=1.335, max_patch_size=16).rule() == PatchRule(threshold=1.335, max_length=16)
    True
    >>> PatchingConfig(entropy_threshold=0.5, use_monotonic=True).rule() == PatchRule(relative_threshold=0.5)
    True
    """

    scheme: _Scheme = "entropy"
    """The rule; see `PatchRule`."""
    entropy_threshold: float | None = None
    """Of `entropy`: nats that the entropy must exceed; with `use_monotonic`, nats by which it must rise. None: to be calibrated."""
    stride: int | None = None
    """Of `fixed`: bytes of a patch."""
    use_monotonic: bool = False
    """Of `entropy`: the approximate monotonic constraint in place of the global one, as in the reference: `entropy_threshold` is then
    compared with the rise from the position before. For both at once use `PatchRule` itself."""
    reset_context: bool = False
    """The newline reset: each line is cut like a document (`PatchRule.reset_at_newline`), and has to be scored like one: give this to
    `EntropyModel.score`, or to `BuildConfig`, as `reset_at_newline`. Source: arXiv:2412.09871, section 4.4."""
    min_patch_size: int = 1
    """No patch is shorter, unless a newline that resets or the end of the document cuts it."""
    max_patch_size: int | None = None
    """No patch is longer; None for no limit."""

    def __post_init__(self) -> None:
        """Check that it makes a rule."""
        if not isinstance(self.use_monotonic, bool):
            raise ConfigError(f"use_monotonic is {self.use_monotonic!r}; it must be true or false.")
        if isinstance(self.scheme, str) and self.scheme in SCHEMES and self.scheme not in _SCHEMES:
            known = ", ".join(_SCHEMES)
            raise ConfigError(f"scheme is {self.scheme!r}, whose settings have no words here; use PatchRule, or one of {known}.")
        if self.use_monotonic and self.scheme != "entropy":
            raise ConfigError(f"use_monotonic is set and the rule {self.scheme!r} doesn't read it; leave it out, or take 'entropy'.")
        if self.use_monotonic and self.entropy_threshold is None:
            raise ConfigError("use_monotonic needs an entropy_threshold, the nats by which the entropy must rise; give one, such as 0.5.")
        self.rule()

    def rule(self) -> PatchRule:
        """The rule that cuts documents so."""
        try:
            return PatchRule(
                scheme=self.scheme,
                threshold=None if self.use_monotonic else self.entropy_threshold,
                relative_threshold=self.entropy_threshold if self.use_monotonic else None,
                stride=self.stride,
                min_length=self.min_patch_size,
                max_length=self.max_patch_size,
                reset_at_newline=self.reset_context,
            )
        except ConfigError as error:
            # The same sentence, about the fields that the user knows.
            sentence = re.sub(r"\b\w+\b", lambda word: _NAMES.get(word[0], word[0]), str(error))
            raise ConfigError(sentence.replace("entropy_threshold, entropy_threshold", "entropy_threshold")) from error
