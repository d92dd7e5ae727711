"""How long does `repatch` take, compared with reading and writing the same Parquet files with pyarrow alone?

One process, one thread. `repatch` does all that it does for a user: it checks what it reads, cuts every document again, writes new
shards, flushes them to the disk, and takes their checksums. `pyarrow` reads the same files a row group at a time and writes them with the
settings that shards have, no more. Both run in turn, `--repeats` times, after one untimed round (which also compiles). The data: either
invented documents, lengths as on the web (lognormal, median 2 kB), words of a fixed vocabulary, skewed entropies on the grid of 1/256
nat; or a folder of shards.

    python benchmarks/bench_repatch.py --megabytes 30
    python benchmarks/bench_repatch.py --shards runs/shards/train
"""

import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bltdata.config import to_mapping
from bltdata.patching import PatchRule
from bltdata.repatch import RepatchConfig, repatch_shards
from bltdata.shards import Manifest, ShardWriter, open_shards, schema

SHARD_BYTES = 16_000_000
THRESHOLD = 2.0


def write_shards(folder: Path, megabytes: float) -> None:
    """Invented documents of two sources, as build-shards would write them."""
    rng = np.random.default_rng(0)
    words = [bytes(rng.integers(97, 123, int(rng.integers(1, 12)), dtype=np.uint8)) for _ in range(5000)]
    frequencies = 1 / np.arange(2, 5002)
    left, records, rule = round(megabytes * 1e6), [], PatchRule(threshold=THRESHOLD)
    metadata = {"patch_rule": to_mapping(rule), "entropy_model": {"fingerprint": "invented"}}
    while left > 0:
        room, number = min(left, SHARD_BYTES), 0
        left -= room
        with ShardWriter(folder / schema.shard_name(len(records)), metadata) as writer:
            while room > 0:
                num_bytes = min(room, int(rng.lognormal(7.6, 1.0)) + 1)
                room -= num_bytes
                text = b" ".join([words[i] for i in rng.choice(5000, num_bytes // 4 + 1, p=frequencies / frequencies.sum())])
                data = text[:num_bytes].ljust(num_bytes, b".")
                entropies = (np.round(rng.gamma(1.2, 1.06, num_bytes + 1).clip(0, 5.5) * 256) / 256).astype(np.float16)
                number += 1
                writer.add(
                    doc_id=f"{len(records)}-{number}",
                    source="prose" if number % 2 else "code",
                    data=data,
                    entropy_nats=entropies,
                    patch_lengths=rule.lengths(data, entropies),
                    nll_nats=float(entropies.sum(dtype=np.float64)),
                )
        records.append(writer.record)
    Manifest.create(**metadata, entropy_precision="grid", corpus={"specs": ["invented"], "split": None}, shards=records).write(folder)


def copy_with_pyarrow(shards: list[Path], folder: Path) -> None:
    """Read and write, and nothing else."""
    folder.mkdir()
    for path in shards:
        with pq.ParquetFile(path) as source:
            writer = pq.ParquetWriter(
                folder / path.name,
                schema.SCHEMA,
                compression=schema.COMPRESSION,
                use_dictionary=list(schema.DICTIONARY_COLUMNS),
                write_statistics=list(schema.STATISTICS_COLUMNS),
                write_page_checksum=True,
            )
            with writer:
                for index in range(source.num_row_groups):
                    table = source.read_row_group(index)
                    writer.write_table(table, row_group_size=table.num_rows)


def measure(contestants: dict[str, Callable[[Path], object]], folder: Path, repeats: int) -> dict[str, list[tuple[float, float]]]:
    """Wall and CPU seconds of each contestant in each round; each writes to a new folder."""
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in contestants}
    for number in range(repeats + 1):
        for name, run in contestants.items():
            out = folder / "out"
            wall, cpu = time.perf_counter(), time.process_time()
            run(out)
            taken = time.perf_counter() - wall, time.process_time() - cpu
            shutil.rmtree(out)
            if number:
                seconds[name].append(taken)
    return seconds


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--shards", type=click.Path(path_type=Path), help="A folder of shards to use instead of invented ones.")
@click.option("--megabytes", default=30.0, show_default=True, help="Raw bytes of the invented documents, in millions.")
@click.option("--repeats", default=5, show_default=True, help="Timed rounds.")
@click.option("--small", is_flag=True, help="A size that takes seconds.")
def main(shards: Path | None, megabytes: float, repeats: int, small: bool) -> None:
    """Print a table, and one line of JSON."""
    if small:
        megabytes, repeats = 2.0, 2
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if shards is None:
            shards = folder / "shards"
            write_shards(shards, megabytes)
        dataset = open_shards(shards)
        paths = dataset.paths
        rules = {
            "repatch, another threshold": RepatchConfig(rule=PatchRule(threshold=THRESHOLD / 2)),
            "repatch, longest 8": RepatchConfig(rule=PatchRule(threshold=THRESHOLD, max_length=8)),
            "repatch, space": RepatchConfig(rule=PatchRule(scheme="space")),
            "repatch, rules by source": RepatchConfig(
                rule=PatchRule(threshold=THRESHOLD), source_rules={"code": PatchRule(threshold=THRESHOLD / 2)}
            ),
        }

        def again(config: RepatchConfig) -> Callable[[Path], object]:
            return lambda out: repatch_shards(shards, config, out)

        contestants = {"pyarrow": lambda out: copy_with_pyarrow(paths, out)} | {label: again(rule) for label, rule in rules.items()}
        seconds = measure(contestants, folder, repeats)

    totals = dataset.manifest.totals
    wall, cpu = ({name: statistics.median(pair[kind] for pair in pairs) for name, pairs in seconds.items()} for kind in (0, 1))
    for name, pairs in seconds.items():
        times = [pair[0] for pair in pairs]
        print(
            f"{name:28} {totals.num_bytes / 1e6 / wall[name]:7.1f} MB/s   {min(times):.3f} to {max(times):.3f} s, {cpu[name]:.3f} s of CPU"
        )
    result = {
        "megabytes": round(totals.num_bytes / 1e6, 3),
        "documents": totals.num_documents,
        "files_megabytes": round(sum(record.size_bytes for record in dataset.manifest.shards) / 1e6, 3),
        "repeats": repeats,
        "seconds": {name: round(value, 4) for name, value in wall.items()},
        "cpu_seconds": {name: round(value, 4) for name, value in cpu.items()},
        "times_pyarrow": {name: round(value / wall["pyarrow"], 2) for name, value in wall.items() if name != "pyarrow"},
        "times_pyarrow_cpu": {name: round(value / cpu["pyarrow"], 2) for name, value in cpu.items() if name != "pyarrow"},
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
