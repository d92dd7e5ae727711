"""Shards as a PyTorch dataset: packed rows for whoever trains with a `DataLoader`.

    reader = ShardReader("runs/shards", batch_rows=8, row_tokens=1024, rank=rank, num_ranks=world_size)
    for batch in DataLoader(reader, batch_size=None, num_workers=2): ...

The stream of batches is one for all: batch `i` goes to rank `i % num_ranks`, and of those the `j`-th to its worker `j % workers`. A
`DataLoader` takes one from each worker in turn, so its order is that of a reader without workers, nothing is missing and nothing
comes twice. Each rank and each worker decodes all blocks, which is the price of an order that depends on none of them.

The state is a few integers. `state_dict` and `load_state_dict` are what torchdata's `StatefulDataLoader` asks for; where it has workers,
it wants as many again. With `with_states` each batch comes with the state to go on from after it: the same on every rank, and it may be
loaded with any number of ranks and workers.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from torch.utils.data import IterableDataset, get_worker_info

from bltdata.config import fingerprint
from bltdata.errors import CheckpointError, ConfigError
from bltdata.remote import AnyPath
from bltdata.shards import ShardDataset, open_shards
from bltdata.training.progress import Place
from bltmodel.blocks import SHUFFLED_BYTES
from bltmodel.masks import PackedBatch
from bltmodel.rows import RowStream, row_order

State = dict[str, Any]


class ShardReader(IterableDataset[PackedBatch | tuple[PackedBatch, State]]):
    """Batches of packed rows, shuffled, without end.

    Args:
        shards: a dataset, or its folder.
        batch_rows: rows a batch.
        row_tokens: tokens a row.
        seed: fixes the order.
        weights: source -> its share of the raw bytes; see `RowStream`. None takes every document once an epoch.
        rank: which of the processes that train together this is.
        num_ranks: how many there are.
        with_states: give pairs of a batch and the state after it.
        shuffled_bytes: raw bytes that are shuffled together.
        prefetch: read ahead in a thread.

    Raises:
        ShardError: the dataset is missing or damaged.
        ConfigError: a number is out of range, or the weights don't fit the dataset.
        CorpusError: there are no documents.
    """

    def __init__(
        self,
        shards: ShardDataset | AnyPath | str,
        *,
        batch_rows: int = 8,
        row_tokens: int = 1024,
        seed: int = 0,
        weights: Mapping[str, float] | None = None,
        rank: int = 0,
        num_ranks: int = 1,
        with_states: bool = False,
        shuffled_bytes: int = SHUFFLED_BYTES,
        prefetch: bool = True,
    ) -> None:
        for name, value, least in (("batch_rows", batch_rows, 1), ("row_tokens", row_tokens, 2), ("shuffled_bytes", shuffled_bytes, 1)):
            if value < least:
                raise ConfigError(f"The reader's {name} is {value}; it must be at least {least}.")
        if not 0 <= rank < num_ranks:
            raise ConfigError(f"The reader's rank is {rank}; of {num_ranks} ranks it must be from 0 to {num_ranks - 1}.")
        dataset = shards if isinstance(shards, ShardDataset) else open_shards(shards)
        self.stream = RowStream(dataset, row_tokens, seed=seed, weights=weights, shuffled_bytes=shuffled_bytes, prefetch=prefetch)
        self.batch_rows = batch_rows
        self.rank = rank
        self.num_ranks = num_ranks
        self.with_states = with_states
        # What fixes the stream; how it is dealt out may change.
        fixed = {"dataset": dataset.manifest.fingerprint, "row_tokens": row_tokens, "seed": seed, "order": row_order(shuffled_bytes)}
        self._stream_name = fingerprint(fixed | {"weights": dict(sorted((weights or {}).items()))})
        self._place: Place = ()

    def __iter__(self) -> Iterator[PackedBatch | tuple[PackedBatch, State]]:
        """Go on where the reader stands; a worker's copy stands where the reader did when the `DataLoader` started it."""
        worker = get_worker_info()
        number, num_workers = (worker.id, worker.num_workers) if worker else (0, 1)
        while True:
            # A round is a batch for each rank, a turn a round for each worker. A place between turns means the same to all.
            place = self._rounds(self._place, number)
            batch, place = self.stream.read(self.stream.skip(place, self.rank * self.batch_rows), self.batch_rows)
            place = self.stream.skip(place, (self.num_ranks - 1 - self.rank) * self.batch_rows)
            self._place = self._rounds(place, num_workers - 1 - number)
            yield (batch, self._state(place)) if self.with_states else batch

    def state_dict(self) -> State:
        """Where the reader stands: what it gives next. In a worker, what comes after the turn that its last batch was in."""
        return self._state(self._place)

    def load_state_dict(self, state: State) -> None:
        """Go on from a state.

        Raises:
            CheckpointError: it is no state of a reader, or of one with other documents, rows, seed or weights.
        """
        try:
            name, place = state["stream"], tuple(int(number) for number in state["place"])
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError("This is no state of a ShardReader; give what state_dict returned.") from error
        if name != self._stream_name:
            raise CheckpointError(
                "The state is of a reader of other shards, or with another row_tokens, seed, shuffled_bytes or weights; give it the same."
            )
        self._place = place

    def _rounds(self, place: Place, num_rounds: int) -> Place:
        return self.stream.skip(place, num_rounds * self.num_ranks * self.batch_rows)

    def _state(self, place: Place) -> State:
        return {"stream": self._stream_name, "place": list(place)}
