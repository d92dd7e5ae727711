"""The Arrow files of the reference implementation: their columns, their names, and reading them a document at a time.

An Arrow IPC file of record batches of at most 1000 rows. `DATASET/MODEL/DATASET.chunk.NN.jsonl.shard_MM.arrow` has a marker beside it,
the same name and `.complete`, once it is whole: the trainer looks for `*.chunk.*.jsonl` in `DATASET`, and then for their shards.
"""

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bltdata.convert.config import Framing, FromArrowConfig
from bltdata.errors import BltError, CorpusError, ShardError
from bltdata.shards import round_entropies
from bltdata.vocab import MAX_ENTROPY_NATS

SAMPLE_ID = "sample_id"
TEXT = "text"
ENTROPIES = "entropies"

ARROW_SCHEMA = pa.schema(
    [
        pa.field(SAMPLE_ID, pa.string(), nullable=False),
        pa.field(TEXT, pa.string(), nullable=False),
        pa.field(ENTROPIES, pa.list_(pa.float16()), nullable=False),
    ]
)
BATCH_ROWS = 1000

ENDING = ".arrow"
MARKER_ENDING = ".complete"

_TOKENS_BESIDE: Mapping[Framing, int] = {"bos-eos": 2, "bos": 1, "eos": 1, "none": 0}
"""How many entropies there are beside those of the bytes."""


@dataclass(frozen=True, kw_only=True)
class ArrowFile:
    """A file to read."""

    name: str
    """Its path below the folder that was given, or its name; the same wherever the folder is."""
    path: Path
    size_bytes: int
    modified_ns: int
    """Its time of change, in nanoseconds since 1970."""

    @property
    def label(self) -> str:
        """The source that its documents are from, by its name.

        >>> ArrowFile(name="a/dclm.chunk.03.jsonl.shard_12.arrow", path=Path(), size_bytes=0, modified_ns=0).label
        'dclm'
        """
        stem = Path(self.name).name.removesuffix(ENDING)
        found = re.fullmatch(r"(.+)\.chunk\.\d+\.jsonl(\.shard_\d+)?", stem)
        return found[1] if found else stem


@dataclass(frozen=True, kw_only=True)
class ArrowFragment:
    """Rows of a file that become one shard."""

    index: int
    """Its place in the plan."""
    file: str
    """Name of the file."""
    first_row: int
    """Where it begins in the file."""
    num_rows: int
    first_batch: int
    """The record batch that its first row is in."""
    skip_rows: int
    """Rows of that batch before it."""
    num_bytes: int
    """Raw bytes of its documents."""


@dataclass(frozen=True)
class ArrowDocument:
    """A row, checked, and framed as shards frame it."""

    doc_id: str
    source: str
    data: bytes
    entropy_nats: np.ndarray
    """float16 `[n + 1]`, nats, rounded as it is stored."""
    where: str
    """File, row and name, for errors."""


def shard_path(dataset: str, model: str, chunk: int, shard: int, *, width: int = 2) -> Path:
    """Where a file is, below the trainer's `preprocess_dir`; numbers have `width` digits, so that names sort as numbers do.

    >>> shard_path("wiki", "tiny", 0, 7).as_posix()
    'wiki/tiny/wiki.chunk.00.jsonl.shard_07.arrow'
    """
    return Path(dataset, model, f"{chunk_path(dataset, chunk).name}.shard_{shard:0{width}d}{ENDING}")


def chunk_path(dataset: str, chunk: int) -> Path:
    """Where the trainer looks for a chunk, below its `root_dir`."""
    return Path(dataset, f"{dataset}.chunk.{chunk:02d}.jsonl")


def marker_of(path: Path) -> Path:
    """The file that says that an Arrow file is whole."""
    return path.with_name(path.name + MARKER_ENDING)


def find_files(locations: Sequence[Path]) -> list[ArrowFile]:
    """The Arrow files that are given, and those of the folders that are, sorted by name.

    Raises:
        CorpusError: there are none; one of a folder lacks its marker; or two have the same name.
    """
    found: dict[str, ArrowFile] = {}
    for location in locations:
        paths = sorted(location.rglob(f"*{ENDING}")) if location.is_dir() else [location]
        if not paths:
            raise CorpusError(
                f"The folder {location} has no file *{ENDING}; give a folder or files that the reference implementation wrote."
            )
        for path in paths:
            if location.is_dir() and not marker_of(path).exists():
                raise CorpusError(
                    f"{path} has no {marker_of(path).name} beside it, so it may be half-written; finish it, or give whole files."
                )
            file = _file(path.relative_to(location).as_posix() if location.is_dir() else path.name, path)
            if file.name in found:
                raise CorpusError(f"Two files are called {file.name}: {found[file.name].path} and {path}; give one folder that holds both.")
            found[file.name] = file
    return [found[name] for name in sorted(found)]


def fragments_of(files: Sequence[ArrowFile], fragment_bytes: int) -> Iterator[ArrowFragment]:
    """Cut files into runs of rows with at most so many raw bytes, a row at least; a run is of one file.

    Of each file only the offsets of its texts are read.

    Raises:
        CorpusError: a file can't be read, or has other columns.
    """
    index = 0
    for file in files:
        with _opened(file.path) as reader:
            sizes = [
                pc.binary_length(reader.get_batch(batch).column(TEXT)).to_numpy(zero_copy_only=False)
                for batch in range(reader.num_record_batches)
            ]
        rows_before = np.cumsum([0, *map(len, sizes)])
        # A null has no length; reading its row says what is wrong with it.
        bytes_before = np.cumsum([0, *np.nan_to_num(np.concatenate([np.empty(0), *sizes]))]).astype(np.int64)
        start = 0
        while start < rows_before[-1]:
            fits = int(np.searchsorted(bytes_before, bytes_before[start] + fragment_bytes, side="right")) - 1
            stop = max(start + 1, fits)
            batch = int(np.searchsorted(rows_before, start, side="right")) - 1
            yield ArrowFragment(
                index=index,
                file=file.name,
                first_row=start,
                num_rows=stop - start,
                first_batch=batch,
                skip_rows=int(start - rows_before[batch]),
                num_bytes=int(bytes_before[stop] - bytes_before[start]),
            )
            index, start = index + 1, stop


def read_documents(file: ArrowFile, fragment: ArrowFragment, config: FromArrowConfig) -> Iterator[ArrowDocument]:
    """The documents of a fragment; a record batch of the file is in memory at a time.

    Raises:
        CorpusError: the file has changed or is damaged, or a row isn't what it must be; the message names file and row.
    """
    if _file(file.name, file.path) != file:
        raise CorpusError(f"{file.path} has changed since the conversion began; delete what was converted and begin again.")
    source = config.source or file.label
    row, stop = fragment.first_row, fragment.first_row + fragment.num_rows
    skip, number = fragment.skip_rows, fragment.first_batch
    with _opened(file.path) as reader:
        while row < stop:
            batch = reader.get_batch(number).slice(skip, stop - row)
            # Of every row: offsets that lead out of the file must not be followed.
            batch.validate(full=True)
            for offset in range(batch.num_rows):
                yield _document(batch, offset, row + offset, file, source, config)
            row, skip, number = row + batch.num_rows, 0, number + 1


def unframed(entropies: np.ndarray, num_bytes: int, framing: Framing) -> np.ndarray:
    """The `n + 1` entropies of a document of `num_bytes` bytes, of those that a row has.

    Args:
        entropies: floating point, nats; value `i` is about the token after token `i`.
        num_bytes: `n`.
        framing: which tokens there are beside the bytes.

    Returns:
        float64 `[n + 1]`, entry `i` about byte `i`, entry `n` about the end. Without BOS the first one is ln 260: nothing is known of it.

    Raises:
        CorpusError: there is another number of them; the sentence has no subject.

    >>> unframed(np.array([1.0, 2.0, 3.0, 0.0]), 2, "bos-eos").tolist(), unframed(np.array([2.0, 3.0]), 2, "none").tolist()
    ([1.0, 2.0, 3.0], [5.560681631015528, 2.0, 3.0])
    """
    beside = _TOKENS_BESIDE[framing]
    if len(entropies) != num_bytes + beside:
        others = [name for name, count in _TOKENS_BESIDE.items() if len(entropies) == num_bytes + count]
        fix = f"--framing {' or '.join(others)} means so many, if that is what they are" if others else "make the file anew"
        raise CorpusError(
            f"has {len(entropies)} entropies for {num_bytes} bytes, and with --framing {framing} there are {num_bytes + beside}; {fix}."
        )
    values = entropies.astype(np.float64)
    if framing.startswith("bos"):
        return values[: num_bytes + 1]
    return np.concatenate([[MAX_ENTROPY_NATS], values[:num_bytes]])


def _document(batch: pa.RecordBatch, offset: int, row: int, file: ArrowFile, source: str, config: FromArrowConfig) -> ArrowDocument:
    sample_id, text, entropies = (batch.column(name)[offset] for name in (SAMPLE_ID, TEXT, ENTROPIES))
    name = sample_id.as_py() if config.doc_ids == "sample" else f"{file.name}:{row}"
    where = f"{file.path}, row {row} ({sample_id.as_py()!r}),"
    if not text.is_valid or not entropies.is_valid or entropies.values.null_count:
        raise CorpusError(f"{where} has a null where text or entropies should be; make the file anew.")
    if not name:
        raise CorpusError(f"{where} has no name; choose --doc-ids row to name documents by file and row.")
    data = text.as_buffer().to_pybytes()
    try:
        values = unframed(entropies.values.to_numpy(), len(data), config.framing)
        return ArrowDocument(name, source, data, round_entropies(values, config.entropy_precision), where)
    except CorpusError as error:
        raise CorpusError(f"{where} {error}") from error
    except ShardError as error:
        raise CorpusError(f"{where} can't be converted: {str(error)[0].lower()}{str(error)[1:]}") from error


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[pa.RecordBatchFileReader]:
    """The reader of a file of the right columns; whatever goes wrong in the block is told in one sentence."""
    try:
        with pa.memory_map(str(path)) as file:
            reader = pa.ipc.open_file(file)
            _check_columns(reader.schema, path)
            yield reader
    except BltError:
        raise
    except FileNotFoundError as error:
        raise CorpusError(f"There is no file {path}; check the path.") from error
    except (pa.ArrowException, OSError, ValueError, LookupError) as error:
        raise CorpusError(
            f"{path} can't be read as an Arrow IPC file ({_one_line(error)}); if it is a stream, write it as a file, else make it anew."
        ) from error


def _check_columns(schema: pa.Schema, path: Path) -> None:
    def is_text(kind: pa.DataType) -> bool:
        return pa.types.is_string(kind) or pa.types.is_large_string(kind)

    def is_floats(kind: pa.DataType) -> bool:
        return (pa.types.is_list(kind) or pa.types.is_large_list(kind)) and pa.types.is_floating(kind.value_type)

    for name, fits, wanted in ((SAMPLE_ID, is_text, "string"), (TEXT, is_text, "string"), (ENTROPIES, is_floats, "list of float16")):
        if schema.names.count(name) != 1:
            raise CorpusError(f"{path} must have one column {name!r}, and its columns are {', '.join(schema.names)}; rename what it is.")
        kind = schema.field(name).type
        if not fits(kind):
            raise CorpusError(f"The column {name!r} of {path} has the type {kind}; it must be {wanted}, so cast it.")


def _file(name: str, path: Path) -> ArrowFile:
    try:
        about = path.stat()
    except OSError as error:
        raise CorpusError(f"Cannot read {path}: {error.strerror}.") from error
    return ArrowFile(name=name, path=path.resolve(), size_bytes=about.st_size, modified_ns=about.st_mtime_ns)


def _one_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
