"""Counting datasets, in this process or in several, for the commands that report on them."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click

from bltdata.cli.progress import progress

if TYPE_CHECKING:
    from bltdata.shards import ShardDataset
    from bltdata.stats import DatasetStatistics
    from bltdata.stats.assess import CountJob

workers_option = click.option(
    "--workers", type=click.IntRange(min=1), default=1, show_default=True, help="Processes; the report doesn't depend on it."
)


def counted(datasets: "Sequence[ShardDataset]", workers: int) -> "Iterator[tuple[CountJob, DatasetStatistics]]":
    """Count datasets, with a bar that shows how far it is.

    Args:
        datasets: what `open_shards` gives.
        workers: processes.

    Yields:
        Each of `count_jobs(datasets, workers)` and what was counted, in any order.
    """
    from bltdata.engines.local import run_local
    from bltdata.stats.assess import count, count_jobs

    jobs = count_jobs(datasets, workers)
    with progress(sum(dataset.manifest.totals.num_bytes for dataset in datasets), "Counting", "bytes") as advance:
        if workers == 1:
            for job in jobs:
                yield count(job, advance)
            return
        for job, statistics in run_local(count, jobs, workers):
            advance(job.num_bytes)
            yield job, statistics
