"""Parquet: a document a row, read row group by row group."""

import contextlib
import dataclasses
from collections import Counter
from collections.abc import Iterator

import pyarrow.parquet as pq

from bltdata.corpus.columns import arrow_documents, check_arrow_types, check_column, choose_text_column
from bltdata.corpus.fragments import Piece, group
from bltdata.corpus.paths import printable
from bltdata.corpus.source import DiskSource
from bltdata.corpus.streams import naming_errors

_BATCH_ROWS = 256
"""Rows decoded at once: enough to be fast, few enough for documents of many megabytes."""


class ParquetSource(DiskSource):
    """A document is one value of each row, text or binary; its id is another, or the file and the number of the row."""

    endings = (".parquet",)

    def pieces(self, target_bytes: int) -> Iterator[Piece]:
        """Runs of row groups of up to `target_bytes`, weighed by the column that will be read; a bigger row group alone."""
        for entry in self.files.entries:
            whole = self.whole(entry)
            with self._open(whole) as (file, text_column):
                # Row groups list the leaves of the schema, which are more than its columns where some are nested.
                leaf = next(index for index in range(len(file.schema)) if file.schema.column(index).path == text_column)
                row_groups = []
                first_number = 1
                for index in range(file.num_row_groups):
                    metadata = file.metadata.row_group(index)
                    size_bytes = metadata.column(leaf).total_uncompressed_size
                    row_groups.append(
                        dataclasses.replace(whole, start=index, stop=index + 1, first_number=first_number, size_bytes=size_bytes)
                    )
                    first_number += metadata.num_rows
            for run in group(row_groups, target_bytes):
                yield dataclasses.replace(run[0], stop=run[-1].stop, size_bytes=sum(piece.size_bytes or 0 for piece in run))

    def count(self, piece: Piece, at_most: int) -> int:
        """As the file's footer says."""
        with self._open(piece) as (file, _):
            return sum(file.metadata.row_group(index).num_rows for index in _row_groups(piece))

    def read(self, piece: Piece, left_out: Counter[str]) -> Iterator[tuple[str, bytes]]:
        """The rows."""
        where = printable(self.files.path(piece.name))
        with self._open(piece) as (file, text_column):
            columns = {text_column, self.spec.id or text_column}
            number = piece.first_number
            for batch in file.iter_batches(_BATCH_ROWS, row_groups=_row_groups(piece), columns=sorted(columns)):
                yield from arrow_documents(batch, text_column, self.spec.id, piece.name, number, where)
                number += batch.num_rows

    @contextlib.contextmanager
    def _open(self, piece: Piece) -> Iterator[tuple[pq.ParquetFile, str]]:
        path = self.path(piece)
        where = printable(path)
        with naming_errors(path), open(path, "rb") as stream, pq.ParquetFile(stream) as file:
            schema = file.schema_arrow
            text_column = choose_text_column(self.spec.text, schema.names, where)
            if self.spec.id is not None:
                check_column(self.spec.id, schema.names, where)
            check_arrow_types(schema, text_column, self.spec.id, where)
            yield file, text_column


def _row_groups(piece: Piece) -> range:
    assert piece.stop is not None
    return range(piece.start, piece.stop)
