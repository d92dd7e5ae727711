import errno
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from bltdata.errors import ShardError
from bltdata.shards import ShardWriter, read_metadata, read_record, schema
from bltdata.shards.precision import MAX_STORED_NATS

MakeRow = Callable[..., dict[str, Any]]


def write(path: Path, rows: Iterable[dict[str, Any]], **options: Any) -> ShardWriter:
    with ShardWriter(path, {"fragment": 1}, **options) as writer:
        for each in rows:
            writer.add(**each)
    return writer


def test_the_record_says_what_is_in_the_shard_and_can_be_read_from_it(tmp_path: Path, row: MakeRow) -> None:
    path = tmp_path / "part-00007.parquet"
    metadata = {"patch_rule": {"scheme": "fixed", "stride": 4}, "entropy_model": {"fingerprint": "ab"}, "split": None}
    first, second = row("a", b"\x00\xff" * 50), row("b", b"")
    with ShardWriter(path, metadata) as writer:
        writer.left_out["too long"] += 3
        writer.add(**first)
        writer.add(**second)
        assert not path.exists()
    record = writer.record
    assert (record.file, record.num_documents, record.num_bytes, record.left_out) == ("part-00007.parquet", 2, 100, {"too long": 3})
    assert record.num_patches == len(first["patch_lengths"]) + 1
    assert record.size_bytes == path.stat().st_size
    assert read_record(path) == record
    assert read_metadata(path) == metadata


def test_an_empty_shard_is_a_shard(tmp_path: Path) -> None:
    record = write(tmp_path / "part-00000.parquet", []).record
    assert (record.num_documents, record.num_bytes, record.num_patches) == (0, 0, 0)
    assert read_record(tmp_path / "part-00000.parquet") == record


def test_equal_rows_give_equal_bytes(tmp_path: Path, rows: Callable[..., list[dict[str, Any]]]) -> None:
    documents = rows(40)
    for name in ("one", "two"):
        write(tmp_path / name, documents, row_group_bytes=3000)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_nothing_but_the_shard_is_left_in_the_folder(tmp_path: Path, row: MakeRow) -> None:
    write(tmp_path / "x.parquet", [row("a", b"abc")])
    assert [path.name for path in tmp_path.iterdir()] == ["x.parquet"]


@pytest.mark.parametrize("kind", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("row_group_bytes", [1, 10_000])
def test_an_exception_in_the_block_publishes_nothing(tmp_path: Path, row: MakeRow, kind: type[BaseException], row_group_bytes: int) -> None:
    def documents() -> Iterator[dict[str, Any]]:
        yield row("a", b"abc")
        yield row("b", b"abc")
        raise kind("stop")

    with pytest.raises(kind, match="stop"):
        write(tmp_path / "x.parquet", documents(), row_group_bytes=row_group_bytes)
    assert list(tmp_path.iterdir()) == []


def test_an_exception_leaves_the_shard_that_was_there(tmp_path: Path, row: MakeRow) -> None:
    path = tmp_path / "x.parquet"
    write(path, [row("a", b"abc")])
    before = path.read_bytes()
    with pytest.raises(ShardError), ShardWriter(path, {}) as writer:
        writer.add(**row("b", b"abc") | {"nll_nats": float("nan")})
    assert path.read_bytes() == before


@pytest.mark.parametrize("room", [0, 3, 5_000, 60_000])
def test_a_full_disk_is_told_once_and_leaves_nothing(tmp_path: Path, row: MakeRow, monkeypatch: pytest.MonkeyPatch, room: int) -> None:
    class FullDisk:
        closed = False

        def __init__(self, path: str, mode: str) -> None:
            self.left = room
            self.file = open(path, mode)  # noqa: SIM115

        def __enter__(self) -> "FullDisk":
            return self

        def __exit__(self, *error: object) -> None:
            self.close()

        def write(self, data: bytes) -> int:
            self.left -= len(data)
            if self.left < 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            return self.file.write(data)

        def flush(self) -> None:
            self.file.flush()

        def tell(self) -> int:
            return self.file.tell()

        def close(self) -> None:
            self.closed = True
            self.file.close()

    monkeypatch.setattr("bltdata.shards.writer.pa.OSFile", FullDisk)
    documents = [row(f"{i}", np.random.default_rng(i).bytes(15_000)) for i in range(10)]
    with pytest.raises(OSError, match="No space left") as error:
        write(tmp_path / "x.parquet", documents, row_group_bytes=20_000)
    assert error.value.errno == errno.ENOSPC
    assert list(tmp_path.iterdir()) == []


def test_row_groups_close_before_they_overflow(tmp_path: Path, row: MakeRow) -> None:
    sizes = [30, 30, 30, 500, 10, 10, 79]
    write(tmp_path / "x.parquet", [row(f"{i}", bytes(size)) for i, size in enumerate(sizes)], row_group_bytes=100)
    metadata = pq.read_metadata(tmp_path / "x.parquet")
    groups = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
    assert groups == [3, 1, 2, 1]


def test_row_groups_of_tiny_documents_close_too(tmp_path: Path, row: MakeRow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "ROW_GROUP_ROWS", 4)
    write(tmp_path / "x.parquet", [row(f"{i}", b"") for i in range(10)])
    metadata = pq.read_metadata(tmp_path / "x.parquet")
    assert [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)] == [4, 4, 2]


def test_the_caller_may_use_its_arrays_again(tmp_path: Path) -> None:
    entropy_nats, lengths = np.ones(4, dtype=np.float16), np.array([4])
    with ShardWriter(tmp_path / "x.parquet", {}) as writer:
        writer.add(doc_id="a", source="s", data=b"abc", entropy_nats=entropy_nats, patch_lengths=lengths, nll_nats=1.0)
        entropy_nats[:], lengths[:] = 2, 9
    table = pq.read_table(tmp_path / "x.parquet")
    assert table["entropy_nats"].to_pylist() == [[1.0] * 4]
    assert table["patch_lengths"].to_pylist() == [[4]]


def test_rounding_noise_below_zero_in_the_likelihood_becomes_zero(tmp_path: Path, row: MakeRow) -> None:
    write(tmp_path / "x.parquet", [row("a", b"abc") | {"nll_nats": -1e-6}])
    assert pq.read_table(tmp_path / "x.parquet")["nll_nats"].to_pylist() == [0.0]


def test_an_unknown_likelihood_is_no_number_and_hides_no_other(tmp_path: Path, row: MakeRow) -> None:
    write(tmp_path / "x.parquet", [row("a", b"abc") | {"nll_nats": value} for value in (1.0, None, 3.0)])
    group = pq.read_metadata(tmp_path / "x.parquet").row_group(0)
    statistics = group.column(group.num_columns - 1).statistics
    assert str(pq.read_table(tmp_path / "x.parquet")["nll_nats"].to_pylist()) == "[1.0, nan, 3.0]"
    assert (statistics.min, statistics.max, statistics.null_count) == (1.0, 3.0, 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"entropy_nats": np.ones(4, dtype=np.float16)}, r"'d' of 4 bytes has entropies of type float16 and shape \(4,\); .* \(5,\)"),
        ({"entropy_nats": np.ones(5, dtype=np.float32)}, "of type float32 .* round_entropies"),
        ({"entropy_nats": np.array([1, 1, 6, 1, 1], dtype=np.float16)}, "'d' has an entropy of 6 nats at position 2"),
        ({"entropy_nats": np.array([1, 1, 1, 1, np.nan], dtype=np.float16)}, "entropy of nan nats at position 4"),
        ({"entropy_nats": np.array([1, -0.5, 1, 1, 1], dtype=np.float16)}, "entropy of -0.5 nats at position 1"),
        ({"patch_lengths": np.array([2, 2])}, "'d' has patch lengths that sum to 4; they must sum to 5"),
        ({"patch_lengths": np.array([5, 0])}, "'d' has a patch of length 0; it must lie in 1"),
        ({"patch_lengths": np.array([6, -1])}, "patch of length -1"),
        ({"patch_lengths": np.array([2**32 + 5])}, "patch of length 4294967301"),
        ({"patch_lengths": np.array([], dtype=np.uint32)}, "patch lengths of type uint32 and shape"),
        ({"patch_lengths": np.array([2.5, 2.5])}, "must be a list of integers"),
        ({"patch_lengths": np.array([[5]])}, "must be a list of integers"),
        ({"nll_nats": -1.0}, "negative log-likelihood of -1.0 nats; it must be finite and at least 0"),
        ({"nll_nats": float("inf")}, "negative log-likelihood of inf"),
        ({"doc_id": "\udcff"}, r"The name '\\udcff' of a document is not valid Unicode"),
        ({"source": "\ud800"}, r"The source '\\ud800' of document 'd' is not valid Unicode"),
    ],
)
def test_a_row_that_is_wrong_is_refused_in_one_sentence(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    good = {
        "doc_id": "d",
        "source": "s",
        "data": b"abcd",
        "entropy_nats": np.full(5, MAX_STORED_NATS, dtype=np.float16),
        "patch_lengths": np.array([2, 3]),
        "nll_nats": 3.0,
    }
    with ShardWriter(tmp_path / "good.parquet", {}) as writer:
        writer.add(**good)
    with pytest.raises(ShardError, match=message) as error, ShardWriter(tmp_path / "bad.parquet", {}) as writer:
        writer.add(**good | change)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "bad.parquet").exists()


def test_a_document_too_long_for_a_row_is_refused(tmp_path: Path, row: MakeRow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bltdata.shards.checks.MAX_DOCUMENT_BYTES", 5)
    with (
        pytest.raises(ShardError, match=r"Document 'd' has 6 bytes; a row can hold 5, .* max_bytes"),
        ShardWriter(tmp_path / "x", {}) as writer,
    ):
        writer.add(**row("d", b"abcdef"))


def test_a_record_before_the_end_is_our_own_mistake(tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        _ = ShardWriter(tmp_path / "x.parquet", {}).record
