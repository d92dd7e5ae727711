"""From a dataset of shards to Arrow files that the reference implementation trains on; see `bltdata.convert` for what is which value.

Each shard becomes a file, published when it is whole, and then its marker, which lists what is in it: so a run that was stopped goes on.
Files are dealt out to chunks in turn. The trainer also looks for each chunk's JSONL file, so there is one, empty, for its name only.
"""

import contextlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from bltdata.atomic import atomic_path, remove_leftovers, write_bytes
from bltdata.config import fingerprint, from_mapping, number_of, to_mapping
from bltdata.convert.arrow_files import ARROW_SCHEMA, BATCH_ROWS, chunk_path, marker_of, shard_path
from bltdata.convert.config import ToArrowConfig, check_name
from bltdata.engines import open_engine
from bltdata.engines.resume import agreed_plan
from bltdata.errors import BuildError, ConfigError, ShardError
from bltdata.lock import exclusive
from bltdata.remote import AnyPath
from bltdata.shards import ShardDataset, open_shards, schema
from bltdata.shards.columns import list_column
from bltdata.shards.folder import check_holds_only, check_outside, run_again
from bltdata.shards.record import file_checksum
from bltdata.shards.schema import PLAN_FILE

INVALID_UTF8 = "not valid UTF-8"

_COLUMNS = (schema.DOC_ID, schema.DATA, schema.ENTROPY_NATS, schema.NUM_BYTES)


@dataclass(frozen=True, kw_only=True)
class ArrowRecord:
    """What a marker says of its file."""

    file: str
    """Its name."""
    made_from: str
    """Checksum of the shard."""
    num_documents: int
    num_bytes: int
    """Raw bytes of these documents."""
    left_out: int
    """Documents of the shard that are not valid UTF-8."""
    size_bytes: int
    checksum: str
    """BLAKE2b of the file, 16 bytes as hex digits."""


@dataclass(frozen=True, kw_only=True)
class ArrowDataset:
    """What was written, and what the trainer must be told to find it."""

    root_dir: Path
    """`root_dir` and `preprocess_dir`."""
    dataset_name: str
    """What the trainer calls a source."""
    entropy_model_name: str
    num_chunks: int
    files: tuple[ArrowRecord, ...]

    @property
    def num_documents(self) -> int:
        """Documents in the files."""
        return sum(file.num_documents for file in self.files)

    @property
    def num_bytes(self) -> int:
        """Their raw bytes."""
        return sum(file.num_bytes for file in self.files)

    @property
    def left_out(self) -> int:
        """Documents that are in no file because they are not valid UTF-8."""
        return sum(file.left_out for file in self.files)


@dataclass(frozen=True)
class ArrowReporter:
    """Who is told how it goes. The default tells nobody."""

    said: Callable[[str], None] = lambda text: None
    """A sentence for the user."""
    planned: Callable[[int], None] = lambda num_bytes: None
    """How many raw bytes there are to write, before the first file."""
    written: Callable[[ArrowRecord], None] = lambda record: None
    """A file was finished."""


@dataclass(frozen=True)
class ToArrowJob:
    """Writes the file of a shard, and its marker. It pickles: a worker gets a copy."""

    dataset: ShardDataset
    paths: tuple[Path, ...] = field(repr=False)
    """Where the file of each shard goes."""

    def __call__(self, index: int) -> ArrowRecord:
        """Convert the shard with this index in the manifest."""
        shard, source, path = self.dataset.manifest.shards[index], self.dataset.paths[index], self.paths[index]
        # Of every bit: what is copied is not looked at again.
        if file_checksum(source) != shard.checksum:
            raise ShardError(f"The shard {source} differs from its checksum; delete it and {run_again(source.parent)}.")
        # While the file is made anew, an old marker would call it whole.
        marker_of(path).unlink(missing_ok=True)
        num_documents = num_bytes = left_out = 0
        with atomic_path(path) as temporary:
            with pa.OSFile(str(temporary), "wb") as sink, pa.ipc.new_file(sink, ARROW_SCHEMA) as writer:
                for table in self.dataset.iter_shard(index, _COLUMNS):
                    valid = valid_utf8(table)
                    kept = table if valid.all() else table.filter(pa.array(valid))
                    writer.write_table(to_arrow(kept), max_chunksize=BATCH_ROWS)
                    num_documents += kept.num_rows
                    num_bytes += int(kept[schema.NUM_BYTES].to_numpy().sum())
                    left_out += int((~valid).sum())
            record = ArrowRecord(
                file=path.name,
                made_from=shard.checksum,
                num_documents=num_documents,
                num_bytes=num_bytes,
                left_out=left_out,
                size_bytes=temporary.stat().st_size,
                checksum=file_checksum(temporary),
            )
        write_bytes(marker_of(path), json.dumps(to_mapping(record)).encode() + b"\n")
        return record


def shards_to_arrow(
    shards: AnyPath, config: ToArrowConfig, folder: Path, *, workers: int | None = 1, reporter: ArrowReporter | None = None
) -> ArrowDataset:
    """Write the dataset `shards` as Arrow files below `folder`, or finish what was begun.

    Args:
        shards: a finished dataset; it isn't changed.
        config: names, chunks, and what to do about documents that are no text.
        folder: gets `DATASET/MODEL/DATASET.chunk.NN.jsonl.shard_MM.arrow` with its marker, and `DATASET/DATASET.chunk.NN.jsonl`. Other
            datasets may be there.
        workers: processes; None for one a core. They change nothing but the time it takes.
        reporter: who is told how it goes.

    Returns:
        What was written.

    Raises:
        ShardError: a shard is damaged, or documents are not valid UTF-8 and shall not be left out: then nothing is written.
        ConfigError: a name that files can't have, or more chunks than shards.
        BuildError: the place holds something else, or another process is at it.
    """
    engine = open_engine("local", workers)
    reporter = reporter or ArrowReporter()
    dataset = open_shards(shards)
    name = config.dataset_name or check_name(shards.resolve().name, "The folder's name, which dataset_name replaces,")
    model = config.entropy_model_name or dataset.manifest.entropy_model["fingerprint"] or "unknown"
    chunks = [chunk_path(name, chunk) for chunk in range(config.num_chunks)]
    paths = _paths(dataset, name, model, config.num_chunks, folder)
    place = folder / name / model
    _check_place(folder, place, shards)
    with exclusive(place):
        for stranger in sorted({path.name for path in (folder / name).glob("*.chunk.*.jsonl")} - {path.name for path in chunks}):
            raise BuildError(f"{folder / name} has {stranger}, a chunk that these shards have no files for; choose another dataset_name.")
        _agree(dataset, config, place, reporter)
        remove_leftovers(place)
        finished = {index: record for index, path in enumerate(paths) if (record := _finished(path, dataset, index)) is not None}
        missing = [index for index in range(len(paths)) if index not in finished]
        if finished:
            reporter.said(f"{place} has {len(finished)} of {len(paths)} files already; {len(missing)} to go.")
        reporter.planned(sum(dataset.manifest.shards[index].num_bytes for index in missing))
        index_of = {path.name: index for index, path in enumerate(paths)}
        # Closed before the lock is given up: then no worker writes any more.
        with contextlib.closing(engine(ToArrowJob(dataset, paths), missing)) as records:
            for record in records:
                finished[index_of[record.file]] = record
                reporter.written(record)
        for chunk in chunks:
            (folder / chunk).touch()
    return ArrowDataset(
        root_dir=folder,
        dataset_name=name,
        entropy_model_name=model,
        num_chunks=config.num_chunks,
        files=tuple(finished[index] for index in range(len(paths))),
    )


def to_arrow(table: pa.Table) -> pa.Table:
    """A row group with their columns; its documents are valid UTF-8."""
    entropy_nats, offsets = list_column(table[schema.ENTROPY_NATS])
    # After the last value of each document, one about what follows EOS: 0, which starts no patch.
    framed = np.insert(entropy_nats, offsets[1:], np.float16(0))
    framed_offsets = (offsets + np.arange(len(offsets))).astype(np.int32)
    lists = pa.ListArray.from_arrays(pa.array(framed_offsets), pa.array(framed, type=pa.float16()))
    return pa.Table.from_arrays([table[schema.DOC_ID], table[schema.DATA].cast(pa.string()), lists], schema=ARROW_SCHEMA)


def valid_utf8(table: pa.Table) -> np.ndarray:
    """Which documents of a row group are valid UTF-8: bool `[documents]`."""
    data = table[schema.DATA]
    try:
        data.cast(pa.string())
    except pa.ArrowInvalid:
        return np.array([_is_utf8(value.as_py()) for value in data], dtype=bool)
    return np.ones(len(data), dtype=bool)


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _paths(dataset: ShardDataset, name: str, model: str, num_chunks: int, folder: Path) -> tuple[Path, ...]:
    num_shards = len(dataset.manifest.shards)
    if num_chunks > num_shards:
        raise ConfigError(
            f"num_chunks is {num_chunks}, and {dataset.folder} has {number_of(num_shards, 'shard')}; a chunk must have one at least."
        )
    width = max(2, len(str((num_shards - 1) // num_chunks)))
    return tuple(folder / shard_path(name, model, index % num_chunks, index // num_chunks, width=width) for index in range(num_shards))


def _check_place(folder: Path, place: Path, shards: AnyPath) -> None:
    """Refuse to mix with what isn't laid out for the trainer: on the way to the files there are folders, and the names of chunks."""
    check_outside(place, shards)
    if not (place / PLAN_FILE).exists():
        check_holds_only(folder, lambda name: (folder / name).is_dir())
        check_holds_only(place.parent, lambda name: name.endswith(".jsonl") or (place.parent / name).is_dir())
        check_holds_only(place, lambda name: False)


def _agree(dataset: ShardDataset, config: ToArrowConfig, place: Path, reporter: ArrowReporter) -> None:
    """Write the plan, or see that the one there is the same; before it is written all documents are looked at."""
    wanted = {"dataset": dataset.manifest.fingerprint, "settings": to_mapping(config)}
    differences = {"dataset": "other shards", "settings": "other settings"}

    def decide() -> dict[str, Any]:
        bad, first = _invalid_documents(dataset)
        if bad and config.invalid_utf8 == "refuse":
            raise ShardError(
                f"{bad:,} of the {len(dataset):,} documents of {dataset.folder} are not valid UTF-8, which an Arrow file's text must be "
                f"(the first is {first!r}); give --invalid-utf8 leave-out to convert the others."
            )
        if bad:
            reporter.said(f"{bad:,} of {len(dataset):,} documents are not valid UTF-8 and are left out; the first is {first!r}.")
        return {}

    agreed_plan(place, "to_arrow", wanted, differences, decide=decide, read=lambda plan: fingerprint(plan), replaced=reporter.said)


def _invalid_documents(dataset: ShardDataset) -> tuple[int, str | None]:
    """How many documents are not valid UTF-8, and the name of the first."""
    count, first = 0, None
    for table in dataset.iter_row_groups([schema.DOC_ID, schema.DATA]):
        invalid = ~valid_utf8(table)
        if invalid.any() and first is None:
            first = table[schema.DOC_ID][int(np.argmax(invalid))].as_py()
        count += int(invalid.sum())
    return count, first


def _finished(path: Path, dataset: ShardDataset, index: int) -> ArrowRecord | None:
    """The record of a file that is still what its marker says."""
    try:
        record = from_mapping(ArrowRecord, json.loads(marker_of(path).read_bytes()), "The marker")
        is_it = record.made_from == dataset.manifest.shards[index].checksum and record.checksum == file_checksum(path)
    except (OSError, ValueError, AttributeError):
        return None
    return record if is_it else None
