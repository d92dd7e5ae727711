"""Small datasets for tests of everything that reads shards, and a browser for those of pages."""

import contextlib
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from bltdata.shards import Manifest, ShardWriter, round_entropies
from bltdata.shards.schema import shard_name
from tests.bltdata.browser import launched_browser

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from tests.bltdata.builds import Builder

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


# Not for the session: while it is there, nothing else in this process can run an event loop.
@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    """Chromium, without a window."""
    with launched_browser() as launched:
        yield launched


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small entropy model for builds."""
    from tests.bltdata.small import opinionated_model

    folder = tmp_path_factory.mktemp("models") / "model"
    opinionated_model(num_layers=1).save(folder)
    return folder


@pytest.fixture(scope="session")
def lines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of 60 lines, which builds take for documents."""
    from tests.bltdata.small import numbered_lines

    return numbered_lines(tmp_path_factory.mktemp("corpora") / "lines.txt", 60)


@pytest.fixture
def run(model_folder: Path, lines: Path, tmp_path: Path) -> "Builder":
    """Builds of these lines, into `tmp_path/shards`."""
    from tests.bltdata.builds import Builder

    return Builder(lines, model_folder, tmp_path)


@pytest.fixture(scope="session")
def undisturbed_folder(model_folder: Path, lines: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `run` makes if nothing comes between; tests change nothing in it."""
    from tests.bltdata.builds import Builder

    place = tmp_path_factory.mktemp("undisturbed")
    Builder(lines, model_folder, place)()
    return place / "shards"


@pytest.fixture
def undisturbed(undisturbed_folder: Path) -> dict[str, bytes]:
    """The files of such a folder."""
    from tests.bltdata.builds import contents

    return contents(undisturbed_folder)


@pytest.fixture
def finished(undisturbed_folder: Path, tmp_path: Path) -> Path:
    """A finished build where `run` builds, as if it had been called."""
    return shutil.copytree(undisturbed_folder, tmp_path / "shards")


SECRET = "a-secret-that-nobody-may-see"
"""The secret key of the S3 server."""


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The address of a server that speaks S3, on this machine."""
    try:
        import s3fs  # noqa: F401
        from moto.server import ThreadedMotoServer
    except ImportError as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(f"needs the extra [dev]: {error}")
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of a new bucket; credentials are in the environment."""
    import s3fs

    settings = {"ENDPOINT_URL": s3_server, "ACCESS_KEY_ID": "someone", "SECRET_ACCESS_KEY": SECRET, "DEFAULT_REGION": "us-east-1"}
    for name, value in settings.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    bucket = f"bucket-{secrets.token_hex(6)}"
    s3fs.S3FileSystem(use_listings_cache=False).mkdir(bucket)
    return f"s3://{bucket}"


@pytest.fixture
def memory() -> Iterator[str]:
    """The address of an empty folder of fsspec's store in memory."""
    import fsspec

    folder = f"memory://{secrets.token_hex(6)}"
    yield folder
    with contextlib.suppress(FileNotFoundError):
        fsspec.filesystem("memory").rm(folder, recursive=True)
