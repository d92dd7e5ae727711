"""A document cut into patches, to look at and to compute with."""

import html
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from bltdata.patching import inputs
from bltdata.patching.rule import PatchRule, starts_of_lengths
from bltdata.vocab import MAX_ENTROPY_NATS

_SHOWN_BYTES = 20_000
"""A notebook page with more coloured patches than these bytes make is no fun to scroll."""

_NEWLINE_SHOWN = "\N{RETURN SYMBOL}\n"


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

    def _repr_html_(self) -> str:
        """For notebooks: the text, its patches side by side, the more surprising a patch's first byte the stronger its colour.

        What can't be printed is shown as an escape. Colours are translucent over the page's own, light or dark.
        """
        num_shown = min(len(self.data), _SHOWN_BYTES)
        spans = []
        for start, length in zip(self.starts.tolist(), self.lengths.tolist(), strict=True):
            if start > num_shown:
                break
            spans.append(self._span(start, length, self.data[start : min(start + length, num_shown)]))
        note = f"; the first {num_shown} are shown" if num_shown < len(self.data) else ""
        return (
            f'<div><div style="opacity:.7;font-size:smaller">{len(self)} patches of {len(self.data)} bytes, '
            f"{self.mean_length:.2f} on average{note}</div>"
            f'<div style="font-family:monospace;white-space:pre-wrap;overflow-wrap:anywhere;line-height:1.7">{"".join(spans)}</div></div>'
        )

    def _span(self, start: int, length: int, shown: bytes) -> str:
        title = f"position {start}, length {length}" if start < len(self.data) else f"position {start}, the end of the document"
        strength = 0.0
        if self.entropy_nats is not None:
            entropy = float(self.entropy_nats[start])
            strength = min(entropy / MAX_ENTROPY_NATS, 1.0)
            title += f", {entropy:.3f} nats"
        style = f"background:rgba(235,110,20,{0.65 * strength:.3f});border-left:1px solid rgba(128,128,128,.8)"
        return f'<span title="{html.escape(title)}" style="{style}">{html.escape(_printable(shown))}</span>'


def patch(data: Any, entropy_nats: Any, rule: PatchRule, *, document: str = "the document") -> Patches:
    """Cut a document into patches.

    Args:
        data: its bytes, n of them, of any kind.
        entropy_nats: float16 or float32 [n + 1], nats; None for a rule that reads none. Entry `i` is the uncertainty about byte `i`
            given the bytes before it, entry n about the end.
        rule: where patches start.
        document: what errors call it.

    Raises:
        PatchingError: the entropies are missing, of another number, NaN, infinite, negative or above ln 260.

    >>> from bltdata.patching import PatchRule
    >>> patches = patch(b"hello world, foo", None, PatchRule(scheme="space"))
    >>> list(patches), patches.lengths.tolist()
    ([b'hello ', b'world,', b' foo'], [6, 6, 5])
    """
    array = inputs.as_bytes(data)
    entropies = None
    if entropy_nats is not None:
        entropies = inputs.as_entropies(entropy_nats)
        inputs.check_entropies(entropies, array.size, document)
    lengths = rule.lengths(array, entropies, document=document)
    return Patches(data=array.tobytes(), entropy_nats=entropies, rule=rule, lengths=lengths)


def _printable(data: bytes) -> str:
    """Text that shows all of `data`: what is no UTF-8 or can't be printed as an escape, a newline as a sign and a line break."""
    text = data.decode("utf-8", errors="backslashreplace")
    return "".join(_NEWLINE_SHOWN if character == "\n" else _shown(character) for character in text)


def _shown(character: str) -> str:
    return character if character.isprintable() else character.encode("unicode_escape").decode()
