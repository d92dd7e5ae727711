"""Ending a continuation where a string would stand, which nobody has seen a byte of by then."""

from collections.abc import Sequence

from bltmodel.generation.settings import NewByte


class StopStrings:
    r"""Lets bytes through as soon as it is certain that they don't begin a stop string.

    Args:
        stop: any byte strings, none of them empty.

    >>> stops = StopStrings([b"</s>", b"\n\n"])
    >>> b"".join(bytes([new.byte]) for value in b"<a></s>b" for new in stops.feed(NewByte(0, value, False, None)))
    b'<a>'
    >>> stops.found
    True
    """

    def __init__(self, stop: Sequence[bytes]) -> None:
        self.found = False
        """Whether a stop string has come. What comes after it is dropped."""
        self._stop = [*stop]
        self._beginnings = {string[:length] for string in stop for length in range(1, len(string))}
        self._longest = max((len(string) for string in stop), default=0)
        self._held: list[NewByte] = []

    def feed(self, new: NewByte) -> list[NewByte]:
        """Take the next byte; returns what is certain by now, in order."""
        if self.found:
            return []
        self._held.append(new)
        held = bytes(each.byte for each in self._held)
        ended = [len(string) for string in self._stop if held.endswith(string)]
        if ended:
            self.found = True
            # Several may end here; then the one that began first is cut off.
            return self._release(len(held) - max(ended))
        lengths = range(min(len(held), self._longest - 1), 0, -1)
        kept = next((length for length in lengths if held[-length:] in self._beginnings), 0)
        return self._release(len(held) - kept)

    def flush(self) -> list[NewByte]:
        """What was held back: nothing comes after it, so it begins no stop string."""
        return [] if self.found else self._release(len(self._held))

    def _release(self, count: int) -> list[NewByte]:
        released, self._held = self._held[:count], self._held[count:]
        return released
