from collections import Counter

import numpy as np
import pytest

from bltdata.errors import ConfigError
from bltdata.shards import ShardDataset, open_shards
from bltmodel.rows import RowStream
from bltmodel.selection import check_weights, select_all, select_sources
from tests.bltmodel.datasets import texts, write_dataset


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> ShardDataset:
    """A shard of one source, one of another, one of both and a third, whose documents are empty."""
    prose, code = ([(name, text) for text in texts(40, seed=seed)] for seed, name in enumerate(("prose", "code")))
    mixed = [*prose[:7], *code[:9], ("nothing", b""), ("nothing", b"")]
    return open_shards(write_dataset(tmp_path_factory.mktemp("selection") / "shards", prose, code, mixed))


def test_a_source_is_where_its_documents_are(dataset):
    keep = np.random.default_rng(0).random(len(dataset)) < 0.5
    rows = list(dataset)
    for kept in (None, keep, np.ones(len(rows), dtype=bool)):
        taken = [row for place, row in enumerate(rows) if kept is None or kept[place]]
        documents = Counter(row.source for row in taken)
        sizes, patches = Counter[str](), Counter[str]()
        for row in taken:
            sizes[row.source] += row.num_bytes
            patches[row.source] += len(row.patch_lengths)
        found = select_sources(dataset, kept)
        assert {name: (source.num_documents, source.num_bytes, source.num_patches) for name, source in found.items()} == {
            name: (documents[name], sizes[name], patches[name]) for name in ("code", "nothing", "prose")
        }
        everything = select_all(dataset, kept)
        counts = (everything.num_documents, everything.num_bytes, everything.num_patches)
        assert counts == (len(taken), sizes.total(), patches.total())
        assert everything.num_tokens == sum(source.num_tokens for source in found.values())
    groups = [dataset.read_row_group(group.shard, group.row_group)["source"].to_pylist() for group in dataset.row_groups]
    for name, source in select_sources(dataset).items():
        assert source.groups.tolist() == [number for number, names in enumerate(groups) if name in names]
        assert source.mixed == {number for number in source.groups if set(groups[number]) != {name}}


def test_row_groups_of_one_source_are_not_read(dataset, monkeypatch):
    reads = []
    read = ShardDataset.read_row_group
    monkeypatch.setattr(ShardDataset, "read_row_group", lambda self, *at: reads.append(at[0]) or read(self, *at))
    select_sources(dataset)
    assert set(reads) == {2}


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"pros": 1.0}, r"shards has no source 'pros' to give a weight; the nearest is 'prose'\.$"),
        ({"prose": 1.0}, r"The source 'code' of .*shards has no weight; give it one, 0 to leave it out\.$"),
        ({"prose": -1.0}, r"The weight of source 'prose' is -1.0; it must be a finite number, 0 or more\.$"),
        ({"prose": float("nan")}, "is nan; it must be"),
        ({"prose": float("inf")}, "is inf; it must be"),
        ({"nothing": 1.0}, r"The source 'nothing' of .* has no bytes to learn from, beside what is held out; give it the weight 0\.$"),
        ({"prose": 0.0, "code": 0.0, "nothing": 0.0}, r"^All weights of sources are 0, so nothing is left to learn from"),
    ],
)
def test_weights_that_do_not_fit_are_refused(dataset, weights, message):
    with pytest.raises(ConfigError, match=message):
        check_weights(weights, select_sources(dataset), dataset.folder)


def test_weights_that_fit(dataset):
    check_weights({"prose": 3, "code": 0.5, "nothing": 0}, select_sources(dataset), dataset.folder)


def test_a_source_of_which_all_is_held_out(dataset):
    keep = np.array([row.source != "code" for row in dataset])
    sources = select_sources(dataset, keep)
    code = sources["code"]
    assert (code.num_documents, code.num_bytes, code.num_patches, code.groups.tolist(), code.mixed) == (0, 0, 0, [], frozenset())
    with pytest.raises(ConfigError, match=r"^The source 'code' of .*shards has no bytes to learn from, beside what is held out; give it"):
        check_weights({"prose": 1, "code": 1, "nothing": 0}, sources, dataset.folder)
    # There is nothing of it to leave out, so it needs no weight.
    for weights in ({"prose": 1, "code": 0, "nothing": 0}, {"prose": 1, "nothing": 0}):
        check_weights(weights, sources, dataset.folder)
        assert RowStream(dataset, 32, keep=keep, weights=weights).shares == {"prose": 1}
