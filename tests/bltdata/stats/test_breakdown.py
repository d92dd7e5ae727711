"""Statistics by class, place and neighbour, against loops that anybody can check; `test_breakdown_in_sql` has larger datasets."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bltdata.errors import ShardError
from bltdata.shards import open_shards
from bltdata.stats import breakdown, collect_statistics, to_mapping
from bltdata.stats.byte_classes import CLASSES, class_table
from bltdata.stats.positions import NUM_GRID, PositionStatistics, grid_table, units_table
from tests.bltdata import damage
from tests.bltdata.stats.close import assert_close

Rows = list[dict[str, Any]]


def class_name(byte: int) -> str:
    if byte < 128:
        character = chr(byte)
        if character.isspace() and byte not in range(0x1C, 0x20):
            return "space"
        return (
            "letter" if character.isalpha() else "digit" if character.isdigit() else "punctuation" if character.isprintable() else "control"
        )
    if byte < 0xC0:
        return "UTF-8 continuation"
    # The first byte of a character, if there is one that begins with it.
    rests = [(second, *rest) for second in range(128, 192) for rest in ((), (128,), (128, 128))]
    return "UTF-8 lead" if any(_decodes(bytes([byte, *rest])) for rest in rests) else "other"


def _decodes(text: bytes) -> bool:
    try:
        return len(text.decode()) == 1
    except UnicodeDecodeError:
        return False


def test_every_byte_value_has_its_class() -> None:
    assert [CLASSES[index] for index in class_table()] == [class_name(byte) for byte in range(256)]


def slow_breakdown(rows: Rows) -> dict[str, Any]:
    """Position by position."""
    by_class: dict[str, list[tuple[float, bool]]] = {}
    lengths: dict[str, list[int]] = {}
    after: dict[int, list[bool]] = {}
    bins: dict[int, list[tuple[float, bool]]] = {}
    parts: list[list[float]] = [[] for _ in range(10)]
    seams: dict[int, tuple[list[float], list[float]]] = {}
    inside, starting, words, patches, total_bytes = [], [], 0, 0, 0
    edges = sorted({0, 1} | {round(2 ** (k / 2)) for k in range(1, 60)})
    for row in rows:
        data, nats = row["data"], [float(each) for each in row["entropy_nats"]]
        starts = dict(zip([0, *np.cumsum(row["patch_lengths"]).tolist()], row["patch_lengths"].tolist(), strict=False))
        words += len([word for word in data.translate(bytes.maketrans(b"\t\n\v\f\r", b"     ")).split(b" ") if word])
        patches += len(starts)
        total_bytes += len(data)
        for place in range(len(data) + 1):
            name = class_name(data[place]) if place < len(data) else "end"
            by_class.setdefault(name, []).append((nats[place], place in starts))
            bins.setdefault(max(edge for edge in edges if edge <= place), []).append((nats[place], place in starts))
            if place in starts:
                lengths.setdefault(name, []).append(starts[place])
            if place:
                after.setdefault(data[place - 1], []).append(place in starts)
                (starting if place in starts else inside).append(nats[place])
        if len(data) - 256 >= 1000:
            for part in range(10):
                room = len(data) - 256
                parts[part] += nats[256 + room * part // 10 : 256 + room * (part + 1) // 10]
        for window in (256, 512, 1024, 2048):
            for middle in range(window, len(data), window):
                if middle > 256:
                    before, behind = seams.setdefault(window, ([], []))
                    before += nats[middle - 64 : middle]
                    behind += nats[middle : min(middle + 4, len(data))]
    all_lengths = np.concatenate([row["patch_lengths"] for row in rows])
    byte_counts = np.bincount(np.frombuffer(b"".join(row["data"] for row in rows), np.uint8), minlength=256)
    pairs = np.sign(np.subtract.outer(np.float32(starting), np.float32(inside)))
    return {
        "patches_per_byte": patches / total_bytes,
        "words": words,
        "patches_per_word": patches / words,
        "share_of_shortest_patches": np.mean(all_lengths == all_lengths.min()),
        "share_of_longest_patches": np.mean(all_lengths == all_lengths.max()),
        "start_separation": (pairs.mean() + 1) / 2,
        "by_class": {
            name: {
                "bytes": len(found),
                "share": len(found) / (total_bytes + len(rows)),
                "mean_entropy_nats": np.mean([each for each, _ in found]),
                "median_entropy_nats": np.median([each for each, _ in found]),
                "p95_entropy_nats": np.percentile([each for each, _ in found], 95),
                "start_rate": np.mean([start for _, start in found]),
                "patch_length": np.mean(lengths[name]) if name in lengths else None,
            }
            for name, found in by_class.items()
        },
        "by_position": [
            {
                "from": edge,
                "to": edges[edges.index(edge) + 1],
                "positions": len(found),
                "mean_entropy_nats": np.mean([each for each, _ in found]),
                "start_rate": np.mean([start for _, start in found]),
            }
            for edge, found in sorted(bins.items())
        ],
        "by_tenth": [np.mean(part) if part else None for part in parts],
        "byte_counts": byte_counts.tolist(),
        "start_rate_after": [np.mean(after[value]) if value in after else None for value in range(256)],
        "seams": [
            {
                "window": window,
                "positions": len(behind),
                "positions_before": len(before),
                "before_nats": np.mean(before),
                "after_nats": np.mean(behind),
            }
            for window, (before, behind) in sorted(seams.items())
        ],
    }


def test_every_number_is_the_obvious_one(
    dataset_folder: Callable[..., Path], rows: Callable[..., Rows], row: Callable[..., dict[str, Any]]
) -> None:
    rng = np.random.default_rng(0)
    long = [
        row(f"long-{n}", rng.choice(np.frombuffer(b"ab 1.\n\xc3\xa9\xff\0", np.uint8), n).tobytes(), "long")
        for n in (1255, 1256, 2600, 513, 516, 512)
    ]
    everything = [*rows(30), row("empty", b"", "news"), *long]
    folder = dataset_folder(everything[:20], [], everything[20:], row_group_bytes=1500)
    report = to_mapping(collect_statistics(open_shards(folder)))
    for name, got in [("all", report["overall"]), *report["by_source"].items()]:
        expected = slow_breakdown([each for each in everything if name in ("all", each["source"])])
        assert_close({key: got[key] for key in expected}, expected)
        # These are looked at below.
        assert set(expected) | {"cost_over_entropy", "documents_by_entropy"} == set(breakdown.KEYS)


def test_documents_cost_what_they_say(dataset_folder: Callable[..., Path], rows: Callable[..., Rows]) -> None:
    everything = rows(60)
    overall = to_mapping(collect_statistics(open_shards(dataset_folder(everything))))["overall"]
    promised = [float(each["entropy_nats"].astype(np.float64).sum()) for each in everything]
    assert overall["cost_over_entropy"] == pytest.approx(sum(each["nll_nats"] for each in everything) / sum(promised), rel=1e-12)
    means = [total / (len(each["data"]) + 1) for total, each in zip(promised, everything, strict=True)]
    for found in overall["documents_by_entropy"]:
        own = [i for i, mean in enumerate(means) if found["from_nats"] <= mean < found["from_nats"] + 0.25]
        positions = sum(len(everything[i]["data"]) + 1 for i in own)
        assert (found["documents"], found["count"]) == (len(own), positions)
        assert found["mean_entropy_nats"] == pytest.approx(sum(promised[i] for i in own) / positions, rel=1e-12)
        assert found["mean_nll_nats"] == pytest.approx(sum(everything[i]["nll_nats"] for i in own) / positions, rel=1e-12)
    assert sum(found["documents"] for found in overall["documents_by_entropy"]) == 60


def test_sums_are_exact_whatever_the_values() -> None:
    values = np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float64)
    units = units_table()
    known = np.isfinite(values) & (np.abs(values) <= 1000)
    assert (units[known] / 2.0**24 == values[known]).all()
    assert units[~np.isfinite(values)].tolist() == [0] * int((~np.isfinite(values)).sum())
    possible = (values >= 0) & (values <= 5.5625) & ~np.signbit(values)
    assert (grid_table()[possible] == np.rint(values[possible] * 256)).all()
    assert (grid_table()[~possible] == NUM_GRID).all()


def test_a_tie_is_half_a_separation() -> None:
    positions = PositionStatistics()
    positions.by_class[0, 0, [10, 20]] = [3, 1]
    positions.by_class[1, 1, [20, 30]] = 1
    # What can't be an entropy, or is first in a document, says nothing.
    positions.by_class[1, 1, NUM_GRID] = positions.by_class[0, 2, 0] = 7
    # Of eight pairs, one is a tie and seven are as they should be.
    assert positions.start_separation == 7.5 / 8


def test_nothing_adds_nothing() -> None:
    empty = PositionStatistics()
    empty += PositionStatistics()
    assert (empty.bins(), empty.seams(), empty.start_separation, set(empty.parts())) == ([], [], None, {None})


def test_patches_that_are_too_long_for_a_counter(dataset_folder: Callable[..., Path], row: Callable[..., dict[str, Any]]) -> None:
    planted = row("a", bytes(10_000)) | {"patch_lengths": np.array([4095, 5000, 906], dtype=np.uint32)}
    overall = to_mapping(collect_statistics(open_shards(dataset_folder([planted, row("b", b"xy") | {"patch_lengths": [3]}]))))["overall"]
    assert (overall["patch_length"]["max"], overall["patch_length"]["min"], overall["patches"]) == (5000.0, 3.0, 4)
    assert (overall["share_of_longest_patches"], overall["share_of_shortest_patches"]) == (0.25, 0.25)
    assert math.isclose(overall["patch_length"]["mean"], 10_004 / 4)


@pytest.mark.parametrize("lengths", [[3, 5], [3, 3], [0, 7], [7, 0], [2**32 - 1, 8]])
def test_patches_that_do_not_fit_are_no_statistics(
    dataset_folder: Callable[..., Path], row: Callable[..., dict[str, Any]], lengths: list[int]
) -> None:
    folder = dataset_folder([row("a", b"abcdef"), row("b", b"ghijkl")])
    damage.rewrite(folder, 0, damage.put("patch_lengths", 1, np.array(lengths)))
    with pytest.raises(ShardError, match="patches that are not as long as their document; run verify"):
        collect_statistics(open_shards(folder))
