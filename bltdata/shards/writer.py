"""Writes one shard: every row checked, the file published whole or not at all, equal inputs giving equal bytes."""

import contextlib
import types
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bltdata import __version__
from bltdata.atomic import atomic_path
from bltdata.errors import ShardError
from bltdata.shards import schema
from bltdata.shards.checks import check_all_patch_lengths, check_entropies, check_nll, check_patch_lengths, check_size, check_text
from bltdata.shards.columns import list_array, list_column
from bltdata.shards.footer import Footer
from bltdata.shards.record import ShardRecord, make_record


class ShardWriter:
    """Context manager that writes the shard `path`.

    The shard appears when the block ends without an exception, and not at all otherwise. Nothing in it depends on when or
    where it was written, and a row group only on the rows before its end.

        with ShardWriter(folder / shard_name(3), metadata) as writer:
            for document in corpus.read(fragment, writer.left_out):
                writer.add(...)
        record = writer.record

    Args:
        path: the shard's final name; a file that is there is replaced at the end.
        metadata: how the shard is made, as plain JSON values; kept in the file, where `read_metadata` finds it.
        row_group_bytes: positions (bytes and ends of documents) that fill a row group; a longer document has one of its own.
    """

    def __init__(self, path: Path | str, metadata: Mapping[str, Any], *, row_group_bytes: int = schema.ROW_GROUP_BYTES) -> None:
        self.path = Path(path)
        self.metadata = dict(metadata)
        self.left_out: Counter[str] = Counter()
        """Documents that the builder leaves out of this shard, by reason; filled by the builder before the block ends."""
        self._row_group_bytes = row_group_bytes
        self._rows: list[dict[str, Any]] = []
        self._buffered = 0
        self._counts = Counter(num_documents=0, num_bytes=0, num_patches=0)
        self._record: ShardRecord | None = None

    @property
    def record(self) -> ShardRecord:
        """The manifest's line about this shard; there is one once the block has ended well."""
        assert self._record is not None, "a shard has a record when it is published"
        return self._record

    def __enter__(self) -> "ShardWriter":
        self._session = self._write()
        self._parquet = self._session.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: types.TracebackType | None) -> None:
        self._session.__exit__(kind, error, traceback)

    def add(
        self, *, doc_id: str, source: str, data: bytes, entropy_nats: np.ndarray, patch_lengths: np.ndarray, nll_nats: float | None
    ) -> None:
        """Add one document of `n` bytes.

        Args:
            doc_id: its name, unique in the dataset.
            source: label of the corpus it came from.
            data: the raw bytes.
            entropy_nats: float16 `[n + 1]`, as `round_entropies` gives them.
            patch_lengths: integers `[number of patches]`, each at least 1, sum `n + 1`.
            nll_nats: the entropy model's negative log-likelihood of the bytes and the end; None if nobody knows it.

        Raises:
            ShardError: one of these does not hold, or the document is too long for a row.
        """
        where = f"Document {doc_id!r}"
        num_bytes = check_size(len(data), where)
        # Copies, so that the caller may use its own arrays again before the row is written.
        row = {
            schema.DOC_ID: check_text(doc_id, f"The name {doc_id!r} of a document"),
            schema.SOURCE: check_text(source, f"The source {source!r} of document {doc_id!r}"),
            schema.DATA: bytes(data),
            schema.ENTROPY_NATS: check_entropies(np.array(entropy_nats), num_bytes, where),
            schema.PATCH_LENGTHS: check_patch_lengths(np.array(patch_lengths), num_bytes, where).astype(np.uint32),
            schema.NUM_BYTES: num_bytes,
            schema.NUM_PATCHES: len(patch_lengths),
            schema.NLL_NATS: check_nll(nll_nats, where),
        }
        positions = num_bytes + 1
        is_full = len(self._rows) == schema.ROW_GROUP_ROWS or self._buffered + positions > self._row_group_bytes
        if self._rows and is_full:
            self._flush()
        self._rows.append(row)
        self._buffered += positions
        self._counts.update(num_documents=1, num_bytes=num_bytes, num_patches=len(patch_lengths))

    def add_row_group(self, table: pa.Table) -> None:
        """Add the documents of a row group of another shard, perhaps with other patches, as a row group of its own.

        Args:
            table: all columns, as `ShardDataset.read_row_group` gives them.

        Raises:
            ShardError: the columns are others, or patch lengths are no patches of their document.
        """
        if not table.schema.equals(schema.SCHEMA):
            raise ShardError("A row group has other columns than a shard; read all columns with read_row_group.")
        num_bytes, num_patches = table[schema.NUM_BYTES].to_numpy(), table[schema.NUM_PATCHES].to_numpy()
        check_all_patch_lengths(*list_column(table[schema.PATCH_LENGTHS]), num_bytes, num_patches)
        if self._rows:
            self._flush()
        self._parquet.write_table(table, row_group_size=max(1, table.num_rows))
        self._counts.update(num_documents=table.num_rows, num_bytes=int(num_bytes.sum()), num_patches=int(num_patches.sum()))

    @contextlib.contextmanager
    def _write(self) -> Iterator[pq.ParquetWriter]:
        with atomic_path(self.path) as temporary:
            with pa.OSFile(str(temporary), "wb") as sink, _parquet_writer(sink) as parquet:
                yield parquet
                if self._rows:
                    self._flush()
                footer = self._footer()
                parquet.add_key_value_metadata({schema.METADATA_KEY: footer.encode()})
            record = make_record(temporary, self.path.name, footer)
        self._record = record

    def _flush(self) -> None:
        arrays = [_to_array([row[field.name] for row in self._rows], field.type) for field in schema.SCHEMA]
        table = pa.Table.from_arrays(arrays, schema=schema.SCHEMA)
        self._parquet.write_table(table, row_group_size=len(self._rows))
        self._rows, self._buffered = [], 0

    def _footer(self) -> Footer:
        return Footer(
            format_version=schema.FORMAT_VERSION,
            tool_version=__version__,
            metadata=self.metadata,
            left_out={reason: self.left_out[reason] for reason in sorted(self.left_out)},
            **self._counts,
        )


@contextlib.contextmanager
def _parquet_writer(sink: pa.NativeFile) -> Iterator[pq.ParquetWriter]:
    writer = pq.ParquetWriter(
        sink,
        schema.SCHEMA,
        compression=schema.COMPRESSION,
        use_dictionary=list(schema.DICTIONARY_COLUMNS),
        write_statistics=list(schema.STATISTICS_COLUMNS),
        write_page_checksum=True,
    )
    try:
        yield writer
    except BaseException:
        # Closing writes a footer into the file that is about to vanish. On a full disk that fails as well, and the error to
        # tell is the first one.
        with contextlib.suppress(OSError, pa.ArrowException):
            writer.close()
        raise
    writer.close()


def _to_array(values: list[Any], kind: pa.DataType) -> pa.Array:
    if pa.types.is_list(kind):
        return list_array(values, kind)
    if pa.types.is_dictionary(kind):
        return pa.array(values, type=kind.value_type).dictionary_encode()
    return pa.array(values, type=kind)
