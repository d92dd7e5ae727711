"""The vectors of the public implementations, where ours differ on purpose and nowhere else.

They count tokens, BOS being token 0, where we count positions, byte 0 being position 0: their start at token t is ours at t - 1, and
their first patch, which holds BOS, is none of ours.
"""

import json
from collections import Counter
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bltdata.patching import PatchRule, kernels
from bltdata.patching.inputs import MAX_STORED_ENTROPY_NATS
from bltdata.patching.schemes import SCHEMES, Positions, longest_patch

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "patches.json").read_text())
CASES: list[dict[str, Any]] = GOLDEN["cases"]

LAST = -1
"""In the table: the last position of the row, the one after its last token."""

DEVIATIONS = {
    "meta/entropy_monotonic": ((1,), "the reference always starts a patch at byte 1; the relative rule decides it as any other byte"),
    "meta/entropy_edge_monotonic": ((1,), "the same"),
    "meta/entropy_threshold_add": ((1, 2), "the reference always starts a patch at byte 1, and then never one at byte 2"),
    "meta/entropy_edge_threshold_add": ((1, 2), "the same"),
    "meta/space without BOS": ((1,), "the reference forces the first two tokens, whatever they are; our documents always have BOS"),
    "hf/entropy with maximum": ((LAST,), "hf loses the start after the last token when it splits patches"),
}
"""Positions where we don't follow, and why. Top-k needs the whole document and can't be reached in the reference; `bpe` needs a
delimiter among the ids: both are left out."""


def kind(case: dict[str, Any]) -> str:
    name = f"{case['source']}/{case['mode']}"
    if case["mode"] == "space" and case["token_ids"][:1] != [1]:
        return f"{name} without BOS"
    if case["source"] == "hf" and "max_patch_length" in case:
        return f"{name} with maximum"
    return name


def rule_of(case: dict[str, Any]) -> PatchRule:
    mode, longest = case["mode"], case.get("max_patch_length")
    if mode.endswith("monotonic"):
        return PatchRule(relative_threshold=case["threshold"])
    if mode.endswith("threshold_add"):
        return PatchRule(threshold=case["threshold"], relative_threshold=case["threshold_add"])
    if mode == "static":
        return PatchRule(scheme="fixed", stride=case["patch_size"])
    return PatchRule(scheme=mode) if mode in ("space", "byte") else PatchRule(threshold=case["threshold"], max_length=longest)


def cut(rule: PatchRule, positions: Positions) -> list[int]:
    """Lengths from the rule's flags and the kernel, past the checks that no document gets past: impossible entropies too."""
    flags = SCHEMES[rule.scheme].flags(positions, rule)
    flags[0] = True
    words = np.zeros(positions.count // 64 + 1, dtype=np.uint64)
    packed = np.packbits(flags, bitorder="little")
    words.view(np.uint8)[: packed.size] = packed
    bounds, offsets = np.array([0, positions.count]), np.empty(2, dtype=np.int64)
    lengths = np.empty(2 * positions.count, dtype=np.uint32)
    longest = longest_patch(rule) or positions.count
    count = kernels.limited_lengths_from_bits(words, words, bounds, 1, longest, lengths, offsets)
    return lengths[:count].tolist()


def starts(lengths: list[int]) -> list[int]:
    return [0, *accumulate(lengths[:-1])]


def expected_positions(case: dict[str, Any], lengths: list[int]) -> tuple[set[int], int]:
    """Positions where the reference starts patches, and how many positions its lengths cover."""
    # Without BOS, token 0 is byte 0. The static mode strides over BOS as if it were a byte, which the packer repairs later.
    first = 0 if case["mode"] == "static" or kind(case) == "meta/space without BOS" else 1
    total = len(case["entropies"][0]) + 1 if case["source"] == "hf" else sum(lengths)
    return {start - first for start in starts(lengths) if first <= start < total}, total - first


def rows(case: dict[str, Any]) -> list[tuple[bytes, np.ndarray | None, list[int]]]:
    """Bytes, entropies and expected lengths of each row; there may be more bytes than the reference looks at."""
    if "entropies" in case:
        entropies = [np.array([float(value) for value in row], dtype=np.float32) for row in case["entropies"]]
        return [(bytes(len(row)), row, lengths) for row, lengths in zip(entropies, case["expected_lengths"], strict=True)]
    data = bytes(token - 4 for token in case.get("token_ids", [4] * (case.get("seq_len", 0) + 1)) if token >= 4)
    return [(data, None, case["expected_lengths"][0])]


@pytest.mark.parametrize("name", sorted({kind(case) for case in CASES}))
def test_starts_are_those_of_the_reference(name: str) -> None:
    deviating, _ = DEVIATIONS.get(name, ((), ""))
    num_different = 0
    for case in (case for case in CASES if kind(case) == name):
        rule = rule_of(case)
        for data, entropies, lengths in rows(case):
            expected, count = expected_positions(case, lengths)
            if count == 0:
                assert lengths == [1], "BOS alone: there is no document"
                continue
            # The end of the document is the last position there is; the reference may say what comes after EOS.
            count = min(count, len(data) + 1)
            expected = {start for start in expected if start < count}
            document = data[: count - 1]
            nats = None if entropies is None else entropies[:count]
            ours = set(starts(cut(rule, Positions(count, np.frombuffer(b"\0" + document, dtype=np.uint8), nats))))

            left_out = {count - 1 if position == LAST else position for position in deviating}
            assert ours - left_out == expected - left_out, case["id"]
            num_different += ours != expected
            if nats is None or nats.max() <= MAX_STORED_ENTROPY_NATS:
                assert set(rule.starts(document, nats).tolist()) == ours, case["id"]
    assert (num_different > 0) == (name in DEVIATIONS)


def test_what_is_no_entropy_starts_patches_as_in_the_reference() -> None:
    """NaN never does, infinity does; documents with either are refused, but the rule itself is defined on them."""
    entropies = np.array([0, 1, 1.0001, np.nan, np.inf, 0], dtype=np.float32)
    assert cut(PatchRule(threshold=1.0), Positions(6, None, entropies)) == [2, 2, 2]


def test_every_kind_of_vector_is_there() -> None:
    counts = Counter(kind(case) for case in CASES)
    assert set(DEVIATIONS) < set(counts)
    assert min(counts.values()) >= 8


@pytest.mark.parametrize("case", GOLDEN["split_cases"])
def test_splitting_at_the_maximum_length(case: dict[str, Any]) -> None:
    total = sum(case["lengths"])
    entropies = np.zeros(total, dtype=np.float32)
    entropies[starts(case["lengths"])] = 2.0
    assert PatchRule(threshold=1.0, max_length=case["m"]).lengths(bytes(total - 1), entropies).tolist() == case["expected"]
