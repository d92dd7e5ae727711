import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bltdata.convert import ArrowDataset, ArrowReporter, FromArrowConfig, ToArrowConfig, arrow_to_shards, shards_to_arrow
from bltdata.errors import BuildError, ConfigError, ShardError
from bltdata.lock import exclusive
from bltdata.patching import PatchRule
from bltdata.repatch import RepatchConfig
from bltdata.shards import open_shards, round_entropies
from tests.bltdata.killing import run_killed
from tests.bltdata.reference_files import find_shards, read_file

MODEL = "0123456789abcdef"
RULE = PatchRule(threshold=2.5)
Row = dict[str, Any]


@pytest.fixture
def text_rows(row: Callable[..., Row]) -> Callable[..., list[Row]]:
    """Rows of valid UTF-8."""

    def make(count: int, seed: int = 0) -> list[Row]:
        rng = np.random.default_rng(seed)
        texts = ["".join(rng.choice(list("ab \u00e9\u65e5"), int(rng.integers(0, 50)))) for _ in range(count)]
        return [row(f"doc-{seed}-{i}", text.encode(), "news", seed + i) for i, text in enumerate(texts)]

    return make


def convert(shards: Path, out: Path, *, reporter: ArrowReporter | None = None, workers: int = 1, **config: Any) -> ArrowDataset:
    return shards_to_arrow(shards, ToArrowConfig(**config), out, workers=workers, reporter=reporter)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_file_by_hand(dataset_folder, row, tmp_path):
    first = row("first", "H\u00e9".encode()) | {
        "entropy_nats": np.array([0.5, 1, 2, 3], dtype=np.float16),
        "patch_lengths": np.array([3, 1]),
    }
    second = row("second", b"") | {"entropy_nats": np.array([1.25], dtype=np.float16)}
    written = convert(dataset_folder([first, second]), tmp_path / "arrow")
    path = tmp_path / "arrow" / "shards" / MODEL / "shards.chunk.00.jsonl.shard_00.arrow"
    assert read_file(path) == [("first", "H\u00e9", [0.5, 1, 2, 3, 0]), ("second", "", [1.25, 0])]
    assert find_shards(tmp_path / "arrow", tmp_path / "arrow", "shards", MODEL) == [[path]]
    assert (written.num_documents, written.num_bytes, written.left_out) == (2, 3, 0)
    assert (written.dataset_name, written.entropy_model_name, written.root_dir) == ("shards", MODEL, tmp_path / "arrow")


def test_record_batches_have_a_thousand_rows_at_most(dataset_folder, row, tmp_path):
    convert(dataset_folder([row(str(i), b"") for i in range(2500)], row_group_bytes=10**6), tmp_path, dataset_name="a")
    with pa.ipc.open_file(str(tmp_path / "a" / MODEL / "a.chunk.00.jsonl.shard_00.arrow")) as reader:
        assert [reader.get_batch(i).num_rows for i in range(reader.num_record_batches)] == [1000, 1000, 500]


def test_chunks_and_names(dataset_folder, text_rows, tmp_path):
    shards = dataset_folder(*(text_rows(2, seed=seed) for seed in range(5)))
    convert(shards, tmp_path / "out", dataset_name="a-b.c", entropy_model_name="m", num_chunks=2)
    found = find_shards(tmp_path / "out", tmp_path / "out", "a-b.c", "m")
    ids = [[read_file(path)[0][0] for path in paths] for paths in found]
    assert ids == [["doc-0-0", "doc-2-0", "doc-4-0"], ["doc-1-0", "doc-3-0"]]
    # Another dataset may live beside it, and another model of this one.
    convert(shards, tmp_path / "out", dataset_name="other", num_chunks=3)
    convert(shards, tmp_path / "out", dataset_name="a-b.c", entropy_model_name="n", num_chunks=2)
    with pytest.raises(BuildError, match=r"has other\.chunk\.01\.jsonl, a chunk that these shards have no files for"):
        convert(shards, tmp_path / "out", dataset_name="other", entropy_model_name="m")


@given(
    texts=st.lists(st.text(st.characters(codec="utf-8"), max_size=20), min_size=1, max_size=6),
    seed=st.integers(0, 2**32),
    row_group_bytes=st.integers(1, 60),
)
@settings(max_examples=12)
def test_there_and_back_again(tmp_path_factory, dataset_at, texts, seed, row_group_bytes):
    folder, rng, rows = tmp_path_factory.mktemp("property"), np.random.default_rng(seed), []
    for number, text in enumerate(texts):
        data = text.encode()
        entropies = round_entropies(rng.uniform(0, 5.56, len(data) + 1))
        patches = RULE.lengths(data, entropies)
        rows.append(
            {"doc_id": f"{number}", "source": "s", "data": data, "entropy_nats": entropies, "patch_lengths": patches, "nll_nats": 1.0}
        )
    half = len(rows) // 2
    shards = dataset_at(folder / "shards", [rows[:half], rows[half:]], row_group_bytes)
    convert(shards, folder / "arrow")
    arrow_to_shards([folder / "arrow"], RepatchConfig(rule=RULE), FromArrowConfig(entropy_precision="grid"), folder / "back")
    for old, new in zip(open_shards(shards), open_shards(folder / "back"), strict=True):
        assert (old.doc_id, old.data, old.patch_lengths.tolist()) == (new.doc_id, new.data, new.patch_lengths.tolist())
        assert old.entropy_nats.tobytes() == new.entropy_nats.tobytes()


def test_documents_that_are_no_text(dataset_folder, row, tmp_path):
    good, bad = row("good", b"ok"), [row("bad", b"a\xff"), row("cut", "\u65e5".encode()[:2])]
    shards = dataset_folder([good], [bad[0], row("fine", b"yes"), bad[1]], [bad[0] | {"doc_id": "third"}])
    with pytest.raises(
        ShardError, match=r"^3 of the 5 documents of .* are not valid UTF-8, .* \(the first is 'bad'\); give --invalid-utf8"
    ) as caught:
        convert(shards, tmp_path / "out")
    assert str(caught.value).endswith(".")
    assert list(contents(tmp_path / "out")) == [f"shards/{MODEL}/.lock"]
    said: list[str] = []
    written = convert(shards, tmp_path / "out", invalid_utf8="leave-out", reporter=ArrowReporter(said=said.append))
    assert said == ["3 of 5 documents are not valid UTF-8 and are left out; the first is 'bad'."]
    assert (written.num_documents, written.num_bytes, written.left_out) == (2, 5, 3)
    assert [record.left_out for record in written.files] == [0, 2, 1]
    (paths,) = find_shards(tmp_path / "out", tmp_path / "out", "shards", MODEL)
    assert [[name for name, _, _ in read_file(path)] for path in paths] == [["good"], ["fine"], []]


def test_it_goes_on_where_it_stopped(dataset_folder, text_rows, tmp_path):
    shards = dataset_folder(*(text_rows(5, seed=seed) for seed in range(4)))
    convert(shards, tmp_path / "undisturbed")
    written: list[str] = []

    def stop(record: Any) -> None:
        written.append(record.file)
        if len(written) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(shards, tmp_path / "out", reporter=ArrowReporter(written=stop))
    place = tmp_path / "out" / "shards" / MODEL
    # Nothing tells the trainer of files that aren't all there.
    assert not list(place.parent.glob("*.jsonl"))
    # One is damaged, one lost its marker, and a dead writer left something.
    path = place / written[0]
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    (place / ".shards.chunk.00.jsonl.shard_03.arrow.1.tmp").write_bytes(b"half")
    again: list[str] = []
    result = convert(shards, tmp_path / "out", reporter=ArrowReporter(written=lambda record: again.append(record.file)))
    assert set(again) == {record.file for record in result.files} - {written[1]}
    assert contents(tmp_path / "out") == contents(tmp_path / "undisturbed")


@pytest.mark.slow
def test_workers_make_no_difference(dataset_folder, text_rows, tmp_path):
    shards = dataset_folder(*(text_rows(5, seed=seed) for seed in range(3)))
    convert(shards, tmp_path / "one")
    convert(shards, tmp_path / "two", workers=2)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


@pytest.mark.slow
def test_deaths_make_no_difference(dataset_folder, text_rows, tmp_path):
    shards = dataset_folder(*(text_rows(5, seed=seed) for seed in range(4)))
    convert(shards, tmp_path / "undisturbed")
    assert run_killed(0, 5, "convert", "--shards", shards, "--workers", "1", "--out", tmp_path / "out")[-1] == "exit 0"
    assert contents(tmp_path / "out") == contents(tmp_path / "undisturbed")


def test_a_marker_is_there_for_whole_files_only(dataset_folder, text_rows, tmp_path, monkeypatch):
    shards = dataset_folder(text_rows(5))
    convert(shards, tmp_path / "out")
    (path,) = (tmp_path / "out").rglob("*.arrow")
    marker = path.with_name(f"{path.name}.complete")
    assert json.loads(marker.read_bytes())["num_documents"] == 5
    path.write_bytes(b"")

    def fail(table: pa.Table) -> pa.Table:
        assert not marker.exists()
        raise OSError("no space")

    monkeypatch.setattr("bltdata.convert.to_arrow.to_arrow", fail)
    with pytest.raises(OSError, match="no space"):
        convert(shards, tmp_path / "out")
    assert not marker.exists()


def test_only_what_is_laid_out_for_the_trainer_may_be_there(dataset_folder, text_rows, tmp_path):
    shards = dataset_folder(text_rows(3), text_rows(3, seed=1))
    out = tmp_path / "out"
    for name, message in [
        ("notes.txt", "out holds other things already (notes.txt)"),
        ("shards/notes.txt", "out/shards holds other things already (notes.txt)"),
        (f"shards/{MODEL}/theirs.arrow", f"{MODEL} holds other things already (theirs.arrow)"),
    ]:
        path = out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")
        with pytest.raises(BuildError, match=re.escape(message)):
            convert(shards, out)
        assert list(contents(out)) == [name]
        path.unlink()
    for inside in (shards, shards.parent):
        with pytest.raises(BuildError, match="lies in the folder of the shards"):
            convert(shards, inside)
    # Folders of others are no obstacle, and what was begun goes on whatever came beside it.
    (out / "other" / "model").mkdir(parents=True)
    (out / "shards" / "shards.chunk.00.jsonl").touch()
    convert(shards, out)
    (out / "notes.txt").write_text("mine")
    (out / "shards" / MODEL / "shards.chunk.00.jsonl.shard_00.arrow.complete").unlink()
    convert(shards, out)


def test_what_is_refused(dataset_folder, text_rows, tmp_path):
    shards = dataset_folder(text_rows(5), text_rows(5, seed=1))
    convert(shards, tmp_path / "out")
    with pytest.raises(BuildError, match="was begun with other settings"):
        convert(shards, tmp_path / "out", invalid_utf8="leave-out")
    with pytest.raises(BuildError, match="was begun with other shards"):
        convert(dataset_folder(text_rows(3), name="b"), tmp_path / "out", dataset_name="shards")
    with pytest.raises(ConfigError, match=r"num_chunks is 3, and .* has 2 shards; a chunk must have one at least\."):
        convert(shards, tmp_path / "more", num_chunks=3)
    with exclusive(tmp_path / "locked" / "shards" / MODEL), pytest.raises(BuildError, match="Another process is writing"):
        convert(shards, tmp_path / "locked")
    with pytest.raises(ConfigError, match=r"The folder's name, which dataset_name replaces, is 'with space'"):
        convert(dataset_folder(text_rows(3), name="with space"), tmp_path / "more")
    part = shards / "part-00001.parquet"
    data = bytearray(part.read_bytes())
    data[len(data) // 3] ^= 4
    part.write_bytes(data)
    with pytest.raises(ShardError, match=r"part-00001\.parquet"):
        convert(shards, tmp_path / "damaged")
    for config, message in [
        ({"num_chunks": 0}, "num_chunks is 0; it must be at least 1"),
        ({"dataset_name": "a/b"}, "dataset_name is 'a/b'; it must be of letters"),
        ({"dataset_name": "a.chunk.b"}, "without '.chunk.'"),
        ({"entropy_model_name": ".."}, "entropy_model_name is '..'; it must be"),
    ]:
        with pytest.raises(ConfigError, match=message.replace(".", r"\.")):
            ToArrowConfig(**config)
