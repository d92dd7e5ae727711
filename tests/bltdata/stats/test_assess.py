"""All that is said of datasets in one call, against the calls that it is made of."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bltdata.shards import ShardDataset, open_shards
from bltdata.stats import Overlap, collect_statistics, diagnose, take_sample, to_mapping
from bltdata.stats.assess import assess, count, count_jobs, has_error, merge_counted

Rows = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def datasets(dataset_folder: Callable[..., Path], rows: Rows) -> list[ShardDataset]:
    shards = [[rows(8, seed=seed) for seed in range(9)], [rows(20, seed=20)], [[]]]
    return [open_shards(dataset_folder(*each, name=f"{index}")) for index, each in enumerate(shards)]


@pytest.mark.parametrize("workers", [1, 2, 30])
def test_jobs_are_all_shards_once(datasets: list[ShardDataset], workers: int) -> None:
    jobs = count_jobs(datasets, workers)
    assert sorted((job.index, shard) for job in jobs for shard in job.shards) == [*((0, shard) for shard in range(9)), (1, 0), (2, 0)]
    assert sum(job.index == 0 for job in jobs) == min(9, 4 * workers)
    assert sum(job.num_bytes for job in jobs) == sum(dataset.manifest.totals.num_bytes for dataset in datasets)


def test_a_report_is_of_all_and_its_judgements_of_each(datasets: list[ShardDataset]) -> None:
    overlaps = {1: [Overlap(other="elsewhere", num_shared=1, num_documents=20)]}
    seen: list[int] = []
    counted = [count(job, seen.append) for job in count_jobs(datasets, 2)]
    report, total = assess(datasets, reversed(counted), overlaps=overlaps, sample_bytes=2000)
    each = [collect_statistics(dataset) for dataset in datasets]
    assert sum(seen) == total.overall().num_bytes
    assert [to_mapping(merged) for merged in merge_counted(counted, 3)] == [to_mapping(one) for one in each]
    expected = to_mapping(each[0] + each[1] + each[2])
    assert {key: report[key] for key in expected} == expected == to_mapping(total)
    samples = [take_sample(dataset, max_bytes=2000) for dataset in datasets]
    assert report["samples"] == [
        {"folder": str(dataset.folder)} | sample.to_mapping() for dataset, sample in zip(datasets, samples, strict=True)
    ]
    assert report["diagnostics"] == [
        {"dataset": str(dataset.folder)} | found.to_mapping()
        for index, (dataset, statistics, sample) in enumerate(zip(datasets, each, samples, strict=True))
        for found in diagnose(statistics, dataset.manifest, sample, overlaps.get(index, ()))
    ]
    assert has_error(report)
    assert not has_error({"diagnostics": [{"verdict": "ok"}, {"verdict": "warning"}, {"verdict": "not checked"}]})
