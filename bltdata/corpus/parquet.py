"""Parquet: a document a row, read row group by row group."""

import contextlib
import dataclasses
from collections import Counter
from collections.abc import Iterator

import pyarrow.parquet as pq

from bltdata.corpus.columns import arrow_documents, check_arrow_types, check_column, choose_text_column
from bltdata.corpus.document import Record
from bltdata.corpus.fragments import Piece, group
from bltdata.corpus.paths import printable
from bltdata.corpus.source import DiskSource
from bltdata.corpus.streams import open_ranges

_BATCH_ROWS = 256
"""Rows decoded at once: enough to be fast, few enough for documents of many megabytes."""


class ParquetSource(DiskSource):
    """A document is one value of each row, text or binary; its id is another, or the file and the number of the row."""

    endings = (".parquet",)

    def pieces(self, target_bytes: int) -> Iterator[Piece]:
        """Runs of row groups of up to `target_bytes`, weighed by the column that will be read; a bigger row group in runs of its rows."""
        for entry in self.files.entries:
            for run in group(self._row_groups(self.whole(entry)), target_bytes):
                num_parts = -(-(run[0].size_bytes or 0) // target_bytes)
                if len(run) == 1 and num_parts > 1:
                    yield from self._parts(run[0], num_parts)
                else:
                    yield dataclasses.replace(run[0], stop=run[-1].stop, size_bytes=sum(piece.size_bytes or 0 for piece in run))

    def count(self, piece: Piece, at_most: int) -> int:
        """As the file's footer says."""
        if piece.max_documents is not None:
            return piece.max_documents
        with self._open(piece) as (file, _):
            return sum(file.metadata.row_group(index).num_rows for index in _row_groups(piece))

    def read(self, piece: Piece, left_out: Counter[str]) -> Iterator[Record]:
        """The rows."""
        where = printable(self.files.path(piece.name))
        with self._open(piece) as (file, text_column):
            columns = {text_column, self.spec.id or text_column}
            number, skip = piece.first_number, piece.skip_rows
            for batch in file.iter_batches(_BATCH_ROWS, row_groups=_row_groups(piece), columns=sorted(columns)):
                rows = batch.slice(min(skip, batch.num_rows))
                skip -= batch.num_rows - rows.num_rows
                yield from arrow_documents(rows, text_column, self.spec.id, piece.name, number, where, leaves_out=self.spec.leaves_out)
                number += rows.num_rows

    def _row_groups(self, whole: Piece) -> list[Piece]:
        row_groups = []
        with self._open(whole) as (file, text_column):
            # Row groups list the leaves of the schema, which are more than its columns where some are nested.
            leaf = next(index for index in range(len(file.schema)) if file.schema.column(index).path == text_column)
            first_number = 1
            for index in range(file.num_row_groups):
                metadata = file.metadata.row_group(index)
                size_bytes = metadata.column(leaf).total_uncompressed_size
                row_groups.append(dataclasses.replace(whole, start=index, stop=index + 1, first_number=first_number, size_bytes=size_bytes))
                first_number += metadata.num_rows
        return row_groups

    def _parts(self, row_group: Piece, num_parts: int) -> Iterator[Piece]:
        """So many parts of a row group, or one for each of its rows; where they lie in it is known for rows only, so rows count alike."""
        num_rows = self.count(row_group, 0)
        num_parts = min(num_parts, num_rows)
        if num_parts <= 1:
            yield row_group
            return
        size_bytes = row_group.size_bytes or 0
        for part in range(num_parts):
            begin, end = part * num_rows // num_parts, (part + 1) * num_rows // num_parts
            yield dataclasses.replace(
                row_group,
                first_number=row_group.first_number + begin,
                skip_rows=begin,
                max_documents=end - begin,
                size_bytes=(part + 1) * size_bytes // num_parts - part * size_bytes // num_parts,
            )

    @contextlib.contextmanager
    def _open(self, piece: Piece) -> Iterator[tuple[pq.ParquetFile, str]]:
        path = self.path(piece)
        where = printable(path)
        with open_ranges(path) as stream, pq.ParquetFile(stream) as file:
            schema = file.schema_arrow
            text_column = choose_text_column(self.spec.text, schema.names, where)
            if self.spec.id is not None:
                check_column(self.spec.id, schema.names, where)
            check_arrow_types(schema, text_column, self.spec.id, where)
            yield file, text_column


def _row_groups(piece: Piece) -> range:
    assert piece.stop is not None
    return range(piece.start, piece.stop)
