"""One shard against its record in the manifest: size, checksum, description, every page, every row."""

import contextlib
import dataclasses
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bltdata.errors import RemoteError, ShardError
from bltdata.patching.sources import SourceRules
from bltdata.remote import AnyPath, parquet_source, size_bytes
from bltdata.shards import schema
from bltdata.shards.columns import bytes_column
from bltdata.shards.folder import run_again
from bltdata.shards.footer import Footer, read_footer, reading
from bltdata.shards.precision import Precision
from bltdata.shards.record import ShardRecord, file_checksum
from bltdata.verification.documents import RowSpan, digests
from bltdata.verification.report import Fault, FaultLog
from bltdata.verification.rows import check_rows, text_values

_COPY_BYTES = 1 << 20


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShardJob:
    """What to check a shard against."""

    folder: AnyPath
    record: ShardRecord
    """What the manifest says of it."""
    rules: SourceRules | None
    """What its patches are cut with; None where that isn't known."""
    precision: Precision
    """How its entropies are rounded."""
    is_scored: bool
    """Whether its documents have a likelihood, by a model that is known."""
    max_faults: int
    """How many faults of a kind to keep."""
    run_again: str
    """What to do to have it made once more, such as `run build-shards again`."""
    copy: Path | None = None
    """Where the file of a remote dataset was copied to."""

    @property
    def path(self) -> AnyPath:
        """The file."""
        return self.copy or self.folder / self.record.file

    @property
    def again(self) -> str:
        """What to do about a file that is there and isn't what it should be."""
        return f"delete the file and {self.run_again}"

    def fault(self, kind: str, message: str, **place: Any) -> Fault:
        """A fault of this shard."""
        return Fault(kind=kind, folder=str(self.folder), file=self.record.file, message=message, **place)

    def sentence(self, error: ShardError | str) -> str:
        """What an error of the reader says, but for the path that it begins with, which a fault says anyway."""
        # The reader has asked the plan beside the file, which may be a copy.
        return str(error).removeprefix(f"{self.path} ").replace(run_again(self.path.parent), self.run_again)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShardFindings:
    """What came of a shard."""

    faults: tuple[Fault, ...] = ()
    num_faults: Mapping[str, int] = dataclasses.field(default_factory=dict)
    """Kind -> how many there are, also those that `faults` leaves out."""
    is_readable: bool = False
    """Whether it is, to the bit, what the manifest lists, with a footer that makes sense: reading it again is safe."""
    footer: Footer | None = None
    """None where it can't be read."""
    spans: tuple[RowSpan, ...] = ()
    """The row groups that could be read."""
    names: np.ndarray = dataclasses.field(default_factory=lambda: np.empty((0, 2), dtype=np.uint64))
    """uint64 `[documents, 2]`, digests of the names of their documents."""
    contents: np.ndarray = dataclasses.field(default_factory=lambda: np.empty((0, 2), dtype=np.uint64))
    """uint64 `[documents, 2]`, digests of their bytes."""
    num_bytes: int = 0
    """Raw bytes of these documents."""


def check_file(job: ShardJob) -> list[Fault]:
    """What is wrong with the file as such; nothing if it is, to the bit, what the manifest lists."""
    try:
        if not job.path.is_file():
            return [job.fault("missing_shard", f"the manifest lists this shard, and it is missing; put it back or {job.run_again}.")]
        size, checksum = size_bytes(job.path), file_checksum(job.path)
    except RemoteError:
        # That the network fails is no fault of the dataset.
        raise
    except OSError as error:
        return [job.fault("unreadable", f"the file can't be read ({error.strerror}); see to the disk, or {job.again}.")]
    if size != job.record.size_bytes:
        # Its checksum differs as well, which goes without saying.
        return [job.fault("size", f"the file has {size} bytes and the manifest lists {job.record.size_bytes}; {job.again}.")]
    if checksum != job.record.checksum:
        return [job.fault("checksum", f"the file's checksum is {checksum} and the manifest lists {job.record.checksum}; {job.again}.")]
    return []


def check_shard(job: ShardJob, tell: Callable[[int], object]) -> ShardFindings:
    """Check everything of a shard.

    Args:
        job: the shard, and what it should be.
        tell: is called with raw bytes as they are done, after each row group.
    """
    with fetched(job) as here:
        return _check_here(here, tell)


@contextlib.contextmanager
def fetched(job: ShardJob) -> Iterator[ShardJob]:
    """The job with a remote file copied to this machine: it is read several times, and in small parts."""
    path = job.path
    if isinstance(path, Path):
        yield job
        return
    with tempfile.TemporaryDirectory(prefix="bltdata-") as folder:
        copy = Path(folder) / "shard.parquet"
        try:
            with path.open() as source, copy.open("wb") as target:
                shutil.copyfileobj(source, target, _COPY_BYTES)
        except FileNotFoundError:
            # That is found, and told, where a missing local file is.
            copy.unlink(missing_ok=True)
        yield dataclasses.replace(job, copy=copy)


def _check_here(job: ShardJob, tell: Callable[[int], object]) -> ShardFindings:
    found = check_file(job)
    if any(fault.kind in ("missing_shard", "unreadable") for fault in found):
        return findings_of(found)
    log = FaultLog(job.max_faults)
    for fault in found:
        log.add(fault)
    try:
        footer, metadata = read_footer(job.path)
    except ShardError as error:
        log.add(job.fault("footer", job.sentence(error)))
        return findings_of(log.faults)
    _check_record(job, footer, log)
    return _RowGroups(job, log, tell).check(footer, metadata, is_intact=not found)


def findings_of(faults: list[Fault]) -> ShardFindings:
    """The findings of a shard that has these faults and can't be looked into."""
    return ShardFindings(faults=tuple(faults), num_faults=Counter(fault.kind for fault in faults))


def _check_record(job: ShardJob, footer: Footer, log: FaultLog) -> None:
    for name in ("num_documents", "num_bytes", "num_patches", "left_out"):
        listed, said = getattr(job.record, name), getattr(footer, name)
        if listed != said:
            log.add(
                job.fault("record", f"its footer says {name} = {said} and the manifest {listed}; put the right file back, or {job.again}.")
            )


class _RowGroups:
    """The row groups of a shard, one after the other."""

    def __init__(self, job: ShardJob, log: FaultLog, tell: Callable[[int], object]) -> None:
        self._job, self._log, self._tell = job, log, tell
        self._spans: list[RowSpan] = []
        self._names: list[np.ndarray] = []
        self._contents: list[np.ndarray] = []
        self._num_bytes = self._num_patches = 0

    def check(self, footer: Footer, metadata: pq.FileMetaData, *, is_intact: bool) -> ShardFindings:
        first_row = 0
        faults_before = self._log.counts.total()
        for row_group in range(metadata.num_row_groups):
            num_rows = metadata.row_group(row_group).num_rows
            self._check_row_group(RowSpan(row_group, first_row, num_rows), metadata)
            first_row += num_rows
        counted = {
            "num_documents": sum(span.num_rows for span in self._spans),
            "num_bytes": self._num_bytes,
            "num_patches": self._num_patches,
        }
        if self._log.counts.total() == faults_before and any(getattr(footer, name) != count for name, count in counted.items()):
            told = ", ".join(f"{name} = {count}" for name, count in counted.items())
            self._log.add(self._job.fault("counts", f"its rows add up to {told}, and its footer says otherwise; {self._job.again}."))
        nothing = np.empty((0, 2), dtype=np.uint64)
        return ShardFindings(
            faults=tuple(self._log.faults),
            num_faults=dict(self._log.counts),
            is_readable=is_intact,
            footer=footer,
            spans=tuple(self._spans),
            names=np.concatenate([nothing, *self._names]),
            contents=np.concatenate([nothing, *self._contents]),
            num_bytes=self._num_bytes,
        )

    def _check_row_group(self, span: RowSpan, metadata: pq.FileMetaData) -> None:
        try:
            table = read_columns(self._job.path, metadata, span.row_group)
        except ShardError as error:
            self._log.add(self._page_fault(span.row_group, metadata, error))
            return
        if table.num_rows != span.num_rows:
            message = f"has {table.num_rows} rows and the footer says {span.num_rows}; {self._job.again}."
            self._log.add(self._job.fault("counts", message, row_group=span.row_group))
            return
        self._spans.append(span)
        self._names.append(digests(_as_binary(table[schema.DOC_ID])))
        self._contents.append(digests(table[schema.DATA]))
        num_bytes = int(bytes_column(table[schema.DATA])[1][-1])
        self._num_bytes += num_bytes
        self._num_patches += int(table[schema.NUM_PATCHES].to_numpy().sum())
        names = text_values(table[schema.DOC_ID])

        def complain(kind: str, rows: np.ndarray, describe: Callable[[int], str]) -> None:
            for number, row in enumerate(np.flatnonzero(rows).tolist()):
                if not self._log.has_room(kind):
                    self._log.count(kind, int(rows.sum()) - number)
                    return
                place = {"row_group": span.row_group, "row": span.first_row + row, "doc_id": names[row]}
                self._log.add(self._job.fault(kind, describe(row), **place))

        check_rows(table, self._job.rules, self._job.precision, complain, is_scored=self._job.is_scored, again=self._job.again)
        self._tell(num_bytes)

    def _page_fault(self, row_group: int, metadata: pq.FileMetaData, error: ShardError) -> Fault:
        """Which columns of a row group can't be read."""
        damaged: dict[str, str] = {}
        for column in schema.COLUMNS:
            try:
                read_columns(self._job.path, metadata, row_group, [column])
            except ShardError as of_column:
                damaged[column] = str(of_column)
        message = self._job.sentence(next(iter(damaged.values()), str(error)))
        return self._job.fault("page", f"{', '.join(damaged) or 'all columns together'}: {message}", row_group=row_group)


def read_columns(path: AnyPath, metadata: pq.FileMetaData, row_group: int, columns: list[str] | None = None) -> pa.Table:
    """Read a row group, or some columns of it, and check everything but that strings are UTF-8.

    Raises:
        ShardError: it can't be read, or offsets or indices point elsewhere.
    """
    with (
        reading(path),
        parquet_source(path) as source,
        pq.ParquetFile(source, metadata=metadata, page_checksum_verification=True) as file,
    ):
        table = file.read_row_group(row_group, columns=columns)
        if not table.schema.equals(pa.schema([schema.SCHEMA.field(name) for name in columns or schema.COLUMNS])):
            raise ShardError(
                f"{path} is damaged (a row group has other columns than its footer says); delete the file and {run_again(path.parent)}."
            )
        for name in table.column_names:
            column = table[name]
            if pa.types.is_string(column.type):
                column = _as_binary(column)
            elif pa.types.is_dictionary(column.type):
                # Indices without the texts that they point to.
                column = pa.chunked_array([_without_texts(chunk) for chunk in column.chunks], pa.dictionary(pa.int32(), pa.binary()))
            column.validate(full=True)
        return table


def _as_binary(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return pa.chunked_array([chunk.view(pa.binary()) for chunk in column.chunks], pa.binary())


def _without_texts(chunk: pa.DictionaryArray) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(chunk.indices, chunk.dictionary.view(pa.binary()), safe=False)
