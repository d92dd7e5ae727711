import hashlib
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bltdata.corpus import SplitFractions
from bltdata.errors import ConfigError


def test_the_hash_is_what_it_says():
    fractions = SplitFractions()
    for number in range(200):
        data = b"document %d" % number
        share = int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big") / 2**64
        assert fractions.split_of(data) == ("train" if share < 0.9 else "validation" if share < 0.95 else "test")


@pytest.mark.parametrize("shares", [(0.9, 0.05, 0.05), (0.5, 0.2, 0.3), (0.0, 0.5, 0.5), (0.7, 0.0, 0.3), (1.0, 0.0, 0.0), (0.0, 0.0, 1.0)])
def test_shares_come_out_about_right(shares):
    fractions = SplitFractions(train=shares[0], validation=shares[1], test=shares[2])
    counts = Counter(fractions.split_of(b"%d" % number) for number in range(20_000))
    for name, share in zip(("train", "validation", "test"), shares, strict=True):
        assert counts[name] / 20_000 == pytest.approx(share, abs=0.01)
        assert share or not counts[name]


@given(st.binary(), st.floats(0, 1))
def test_a_bigger_train_share_only_adds_to_train(data, share):
    smaller = SplitFractions(train=share / 2, validation=1 - share / 2, test=0)
    bigger = SplitFractions(train=share, validation=1 - share, test=0)
    assert smaller.split_of(data) != "train" or bigger.split_of(data) == "train"


@pytest.mark.parametrize("shares", [{"train": 0.9, "validation": 0.2}, {"train": -0.1, "validation": 1.05}, {"train": float("nan")}])
def test_what_is_no_share(shares):
    with pytest.raises(ConfigError, match=r"The split fractions are .+; they must be at least 0 and add up to 1"):
        SplitFractions(**shares)


def test_splits_that_nothing_can_be_in():
    SplitFractions().check("validation")
    with pytest.raises(ConfigError, match=r"There is no split 'valid'.*'validation'"):
        SplitFractions().check("valid")
    with pytest.raises(ConfigError, match=r"The split 'test' has the fraction 0"):
        SplitFractions(train=0.9, validation=0.1, test=0).check("test")
