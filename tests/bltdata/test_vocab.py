import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bltdata import vocab

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "tokens.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: repr(case["text"]))
def test_ids_are_those_of_the_released_tokenizer(case):
    data = bytes.fromhex(case["bytes_hex"])
    assert data == case["text"].encode()
    assert vocab.encode(data).tolist() == case["no_specials"]
    assert vocab.encode(data, bos=True, eos=True).tolist() == case["with_bos_eos"]
    assert vocab.decode(case["with_bos_eos"]) == data


def test_deviation_no_byte_is_dropped():
    """The released tokenizer takes text, and both ways ignores what isn't UTF-8: that loses bytes, and we take bytes."""
    invalid = b"\xed\xa0\x80 lone surrogate, \xff never UTF-8, cut off \xe2\x82"
    assert invalid.decode(errors="ignore").encode() != invalid
    assert vocab.decode(vocab.encode(invalid)) == invalid


@given(st.binary(), st.booleans(), st.booleans())
def test_round_trip(data, bos, eos):
    ids = vocab.encode(data, bos=bos, eos=eos)
    assert ids.dtype == np.int64
    assert len(ids) == bos + len(data) + eos
    assert vocab.decode(ids) == data


def test_every_byte_has_an_id_of_its_own():
    ids = vocab.encode(bytes(range(256)))
    specials = {vocab.BOE_ID, vocab.BOS_ID, vocab.EOS_ID, vocab.BPE_ID}
    assert specials | set(ids.tolist()) == set(range(vocab.VOCAB_SIZE))


def test_empty_document():
    assert vocab.encode(b"", bos=True, eos=True).tolist() == [vocab.BOS_ID, vocab.EOS_ID]
    assert vocab.decode([]) == b""


def test_entropy_limit_is_that_of_the_uniform_distribution():
    uniform = np.full(vocab.VOCAB_SIZE, 1 / vocab.VOCAB_SIZE)
    assert pytest.approx(-(uniform * np.log(uniform)).sum()) == vocab.MAX_ENTROPY_NATS
