"""Small datasets for tests of everything that reads shards."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bltdata.shards import Manifest, ShardWriter, round_entropies
from bltdata.shards.schema import shard_name

THRESHOLD_NATS = 2.5


def make_row(doc_id: str, data: bytes, source: str = "test", seed: int = 0) -> dict[str, Any]:
    """What `ShardWriter.add` takes: invented entropies, and the patches that a global threshold makes of them."""
    rng = np.random.default_rng([seed, len(data)])
    entropy_nats = round_entropies(rng.gamma(1.3, 1.0, len(data) + 1).clip(0, 5.5).astype(np.float32))
    starts = np.flatnonzero(np.concatenate([[True], entropy_nats[1:].astype(np.float32) > np.float32(THRESHOLD_NATS)]))
    return {
        "doc_id": doc_id,
        "source": source,
        "data": data,
        "entropy_nats": entropy_nats,
        "patch_lengths": np.diff(starts, append=len(data) + 1).astype(np.uint32),
        "nll_nats": float(rng.random() * 2 * (len(data) + 1)),
    }


def make_rows(count: int, seed: int = 0, sources: Sequence[str] = ("news", "code")) -> list[dict[str, Any]]:
    """Rows of random bytes, 0 to 400 of them, the sources mixed."""
    rng = np.random.default_rng(seed)
    return [make_row(f"doc-{seed}-{i}", rng.bytes(int(rng.integers(0, 400))), str(rng.choice(sources)), seed + i) for i in range(count)]


def write_dataset(folder: Path, shards: Iterable[Sequence[dict[str, Any]]], row_group_bytes: int = 2000, **manifest: Any) -> Path:
    """Write a dataset, one shard for each list of rows, and return its folder."""
    settings = {
        "entropy_model": {"fingerprint": "0123456789abcdef", "window": 512},
        "patch_rule": {"scheme": "entropy", "threshold": THRESHOLD_NATS},
        "entropy_precision": "grid",
        "corpus": {"spec": ["python-docs"], "split": "train"},
    } | manifest
    records = []
    for index, rows in enumerate(shards):
        with ShardWriter(folder / shard_name(index), settings | {"fragment": index}, row_group_bytes=row_group_bytes) as writer:
            writer.left_out["too short"] = index
            for row in rows:
                writer.add(**row)
        records.append(writer.record)
    Manifest.create(**settings, shards=records).write(folder)
    return folder


@pytest.fixture(scope="session")
def row() -> Callable[..., dict[str, Any]]:
    """Makes one row from an id, bytes and a source."""
    return make_row


@pytest.fixture(scope="session")
def rows() -> Callable[..., list[dict[str, Any]]]:
    """Makes rows of random bytes."""
    return make_rows


@pytest.fixture(scope="session")
def dataset_at() -> Callable[..., Path]:
    """Writes a dataset to a given folder; takes a list with the rows of each shard."""
    return write_dataset


@pytest.fixture
def dataset_folder(tmp_path: Path) -> Callable[..., Path]:
    """Writes a dataset below the test's own folder; takes the rows of each shard."""

    def write(*shards: Sequence[dict[str, Any]], name: str = "shards", **options: Any) -> Path:
        return write_dataset(tmp_path / name, shards, **options)

    return write
