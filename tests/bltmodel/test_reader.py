import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

import bltmodel
from bltdata.errors import CheckpointError, ConfigError, ShardError
from bltdata.shards import open_shards
from bltmodel.masks import PackedBatch
from bltmodel.reader import ShardReader
from tests.bltmodel.datasets import texts, write_dataset

WEIGHTS = {"code": 1.0, "prose": 2.0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    prose, code = ([(name, text) for text in texts(60, seed=seed)] for seed, name in enumerate(("prose", "code")))
    return write_dataset(tmp_path_factory.mktemp("reader") / "shards", prose, code)


def reader(folder: Path, **changes: Any) -> ShardReader:
    return ShardReader(folder, **{"batch_rows": 2, "row_tokens": 30, "shuffled_bytes": 1000, "prefetch": False, **changes})


def take(batches: Any, count: int) -> list[torch.Tensor]:
    """All that batches say, a tensor each."""
    return [torch.stack([tensor.long() for tensor in batch]) for batch in itertools.islice(batches, count)]


def same(ones: list[torch.Tensor], others: list[torch.Tensor]) -> bool:
    return len(ones) == len(others) and all(map(torch.equal, ones, others))


def test_batches_are_the_rows_of_the_stream(folder):
    reading = reader(folder)
    expected, _ = reading.stream.read((), 12)
    batches = list(itertools.islice(reading, 6))
    assert all(isinstance(batch, PackedBatch) and batch.ids_BT.shape == (2, 30) for batch in batches)
    for name, tensor in expected._asdict().items():
        assert torch.equal(torch.cat([getattr(batch, name) for batch in batches]), tensor)
    assert bltmodel.ShardReader is ShardReader
    # It goes on where it stands, and a dataset that is open will do.
    assert not same(take(reading, 1), take(reader(folder), 1))
    assert same(take(ShardReader(open_shards(folder), batch_rows=2, row_tokens=30, shuffled_bytes=1000), 9)[7:], take(reading, 2))


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_the_state_is_small_and_leads_to_what_follows(folder, weights):
    reading = reader(folder, weights=weights)
    whole = take(reader(folder, weights=weights), 40)
    assert same(take(reading, 25), whole[:25])
    state = json.loads(json.dumps(reading.state_dict()))
    assert len(state["place"]) == 5 * (2 if weights else 1)
    again = reader(folder, weights=weights)
    again.load_state_dict(state)
    assert again.state_dict() == state
    assert same(take(again, 15), whole[25:])


def test_ranks_take_turns_and_their_number_may_change(folder):
    whole = take(reader(folder, weights=WEIGHTS), 20)
    found: list[torch.Tensor] = []
    state = reader(folder, weights=WEIGHTS).state_dict()
    for num_ranks, rounds in ((1, 3), (2, 3), (3, 2), (1, 5)):
        ranks = [reader(folder, weights=WEIGHTS, rank=rank, num_ranks=num_ranks) for rank in range(num_ranks)]
        for one in ranks:
            one.load_state_dict(state)
        parts = [take(one, rounds) for one in ranks]
        found += [batch for turn in zip(*parts, strict=True) for batch in turn]
        states = [one.state_dict() for one in ranks]
        assert all(other == states[0] for other in states)
        state = states[0]
    assert same(found, whole)


def test_workers_give_the_order_of_one(folder):
    whole = take(reader(folder), 9)
    for rank, num_ranks in ((0, 1), (1, 2)):
        loader = DataLoader(reader(folder, rank=rank, num_ranks=num_ranks, prefetch=True), batch_size=None, num_workers=2)
        assert same(take(loader, 9 // num_ranks), whole[rank::num_ranks])


def test_states_with_the_batches_go_on_with_any_number_of_workers(folder):
    whole = take(reader(folder), 12)
    pairs = list(itertools.islice(DataLoader(reader(folder, with_states=True), batch_size=None, num_workers=2), 5))
    assert same(take((batch for batch, _ in pairs), 5), whole[:5])
    # In the middle of a turn of the two workers.
    for place in (0, 3, 4):
        again = reader(folder)
        again.load_state_dict(pairs[place][1])
        assert same(take(again, 3), whole[place + 1 : place + 4])
    again.load_state_dict(pairs[4][1])
    assert same(take(DataLoader(again, batch_size=None, num_workers=2), 4), whole[5:9])


@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated:UserWarning")
@pytest.mark.parametrize("num_workers", [0, 2])
def test_the_stateful_loader_of_torchdata(folder, num_workers):
    loaders = pytest.importorskip("torchdata.stateful_dataloader", reason="torchdata isn't installed")
    whole = take(reader(folder), 12)

    def loader() -> Any:
        return loaders.StatefulDataLoader(reader(folder), batch_size=None, num_workers=num_workers)

    for count in (3, 4):
        first = loader()
        assert same(take(first, count), whole[:count])
        state = first.state_dict()
        second = loader()
        second.load_state_dict(state)
        assert same(take(second, 5), whole[count : count + 5])


@pytest.mark.parametrize("state", [{}, {"stream": "0", "place": [0, 0, 0, 0]}, {"place": 3}, None, {"stream": "0", "place": ["x"]}])
def test_states_of_others_are_refused(folder, state):
    with pytest.raises(CheckpointError, match=r"no state of a ShardReader|is of a reader of other shards"):
        reader(folder).load_state_dict(state)


@pytest.mark.parametrize("changes", [{"seed": 1}, {"row_tokens": 31}, {"shuffled_bytes": 900}, {"weights": WEIGHTS}])
def test_a_state_of_another_stream_is_refused(folder, changes):
    state = reader(folder).state_dict()
    with pytest.raises(CheckpointError, match="another row_tokens, seed, shuffled_bytes or weights; give it the same"):
        reader(folder, **changes).load_state_dict(state)
    reader(folder, batch_rows=3).load_state_dict(state)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_rows": 0}, r"^The reader's batch_rows is 0; it must be at least 1\.$"),
        ({"row_tokens": 1}, r"^The reader's row_tokens is 1; it must be at least 2\.$"),
        ({"shuffled_bytes": 0}, r"^The reader's shuffled_bytes is 0; it must be at least 1\.$"),
        ({"rank": 2, "num_ranks": 2}, r"^The reader's rank is 2; of 2 ranks it must be from 0 to 1\.$"),
        ({"weights": {"prosa": 1.0}}, r"has no source 'prosa' to give a weight; the nearest is 'prose'"),
    ],
)
def test_settings_that_cannot_be(folder, changes, message):
    with pytest.raises(ConfigError, match=message):
        reader(folder, **changes)


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(ShardError, match="There is no folder"):
        ShardReader(tmp_path / "nowhere")
