"""Scores alone, for those who want no patches: documents beside what the entropy model says of them, and a Parquet file of it."""

import contextlib
import json
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from bltdata import __version__
from bltdata.atomic import atomic_path
from bltdata.corpus import Document
from bltdata.entropy.model import EntropyModel
from bltdata.entropy.scoring import Score, bits_per_byte
from bltdata.errors import ShardError
from bltdata.shards import schema
from bltdata.shards.checks import check_text
from bltdata.shards.columns import list_array

BITS_PER_BYTE = "bits_per_byte"
METADATA_KEY = b"blt-scores"
"""Another key than a shard's: a file of scores is none."""

SCHEMA = pa.schema(
    [
        schema.SCHEMA.field(schema.DOC_ID),
        schema.SCHEMA.field(schema.SOURCE),
        schema.SCHEMA.field(schema.NUM_BYTES),
        schema.SCHEMA.field(schema.NLL_NATS),
        # Null for a document without bytes.
        pa.field(BITS_PER_BYTE, pa.float64()),
        pa.field(schema.ENTROPY_NATS, pa.list_(pa.field("element", pa.float32(), nullable=False)), nullable=False),
    ]
)

_DESCRIPTION = pa.schema([field for field in SCHEMA if field.name != schema.ENTROPY_NATS])

MAX_SCORED_BYTES = schema.MAX_DOCUMENT_BYTES // 2
"""A float32 takes twice the room of a shard's float16, and a Parquet page no more than in a shard."""


def scored(
    model: EntropyModel, documents: Iterable[Document], precision: torch.dtype = torch.float32, *, reset_at_newline: bool = False
) -> Iterator[tuple[Document, Score]]:
    """Documents with their scores, in their order; read as the results are taken, a little ahead of them.

    Args:
        model: the entropy model.
        documents: any number of them; those whose score has been taken are let go.
        precision: type of matrix products.
        reset_at_newline: see `EntropyModel.score`.
    """
    ahead: deque[Document] = deque()

    def texts() -> Iterator[bytes]:
        for document in documents:
            ahead.append(document)
            yield document.data

    for score in model.score_with_nll(texts(), precision, reset_at_newline=reset_at_newline):
        yield ahead.popleft(), score


def describe_score(document: Document, score: Score) -> dict[str, Any]:
    """What is told of a document beside its entropies: the columns of `SCHEMA` before the last.

    Raises:
        ShardError: its name isn't valid Unicode.
    """
    num_bytes = len(document.data)
    return {
        schema.DOC_ID: check_text(document.doc_id, f"The name {document.doc_id!r} of a document"),
        schema.SOURCE: check_text(document.source, f"The source {document.source!r} of document {document.doc_id!r}"),
        schema.NUM_BYTES: num_bytes,
        schema.NLL_NATS: score.nll_nats,
        BITS_PER_BYTE: bits_per_byte(score.nll_nats, num_bytes) if num_bytes else None,
    }


def check_room(document: Document) -> Document:
    """Refuse a document that is too long for a row; for those who needn't score it first.

    Raises:
        ShardError: it is.
    """
    num_bytes = len(document.data)
    if num_bytes > MAX_SCORED_BYTES:
        raise ShardError(
            f"Document {document.doc_id!r} has {num_bytes} bytes; a row can hold {MAX_SCORED_BYTES}, so leave it out with max_bytes or cut "
            "it."
        )
    return document


@contextlib.contextmanager
def score_file(path: Path, metadata: Mapping[str, Any], *, row_group_bytes: int = schema.ROW_GROUP_BYTES) -> Iterator["ScoreFile"]:
    """A Parquet file of scores, which appears when the block ends well, and not at all when it doesn't.

    Args:
        path: its final name; a file that is there is replaced at the end.
        metadata: how the scores are made, as plain JSON values; kept in the file's footer under `METADATA_KEY`.
        row_group_bytes: positions (bytes and ends of documents) that fill a row group; a longer document has one of its own.
    """
    description = {METADATA_KEY: json.dumps({"tool_version": __version__, **metadata}, sort_keys=True).encode()}
    with (
        atomic_path(path) as temporary,
        pa.OSFile(str(temporary), "wb") as sink,
        pq.ParquetWriter(
            sink,
            SCHEMA.with_metadata(description),
            compression=schema.COMPRESSION,
            use_dictionary=[schema.SOURCE],
            write_statistics=[name for name in SCHEMA.names if name != schema.ENTROPY_NATS],
        ) as parquet,
    ):
        file = ScoreFile(parquet, row_group_bytes)
        yield file
        file.flush()


class ScoreFile:
    """The rows of a file that `score_file` has opened."""

    def __init__(self, parquet: pq.ParquetWriter, row_group_bytes: int) -> None:
        self._parquet = parquet
        self._row_group_bytes = row_group_bytes
        self._rows: list[dict[str, Any]] = []
        self._entropies: list[np.ndarray] = []
        self._buffered = 0

    def add(self, document: Document, score: Score) -> None:
        """Add a document's scores.

        Raises:
            ShardError: it is too long for a row, or its name isn't valid Unicode.
        """
        num_bytes = len(check_room(document).data)
        if self._buffered + num_bytes >= self._row_group_bytes or len(self._rows) == schema.ROW_GROUP_ROWS:
            self.flush()
        self._rows.append(describe_score(document, score))
        self._entropies.append(score.entropy_nats)
        self._buffered += num_bytes + 1

    def flush(self) -> None:
        """Write the rows so far as a row group."""
        if not self._rows:
            return
        table = pa.Table.from_pylist(self._rows, schema=_DESCRIPTION)
        table = table.append_column(SCHEMA.field(schema.ENTROPY_NATS), list_array(self._entropies, SCHEMA.field(schema.ENTROPY_NATS).type))
        self._parquet.write_table(table, row_group_size=len(self._rows))
        self._rows, self._entropies, self._buffered = [], [], 0
