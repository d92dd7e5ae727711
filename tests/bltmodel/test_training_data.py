import shutil

import numpy as np
import pytest

import bltmodel.training_data
from bltdata.errors import CheckpointError, ShardError
from bltdata.patching import PatchRule
from bltmodel.cutting import trained_on
from bltmodel.training_data import TrainingData, open_training_data
from tests.bltmodel.datasets import entropy_model, texts, write_dataset


def held_out_contents(data: TrainingData) -> list[bytes]:
    assert data.held_out is not None
    assert data.validation is data.train
    return [data.train.document(index).tobytes() for index in np.flatnonzero(data.held_out)]


def test_about_a_twentieth_is_held_out_by_content(tmp_path):
    documents = [f"document {number}".encode() for number in range(600)]
    data = open_training_data(write_dataset(tmp_path / "all", documents, row_group_bytes=1 << 20))
    held_out = held_out_contents(data)
    assert 12 < len(held_out) < 50
    # The same documents elsewhere, in another order, many of them twice, and others beside them: the same are held out.
    twice = [*reversed(documents), *documents[::3], *texts(20)]
    again = held_out_contents(open_training_data(write_dataset(tmp_path / "again", twice, row_group_bytes=1 << 20)))
    assert set(again) - set(texts(20)) == set(held_out)
    assert sum(document in documents[::3] for document in again) == 2 * sum(document in documents[::3] for document in held_out)


@pytest.mark.parametrize("count", [2, 3, 5])
def test_of_a_few_documents_one_that_is_not_empty_is_held_out(tmp_path, count):
    # The hash of the empty document is lower than those of the first five of these.
    documents = [b"", *(f"document {number}".encode() for number in range(count)), b""]
    held_out = held_out_contents(open_training_data(write_dataset(tmp_path / "shards", documents)))
    assert sum(map(bool, held_out)) == 1


@pytest.mark.parametrize("documents", [[b"one"], [b"same", b"same"], [b"one", b""], [b"", b""]])
def test_nothing_is_left_to_hold_out(tmp_path, documents):
    with pytest.raises(ShardError, match="none is left to judge on; give --validation-shards"):
        open_training_data(write_dataset(tmp_path / "shards", documents))


def test_two_datasets(split_shards):
    for data in (open_training_data(split_shards), open_training_data(split_shards / "train", split_shards / "validation")):
        assert data.held_out is None
        assert (len(data.train.lengths), len(data.validation.lengths)) == (60, 30)
        about = data.describe()
        assert about["train"] == data.train.dataset.manifest.fingerprint
        assert about["validation"] == data.validation.dataset.manifest.fingerprint
        assert about["entropy_model"]["fingerprint"] == entropy_model().fingerprint
        assert (about["validation_is_held_out"], about["patch_rule"]["threshold"]) == (False, 4.55)


def test_a_dataset_that_holds_folders_is_still_one_dataset(tmp_path, split_shards, shards):
    shutil.copytree(shards, tmp_path / "shards")
    shutil.copytree(split_shards / "train", tmp_path / "shards" / "train")
    assert len(open_training_data(tmp_path / "shards").train.lengths) == 120


@pytest.mark.parametrize(
    ("validation", "message"),
    [
        ({"model": entropy_model(1)}, r"train and .*validation were made with different entropy models; build one of them again"),
        ({"rule": PatchRule(threshold=4.5)}, r"train and .*validation were cut with different patch rules; .* --rule-from the other"),
        (None, r"There is no folder .*validation; give the folder that build-shards wrote"),
    ],
)
def test_datasets_that_do_not_go_together_are_refused(tmp_path, split_shards, validation, message):
    shutil.copytree(split_shards / "train", tmp_path / "train")
    if validation is not None:
        write_dataset(tmp_path / "validation", texts(10), **validation)
    with pytest.raises(ShardError, match=message):
        open_training_data(tmp_path)


def test_a_model_is_not_judged_on_what_it_learned(tmp_path, split_shards):
    train = shutil.copytree(split_shards / "train", tmp_path / "train")
    message = r"train and .*validation are the same documents, so a model would be judged on what it learned"
    with pytest.raises(ShardError, match=message):
        open_training_data(train, shutil.copytree(train, tmp_path / "validation"))


def test_what_was_held_out_is_kept_in_mind(shards, split_shards, tmp_path, monkeypatch):
    reads = []
    choose = bltmodel.training_data._choose_held_out
    monkeypatch.setattr(bltmodel.training_data, "_choose_held_out", lambda store: reads.append(store.dataset.folder) or choose(store))
    expected = open_training_data(shards).held_out
    for _ in range(2):
        np.testing.assert_array_equal(open_training_data(shards, folder=tmp_path / "blt").held_out, expected)
    assert len(reads) == 2
    # Of other documents, and where the file is damaged, it is worked out again.
    other = open_training_data(split_shards / "train", folder=tmp_path / "blt").held_out
    np.testing.assert_array_equal(other, open_training_data(split_shards / "train").held_out)
    (tmp_path / "blt" / "held_out.npz").write_bytes(b"PK damaged")
    np.testing.assert_array_equal(open_training_data(shards, folder=tmp_path / "blt").held_out, expected)
    assert len(reads) == 5


def test_a_model_that_no_training_wrote_says_nothing(tmp_path):
    with pytest.raises(CheckpointError, match="blt doesn't say what it was trained on, so nobody knows its patches"):
        trained_on({"kind": "bltmodel.BLT"}, tmp_path / "blt")
