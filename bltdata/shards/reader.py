"""A finished dataset, read row by row, row group by row group, or with Polars."""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pa_dataset
import pyarrow.parquet as pq

from bltdata.config import nearest
from bltdata.errors import ShardError
from bltdata.remote import AnyPath, RemotePath, as_path, file_sizes, parquet_source
from bltdata.shards import schema
from bltdata.shards.columns import bytes_column, list_column
from bltdata.shards.folder import run_again
from bltdata.shards.footer import count_values, read_footer, reading
from bltdata.shards.manifest import Manifest
from bltdata.shards.record import file_checksum


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """One document of `n` bytes, under the schema's column names: `row.data` and `row["data"]` are the same."""

    doc_id: str
    source: str
    data: bytes
    entropy_nats: np.ndarray
    """float16 `[n + 1]`, nats, read-only."""
    patch_lengths: np.ndarray
    """uint32 `[num_patches]`, read-only."""
    num_bytes: int
    num_patches: int
    nll_nats: float
    """NaN where the entropy model is unknown."""

    def keys(self) -> tuple[str, ...]:
        """Column names, so that `dict(row)` works."""
        return schema.COLUMNS

    def __getitem__(self, column: str) -> Any:
        """The value in a column."""
        if column not in schema.COLUMNS:
            raise KeyError(column)
        return getattr(self, column)


class RowGroup(NamedTuple):
    """Where a row group is and how much it holds, known without reading it."""

    shard: int
    """Index in the manifest's list."""
    row_group: int
    """Index in the shard."""
    num_documents: int
    num_bytes: int
    """Raw bytes, ends of documents not counted."""
    num_patches: int


class ShardDataset:
    """The documents of a dataset folder, in the order of its plan. Cheap to pickle; holds no open file."""

    def __init__(self, folder: AnyPath, manifest: Manifest) -> None:
        """Use `open_shards`, which checks the folder first."""
        self.folder = folder
        self.manifest = manifest

    def __len__(self) -> int:
        """Number of documents."""
        return self.manifest.totals.num_documents

    def __repr__(self) -> str:
        """Folder and counts."""
        totals = self.manifest.totals
        return f"<ShardDataset {self.folder}: {totals.num_documents} documents, {totals.num_bytes} bytes, {totals.num_shards} shards>"

    def __iter__(self) -> Iterator[Row]:
        """The documents one by one, a row group in memory at a time."""
        for table in self.iter_row_groups():
            yield from _rows(table)

    def document(self, doc_id: str) -> Row:
        """The first document of that name; reads the names up to it, and then its row group.

        Raises:
            ShardError: there is none.
        """
        for shard in range(len(self.manifest.shards)):
            for group in self.shard_row_groups(shard):
                names = self.read_row_group(shard, group.row_group, [schema.DOC_ID])[schema.DOC_ID]
                index = pc.index(names, pa.scalar(doc_id, pa.string())).as_py()
                if index >= 0:
                    return self.row(shard, group.row_group, index)
        first = next((f"; the first one is {row.doc_id!r}" for row in self), "; it has none at all")
        raise ShardError(f"{self.folder} has no document {doc_id!r}{first}.")

    def row(self, shard: int, row_group: int, row: int) -> Row:
        """The document in one row of a row group, which is read for it."""
        return next(_rows(self.read_row_group(shard, row_group).slice(row, 1)))

    @property
    def paths(self) -> list[AnyPath]:
        """The shards' files, in the manifest's order."""
        return [self.folder / shard.file for shard in self.manifest.shards]

    @functools.cached_property
    def row_groups(self) -> list[RowGroup]:
        """Every row group of every shard; reads the footers once.

        Raises:
            ShardError: a shard is damaged or is not the one that the manifest lists.
        """
        return [group for shard in range(len(self.manifest.shards)) for group in self.shard_row_groups(shard)]

    def read_row_group(self, shard: int, row_group: int, columns: Sequence[str] | None = None) -> pa.Table:
        """Read one row group, checking its pages' checksums.

        Args:
            shard: index in the manifest's list.
            row_group: index in the shard.
            columns: names to read, in the schema's order; all by default.

        Returns:
            The rows; `bytes_column` and `list_column` turn its columns into flat NumPy arrays.

        Raises:
            ShardError: the shard is damaged, or an unknown column.
        """
        for column in columns or ():
            if column not in schema.COLUMNS:
                raise ShardError(f"A shard has no column {column!r}{nearest(column, schema.COLUMNS)}.")
        metadata = self._footers.get(shard) or self._read_footer(shard)
        path = self.folder / self.manifest.shards[shard].file
        with (
            reading(path),
            parquet_source(path) as source,
            # A remote file is asked for all columns at once, and not for one after the other.
            pq.ParquetFile(source, metadata=metadata, page_checksum_verification=True, pre_buffer=isinstance(path, RemotePath)) as file,
        ):
            table = file.read_row_group(row_group, columns=None if columns is None else list(columns))
            # Flat arrays are cut at offsets that nothing checks again.
            table.validate(full=True)
            return table

    def iter_row_groups(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """Every row group in order, as `read_row_group` gives it."""
        for shard in range(len(self.manifest.shards)):
            yield from self.iter_shard(shard, columns)

    def iter_shard(self, shard: int, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """Every row group of one shard, its index in the manifest's list, as `read_row_group` gives it."""
        for group in self.shard_row_groups(shard):
            yield self.read_row_group(shard, group.row_group, columns)

    def scan(self) -> pl.LazyFrame:
        """A lazy Polars frame over the shards, columns as in the schema."""
        if not self.paths:
            return pl.LazyFrame(pl.from_arrow(schema.SCHEMA.empty_table()))
        if isinstance(self.folder, RemotePath):
            # With fsspec's connection and credentials, which Polars's own reader doesn't know.
            files, _ = self.folder.store()
            names = [path.store()[1] for path in self.paths if isinstance(path, RemotePath)]
            return pl.scan_pyarrow_dataset(pa_dataset.dataset(names, filesystem=files, format="parquet"))
        return pl.scan_parquet([str(path) for path in self.paths], glob=False)

    def verify_checksums(self) -> None:
        """Read every shard and compare its checksum with the manifest's.

        Raises:
            ShardError: some differ; the message names them.
        """
        damaged = []
        for record, path in zip(self.manifest.shards, self.paths, strict=True):
            with reading(path):
                if file_checksum(path) != record.checksum:
                    damaged.append(record.file)
        if damaged:
            raise ShardError(
                f"{self.folder} has shards that differ from their checksums ({', '.join(damaged)}); "
                f"delete them and {run_again(self.folder)}."
            )

    @functools.cached_property
    def _footers(self) -> dict[int, pq.FileMetaData]:
        return {}

    def _read_footer(self, shard: int) -> pq.FileMetaData:
        record = self.manifest.shards[shard]
        path = self.folder / record.file
        footer, metadata = read_footer(path)
        if (footer.num_documents, footer.num_bytes, footer.num_patches) != (record.num_documents, record.num_bytes, record.num_patches):
            raise ShardError(f"{path} is not the shard that the manifest lists (its counts differ); put the right one back.")
        self._footers[shard] = metadata
        return metadata

    def shard_row_groups(self, shard: int) -> list[RowGroup]:
        """Every row group of one shard, its index in the manifest's list; reads its footer once."""
        metadata = self._footers.get(shard) or self._read_footer(shard)
        return [RowGroup(shard, index, *count_values(metadata, index)) for index in range(metadata.num_row_groups)]

    def __getstate__(self) -> dict[str, Any]:
        """Folder and manifest; what was read of the shards is read again."""
        return {"folder": self.folder, "manifest": self.manifest}


def open_shards(folder: AnyPath | str) -> ShardDataset:
    """Open a dataset that `build-shards` finished, in a folder or at an address such as `s3://bucket/shards`.

    The manifest is read and each shard's presence and size checked. Pages are checked when they are read, whole files by
    `ShardDataset.verify_checksums`.

    Raises:
        ShardError: no folder, no manifest (the build did not finish), or a shard is missing or of another size.
    """
    folder = as_path(folder)
    dataset = ShardDataset(folder, Manifest.read(folder))
    with reading(folder):
        sizes = file_sizes(folder, [record.file for record in dataset.manifest.shards])
    for record, path in zip(dataset.manifest.shards, dataset.paths, strict=True):
        with reading(path):
            if record.file not in sizes:
                raise FileNotFoundError(path)
        size = sizes[record.file]
        if size != record.size_bytes:
            raise ShardError(f"The shard {path} has {size} bytes instead of {record.size_bytes}; delete it and {run_again(folder)}.")
    return dataset


def _rows(table: pa.Table) -> Iterator[Row]:
    data, data_offsets = bytes_column(table[schema.DATA])
    entropy_nats, entropy_offsets = list_column(table[schema.ENTROPY_NATS])
    lengths, length_offsets = list_column(table[schema.PATCH_LENGTHS])
    doc_ids, sources = table[schema.DOC_ID].to_pylist(), table[schema.SOURCE].to_pylist()
    nll_nats = table[schema.NLL_NATS].to_pylist()
    for i in range(table.num_rows):
        document = data[data_offsets[i] : data_offsets[i + 1]].tobytes()
        patch_lengths = lengths[length_offsets[i] : length_offsets[i + 1]]
        yield Row(
            doc_id=doc_ids[i],
            source=sources[i],
            data=document,
            entropy_nats=entropy_nats[entropy_offsets[i] : entropy_offsets[i + 1]],
            patch_lengths=patch_lengths,
            num_bytes=len(document),
            num_patches=len(patch_lengths),
            nll_nats=nll_nats[i],
        )
