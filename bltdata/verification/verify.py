"""`verify_dataset`: everything that can be known of datasets without their corpora.

What cannot: whether documents are those of the corpus, and their order within a shard.
"""

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bltdata.errors import ConfigError
from bltdata.remote import AnyPath, as_path
from bltdata.verification.datasets import DatasetCheck
from bltdata.verification.documents import EMPTY_DOCUMENT, repeats
from bltdata.verification.isolation import Lost, run_isolated
from bltdata.verification.report import DeepReport, FaultLog, Note, VerificationReport
from bltdata.verification.shard import ShardFindings, ShardJob, check_file, check_shard, fetched, findings_of

if TYPE_CHECKING:
    from bltdata.entropy import EntropyModel


@dataclasses.dataclass(frozen=True, kw_only=True)
class DeepCheck:
    """That documents are scored again."""

    entropy_model: Path
    """Folder of the model that scored the dataset; its fingerprint must be the one in the manifest."""

    num_documents: int = 32
    """Documents of each dataset to score; which ones depends on its fingerprint alone."""

    def __post_init__(self) -> None:
        if self.num_documents < 1:
            raise ConfigError(f"The number of documents to score again is {self.num_documents}; it must be at least 1.")


@dataclasses.dataclass(frozen=True)
class VerifyReporter:
    """Who is told how it goes. The default tells nobody."""

    planned: Callable[[int], object] = lambda num_bytes: None
    """How many raw bytes there are to look at, before the first."""

    done: Callable[[int], object] = lambda num_bytes: None
    """Raw bytes that were looked at since the last call."""


def verify_dataset(
    *folders: AnyPath | str, workers: int = 1, max_faults: int = 20, deep: DeepCheck | None = None, reporter: VerifyReporter | None = None
) -> VerificationReport:
    """Find everything that is wrong with a dataset, or with several that must not share a document.

    Checked are the manifest; every file it lists, against size, checksum and record; every row; that patches are those that the
    manifest's rules make of the stored entropies; that names are unique; that the shards are of one dataset, in its order, and all that
    the plan beside them has; and that no document but the empty one is in two of the datasets. A damaged file is a fault and doesn't
    stop the rest; it is read in a process of its own, since Parquet's reader may crash on it.

    Args:
        *folders: datasets, such as those of a training and a validation split.
        workers: processes; the report doesn't depend on them.
        max_faults: how many faults of a kind to list; the rest is counted.
        deep: whether, and how, documents are scored again; see `DeepCheck`.
        reporter: who is told how it goes.

    Returns:
        The report; `is_good` is true if there is no fault.

    Raises:
        ConfigError: no folder, one twice, or a number below 1.
        CheckpointError: the entropy model of `deep` can't be read.
    """
    paths = [as_path(folder) for folder in folders]
    _check_settings(paths, workers, max_faults)
    reporter = reporter or VerifyReporter()
    model = _load(deep.entropy_model) if deep else None
    checks = [DatasetCheck(folder, max_faults) for folder in paths]
    jobs = [(check, shard, job) for check in checks for shard, job in check.jobs()]
    reporter.planned(sum(job.record.num_bytes for _, _, job in jobs))
    for index, findings in _check_shards([job for _, _, job in jobs], workers, reporter.done):
        check, shard, _ = jobs[index]
        check.set_findings(shard, findings)
    for check in checks:
        check.finish()
    overlaps = FaultLog(max_faults)
    notes = _check_disjoint([check for check in checks if check.manifest is not None], overlaps)
    deep_reports: list[DeepReport] = []
    if deep is not None and model is not None:
        deep_reports = list(_rescored(checks, model, deep.num_documents))
    log = FaultLog(max_faults)
    for found in (*(check.log for check in checks), overlaps):
        log.merge(found.faults, found.counts)
    return VerificationReport(
        datasets=tuple(check.report() for check in checks),
        faults=tuple(log.faults),
        num_faults=dict(sorted(log.counts.items())),
        notes=(*(note for check in checks for note in check.notes), *notes),
        deep=tuple(deep_reports),
    )


def _check_settings(folders: Sequence[AnyPath], workers: int, max_faults: int) -> None:
    if not folders:
        raise ConfigError("There is no folder to verify; give at least one that build-shards wrote.")
    for name, value in (("workers", workers), ("max_faults", max_faults)):
        if value < 1:
            raise ConfigError(f"{name} is {value}; it must be at least 1.")
    for folder, count in Counter(folder.resolve() for folder in folders).items():
        if count > 1:
            raise ConfigError(f"The folder {folder} is given {count} times, and would share every document with itself; give it once.")


def _load(folder: Path) -> "EntropyModel":
    from bltdata.entropy import EntropyModel

    return EntropyModel.load(folder)


def _rescored(checks: Sequence[DatasetCheck], model: "EntropyModel", num_documents: int) -> Iterator[DeepReport]:
    from bltdata.verification.rescoring import rescore

    for check in checks:
        # Without rules there is nothing to cut new entropies with, and without documents nothing to score.
        if check.manifest is not None and not check.log.counts["manifest_rule"]:
            report = rescore(check, check.manifest, model, num_documents)
            if report is not None:
                yield report


def _check_shards(jobs: Sequence[ShardJob], workers: int, done: Callable[[int], object]) -> Iterator[tuple[int, ShardFindings]]:
    """Index of each job and what was found, in any order."""
    apart = list(range(len(jobs)))
    if workers == 1 or len(jobs) <= 1:
        damaged = []
        for index, job in enumerate(jobs):
            with fetched(job) as here:
                # What is, to the bit, what was written crashes nobody.
                if check_file(here):
                    damaged.append(index)
                else:
                    yield index, check_shard(here, done)
        apart = damaged
    for number, findings in run_isolated(check_shard, [jobs[index] for index in apart], workers, tell=done):
        job = jobs[apart[number]]
        yield apart[number], _lost(job, findings) if isinstance(findings, Lost) else findings


def _lost(job: ShardJob, lost: Lost) -> ShardFindings:
    """The findings of a shard whose process came to an end."""
    with fetched(job) as here:
        return findings_of([*check_file(here), job.fault("reader", f"reading it {lost.reason}: it is damaged; {job.again}.")])


def _check_disjoint(checks: Sequence[DatasetCheck], log: FaultLog) -> list[Note]:
    """Documents of one dataset that are in another one as well."""
    if len(checks) < 2:
        return []
    contents = np.concatenate([check.index.contents for check in checks])
    ends = np.cumsum([len(check.index) for check in checks])
    positions, firsts = repeats(contents)
    dataset, first_dataset = (np.searchsorted(ends, where, side="right") for where in (positions, firsts))
    is_empty = (contents[positions] == EMPTY_DOCUMENT).all(axis=1)
    shared = dataset != first_dataset
    found = np.flatnonzero(shared & ~is_empty)
    for number, index in enumerate(found.tolist()):
        if not log.has_room("overlap"):
            log.count("overlap", len(found) - number)
            break
        (check, place), (other, other_place) = (
            (checks[which], checks[which].place(int(position - (ends[which] - len(checks[which].index)))))
            for which, position in ((int(dataset[index]), positions[index]), (int(first_dataset[index]), firsts[index]))
        )
        message = (
            f"{other.folder / other_place['file']}, row {other_place['row']} has the same bytes, so the two datasets are not disjoint; "
            "build both with one --corpus and another --split each."
        )
        log.add(check.fault("overlap", message, **place))
    empty = np.flatnonzero(shared & is_empty)
    return (
        [Note(folder=str(checks[int(dataset[empty[0]])].folder), message="the empty document is in another dataset too.")]
        if len(empty)
        else []
    )
