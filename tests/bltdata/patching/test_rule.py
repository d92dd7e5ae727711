"""`PatchRule`: its settings, and the laws that every rule keeps, on documents that hypothesis makes up."""

import dataclasses
import math
import typing
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bltdata.config import fingerprint, from_mapping, to_mapping
from bltdata.errors import ConfigError, PatchingError
from bltdata.patching import SCHEMES, PatchRule, PatchStepper, boundaries, starts_of_lengths
from bltdata.patching.inputs import MAX_STORED_ENTROPY_NATS
from tests.bltdata.rules import rules

many_examples = settings(max_examples=500)

# ------------------------------------------------------------------------------------------------------------- documents

# Half of the bytes and of the entropies are a few values, so that what rules look for is there and entropies meet each other and the
# thresholds exactly; the others are any bytes and any float16.
COMMON_BYTES = np.frombuffer(b"aab\n  .\xc3\xa9\xe6\x97\xa5", dtype=np.uint8)
COMMON_ENTROPIES = np.array([0.0, 0.25, 0.5, 1.0, 1.00390625, 1.5, 4.0, MAX_STORED_ENTROPY_NATS], dtype=np.float16)
ANY_ENTROPY = np.arange(int(COMMON_ENTROPIES[-1:].view(np.uint16)[0]) + 1, dtype=np.uint16).view(np.float16)


@st.composite
def documents(draw: st.DrawFn, max_bytes: int = 80) -> tuple[bytes, np.ndarray]:
    """Bytes, and entropies as float16. Size and seed shrink; drawing every value would make short documents of nothing but zeros."""
    num_bytes = draw(st.integers(0, max_bytes))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    data = np.where(rng.random(num_bytes) < 0.5, rng.choice(COMMON_BYTES, num_bytes), rng.integers(0, 256, num_bytes, dtype=np.uint8))
    common, anything = rng.choice(COMMON_ENTROPIES, num_bytes + 1), rng.choice(ANY_ENTROPY, num_bytes + 1)
    return data.tobytes(), np.where(rng.random(num_bytes + 1) < 0.5, common, anything)


def slow_starts(rule: PatchRule, data: bytes, entropy_nats: np.ndarray) -> list[int]:
    """The definition, word for word, one position at a time."""

    def is_space_like(i: int) -> bool:  # byte i; -1 is BOS
        plain_to = 0x100 if rule.characters else 0xC0
        return i < 0 or not ((chr(data[i]).isascii() and chr(data[i]).isalnum()) or 0x80 <= data[i] < plain_to)

    def asks(i: int) -> bool:
        if rule.scheme == "byte":
            return True
        if rule.scheme == "fixed":
            return i % typing.cast(int, rule.stride) == 0
        if rule.scheme == "space":
            return is_space_like(i - 1) and not is_space_like(i - 2)
        if rule.scheme == "quantile":
            return float(nats[i]) > quantile
        above = rule.threshold is None or nats[i] > np.float32(rule.threshold)
        rises = rule.relative_threshold is None or nats[i] - nats[i - 1] > np.float32(rule.relative_threshold)
        return bool(above and rises)

    nats = entropy_nats.astype(np.float32)
    starts: list[int] = []
    quantile = 1.5 if rule.threshold is None else rule.threshold
    for i in range(len(data) + 1):
        must = i == 0 or (rule.reset_at_newline and data[i - 1 : i] == b"\n")
        if must or (i - starts[-1] >= rule.min_length and asks(i)) or i - starts[-1] == rule.max_length:
            starts.append(i)
        if rule.scheme == "quantile":
            quantile -= 0.125 / typing.cast(float, rule.target_length)
            quantile = min(max(quantile + (0.125 if starts[-1] == i else 0.0), -0.125), MAX_STORED_ENTROPY_NATS + 0.125)
    return starts


# ------------------------------------------------------------------------------------------------------------------ laws


@many_examples
@given(documents(), rules())
def test_starts_and_lengths_are_the_definition(document: tuple[bytes, np.ndarray], rule: PatchRule) -> None:
    data, entropies = document
    starts, lengths = rule.starts(data, entropies), rule.lengths(data, entropies)
    assert starts.tolist() == slow_starts(rule, data, entropies)
    assert starts_of_lengths(lengths).tolist() == starts.tolist()
    assert (starts.dtype, lengths.dtype) == (np.int64, np.uint32)
    assert lengths.sum() == len(data) + 1
    assert lengths.min() >= 1
    assert lengths.max() <= (rule.max_length or math.inf)
    if not rule.reset_at_newline:
        assert lengths[:-1].min(initial=rule.min_length) >= rule.min_length


@many_examples
@given(documents(), documents(), rules(), st.integers(0, 80))
def test_no_rule_reads_the_byte_it_decides_about_or_anything_later(
    document: tuple[bytes, np.ndarray], other: tuple[bytes, np.ndarray], rule: PatchRule, position: int
) -> None:
    data, entropies = document
    position = min(position, len(data))
    starts = rule.starts(data, entropies)
    known = starts[starts <= position].tolist()

    changed = rule.starts(data[:position] + other[0], np.concatenate([entropies[: position + 1], other[1][:-1]]))
    assert changed[changed <= position].tolist() == known
    assert rule.starts(data[:position], entropies[: position + 1]).tolist() == known, "starts of a prefix are a prefix of the starts"


@many_examples
@given(documents(), rules(), st.integers(0, 80))
def test_stepping_is_the_batch_form(document: tuple[bytes, np.ndarray], rule: PatchRule, fork: int) -> None:
    data, entropies = document
    stepper = rule.stepper()
    starts = []
    for i, entropy in enumerate(entropies):
        if i == fork:
            # A copy goes its own way and leaves the original where it was.
            stepper.copy().step(MAX_STORED_ENTROPY_NATS, data[i - 1] if i else None)
        if stepper.step(float(entropy), data[i - 1] if i else None):
            starts.append(i)
        assert stepper.position == i + 1
        assert stepper.patch_length == i + 1 - starts[-1]
    assert starts == rule.starts(data, entropies).tolist()


def state(stepper: PatchStepper) -> list[Any]:
    """All that a stepper goes on from."""
    quantile = stepper._quantile
    own = [getattr(stepper, name) for name in stepper.__slots__ if name != "_quantile"]
    return own + ([] if quantile is None else [vars(quantile)])


@many_examples
@given(documents(), rules(), st.integers(0, 80), st.sampled_from([np.float16, np.float32]))
def test_reading_is_stepping(document: tuple[bytes, np.ndarray], rule: PatchRule, length: int, kind: type) -> None:
    data, entropies = document
    length = min(length, len(data))
    reader, stepper = rule.stepper(), rule.stepper()
    before = [None, *data]
    starts = reader.read(data[:length], entropies[: length + 1].astype(kind))
    assert starts.dtype == bool
    assert starts.tolist() == [stepper.step(float(entropies[i]), before[i]) for i in range(length + 1)]
    assert state(reader) == state(stepper)
    rest = range(length + 1, len(data) + 1)
    going_on = [[each.step(float(entropies[i]), before[i]) for i in rest] for each in (reader, stepper)]
    assert going_on[0] == going_on[1]
    assert np.flatnonzero([*starts, *going_on[0]]).tolist() == rule.starts(data, entropies).tolist()


@many_examples
@given(st.lists(documents(30), max_size=6), rules())
def test_documents_end_to_end_are_documents_alone(several: list[tuple[bytes, np.ndarray]], rule: PatchRule) -> None:
    data_offsets = np.cumsum([0] + [len(data) for data, _ in several])
    entropies = np.concatenate([np.empty(0, dtype=np.float16)] + [entropies for _, entropies in several])
    lengths, offsets = rule.lengths_of_documents(b"".join(data for data, _ in several), data_offsets, entropies)
    assert offsets.size == len(several) + 1
    for i, (alone, alone_entropies) in enumerate(several):
        assert lengths[offsets[i] : offsets[i + 1]].tolist() == rule.lengths(alone, alone_entropies).tolist()
    assert offsets[-1] == len(lengths)


@many_examples
@given(documents(), rules())
def test_float16_and_its_float32_are_cut_alike(document: tuple[bytes, np.ndarray], rule: PatchRule) -> None:
    data, entropies = document
    expected = rule.lengths(data, entropies).tolist()
    assert rule.lengths(data, entropies.astype(np.float32)).tolist() == expected
    assert rule.lengths(data, entropies.tolist()).tolist() == expected
    negative_zero = np.where(entropies == 0, np.float16(-0.0), entropies)
    assert rule.lengths(data, negative_zero).tolist() == expected


@given(documents(400), rules(), st.integers(1, 3))
def test_blocks_leave_no_seam(document: tuple[bytes, np.ndarray], rule: PatchRule, words: int) -> None:
    data, entropies = document
    data_offsets = [0, len(data) // 2, len(data)]
    entropies = np.insert(entropies, len(data) // 2, np.float16(1.0))
    expected = rule.lengths_of_documents(data, data_offsets, entropies)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(boundaries, "_BLOCK", 64 * words)
        lengths, offsets = rule.lengths_of_documents(data, data_offsets, entropies)
    assert lengths.tolist() == expected[0].tolist()
    assert offsets.tolist() == expected[1].tolist()


@many_examples
@given(documents(), st.text(max_size=40), st.integers(1, 5))
def test_characters_are_never_cut(document: tuple[bytes, np.ndarray], text: str, min_length: int) -> None:
    # Real characters among bytes of any kind, which are no UTF-8 for the most part.
    data = document[0] + text.encode() + document[0][::-1]
    inside, offset = set(), len(document[0])
    for character in text:
        inside |= set(range(offset + 1, offset + len(character.encode())))
        offset += len(character.encode())
    starts = PatchRule(scheme="space", characters=True, min_length=min_length).starts(data)
    assert not inside & set(starts.tolist())
    if data.isascii():
        assert starts.tolist() == PatchRule(scheme="space", min_length=min_length).starts(data).tolist()


def test_a_large_document_is_cut_by_the_definition() -> None:
    rng = np.random.default_rng(0)
    data = rng.choice(np.frombuffer(b"abc def.\n", dtype=np.uint8), 300_000).tobytes()
    entropies = (np.minimum(rng.gamma(1.3, 1.0, len(data) + 1), 5.5) * 256).round().astype(np.float16) / np.float16(256)
    for rule in (
        PatchRule(threshold=1.3, relative_threshold=0.1, min_length=2, max_length=16, reset_at_newline=True),
        PatchRule(relative_threshold=1.0),
        PatchRule(scheme="space", max_length=8),
        PatchRule(scheme="space", characters=True),
        PatchRule(scheme="quantile", target_length=4.5, min_length=2, max_length=16),
    ):
        assert rule.starts(data, entropies).tolist() == slow_starts(rule, data, entropies)


def test_degenerate_documents() -> None:
    for rule in (PatchRule(threshold=1.0), PatchRule(scheme="space"), PatchRule(scheme="byte"), PatchRule(scheme="fixed", stride=4)):
        assert rule.lengths(b"", np.zeros(1, dtype=np.float16)).tolist() == [1]
        assert rule.lengths(b"a", np.zeros(2, dtype=np.float16)).sum() == 2
    one_byte = bytes(1_000_000)
    low = np.zeros(len(one_byte) + 1, dtype=np.float16)
    assert PatchRule(threshold=1.0).lengths(one_byte, low).tolist() == [1_000_001]
    assert PatchRule(threshold=1.0, max_length=10).lengths(one_byte, low).size == 100_001
    assert PatchRule(threshold=0.5).lengths(one_byte, low + np.float16(1)).size == 1_000_001


def test_examples_by_hand() -> None:
    entropies = np.array([5, 2, 0.3, 0.9, 1.5, 3], dtype=np.float32)
    assert PatchRule(threshold=1.0).starts(b"abcde", entropies).tolist() == [0, 1, 4, 5]
    assert PatchRule(threshold=1.0, min_length=2).starts(b"abcde", entropies).tolist() == [0, 4]
    assert PatchRule(threshold=1.0, min_length=2, max_length=2).starts(b"abcde", entropies).tolist() == [0, 2, 4]
    assert PatchRule(relative_threshold=0.5).starts(b"abcde", entropies).tolist() == [0, 3, 4, 5]
    assert PatchRule(threshold=1.0, relative_threshold=0.5).starts(b"abcde", entropies).tolist() == [0, 4, 5]
    assert PatchRule(threshold=5.0, reset_at_newline=True, min_length=3).starts(b"a\n\nbc", entropies).tolist() == [0, 2, 3]
    assert PatchRule(threshold=5.0, reset_at_newline=True).starts(b"abcd\n", entropies).tolist() == [0, 5]
    assert PatchRule(scheme="fixed", stride=4).lengths(b"abcdefg").tolist() == [4, 4]
    assert PatchRule(scheme="byte").lengths(b"abc").tolist() == [1, 1, 1, 1]
    assert PatchRule(scheme="space").lengths("\u65e5\u672c\u8a9e".encode()).tolist() == [4, 3, 3]
    assert PatchRule(scheme="space").lengths(b"  x").tolist() == [4]
    between = PatchRule(scheme="space", characters=True)
    assert between.lengths("\u65e5\u672c\u8a9e".encode()).tolist() == [10]
    assert between.lengths("d\u00e9j\u00e0 vu, \u65e5\u672c!".encode()).tolist() == [7, 3, 8, 1]
    assert between.lengths(b"\xc3 \xff\x80. a").tolist() == [2, 3, 3]
    assert PatchRule(scheme="quantile", target_length=2, threshold=1.0).starts(b"abcde", entropies).tolist() == [0, 1, 4, 5]


# -------------------------------------------------------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"scheme": "entropie"}, "the nearest is 'entropy'"),
        ({"scheme": None}, "no patch rule None"),
        ({"scheme": ["entropy"]}, r"no patch rule \['entropy'\]"),
        ({"threshold": 10**400}, "threshold is 10+; it must be a finite number of nats"),
        ({"scheme": "quantile", "target_length": "4"}, "target_length is '4'; it must be a finite number of bytes"),
        ({"threshold": -0.1}, r"threshold is -0\.1; it must lie between 0 and ln 260"),
        ({"threshold": 5.57}, "between 0 and ln 260"),
        ({"threshold": math.nan}, "threshold is nan; it must be a finite number"),
        ({"threshold": math.inf}, "finite"),
        ({"threshold": True}, "finite"),
        ({"threshold": "1.3"}, "finite"),
        ({"relative_threshold": math.nan}, "relative_threshold is nan"),
        ({"relative_threshold": -math.inf}, "finite"),
        ({"relative_threshold": 1e300}, "finite"),
        ({"threshold": 1.0, "stride": 4}, "stride is 4 and the rule 'entropy' doesn't read it: it reads threshold, relative_threshold"),
        ({"scheme": "fixed"}, "needs a stride"),
        ({"scheme": "fixed", "stride": 0}, "stride is 0; it must be a whole number of bytes, at least 1"),
        ({"scheme": "fixed", "stride": 4.5}, "whole number"),
        ({"scheme": "fixed", "stride": True}, "whole number"),
        ({"scheme": "fixed", "stride": 4, "max_length": 8}, "max_length is 8 and the rule 'fixed' doesn't read it"),
        ({"scheme": "space", "threshold": 1.0}, "threshold is 1.0 and the rule 'space' doesn't read it"),
        ({"scheme": "space", "reset_at_newline": True}, "reset_at_newline is True"),
        ({"scheme": "byte", "min_length": 2}, "it has no settings"),
        ({"min_length": 0}, "min_length is 0"),
        ({"min_length": None}, "min_length is None"),
        ({"max_length": 0}, "max_length is 0"),
        ({"min_length": 9, "max_length": 8}, "min_length is 9; it must not be above max_length, which is 8"),
        ({"reset_at_newline": 1}, "must be true or false"),
        ({"scheme": "space", "characters": "yes"}, "characters is 'yes'; it must be true or false"),
        ({"scheme": "space", "characters": True, "max_length": 8}, r"max_length is 8 and characters is set, but a patch .* leave one"),
        ({"threshold": 1.0, "characters": True}, "characters is True and the rule 'entropy' doesn't read it"),
        ({"scheme": "quantile"}, "'quantile' needs a target_length, the mean length to hold; give one"),
        ({"scheme": "quantile", "target_length": 0.9}, r"target_length is 0\.9; it must be a number of bytes, at least 1"),
        ({"scheme": "quantile", "target_length": math.nan}, "target_length is nan; it must be a finite number"),
        ({"scheme": "quantile", "target_length": 4.5, "relative_threshold": 0.1}, r"relative_threshold is 0\.1"),
        ({"scheme": "quantile", "target_length": 4.5, "reset_at_newline": True}, "reset_at_newline is True"),
        ({"scheme": "bpe"}, r"'bpe' needs a tokenizer, the path of a tokenizer\.json"),
        ({"scheme": "bpe", "tokenizer": "missing/tokenizer.json"}, r"Cannot read the tokenizer missing/tokenizer\.json: No such file"),
        ({"threshold": 1.0, "tokenizer": "tokenizer.json"}, r"tokenizer is 'tokenizer\.json' and the rule 'entropy' doesn't read it"),
    ],
)
def test_settings_that_make_no_rule(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PatchRule(**fields)


@given(rules())
def test_settings_survive_plain_values(rule: PatchRule) -> None:
    assert from_mapping(PatchRule, to_mapping(rule)) == rule
    # A field that joined later is not told of where it isn't used: what was stored before it came stays as it was.
    later = {field.name for field in dataclasses.fields(PatchRule) if field.metadata and getattr(rule, field.name) == field.default}
    assert set(to_mapping(rule)) == {field.name for field in dataclasses.fields(PatchRule)} - later


def test_equal_rules_have_equal_fingerprints() -> None:
    assert fingerprint(PatchRule(threshold=1)) == fingerprint(PatchRule(threshold=1.0))
    assert fingerprint(PatchRule(relative_threshold=-0.0)) == fingerprint(PatchRule(relative_threshold=np.float32(0)))
    assert fingerprint(PatchRule(threshold=1.5)) == "79854f55d13a8d08", "as before there were other rules"
    assert fingerprint(PatchRule(max_length=np.int64(8))) == fingerprint(PatchRule(max_length=8))  # type: ignore[arg-type]


def test_the_registry_is_what_the_settings_know() -> None:
    names = {field.name for field in dataclasses.fields(PatchRule)} - {"scheme"}
    assert set(typing.get_args(typing.get_type_hints(PatchRule)["scheme"])) == set(SCHEMES)
    assert set().union(*(scheme.reads for scheme in SCHEMES.values())) == names


def test_what_a_rule_needs() -> None:
    by_name = {"entropy": PatchRule(threshold=1.0), "space": PatchRule(scheme="space"), "byte": PatchRule(scheme="byte")}
    assert [by_name[name].needs_entropies for name in by_name] == [True, False, False]
    assert [by_name[name].needs_bytes for name in by_name] == [False, True, False]
    assert PatchRule(threshold=1.0, reset_at_newline=True).needs_bytes
    assert all(rule.is_incremental and rule.is_calibrated for rule in by_name.values())
    assert not PatchRule(max_length=8).is_calibrated


def test_a_rule_without_threshold_cuts_nothing() -> None:
    for use in (lambda: PatchRule().lengths(b"a", [0.0, 0.0]), lambda: PatchRule().stepper()):
        with pytest.raises(PatchingError, match="neither threshold nor relative_threshold"):
            use()


# ------------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -0.01, 5.57])
def test_entropies_that_cannot_be(value: float, dtype: type) -> None:
    entropies = np.full(5, 1.0, dtype=dtype)
    entropies[3] = value
    with pytest.raises(PatchingError, match=r"position 3 of page 7 is -?(nan|inf|0\.0|5\.57).*from 0 to ln 260 = 5\.5607"):
        PatchRule(threshold=1.0).lengths(b"abcd", entropies, document="page 7")


def test_an_impossible_entropy_among_documents_is_found() -> None:
    entropies = np.full(12, 1.0, dtype=np.float16)
    entropies[9] = np.nan
    with pytest.raises(PatchingError, match="position 2 of document 2 is nan"):
        PatchRule(threshold=1.0).lengths_of_documents(None, [0, 3, 5, 9], entropies)
    with pytest.raises(PatchingError, match="position 2 of c is nan"):
        PatchRule(threshold=1.0).lengths_of_documents(None, [0, 3, 5, 9], entropies, names=["a", "b", "c"])


def test_the_largest_entropy_survives_rounding() -> None:
    entropies = np.full(3, math.log(260), dtype=np.float16)
    assert float(entropies[0]) > math.log(260)
    assert PatchRule(threshold=5.5).lengths(b"ab", entropies).tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("data", "entropies", "message"),
    [
        (b"abc", [1.0, 1.0, 1.0], "There are 3 entropies for the 3 bytes of the document; give 4"),
        (b"", [], "give 1"),
        (b"ab", None, "reads entropies, and there are none"),
        (b"ab", [[1.0, 1.0, 1.0]], r"shape \(1, 3\)"),
        (b"ab", ["x", "y", "z"], "no array of numbers"),
        (b"ab", ["1", "2", "3"], "no array of numbers .they are of type <U1"),
        (b"ab", [1j, 1.0, 1.0], "no array of numbers .they are of type complex128"),
        (b"ab", [True, False, True], "no array of numbers .they are of type bool"),
        (b"ab", np.zeros(3, dtype="datetime64[s]"), "no array of numbers"),
        (b"ab", [1.0, None, 1.0], "position 1 of the document is nan"),
        (b"ab", [1.0, 1.0, 1e300], "position 2 of the document is inf"),
        (b"ab", 1.0, r"shape \(\)"),
        (memoryview(np.arange(2, dtype=np.int32)), [1.0, 1.0, 1.0], "type memoryview that isn't a flat one of bytes"),
        (np.zeros((1, 2), dtype=np.uint8), [1.0, 1.0, 1.0], "type ndarray that isn't a flat one of bytes"),
        ("ab", [1.0, 1.0, 1.0], r"type str; give bytes, for a text its text\.encode"),
        ([97, 98], [1.0, 1.0, 1.0], "type list"),
        (np.array([97, 98]), [1.0, 1.0, 1.0], "type ndarray"),
    ],
)
def test_input_that_is_no_document(data: Any, entropies: Any, message: str) -> None:
    with pytest.raises(PatchingError, match=message):
        PatchRule(threshold=1.0).lengths(data, entropies)


def test_bytes_come_in_many_types() -> None:
    rule, data = PatchRule(scheme="space"), b"a b c"
    views = [memoryview(data), memoryview(data[::-1])[::-1], memoryview(b"a-b-c, d")[::2], memoryview(data).cast("c")]
    arrays = [np.frombuffer(data, dtype=np.uint8), np.frombuffer(data[::-1], np.uint8)[::-1]]
    for same in (bytearray(data), *views, *arrays):
        assert rule.lengths(same).tolist() == rule.lengths(bytes(same)).tolist()
    assert rule.lengths(views[1]).tolist() == rule.lengths(data).tolist() == [2, 2, 2]


def test_entropies_come_in_many_types() -> None:
    rule, values = PatchRule(threshold=1.0), np.array([3, 0.5, 2, 1], dtype=np.float16)
    read_only = values.astype(np.float32)
    read_only.flags.writeable = False
    spread = np.repeat(values, 2)[::2]
    backwards = values[::-1].copy()[::-1]
    swapped = values.astype(">f4")
    for same in (values, read_only, spread, backwards, swapped, values.astype(np.float64), memoryview(read_only), tuple(values.tolist())):
        assert rule.lengths(b"abc", same).tolist() == [2, 2]
    assert rule.lengths(b"abc", [3, 0, 2, 1]).tolist() == [2, 2]


def test_comparisons_are_strict_and_in_float32_to_the_last_bit() -> None:
    smallest = float(np.float16(2**-24))
    entropies = np.array([0.0, smallest, 2 * smallest, -0.0], dtype=np.float16)
    for same in (entropies, entropies.astype(np.float32)):
        assert PatchRule(threshold=0).starts(b"abc", same).tolist() == [0, 1, 2]
        assert PatchRule(threshold=smallest).starts(b"abc", same).tolist() == [0, 2]
        assert PatchRule(threshold=1e-300).starts(b"abc", same).tolist() == [0, 1, 2]
        assert PatchRule(relative_threshold=0).starts(b"abc", same).tolist() == [0, 1, 2]
        assert PatchRule(relative_threshold=smallest).starts(b"abc", same).tolist() == [0]
    # ln 260 itself, of which float16 has but the value above.
    highest = PatchRule(threshold=math.log(260))
    assert highest.starts(b"ab", np.full(3, math.log(260), dtype=np.float32)).tolist() == [0]
    assert highest.starts(b"ab", np.full(3, math.log(260), dtype=np.float16)).tolist() == [0, 1, 2]
    assert PatchRule(threshold=np.float32(math.log(260))).starts(b"ab", np.full(3, 5.5, dtype=np.float16)).tolist() == [0]


def test_limits_beyond_any_document() -> None:
    entropies = np.full(6, 5.0, dtype=np.float16)
    for limit in (6, 2**31, 2**63 - 1, 2**63, 2**80):
        assert PatchRule(threshold=1.0, max_length=limit).lengths(b"ab\nde", entropies).tolist() == [1] * 6
        assert PatchRule(threshold=1.0, min_length=limit).lengths(b"ab\nde", entropies).tolist() == [6]
        assert PatchRule(threshold=1.0, min_length=limit, max_length=limit, reset_at_newline=True).lengths(
            b"ab\nde", entropies
        ).tolist() == [3, 3]
        assert PatchRule(scheme="fixed", stride=limit).lengths(b"ab\nde").tolist() == [6]
        quantile = PatchRule(scheme="quantile", target_length=2, min_length=limit, max_length=limit)
        assert quantile.lengths(b"ab\nde", entropies).tolist() == [6]
        stepper = quantile.stepper()
        assert [stepper.step(5.0, previous) for previous in [None, *b"ab\nde"]] == [True] + [False] * 5
        for rule in (quantile, PatchRule(threshold=1.0, min_length=limit, max_length=limit), PatchRule(scheme="fixed", stride=limit)):
            assert rule.stepper().read(b"ab\nde", entropies).tolist() == [True] + [False] * 5


@pytest.mark.parametrize("rule", [PatchRule(scheme="byte"), PatchRule(scheme="fixed", stride=2), PatchRule(scheme="space")])
def test_entropies_that_a_rule_does_not_read_are_checked_too(rule: PatchRule) -> None:
    with pytest.raises(PatchingError, match="position 1 of page 7 is nan"):
        rule.lengths(b"ab", [0.0, np.nan, 0.0], document="page 7")


@pytest.mark.parametrize(
    ("data", "offsets", "entropies", "message"),
    [
        (b"abc", [0, 4], np.zeros(4), "offsets end at 4, and there are 3 bytes"),
        (b"abc", [1, 3], np.zeros(4), "starts with 0 and never falls"),
        (b"abc", [0, 2, 1, 3], np.zeros(4), "never falls"),
        (b"abc", [], np.zeros(4), "offsets"),
        (b"abc", [0.0, 1.5, 3.0], np.zeros(4), "whole numbers"),
        (b"abc", None, np.zeros(4), "offsets"),
        (b"abc", "abc", np.zeros(4), "offsets"),
        (b"abc", [[0], [1, 3]], np.zeros(4), "offsets"),
        (b"abc", np.array([0, 2, 1, 3], dtype=np.uint64), np.zeros(4), "never falls"),
        (None, [0, 3], np.zeros(4), "reads the bytes of a document, and there are none"),
        (b"abc", [0, 1, 3], np.zeros(4), "4 entropies for the 3 bytes of 2 documents; give 5"),
    ],
)
def test_documents_that_do_not_fit_together(data: Any, offsets: Any, entropies: Any, message: str) -> None:
    with pytest.raises(PatchingError, match=message):
        PatchRule(threshold=1.0, reset_at_newline=True).lengths_of_documents(data, offsets, entropies)


def test_names_that_do_not_fit() -> None:
    with pytest.raises(PatchingError, match="There are 1 names for 2 documents"):
        PatchRule(threshold=1.0).lengths_of_documents(None, [0, 1, 3], np.full(5, np.nan), names=["a"])


def test_no_documents() -> None:
    lengths, offsets = PatchRule(threshold=1.0).lengths_of_documents(None, [0], np.empty(0, dtype=np.float16))
    assert (lengths.size, offsets.tolist()) == (0, [0])


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([(1.0, 97)], "previous byte is 97 and there is none before position 0"),
        ([(1.0, None), (1.0, None)], "previous byte is None and there is one before position 1"),
        ([(1.0, None), (1.0, 256)], "previous byte is 256; it must be from 0 to 255, not a token id"),
        ([(1.0, None), (math.nan, 97)], "position 1 of the document is nan"),
        ([(1.0, None), (-1.0, 97)], "position 1 of the document is -1"),
        ([(None, None)], "needs the entropy at position 0"),
        ([(1.0, None), (1.0, "a")], "previous byte is 'a'; it must be from 0 to 255"),
        ([(1.0, None), (1.0, 97.5)], r"previous byte is 97\.5"),
        ([("1", None)], "no array of numbers"),
        ([(5.5626, None)], r"position 0 of the document is 5\.5626"),
    ],
)
def test_steps_that_cannot_be(steps: list[tuple[Any, Any]], message: str) -> None:
    stepper = PatchRule(threshold=1.0).stepper()
    for step in steps[:-1]:
        stepper.step(*step)
    with pytest.raises(PatchingError, match=message):
        stepper.step(*steps[-1])


@pytest.mark.parametrize(
    ("data", "entropies", "message"),
    [
        (b"ab", [0.0, 0.0], "There are 2 entropies for the 2 bytes of the document; give 3"),
        (b"ab", [0.0, 0.0, math.nan], "position 2 of the document is nan"),
        (b"ab", [0.0, -1.0, 0.0], "position 1 of the document is -1"),
        (b"ab", [0.0, 6.0, 0.0], "position 1 of the document is 6"),
        (b"ab", None, "needs 3 entropies, and there are none"),
        ("ab", [0.0, 0.0, 0.0], "of type str; give bytes"),
    ],
)
@pytest.mark.parametrize("rule", [PatchRule(threshold=1.0), PatchRule(scheme="quantile", target_length=2.0)], ids=["entropy", "quantile"])
def test_what_cannot_be_read_changes_nothing(rule: PatchRule, data: Any, entropies: Any, message: str) -> None:
    stepper, untouched = rule.stepper(), rule.stepper()
    with pytest.raises(PatchingError, match=message):
        stepper.read(data, entropies)
    assert state(stepper) == state(untouched)


def test_a_document_is_read_from_its_beginning() -> None:
    stepper = PatchRule(scheme="space").stepper()
    assert stepper.read(b"a b").tolist() == [True, False, True, False]
    with pytest.raises(PatchingError, match="stands at position 4 of a document; read a document with a new one"):
        stepper.read(b"a b")


def test_a_refused_step_changes_nothing() -> None:
    stepper = PatchRule(threshold=1.0).stepper()
    stepper.step(0.5, None)
    with pytest.raises(PatchingError):
        stepper.step(math.nan, 97)
    assert (stepper.position, stepper.patch_length) == (1, 1)
    assert stepper.step(2.0, 97)


def test_rules_without_entropies_step_without_them() -> None:
    stepper = PatchRule(scheme="space").stepper()
    assert [stepper.step(None, previous) for previous in [None, *b"a b"]] == [True, False, True, False]
