"""Does `build-shards` take memory that doesn't grow with the corpus, and time that grows no faster than it?

For each size a corpus is invented: passages of what Python ships (its documentation and its library), a random piece a document, a
byte in fifty replaced, lengths as on the web (lognormal, median 2 kB), in Parquet files of 256 MB. Then, each a command of its own:

    build     `build-shards` with the rule `fixed`
    again     the same command, which finds all shards finished: what it takes to see that, every checksum included
    verify    `verify`

A rule that needs no entropies doesn't make a build without a model: shards always have them, so that another rule may be tried. With
`--scores model` there is an entropy model, untrained and as small as one can be, and its 260 probabilities of each byte are nearly all of
what a build then takes, so that 10 GB are a matter of hours. By default its scores are replaced, in the command's own process, by a number
for each byte out of a table: what is measured is all of a build but the model.

Memory is the proportional set size (PSS) of a command and all processes that it started, which counts shared pages once, looked at ten
times a second; the peak is the largest seen. CPU time is that of all of them.

    python benchmarks/bench_build.py --gigabytes 0.1 --gigabytes 1 --gigabytes 10
    python benchmarks/bench_build.py --gigabytes 0.01 --gigabytes 0.1 --scores model --workers 2
"""

import json
import os
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from pydoc_data.topics import topics

import click
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bltdata.entropy import EntropyModel, EntropyModelConfig
from bltdata.entropy.scoring import PositionScores
from bltdata.shards import Manifest

FILE_BYTES = 256_000_000
ROW_GROUP_BYTES = 8_000_000
REPLACED = 50
"""One byte in so many is replaced."""
SECONDS_BETWEEN_LOOKS = 0.1
SMALLEST_MODEL = EntropyModelConfig(dim=8, num_layers=1, num_heads=1, ffn_dim=8, window=8)


@dataclass(frozen=True)
class Cost:
    """What a command took."""

    seconds: float
    cpu_seconds: float
    peak_megabytes: float


def shipped_text() -> np.ndarray:
    """ASCII text of a few megabytes, uint8."""
    library = Path(sysconfig.get_paths()["stdlib"])
    texts = [*(topics[name].encode() for name in sorted(topics)), *(path.read_bytes() for path in sorted(library.glob("*.py")))]
    text = np.frombuffer(b"\n".join(texts), dtype=np.uint8)
    return text[(text < 127) & ((text >= 32) | (text == 10))]


def write_corpus(folder: Path, num_bytes: int) -> None:
    """Parquet files with a column `text`."""
    folder.mkdir()
    text, rng, left, number = shipped_text(), np.random.default_rng(0), num_bytes, 0
    while left > 0:
        room = min(left, FILE_BYTES)
        left -= room
        with pq.ParquetWriter(folder / f"{number:04}.parquet", pa.schema([("text", pa.string())])) as writer:
            for begin in range(0, room, ROW_GROUP_BYTES):
                writer.write_table(_invented(text, min(room - begin, ROW_GROUP_BYTES), rng))
        number += 1


def _invented(text: np.ndarray, num_bytes: int, rng: np.random.Generator) -> pa.Table:
    lengths = np.minimum(rng.lognormal(7.6, 1.0, num_bytes // 1000 + 10).astype(np.int64) + 1, len(text) // 2)
    # As many as fit, and the last one for the rest; more than a kilobyte on average, so they are enough.
    ends = np.minimum(np.cumsum(lengths), num_bytes)
    ends = ends[: int(np.searchsorted(ends, num_bytes)) + 1]
    begins = rng.integers(0, len(text) // 2, len(ends))
    data = np.concatenate([text[begin : begin + size] for begin, size in zip(begins, np.diff(ends, prepend=0), strict=True)])
    data[rng.integers(0, len(data), len(data) // REPLACED)] = rng.integers(97, 123, len(data) // REPLACED, dtype=np.uint8)
    offsets = np.concatenate(([0], ends)).astype(np.int32)
    return pa.table({"text": pa.StringArray.from_buffers(len(ends), pa.py_buffer(offsets), pa.py_buffer(data))})


def with_table() -> None:
    """Be the command `bltdata`, without a model: what a byte costs, and how uncertain it is what follows it, is looked up."""
    from bltdata.cli import main

    table = np.random.default_rng(0).uniform(0, 5.5, 256).astype(np.float32)

    def score_positions(model: EntropyModel, documents: Iterable[bytes], *_: object, **__: object) -> Iterator[PositionScores]:
        for data in documents:
            costs = table[np.frombuffer(data + b"\n", dtype=np.uint8)]
            yield PositionScores(np.roll(costs, 1), costs)

    EntropyModel.score_positions = score_positions  # type: ignore[assignment, method-assign]
    main()


COMMANDS = {"table": ("-c", "from bench_build import with_table; with_table()"), "model": ("-m", "bltdata")}
"""How Python is told to run `bltdata`."""


def run(command: Sequence[str], *arguments: object) -> Cost:
    """Run a `bltdata` command to its end.

    Raises:
        RuntimeError: it failed; with what it said.
    """
    begin = time.perf_counter()
    with tempfile.TemporaryFile() as said:
        called = [sys.executable, *command, *map(str, arguments)]
        paths = os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])
        process = subprocess.Popen(called, stdout=subprocess.DEVNULL, stderr=said, env=os.environ | {"PYTHONPATH": paths})
        peak, over = [0], threading.Event()
        watcher = threading.Thread(target=_watch, args=(process.pid, peak, over))
        watcher.start()
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - begin
        over.set()
        watcher.join()
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            raise RuntimeError(f"{' '.join(map(str, arguments))}: {said.read().decode(errors='replace')}")
    return Cost(round(seconds, 3), round(usage.ru_utime + usage.ru_stime, 3), round(peak[0] / 1e6, 1))


def _watch(pid: int, peak: list[int], over: threading.Event) -> None:
    while not over.wait(SECONDS_BETWEEN_LOOKS):
        peak[0] = max(peak[0], sum(map(_memory, _tree(pid))))


def _tree(pid: int) -> Iterator[int]:
    """A process and all that came from it."""
    yield pid
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield from _tree(int(child))
    except (FileNotFoundError, ProcessLookupError):
        # It has ended.
        return


def _memory(pid: int) -> int:
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except (FileNotFoundError, ProcessLookupError):
        pass
    return 0


def measure(folder: Path, gigabytes: float, scores: str, workers: int, fragment_bytes: int) -> dict[str, object]:
    """The costs of one size."""
    model, corpus, shards = folder / "model", folder / "corpus", folder / "shards"
    EntropyModel(SMALLEST_MODEL).save(model)
    write_corpus(corpus, round(gigabytes * 1e9))
    build: list[object] = ["build-shards", "--corpus", f"parquet:{corpus}/*.parquet", "--split", "all", "--entropy-model", model]
    build += ["--scheme", "fixed", "--stride", 6, "--fragment-bytes", fragment_bytes, "--workers", workers, "--device", "cpu"]
    build += ["--out", shards]
    command = COMMANDS[scores]
    verify = ["verify", shards, "--workers", workers]
    costs = {name: run(command, *arguments) for name, arguments in (("build", build), ("again", build), ("verify", verify))}
    manifest = Manifest.read(shards)
    totals, size_bytes = manifest.totals, sum(record.size_bytes for record in manifest.shards)
    return {
        "gigabytes": totals.num_bytes / 1e9,
        "documents": totals.num_documents,
        "shards": totals.num_shards,
        "corpus_files_gigabytes": round(sum(path.stat().st_size for path in corpus.iterdir()) / 1e9, 6),
        "shards_gigabytes": round(size_bytes / 1e9, 6),
        **{name: asdict(cost) for name, cost in costs.items()},
    }


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--gigabytes", type=float, multiple=True, default=(0.03, 0.1), show_default=True, help="Raw bytes of a corpus; repeatable.")
@click.option("--scores", type=click.Choice(list(COMMANDS)), default="table", show_default=True, help="Where entropies come from.")
@click.option("--workers", default=1, show_default=True, help="Processes of each command; more than one with --scores model only.")
@click.option("--fragment-bytes", default=32 << 20, show_default=True, help="Raw bytes of a shard.")
@click.option("--folder", type=click.Path(path_type=Path), help="Where there is room for four times the corpus.  [default: TMPDIR]")
@click.option("--small", is_flag=True, help="Sizes that take seconds.")
def main(gigabytes: tuple[float, ...], scores: str, workers: int, fragment_bytes: int, folder: Path | None, small: bool) -> None:
    """Print a table, and one line of JSON."""
    if scores == "table" and workers > 1:
        raise click.UsageError("Workers of other processes don't know the table; give --scores model as well.")
    if small:
        gigabytes, fragment_bytes = (0.0005, 0.001), 200_000
    sizes = []
    for size in gigabytes:
        with tempfile.TemporaryDirectory(dir=folder) as place:
            found = measure(Path(place), size, scores, workers, fragment_bytes)
        sizes.append(found)
        print(f"{size:g} GB, {found['documents']:,} documents in {found['shards']} shards of {found['shards_gigabytes']:.3f} GB together")
        for name in ("build", "again", "verify"):
            cost = Cost(**found[name])  # type: ignore[arg-type]
            print(
                f"    {name:7} {cost.seconds:9.1f} s, {cost.cpu_seconds:9.1f} s of CPU, {size * 1000 / cost.seconds:7.2f} MB/s, "
                f"{cost.peak_megabytes:7.0f} MB at most",
                flush=True,
            )
    print(json.dumps({"scores": scores, "workers": workers, "fragment_bytes": fragment_bytes, "sizes": sizes}))


if __name__ == "__main__":
    main()
