"""A document cut into patches, to look at and to compute with."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bltdata.errors import PatchingError
from bltdata.patching import display, inputs
from bltdata.patching.rule import PatchRule, starts_of_lengths

_SHOWN_BYTES = 20_000
"""A notebook page with more coloured patches than these bytes make is no fun to scroll."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Patches:
    """The patches of one document.

    Iteration gives the bytes of each patch, as many as `len` says; joined they are the document. The end of the document takes part
    as position n: where it starts a patch of its own, that patch is the last and has no bytes.
    """

    data: bytes
    """The document, n bytes."""
    entropy_nats: np.ndarray | None
    """float16 or float32 [n + 1], nats; None if the rule reads none and none were given."""
    rule: PatchRule
    """The rule that cut it."""
    lengths: np.ndarray
    """uint32 [patches], none of them 0, their sum n + 1."""

    @property
    def starts(self) -> np.ndarray:
        """Positions where patches start: int64 [patches], the first 0."""
        return starts_of_lengths(self.lengths)

    @property
    def mean_length(self) -> float:
        """Positions per patch: (n + 1) / patches."""
        return (len(self.data) + 1) / len(self)

    def head(self, num_bytes: int) -> "Patches":
        """The patches of the first bytes of a document; the byte after them takes the place of its end.

        >>> from bltdata.patching import PatchRule
        >>> patch(b"hello world, foo", None, PatchRule(scheme="space")).head(8).lengths.tolist()
        [6, 3]
        """
        num_bytes = min(num_bytes, len(self.data))
        starts = self.starts
        lengths = np.diff(starts[starts <= num_bytes], append=num_bytes + 1).astype(np.uint32)
        entropy_nats = None if self.entropy_nats is None else self.entropy_nats[: num_bytes + 1]
        return replace(self, data=self.data[:num_bytes], entropy_nats=entropy_nats, lengths=lengths)

    def __len__(self) -> int:
        """The number of patches."""
        return len(self.lengths)

    def __iter__(self) -> Iterator[bytes]:
        """The bytes of each patch."""
        begin = 0
        for length in self.lengths.tolist():
            yield self.data[begin : begin + length]
            begin += length

    def __repr__(self) -> str:
        """In one line."""
        return f"<Patches: {len(self)} of {len(self.data)} bytes, {self.mean_length:.2f} on average>"

    def to_text(self, width: int | None = None) -> str:
        """The document with a mark between each two patches, in lines of at most `width` cells; see `display`."""
        return display.marked_text(self, width)

    def to_ansi(self, width: int | None = None) -> str:
        """The document in a terminal's colours, its characters by their entropy, the first of each patch underlined; see `display`."""
        return display.coloured_text(self, width)

    def to_html(self, title: str = "Patches") -> str:
        """A page of its own: patches in colours, a legend, and the numbers of each patch under the pointer."""
        return display.html_page(self, title, [f"{display.summary(self)}; {display.rule_in_words(self.rule)}"])

    def _repr_html_(self) -> str:
        """For notebooks: the text, its patches side by side, the more surprising a patch's first byte the stronger its colour."""
        num_shown = None
        note = ""
        if len(self.data) > _SHOWN_BYTES:
            num_shown = display.whole_characters(self.data, _SHOWN_BYTES)
            note = f"; the first {num_shown} are shown"
        return (
            f'<div><div style="opacity:.7;font-size:smaller">{display.summary(self)}{note}</div>'
            f"{display.html_fragment(self, num_shown)}</div>"
        )


def patch(data: Any, entropy_nats: Any, rule: PatchRule, *, document: str = "the document") -> Patches:
    """Cut a document into patches.

    Args:
        data: its bytes, n of them, of any kind.
        entropy_nats: float16 or float32 [n + 1], nats; None for a rule that reads none. Entry `i` is the uncertainty about byte `i`
            given the bytes before it, entry n about the end.
        rule: where patches start.
        document: what errors call it.

    Raises:
        PatchingError: the entropies are missing, of another number, NaN, infinite, negative or above ln 260; or the rule is none, or
            has no threshold yet.

    >>> from bltdata.patching import PatchRule
    >>> patches = patch(b"hello world, foo", None, PatchRule(scheme="space"))
    >>> list(patches), patches.lengths.tolist()
    ([b'hello ', b'world,', b' foo'], [6, 6, 5])
    """
    if not isinstance(rule, PatchRule):
        raise PatchingError(f"The rule is {rule!r}; give a PatchRule, such as PatchRule(scheme='space').")
    array = inputs.as_bytes(data)
    entropies = None
    if entropy_nats is not None:
        # A copy, as of the bytes: what was cut stays as it was.
        entropies = inputs.as_entropies(entropy_nats).copy()
        inputs.check_entropies(entropies, array.size, document)
    lengths = rule.lengths(array, entropies, document=document)
    return Patches(data=array.tobytes(), entropy_nats=entropies, rule=rule, lengths=lengths)
