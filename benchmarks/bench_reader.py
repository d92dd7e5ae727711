"""How fast do shuffled, packed training batches with patch ids come from shards, compared with other readers of the same documents?

Batches are 8 rows of 1024 tokens, as `bltmodel train` takes them, a shuffled epoch of the same invented documents (lengths as on the web,
lognormal, median 2 kB). Ours is `bltmodel.rows.RowStream`, with and without its thread, the sources mixed, and `ShardReader` in a
`DataLoader`. The peers read what they need and no more, and their documents go through our own compiled packer, 64 at a time:

    hf streaming     datasets, the shards' Parquet files, 2 columns, shuffle buffer of 1000
    hf dataloader    datasets, memory-mapped, shuffled, in torch's DataLoader, 64 documents a batch
    mosaic           mosaicml-streaming, its own format (MDS), shuffled; left out where it isn't installed
    litdata          litdata, its own format, shuffled; left out where it isn't installed

One process, and one thread where a contestant has no other. All take turns, `--repeats` times after an untimed round; a round is the
batches of an epoch, from a reader that was just opened. The invented documents are of two sources in turn, the worst case for mixing
them: every row group is decoded once for each source. Then: how long it takes to go on at a random place, from opening the folder to the
first batch; and how well documents are mixed, against a true permutation.

    python benchmarks/bench_reader.py --megabytes 100
"""

import importlib.util
import itertools
import json
import os
import statistics
import sys
import tempfile
import time
import types
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import pyarrow as pa
import torch
from bench_repatch import write_shards
from torch.utils.data import DataLoader

from bltdata.nn.machine import prepare_cpu
from bltdata.shards import ShardDataset, open_shards, schema
from bltmodel.blocks import Block, ShuffledBlocks, mark_starts
from bltmodel.masks import PackedBatch
from bltmodel.reader import ShardReader
from bltmodel.rows import RowStream, fill_rows, packed_batch
from bltmodel.selection import select_all

ROWS, ROW_TOKENS = 8, 1024
BATCH_TOKENS = ROWS * ROW_TOKENS
BUFFER = 1000
DOCUMENTS_AT_ONCE = 64
WINDOW = 64
"""Neighbours among which different row groups are counted."""

Document = tuple[Any, Any]
"""Bytes and patch lengths, as a reader gives them."""
Contestant = Callable[[], Iterator[PackedBatch]]


def packed(documents: Iterable[Document]) -> Iterator[PackedBatch]:
    """Batches of documents in the order in which they come."""
    (numbers, flags), at = _new_batch(), 0
    documents = iter(documents)
    while taken := list(itertools.islice(documents, DOCUMENTS_AT_ONCE)):
        block, begin = _block(taken), 0
        while begin < block.num_tokens:
            end = min(block.num_tokens, begin + BATCH_TOKENS - at)
            fill_rows(block, np.array([begin]), end - begin, numbers, flags, at)
            at, begin = at + end - begin, end
            if at == BATCH_TOKENS:
                yield packed_batch(numbers, flags)
                (numbers, flags), at = _new_batch(), 0


def _new_batch() -> tuple[np.ndarray, np.ndarray]:
    return np.empty((3, ROWS, ROW_TOKENS), dtype=np.int64), np.empty((2, ROWS, ROW_TOKENS), dtype=bool)


def _block(documents: list[Document]) -> Block:
    data = [np.frombuffer(data, dtype=np.uint8) for data, _ in documents]
    lengths = np.array([len(array) for array in data])
    begins, token_ends = np.cumsum(lengths) - lengths, np.concatenate(([0], np.cumsum(lengths + 1)))
    starts = np.empty(token_ends[-1], dtype=bool)
    mark_starts(np.concatenate([np.asarray(lengths, dtype=np.uint32) for _, lengths in documents]), starts)
    return Block(np.concatenate(data), starts, begins, token_ends[:-1], token_ends, np.arange(len(data)))


def ours(dataset: ShardDataset, **settings: Any) -> Contestant:
    """The stream that training takes."""

    def batches() -> Iterator[PackedBatch]:
        stream, place = RowStream(dataset, ROW_TOKENS, **settings), ()
        while True:
            batch, place = stream.read(place, ROWS)
            yield batch

    return batches


def ours_in_a_loader(dataset: ShardDataset) -> Contestant:
    """The reader in torch's DataLoader, without workers."""
    return lambda: iter(DataLoader(ShardReader(dataset, prefetch=False), batch_size=None))


def hf_streaming(paths: list[str], columns: list[str]) -> Iterator[dict[str, Any]]:
    """Rows as datasets gives them when it streams."""
    from datasets import load_dataset

    stream = load_dataset("parquet", data_files=paths, split="train", streaming=True, columns=columns)
    return iter(stream.shuffle(seed=0, buffer_size=BUFFER))


def hf_dataloader(paths: list[str], cache: Path) -> Contestant:
    """Documents as datasets gives them when it has copied them into its cache."""
    from datasets import load_dataset

    table = load_dataset("parquet", data_files=paths, split="train", columns=[schema.DATA, schema.PATCH_LENGTHS], cache_dir=str(cache))

    def documents() -> Iterator[Document]:
        loader = DataLoader(table, batch_size=DOCUMENTS_AT_ONCE, shuffle=True, collate_fn=lambda rows: rows)
        return ((row[schema.DATA], row[schema.PATCH_LENGTHS]) for rows in loader for row in rows)

    return lambda: packed(documents())


def mosaic(dataset: ShardDataset, folder: Path) -> Contestant:
    """Documents as mosaicml-streaming gives them."""
    _stand_in_for_torchvision("streaming")
    from streaming import MDSWriter, StreamingDataset

    with MDSWriter(out=str(folder), columns={"data": "bytes", "lengths": "ndarray:uint32"}) as writer:
        for row in dataset:
            writer.write({"data": row.data, "lengths": row.patch_lengths})

    def documents() -> Iterator[Document]:
        shuffled = StreamingDataset(local=str(folder), shuffle=True, batch_size=1, num_canonical_nodes=1)
        return ((np.frombuffer(row["data"], dtype=np.uint8), row["lengths"]) for row in shuffled)

    return lambda: packed(documents())


def litdata(dataset: ShardDataset, folder: Path) -> Contestant:
    """Documents as litdata gives them."""
    _stand_in_for_torchvision("litdata")
    from litdata import StreamingDataset
    from litdata.streaming.writer import BinaryWriter

    folder.mkdir()
    writer = BinaryWriter(str(folder), chunk_bytes="64MB")
    for number, row in enumerate(dataset):
        # It packs arrays from their memory, which must be its own to write to.
        writer[number] = {"data": row.data, "lengths": row.patch_lengths.copy()}
    writer.done()
    writer.merge()

    def documents() -> Iterator[Document]:
        shuffled = StreamingDataset(str(folder), shuffle=True)
        return ((np.frombuffer(row["data"], dtype=np.uint8), row["lengths"]) for row in shuffled)

    return lambda: packed(documents())


PEERS_APART: dict[str, Callable[[ShardDataset, Path], Contestant]] = {"mosaic": mosaic, "litdata": litdata}
"""Those with a format of their own, which not everybody has installed."""


def peers_apart(dataset: ShardDataset, folder: Path) -> dict[str, Contestant]:
    """Those of them that can be imported."""
    found = {}
    for name, make in PEERS_APART.items():
        try:
            found[name] = make(dataset, folder / name)
        except (ImportError, RuntimeError) as error:
            print(f"{name} is left out: {error}", file=sys.stderr)
    return found


def _stand_in_for_torchvision(package: str) -> None:
    """A peer may import torchvision for its datasets of images, whatever one wants of it."""
    if importlib.util.find_spec(package) is None or "torchvision" in sys.modules or importlib.util.find_spec("torchvision") is not None:
        return
    # This one looks for it too, and shall find that there is none.
    import transformers.feature_extraction_utils  # noqa: F401

    for name in ("torchvision", "torchvision.datasets", "torchvision.transforms", "torchvision.transforms.functional"):
        sys.modules[name] = module = types.ModuleType(name)
        module.__dict__.update(VisionDataset=object, to_tensor=None)


def measure(contestants: dict[str, Contestant], num_batches: int, repeats: int) -> dict[str, list[tuple[float, float]]]:
    """Wall and CPU seconds of each contestant in each round."""
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in contestants}
    for number in range(repeats + 1):
        for name, start in contestants.items():
            batches = start()
            wall, cpu = time.perf_counter(), time.process_time()
            count = sum(1 for _ in itertools.islice(batches, num_batches))
            taken = time.perf_counter() - wall, time.process_time() - cpu
            assert count == num_batches, f"{name} ended after {count} batches of {num_batches}"
            if number:
                seconds[name].append(taken)
    return seconds


def resume_seconds(folder: Path, count: int) -> list[float]:
    """How long it takes to go on at random places of the second epoch."""
    rng, seconds = np.random.default_rng(0), []
    dataset = open_shards(folder)
    blocks = ShuffledBlocks(dataset, select_all(dataset), 0)
    for _ in range(count):
        number = int(rng.integers(blocks.num_blocks(1)))
        place = (1, number, int(rng.integers(blocks.block(1, number).num_tokens)), 0)
        begin = time.perf_counter()
        RowStream(open_shards(folder), ROW_TOKENS).read(place, ROWS)
        seconds.append(time.perf_counter() - begin)
    return seconds


def mixing(order: np.ndarray, group_of: np.ndarray) -> dict[str, float]:
    """How far documents are from where they were, as a share of all; how many row groups a window of neighbours is from."""
    groups = group_of[order]
    windows = [len(set(groups[begin : begin + WINDOW].tolist())) for begin in range(0, len(groups) - WINDOW + 1, WINDOW)]
    return {
        "displacement": round(float(np.abs(order - np.arange(len(order))).mean() / len(order)), 4),
        f"row_groups_in_{WINDOW}": round(statistics.mean(windows), 2) if windows else len(set(groups.tolist())),
    }


def shuffle_quality(dataset: ShardDataset, paths: list[str]) -> dict[str, dict[str, float]]:
    """`mixing` of our order, of a shuffle buffer's, and of a true permutation."""
    group_of = np.repeat(np.arange(len(dataset.row_groups)), [group.num_documents for group in dataset.row_groups])
    blocks = ShuffledBlocks(dataset, select_all(dataset), 0, prefetch=False)
    own = np.concatenate([blocks.block(0, number).documents for number in range(blocks.num_blocks(0))])
    names = itertools.chain.from_iterable(table[schema.DOC_ID].to_pylist() for table in dataset.iter_row_groups([schema.DOC_ID]))
    place_of = {name: place for place, name in enumerate(names)}
    buffered = np.array([place_of[row[schema.DOC_ID]] for row in hf_streaming(paths, [schema.DOC_ID])])
    orders = {"ours": own, "hf streaming": buffered, "permutation": np.random.default_rng(0).permutation(len(dataset))}
    return {name: mixing(order, group_of) for name, order in orders.items()}


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--megabytes", default=50.0, show_default=True, help="Raw bytes of the documents, in millions.")
@click.option("--repeats", default=5, show_default=True, help="Timed rounds.")
@click.option("--small", is_flag=True, help="A size that takes seconds.")
def main(megabytes: float, repeats: int, small: bool) -> None:
    """Print a table, and one line of JSON."""
    if small:
        megabytes, repeats = 3.0, 1
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    torch.set_num_threads(1)
    prepare_cpu()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_shards(folder / "shards", megabytes)
        dataset = open_shards(folder / "shards")
        paths = [str(path) for path in dataset.paths]
        columns = [schema.DATA, schema.PATCH_LENGTHS]
        contestants = {
            "ours": ours(dataset, prefetch=False),
            "ours, thread": ours(dataset, prefetch=True),
            "ours, mixed": ours(dataset, prefetch=False, weights={"prose": 1, "code": 1}),
            "ours, dataloader": ours_in_a_loader(dataset),
            "hf streaming": lambda: packed((row[schema.DATA], row[schema.PATCH_LENGTHS]) for row in hf_streaming(paths, columns)),
            "hf dataloader": hf_dataloader(paths, folder / "cache"),
        }
        contestants |= peers_apart(dataset, folder)
        totals = dataset.manifest.totals
        num_batches = (totals.num_bytes + totals.num_documents) // (BATCH_TOKENS) - 1
        seconds = measure(contestants, num_batches, repeats)
        resumes = resume_seconds(folder / "shards", 5 if small else 20)
        quality = shuffle_quality(dataset, paths)
        num_groups = len(dataset.row_groups)

    megabytes_read = num_batches * BATCH_TOKENS / 1e6
    wall, cpu = ({name: statistics.median(pair[kind] for pair in pairs) for name, pairs in seconds.items()} for kind in (0, 1))
    for name, pairs in seconds.items():
        times = [pair[1] for pair in pairs]
        print(
            f"{name:18} {megabytes_read / cpu[name]:7.1f} MB per CPU second ({megabytes_read / max(times):.1f} to "
            f"{megabytes_read / min(times):.1f}), {megabytes_read / wall[name]:7.1f} MB/s"
        )
    print(f"going on at a random place: {statistics.median(resumes):.3f} s, {max(resumes):.3f} s at most")
    for name, figures in quality.items():
        print(f"{name:18} {figures}")
    peers = [name for name in contestants if not name.startswith("ours")]
    result = {
        "megabytes": round(totals.num_bytes / 1e6, 3),
        "documents": totals.num_documents,
        "row_groups": num_groups,
        "batches": num_batches,
        "repeats": repeats,
        "megabytes_per_cpu_second": {name: round(megabytes_read / value, 2) for name, value in cpu.items()},
        "megabytes_per_second": {name: round(megabytes_read / value, 2) for name, value in wall.items()},
        "times_peer_cpu": {name: round(cpu[name] / cpu["ours"], 2) for name in peers},
        "times_peer": {name: round(wall[name] / wall["ours, thread"], 2) for name in peers},
        "without": [name for name in PEERS_APART if name not in contestants],
        "resume_seconds": {"median": round(statistics.median(resumes), 4), "most": round(max(resumes), 4)},
        "shuffle": quality,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
