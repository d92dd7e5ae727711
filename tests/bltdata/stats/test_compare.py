"""Datasets side by side: each number against NumPy."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bltdata.patching import PatchRule
from bltdata.shards import open_shards
from bltdata.stats import DatasetStatistics, collect_statistics
from bltdata.stats.compare import compare_figure, compare_mapping, compare_sections

Rows = list[dict[str, Any]]


@pytest.fixture
def compared(
    dataset_folder: Callable[..., Path], rows: Callable[..., Rows]
) -> tuple[list[Rows], list[dict[str, Any]], list[DatasetStatistics]]:
    everything = [rows(40), [], rows(25, seed=1, sources=["poems"])]
    stride = PatchRule(scheme="fixed", stride=8)
    everything[2] = [row | {"patch_lengths": stride.lengths(row["data"])} for row in everything[2]]
    settings = [{}, {}, {"patch_rule": {"scheme": "fixed", "stride": 8}, "entropy_model": {"fingerprint": "another"}}]
    pairs = enumerate(zip(everything, settings, strict=True))
    datasets = [open_shards(dataset_folder(each, name=f"{index}", **options)) for index, (each, options) in pairs]
    statistics = [collect_statistics(dataset) for dataset in datasets]
    found = compare_mapping(["first", "nothing", "_third $x$"], [dataset.manifest for dataset in datasets], statistics)
    return everything, found, statistics


def test_every_number_is_the_obvious_one(compared: tuple[list[Rows], list[dict[str, Any]], Any]) -> None:
    everything, found, _ = compared
    for rows, got in zip(everything, found, strict=True):
        if not rows:
            assert {key for key, value in got.items() if value is None} == {
                *("mean_patch_length", "std_patch_length", "p95_patch_length", "patches_per_byte", "share_of_most_common_patch_length"),
                *("mean_entropy_nats", "entropy_model_bits_per_byte"),
            }
            continue
        lengths, nats = (np.concatenate([row[key] for row in rows]).astype(np.float64) for key in ("patch_lengths", "entropy_nats"))
        num_bytes = sum(len(row["data"]) for row in rows)
        sources = {row["source"] for row in rows}
        by_source = {name: np.concatenate([row["patch_lengths"] for row in rows if row["source"] == name]).mean() for name in sources}
        expected = {
            "documents": len(rows),
            "total_bytes": num_bytes,
            "mean_patch_length": lengths.mean(),
            "std_patch_length": lengths.std(),
            "p95_patch_length": np.percentile(lengths, 95),
            "patches_per_byte": len(lengths) / num_bytes,
            "share_of_most_common_patch_length": np.unique(lengths, return_counts=True)[1].max() / len(lengths),
            "mean_entropy_nats": nats.mean(),
            "entropy_model_bits_per_byte": sum(row["nll_nats"] for row in rows) / np.log(2) / num_bytes,
            "mean_patch_length_by_source": pytest.approx(by_source),
        }
        assert {key: got[key] for key in expected} == {
            key: value if key == "mean_patch_length_by_source" else pytest.approx(value) for key, value in expected.items()
        }
        assert set(got) == {*expected, "dataset", "rule", "entropy_model"}
    assert [each["entropy_model"] for each in found] == ["0123456789abcdef", "0123456789abcdef", "another"]


def test_a_source_that_a_dataset_does_not_have_is_a_dash(compared: tuple[Any, list[dict[str, Any]], Any]) -> None:
    datasets, sources = compare_sections(compared[1])
    assert [row[0] for row in datasets.rows] == ["first", "nothing", "_third $x$"]
    assert [row[-1] for row in datasets.rows] == ["entropy, threshold 2.5", "entropy, threshold 2.5", "fixed, stride 8"]
    assert set(datasets.rows[1][3:-1]) == {"-"}
    assert {row[0]: [cell == "-" for cell in row[1:]] for row in sources.rows} == {
        "code": [False, True, True],
        "news": [False, True, True],
        "poems": [True, True, False],
    }


def test_the_picture_has_what_lies_in_patches_up_to_a_length(compared: tuple[list[Rows], list[dict[str, Any]], Any]) -> None:
    everything, found, statistics = compared
    figure = compare_figure([each["dataset"] for each in found], statistics)
    figure.canvas.draw()
    lines = figure.axes[0].lines
    # A dataset without documents has nothing to show, and a name is a name, whatever matplotlib makes of such signs.
    assert [line.get_label() for line in lines] == ["first", r"third \$x\$"]
    for line, rows in zip(lines, (everything[0], everything[2]), strict=True):
        lengths = np.concatenate([row["patch_lengths"] for row in rows])
        for length, share in zip(line.get_xdata(), line.get_ydata(), strict=True):
            assert share == pytest.approx(lengths[lengths <= length].sum() / lengths.sum() * 100)
