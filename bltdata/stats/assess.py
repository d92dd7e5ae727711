"""All that is said of datasets, in one call: the statistics of all of them together, and of each whether it is sound."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bltdata.shards import ShardDataset
from bltdata.stats.collect import collect_shard
from bltdata.stats.diagnostics import Verdict, diagnose
from bltdata.stats.overlap import Overlap
from bltdata.stats.report import to_mapping
from bltdata.stats.sample import SAMPLE_BYTES, take_sample
from bltdata.stats.sources import DatasetStatistics


@dataclasses.dataclass(frozen=True)
class CountJob:
    """Some shards of one of several datasets, to be counted by one process."""

    index: int
    """Of the dataset."""
    dataset: ShardDataset
    shards: Sequence[int]

    @property
    def num_bytes(self) -> int:
        """Raw bytes."""
        return sum(self.dataset.manifest.shards[shard].num_bytes for shard in self.shards)


def count_jobs(datasets: Sequence[ShardDataset], workers: int) -> list[CountJob]:
    """Jobs that keep so many processes busy, each a few, as each brings a description of its whole dataset along."""
    jobs = []
    for index, dataset in enumerate(datasets):
        shards = range(len(dataset.manifest.shards))
        parts = min(len(shards), 4 * workers)
        jobs += [CountJob(index, dataset, shards[part::parts]) for part in range(parts)]
    return jobs


def count(job: CountJob, progress: Callable[[int], object] | None = None) -> tuple[CountJob, DatasetStatistics]:
    """Do a job; `progress` is called after each row group with its raw bytes."""
    statistics = DatasetStatistics()
    for shard in job.shards:
        statistics += collect_shard(job.dataset, shard, progress)
    return job, statistics


def merge_counted(counted: Iterable[tuple[CountJob, DatasetStatistics]], num_datasets: int) -> list[DatasetStatistics]:
    """Statistics of each dataset, from what `count` made of each of `count_jobs(datasets, ...)`, in any order."""
    parts = [DatasetStatistics() for _ in range(num_datasets)]
    for job, statistics in counted:
        parts[job.index] += statistics
    return parts


def assess(
    datasets: Sequence[ShardDataset],
    counted: Iterable[tuple[CountJob, DatasetStatistics]],
    *,
    overlaps: Mapping[int, Sequence[Overlap]] | None = None,
    sample_bytes: int = SAMPLE_BYTES,
    tokenizer: Path | None = None,
) -> tuple[dict[str, Any], DatasetStatistics]:
    """Merge what was counted, take a sample of each dataset, and ask what may be wrong with it.

    Args:
        datasets: what `open_shards` gives.
        counted: what `count` makes of each of `count_jobs(datasets, ...)`, in any order.
        overlaps: by the index of a dataset, what it shares with others.
        sample_bytes: about how many raw bytes of each dataset to measure others on.
        tokenizer: a `tokenizer.json` whose tokens are counted too.

    Returns:
        The report of all datasets together, with `samples` and `diagnostics` of each; and the statistics of all of them.

    Raises:
        ShardError: a shard is damaged.
        ConfigError: `sample_bytes` is below 1, or the tokenizer can't be read.
        PatchingError: it is no tokenizer.
    """
    parts = merge_counted(counted, len(datasets))
    total = DatasetStatistics()
    samples: list[dict[str, Any]] = []
    diagnoses: list[dict[str, Any]] = []
    for index, (dataset, statistics) in enumerate(zip(datasets, parts, strict=True)):
        sample, folder = take_sample(dataset, max_bytes=sample_bytes, tokenizer=tokenizer), str(dataset.folder)
        samples.append({"folder": folder} | sample.to_mapping())
        found = diagnose(statistics, dataset.manifest, sample, (overlaps or {}).get(index, ()))
        diagnoses += [{"dataset": folder} | each.to_mapping() for each in found]
        total += statistics
    return to_mapping(total) | {"samples": samples, "diagnostics": diagnoses}, total


def has_error(report: Mapping[str, Any]) -> bool:
    """Whether any diagnostic of a report says that something is wrong."""
    return any(each["verdict"] == Verdict.ERROR for each in report["diagnostics"])
