"""Documents and patches of a dataset of shards, as the trainer packs them into rows.

A dataset is larger than memory, so an epoch's order is made of row groups: they are shuffled, taken a few at a time, and
the documents of those few shuffled among themselves. What is decoded at any time are those row groups alone, and the
order is fixed by seed and epoch.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from bltdata.errors import ShardError
from bltdata.shards import ShardDataset, schema
from bltdata.shards.columns import bytes_column, list_column
from bltdata.training.packing import Order, PackedRow
from bltmodel.masks import PackedBatch

GROUPS_AT_ONCE = 8
"""Row groups, of about 4 MB each, whose documents are shuffled together."""


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
        tables = dataset.iter_row_groups([schema.NUM_BYTES])
        self.lengths = np.concatenate([np.empty(0, dtype=np.int64), *(table[schema.NUM_BYTES].to_numpy() for table in tables)])
        """Bytes of each document, int64 `[num_documents]`."""
        self._decoded: OrderedDict[int, _DecodedGroup] = OrderedDict()
        if not len(self.lengths):
            raise ShardError(f"{dataset.folder} has no documents; build shards of a corpus that has some.")

    def document(self, index: int) -> np.ndarray:
        """Bytes of a document, uint8 `[n]`."""
        group, row = self._find(index)
        return group.data[group.offsets[row] : group.offsets[row + 1]]

    def starts(self, index: int) -> np.ndarray:
        """Whether a patch starts at each position of a document, its end among them: bool `[n + 1]`."""
        group, row = self._find(index)
        return group.starts[group.offsets[row] + row : group.offsets[row + 1] + row + 1]

    def shuffled_order(self, seed: int, keep: np.ndarray) -> Order:
        """An order of the documents for each epoch, which reads row groups `GROUPS_AT_ONCE` at a time.

        Args:
            seed: fixes it.
            keep: bool `[num_documents]`, the documents to take.
        """

        def order(epoch: int) -> np.ndarray:
            generator = np.random.default_rng([seed, epoch])
            groups = generator.permutation(len(self._first) - 1)
            parts = []
            for begin in range(0, len(groups), GROUPS_AT_ONCE):
                together = [np.arange(self._first[g], self._first[g + 1]) for g in groups[begin : begin + GROUPS_AT_ONCE]]
                parts.append(generator.permutation(np.concatenate(together)))
            documents = np.concatenate(parts)
            return documents[keep[documents]]

        return order

    def _find(self, index: int) -> tuple[_DecodedGroup, int]:
        number = int(np.searchsorted(self._first, index, side="right")) - 1
        if number not in self._decoded:
            # One more than are shuffled together: a row may still hold the last document of those before.
            if len(self._decoded) > GROUPS_AT_ONCE:
                self._decoded.popitem(last=False)
            self._decoded[number] = self._decode(number)
        self._decoded.move_to_end(number)
        return self._decoded[number], index - int(self._first[number])

    def _decode(self, number: int) -> _DecodedGroup:
        group = self.dataset.row_groups[number]
        table = self.dataset.read_row_group(group.shard, group.row_group, [schema.DATA, schema.PATCH_LENGTHS])
        data, offsets = bytes_column(table[schema.DATA])
        lengths, _ = list_column(table[schema.PATCH_LENGTHS])
        starts = np.zeros(len(data) + group.num_documents, dtype=bool)
        ends = np.cumsum(lengths, dtype=np.int64)
        starts[ends - lengths] = True
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
