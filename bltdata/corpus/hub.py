"""Hugging Face datasets, streamed: by name from the hub, or from a folder on this machine.

Nothing is downloaded to be kept. A fragment is a shard of the dataset, which is usually one of its files; with a limit, whose
last document nobody can find without reading all before it, a fragment is a range of rows instead.
"""

import contextlib
import dataclasses
import itertools
import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bltdata.config import fingerprint, nearest
from bltdata.corpus.columns import arrow_documents, check_arrow_types, check_column, choose_text_column
from bltdata.corpus.document import Record
from bltdata.corpus.fragments import Piece
from bltdata.corpus.paths import FileEntry, path_name, printable
from bltdata.corpus.spec import DEFAULT_HUB_SPLIT, CorpusSpec
from bltdata.corpus.streams import naming_errors
from bltdata.errors import CorpusError
from bltdata.remote import AnyPath, parts_below

_BATCH_ROWS = 256
_TYPICAL_DOCUMENT_BYTES = 4096
"""What the text of a web page has, about. By it rows are counted off into fragments, as their sizes aren't known before."""
_ROWS = "rows"
"""The name of the pieces that are ranges of rows."""


@dataclasses.dataclass(slots=True)
class _Cursor:
    """The documents that are left, and how many came before them."""

    documents: Iterator[Record]
    position: int = 0


class HubSource:
    """A document is one value of each row; its id is another, or the numbers of the dataset's shard, from 0, and of its row, from 1.

    With a limit, rows are read one after the other: a range that follows the one read before costs nothing extra, any other
    begins at the start of the dataset and skips. So there several processes save no reading, as they do without a limit.
    """

    def __init__(self, spec: CorpusSpec) -> None:
        """Open the dataset, which for a name on the hub needs the network.

        Raises:
            CorpusError: there is no such dataset, configuration, split or column, or it can't be reached.
        """
        self.spec = spec
        self._cursor: _Cursor | None = None
        self._opened: tuple[Any, str] | None = None
        self._file_names: tuple[str, ...] = ()
        self._entries: tuple[FileEntry, ...] = ()
        self._open()

    def __getstate__(self) -> dict[str, Any]:
        """Another process opens the dataset itself."""
        return self.__dict__ | {"_opened": None, "_cursor": None}

    def pieces(self, target_bytes: int) -> Iterator[Piece]:
        """The dataset's shards; with a limit, endless ranges of rows, of which the limit takes what it needs."""
        if self.spec.limit is not None:
            num_rows = max(1, target_bytes // _TYPICAL_DOCUMENT_BYTES)
            for start in itertools.count(0, num_rows):
                yield self._with_file_state(Piece(name=_ROWS, start=start, stop=start + num_rows), self._entries)
        num_shards = self._open()[0].num_shards
        for index in range(num_shards):
            # Where shards are files, as they almost always are, the plan knows when one of them changes.
            entries = self._entries[index : index + 1] if len(self._entries) == num_shards else self._entries
            yield self._with_file_state(Piece(name=f"{index:05d}"), entries)

    def count(self, piece: Piece, at_most: int) -> int:
        """Planned rows; a dataset that ends before its limit has fewer."""
        assert piece.stop is not None
        return piece.stop - piece.start

    def read(self, piece: Piece, left_out: Counter[str]) -> Iterator[Record]:
        """The rows."""
        if piece.name == _ROWS:
            assert piece.stop is not None
            yield from self._read_rows(piece.start, piece.stop)
        else:
            yield from self._read_shard(int(piece.name))

    def describe(self) -> dict[str, Any]:
        """The number of shards, and a fingerprint of the files' names and sizes, or of their addresses, which name the commit."""
        local = [[entry.name, entry.size_bytes] for entry in self._entries]
        return {"num_shards": self._open()[0].num_shards, "files_fingerprint": fingerprint(local or list(self._file_names))}

    def would_read(self, path: AnyPath) -> bool:
        """Whether it lies in the dataset's folder, if that is one of this machine: the library may take any file there for a part of it."""
        location = os.path.expanduser(self.spec.location)
        return os.path.isdir(location) and parts_below(path, Path(location)) is not None

    def state(self) -> Any:
        """The files' names, sizes and times of change, or their addresses, which name the commit."""
        return [[entry.name, entry.size_bytes, entry.modified_ns] for entry in self._entries] or list(self._file_names)

    @staticmethod
    def _with_file_state(piece: Piece, entries: tuple[FileEntry, ...]) -> Piece:
        if not entries:
            return piece
        file_bytes = sum(entry.size_bytes for entry in entries)
        return dataclasses.replace(piece, file_bytes=file_bytes, modified_ns=max(entry.modified_ns or 0 for entry in entries))

    def _read_rows(self, start: int, stop: int) -> Iterator[Record]:
        # The cursor is taken away while it is in use, so that a second reader can't move it.
        cursor, self._cursor = self._cursor, None
        if cursor is None or cursor.position > start:
            cursor = _Cursor(self._read_all())
        try:
            for document in itertools.islice(cursor.documents, stop - cursor.position):
                cursor.position += 1
                if cursor.position > start:
                    yield document
        except GeneratorExit:
            # Who reads only some of a fragment goes on from there. After an error nobody does: the documents have ended.
            self._cursor = cursor
            raise
        self._cursor = cursor

    def _read_all(self) -> Iterator[Record]:
        for index in range(self._open()[0].num_shards):
            yield from self._read_shard(index)

    def _read_shard(self, index: int) -> Iterator[Record]:
        dataset, text_column = self._open()
        where = f"Shard {index} of the dataset {self.spec.location}"
        tables = dataset.shard(num_shards=dataset.num_shards, index=index).iter(batch_size=_BATCH_ROWS)
        first_number = 1
        while True:
            with self._naming_errors("read"):
                table = next(tables, None)
            if table is None:
                return
            check_arrow_types(table.schema, text_column, self.spec.id, where)
            name = f"{index:05d}"
            yield from arrow_documents(table, text_column, self.spec.id, name, first_number, where, leaves_out=self.spec.leaves_out)
            first_number += table.num_rows

    def _open(self) -> tuple[Any, str]:
        """The dataset, giving Arrow tables of the columns needed, and the column that holds the documents."""
        if self._opened is None:
            where = f"The dataset {self.spec.location}"
            with self._naming_errors("opened"):
                builder = self._builder()
                self._list_files(builder.config.data_files)
                dataset = builder.as_streaming_dataset(split=self.spec.hub_split)
                columns = dataset.column_names or list(next(iter(dataset), {}))
            text_column = choose_text_column(self.spec.text, columns, where)
            if self.spec.id is not None:
                check_column(self.spec.id, columns, where)
            if dataset.features is not None:
                check_arrow_types(dataset.features.arrow_schema, text_column, self.spec.id, where)
            needed = sorted({text_column, self.spec.id or text_column})
            self._opened = dataset.select_columns(needed).with_format("arrow"), text_column
        return self._opened

    def _builder(self) -> Any:
        # Imported here: it takes seconds, and most corpora are no datasets.
        import datasets

        location = os.path.expanduser(self.spec.location)
        if not os.path.isdir(location):
            if location.startswith((os.sep, os.curdir)):
                raise CorpusError(f"There is no folder {location!r}; check the path of the dataset.")
            return datasets.load_dataset_builder(location, self.spec.config, revision=self.spec.revision)
        saved = _saved_files(location, self.spec.hub_split)
        if saved:
            return datasets.load_dataset_builder("arrow", data_files={self.spec.hub_split: saved})
        return datasets.load_dataset_builder(os.path.abspath(location), self.spec.config)

    def _list_files(self, data_files: Any) -> None:
        paths = (data_files or {}).get(self.spec.hub_split, ())
        self._file_names = tuple(paths)
        if paths and all(os.path.isfile(path) for path in paths):
            folder = os.path.abspath(os.path.expanduser(self.spec.location))
            status = [os.stat(path) for path in paths]
            names = [path_name(os.path.relpath(path, folder)) for path in paths]
            self._entries = tuple(FileEntry(name, each.st_size, each.st_mtime_ns) for name, each in zip(names, status, strict=True))

    @contextlib.contextmanager
    def _naming_errors(self, what: str) -> Iterator[None]:
        try:
            yield
        except CorpusError:
            raise
        # The library, its file systems and its HTTP client raise dozens of kinds of errors, without a common ancestor.
        except Exception as error:
            reason = next(filter(None, str(error).splitlines()), type(error).__name__).rstrip(".")
            raise CorpusError(f"The dataset {printable(str(self.spec))} can't be {what}: {reason}{self._advice(reason)}.") from error

    def _advice(self, reason: str) -> str:
        if "scripts are no longer supported" in reason and self.spec.revision is None:
            # The hub converts datasets that have a loading script, and keeps the result on a branch of this name.
            return f"; try the hub's own conversion, hf:{self.spec.location}@refs/convert/parquet"
        return ""


def _saved_files(folder: str, split: str) -> list[str]:
    """The data files of a folder that `save_to_disk` wrote; none for any other folder."""
    listing = os.path.join(folder, "dataset_dict.json")
    if os.path.exists(listing):
        splits = _read_json(listing)["splits"]
        if split not in splits:
            raise CorpusError(f"The dataset {printable(folder)} has no split {split!r}{nearest(split, splits)}.")
        folder = os.path.join(folder, split)
    state_path = os.path.join(folder, "state.json")
    if not os.path.exists(state_path):
        return []
    state = _read_json(state_path)
    if split not in (state.get("_split"), DEFAULT_HUB_SPLIT) and not os.path.exists(listing):
        raise CorpusError(f"The dataset {printable(folder)} holds one split only, and that isn't {split!r}; leave the split out.")
    return [os.path.abspath(os.path.join(folder, file["filename"])) for file in state["_data_files"]]


def _read_json(path: str) -> Any:
    with naming_errors(path), open(path, encoding="utf-8") as file:
        return json.load(file)
