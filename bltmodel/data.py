"""Documents and patches of a dataset of shards by their place in it, and rows of them as tensors.

This is how documents are judged, in order. What is learned from is a stream, see `bltmodel.rows`.
"""

import functools
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from bltdata.errors import ShardError
from bltdata.shards import ShardDataset, schema
from bltdata.training.packing import PackedRow
from bltmodel.blocks import read_group
from bltmodel.masks import PackedBatch

KEPT_GROUPS = 2
"""Row groups, of about 4 MB each, that stay decoded: a row may hold the last document of one and the first of the next."""


@dataclass(frozen=True)
class _DecodedGroup:
    """The documents of a row group, end to end."""

    data: np.ndarray
    offsets: np.ndarray
    starts: np.ndarray
    """bool, a patch starts at a position; a document of n bytes has n + 1 positions."""


class ShardStore:
    """The documents of a dataset, by their place in it.

    Args:
        dataset: what `open_shards` gave.
    """

    def __init__(self, dataset: ShardDataset) -> None:
        self.dataset = dataset
        groups = dataset.row_groups
        self._first = np.concatenate(([0], np.cumsum([group.num_documents for group in groups], dtype=np.int64)))
        self._decoded: OrderedDict[int, _DecodedGroup] = OrderedDict()
        if not self.num_documents:
            raise ShardError(f"{dataset.folder} has no documents; build shards of a corpus that has some.")

    @property
    def num_documents(self) -> int:
        """Documents of the dataset."""
        return int(self._first[-1])

    @functools.cached_property
    def lengths(self) -> np.ndarray:
        """Bytes of each document, int64 `[num_documents]`; eight bytes of memory for each, and one column is read for it."""
        tables = self.dataset.iter_row_groups([schema.NUM_BYTES])
        return np.concatenate([np.empty(0, dtype=np.int64), *(table[schema.NUM_BYTES].to_numpy() for table in tables)])

    def document(self, index: int) -> np.ndarray:
        """Bytes of a document, uint8 `[n]`."""
        group, row = self._find(index)
        return group.data[group.offsets[row] : group.offsets[row + 1]]

    def starts(self, index: int) -> np.ndarray:
        """Whether a patch starts at each position of a document, its end among them: bool `[n + 1]`."""
        group, row = self._find(index)
        return group.starts[group.offsets[row] + row : group.offsets[row + 1] + row + 1]

    def _find(self, index: int) -> tuple[_DecodedGroup, int]:
        number = int(np.searchsorted(self._first, index, side="right")) - 1
        if number not in self._decoded:
            while len(self._decoded) >= KEPT_GROUPS:
                self._decoded.popitem(last=False)
            self._decoded[number] = self._decode(number)
        self._decoded.move_to_end(number)
        return self._decoded[number], index - int(self._first[number])

    def _decode(self, number: int) -> _DecodedGroup:
        group = self.dataset.row_groups[number]
        starts = np.empty(group.num_bytes + group.num_documents, dtype=bool)
        data, offsets = read_group(self.dataset, number, starts)
        return _DecodedGroup(data, offsets, starts)


def collate(rows: Sequence[PackedRow[ShardStore]], device: torch.device) -> PackedBatch:
    """Packed rows as a batch with its patch starts."""
    shape = (len(rows), len(rows[0].ids))
    starts, next_starts = np.zeros(shape, dtype=bool), np.zeros(shape, dtype=bool)
    for place, row in enumerate(rows):
        for document, begin, end, row_start in row.pieces:
            # Token t stands for byte t - 1 and predicts position t. What a piece begins with starts a patch whatever stands here.
            flags = row.documents.starts(document)[begin:end]
            row_end = row_start + end - begin
            next_starts[place, row_start:row_end] = flags
            starts[place, row_start + 1 : row_end] = flags[:-1]
    arrays = (
        np.stack([row.ids for row in rows]),
        np.stack([row.targets for row in rows]),
        np.stack([row.visible_from for row in rows]),
        starts,
        next_starts,
    )
    return PackedBatch(*(torch.from_numpy(array) for array in arrays)).to(device)
