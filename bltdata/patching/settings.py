"""The settings of a patch rule, as plain values."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from bltdata.config import ADDED_LATER


@dataclass(frozen=True, kw_only=True)
class RuleSettings:
    """The fields of `PatchRule`, which checks them and says what they do together; apart, so that the rules can stand below it."""

    scheme: Literal["entropy", "fixed", "space", "byte", "quantile", "bpe"] = "entropy"
    """Where patches start: `entropy` where the next byte is hard to predict; `quantile` likewise, at a threshold that adapts along each
    document; `fixed` every `stride` bytes; `space` after each word; `byte` everywhere; `bpe` where a tokenizer's tokens do."""
    threshold: float | None = None
    """Global threshold in nats, from 0 to ln 260; compared as float32, strictly. Of `quantile`: where each document begins."""
    relative_threshold: float | None = None
    """Rise from the position before, in nats, that must be passed; any finite number, compared as float32, strictly."""
    stride: int | None = None
    """Bytes of a patch of the `fixed` scheme."""
    min_length: int = 1
    """No patch is shorter, unless a newline that resets or the end of the document cuts it."""
    max_length: int | None = None
    """No patch is longer; none for no limit."""
    reset_at_newline: bool = False
    """Of `entropy`: treat each line as a document: the byte after a newline always starts a patch."""
    characters: bool = field(default=False, metadata=ADDED_LATER)
    """Of `space`: never cut inside a UTF-8 character; only ASCII separates words then."""
    target_length: float | None = field(default=None, metadata=ADDED_LATER)
    """Of `quantile`: the mean patch length that every document is held to."""
    tokenizer: str | None = field(default=None, metadata=ADDED_LATER)
    """Of `bpe`: the path of a Hugging Face `tokenizer.json`."""
    tokenizer_fingerprint: str | None = field(default=None, metadata=ADDED_LATER)
    """Of `bpe`: 16 hex digits that name the tokenizer's content; filled in from the file where not given, and checked where it is."""


def describe_rule(rule: Mapping[str, Any]) -> str:
    """A rule in a line: its scheme and what it sets.

    Settings that say nothing, being `None`, false or a minimum length of 1, are left out.

    Args:
        rule: as `to_mapping` gives it, or what somebody else's manifest has in its place.

    >>> describe_rule({"scheme": "entropy", "threshold": 1.5, "min_length": 1, "max_length": None})
    'entropy, threshold 1.5'
    """
    told = [str(rule.get("scheme", "unknown"))]
    for name, value in rule.items():
        # By identity: a threshold of 0 equals False, and says something.
        is_unset = value is None or value is False or (name == "min_length" and value == 1)
        if name not in ("scheme", "tokenizer_fingerprint") and not is_unset:
            told.append(f"{name} {value}")
    return ", ".join(told)


def decisions(rule: Mapping[str, Any]) -> dict[str, Any]:
    """What decides where a rule starts patches: all of it but where its tokenizer lies, since the fingerprint names that.

    >>> decisions({"scheme": "bpe", "tokenizer": "here/tokenizer.json", "tokenizer_fingerprint": "0a1b"})
    {'scheme': 'bpe', 'tokenizer_fingerprint': '0a1b'}
    """
    return {name: value for name, value in rule.items() if name != "tokenizer"}
