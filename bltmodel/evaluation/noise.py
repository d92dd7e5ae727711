"""Noise in the characters of a document: what typing errors, odd capitals and the like do to a model.

A character is a code point of valid UTF-8; a byte that belongs to none is a character by itself, so any bytes can be noised,
and all that isn't hit stays as it was. The rate is the probability, for each character by itself, that it is hit.

Source: arXiv:2412.09871, section 6.1, has five kinds: drop (10 % of the characters), repeat (20 %), random case, upper case and
AntSpeak (the last three of all characters: a rate of 1). `swap` isn't among them.
"""

import hashlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from bltdata.config import nearest
from bltdata.errors import ConfigError

MAX_COPIES = 4
"""How often a repeated character stands there at most."""

_Hits = np.ndarray
_Noiser = Callable[[list[str], _Hits, np.random.Generator], None]


class Noise(NamedTuple):
    """A kind of noise.

    Attributes:
        apply: changes a list of characters in place, given which of them are hit (int64, ascending) and what draws the rest.
        what: what happens to a character that it hits.
    """

    apply: _Noiser
    what: str


def _drop(characters: list[str], hits: _Hits, generator: np.random.Generator) -> None:
    for index in hits.tolist():
        characters[index] = ""


def _repeat(characters: list[str], hits: _Hits, generator: np.random.Generator) -> None:
    copies = generator.integers(2, MAX_COPIES, size=len(hits), endpoint=True)
    for index, count in zip(hits.tolist(), copies.tolist(), strict=True):
        characters[index] *= count


def _swap(characters: list[str], hits: _Hits, generator: np.random.Generator) -> None:
    free = 0
    for index in hits.tolist():
        # A character moves one place at most.
        if free <= index < len(characters) - 1:
            characters[index], characters[index + 1] = characters[index + 1], characters[index]
            free = index + 2


def _case(characters: list[str], hits: _Hits, generator: np.random.Generator) -> None:
    is_upper = generator.random(len(hits)) < 0.5
    for index, upper in zip(hits.tolist(), is_upper.tolist(), strict=True):
        characters[index] = characters[index].upper() if upper else characters[index].lower()


def _upper(characters: list[str], hits: _Hits, generator: np.random.Generator) -> None:
    for index in hits.tolist():
        characters[index] = characters[index].upper()


def _ant(characters: list[str], hits: _Hits, generator: np.random.Generator) -> None:
    for index in hits.tolist():
        space = " " if index < len(characters) - 1 else ""
        characters[index] = characters[index].upper() + space


NOISES: dict[str, Noise] = {
    "drop": Noise(_drop, "is left out"),
    "repeat": Noise(_repeat, f"stands there 2 to {MAX_COPIES} times, each as likely"),
    "swap": Noise(_swap, "is exchanged with the one after it, unless it has just been exchanged itself"),
    "case": Noise(_case, "is made upper or lower case, each as likely"),
    "upper": Noise(_upper, "is made upper case"),
    "ant": Noise(_ant, "is made upper case, with a space after it unless it is the last"),
}


def add_noise(data: bytes, kind: str, rate: float, seed: int = 0) -> bytes:
    """A document with noise in its characters.

    Args:
        data: any bytes.
        kind: one of `NOISES`.
        rate: probability that a character is hit.
        seed: fixes, with kind and content, what is drawn: a document gets the same noise wherever it stands.

    Raises:
        ConfigError: there is no such kind, or the rate isn't in `(0, 1]`.

    >>> add_noise(b"the cat", "ant", 1.0)
    b'T H E   C A T'
    >>> add_noise(b"the cat", "swap", 1.0)
    b'ht eact'
    """
    if kind not in NOISES:
        raise ConfigError(f"There is no noise {kind!r}{nearest(kind, NOISES)}.")
    if not 0 < rate <= 1:
        raise ConfigError(f"The rate of the noise {kind!r} is {rate:g}; it must be above 0 and at most 1.")
    digest = hashlib.blake2b(data, digest_size=8, person=kind.encode()).digest()
    generator = np.random.default_rng([seed, int.from_bytes(digest, "big")])
    characters = list(data.decode("utf-8", "surrogateescape"))
    hits = np.flatnonzero(generator.random(len(characters)) < rate)
    NOISES[kind].apply(characters, hits, generator)
    return "".join(characters).encode("utf-8", "surrogateescape")
