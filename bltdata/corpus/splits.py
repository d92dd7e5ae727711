"""Splitting a corpus by content: the same bytes are always in the same split, wherever and however often they occur.

So a page that stands twice in a corpus, or in two corpora, is never trained on and tested on, adding documents moves none of
the old ones, and no list of members has to be kept.
"""

import dataclasses
import hashlib
import math

from bltdata.config import nearest
from bltdata.errors import ConfigError

_HASH_BITS = 64


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SplitFractions:
    """What share of the documents each split gets, about."""

    train: float = 0.9
    validation: float = 0.05
    test: float = 0.05

    def __post_init__(self) -> None:
        """Check that they are shares of one whole."""
        values = dataclasses.astuple(self)
        if not all(math.isfinite(value) and value >= 0 for value in values) or not math.isclose(sum(values), 1, abs_tol=1e-9):
            raise ConfigError(f"The split fractions are {', '.join(map(str, values))}; they must be at least 0 and add up to 1.")

    def split_of(self, data: bytes) -> str:
        """The split of a document: `train`, `validation` or `test`.

        BLAKE2b of the content with a digest of 8 bytes, as a big-endian integer, is compared with the cumulated fractions.

        >>> SplitFractions().split_of(b"a document")
        'train'
        """
        position = int.from_bytes(hashlib.blake2b(data, digest_size=_HASH_BITS // 8).digest(), "big")
        cumulated, split = 0.0, ""
        for name, fraction in (("train", self.train), ("validation", self.validation), ("test", self.test)):
            # A split without a share gets no sliver either, and the last with one gets what rounding left.
            if fraction > 0:
                split = name
                cumulated += fraction
                # In integers, because 2**64 - 1 divided by 2**64 rounds up to a whole.
                if position < round(cumulated * 2**_HASH_BITS):
                    break
        return split

    def check(self, split: str) -> None:
        """Refuse a split that doesn't exist, or can't have a document.

        Raises:
            ConfigError: with the nearest split.
        """
        names = [field.name for field in dataclasses.fields(self)]
        if split not in names:
            raise ConfigError(f"There is no split {split!r}{nearest(split, names)}.")
        if getattr(self, split) == 0:
            raise ConfigError(f"The split {split!r} has the fraction 0; give it a share of the documents, or choose another split.")
