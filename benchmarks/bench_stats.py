"""How long do the statistics of a dataset take, and how much memory, compared with a bare Polars scan of the same columns?

One thread each, in a process of its own each time, in turn. `statistics` counts everything that `entropy-stats` does, over all shards;
`sample` is the rest of it, which is bounded: compressors and context models on a sample, and the diagnostics. `polars` scans the columns
that `statistics` reads, a batch at a time, and adds up the lengths of the lists; `polars collect` holds them all. Each process runs once
untimed on the first shard, which loads the compiled loops. The data: invented documents, lengths as on the web (lognormal, median
2 kB), words of a fixed vocabulary, skewed entropies on the grid of 1/256 nat; or a folder of shards. The invented shards are copies of one.

    python benchmarks/bench_stats.py --megabytes 1000
    python benchmarks/bench_stats.py --shards runs/shards/train
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click

CONTESTANTS = ("polars", "polars collect", "statistics", "statistics and sample")
SHARD_BYTES = 32_000_000
THRESHOLD = 2.0


def write_shards(folder: Path, megabytes: float) -> None:
    """Invented documents of two sources, one shard that is written and the rest copies of it."""
    import numpy as np

    from bltdata.config import to_mapping
    from bltdata.patching import PatchRule
    from bltdata.shards import Manifest, ShardWriter, schema

    rng = np.random.default_rng(0)
    words = [bytes(rng.integers(97, 123, int(rng.integers(1, 12)), dtype=np.uint8)) for _ in range(5000)]
    frequencies = 1 / np.arange(2, 5002)
    rule = PatchRule(threshold=THRESHOLD)
    metadata = {"patch_rule": to_mapping(rule), "entropy_model": {"fingerprint": "invented"}}
    total = round(megabytes * 1e6)
    room, number = min(total, SHARD_BYTES), 0
    first = folder / schema.shard_name(0)
    with ShardWriter(first, metadata) as writer:
        while room > 0:
            num_bytes = min(room, int(rng.lognormal(7.6, 1.0)) + 1)
            room -= num_bytes
            text = b" ".join([words[i] for i in rng.choice(5000, num_bytes // 4 + 1, p=frequencies / frequencies.sum())])
            data = text[:num_bytes].ljust(num_bytes, b".")
            entropies = (np.round(rng.gamma(1.2, 1.06, num_bytes + 1).clip(0, 5.5) * 256) / 256).astype(np.float16)
            number += 1
            writer.add(
                doc_id=str(number),
                source="prose" if number % 2 else "code",
                data=data,
                entropy_nats=entropies,
                patch_lengths=rule.lengths(data, entropies),
                nll_nats=float(entropies.sum(dtype=np.float64)),
            )
    records = [writer.record]
    for index in range(1, max(1, round(total / SHARD_BYTES))):
        shutil.copyfile(first, folder / schema.shard_name(index))
        records.append(type(writer.record)(**(vars(writer.record) | {"file": schema.shard_name(index)})))
    Manifest.create(**metadata, entropy_precision="grid", corpus={"specs": ["invented"], "split": None}, shards=records).write(folder)


def run(name: str, folder: Path) -> None:
    """One contestant, in this process: seconds and peak memory as JSON on stdout."""
    import polars as pl
    import pyarrow as pa

    from bltdata.shards import open_shards, schema
    from bltdata.stats import collect_shard, collect_statistics, diagnose, take_sample
    from bltdata.stats.collect import COLUMNS
    from bltdata.usage import peak_memory_bytes

    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    dataset = open_shards(folder)
    if name.startswith("statistics"):
        collect_shard(dataset, 0)
    else:
        pl.scan_parquet(dataset.paths[0]).select(COLUMNS).collect()
    wall, cpu = time.perf_counter(), time.process_time()
    if name == "polars":
        lists = [pl.col(column).list.len().sum() for column in (schema.ENTROPY_NATS, schema.PATCH_LENGTHS)]
        others = [pl.col(schema.DATA).bin.size().sum(), pl.col(schema.SOURCE).n_unique(), pl.col(schema.NUM_BYTES).sum()]
        dataset.scan().select(*lists, *others, pl.col(schema.NLL_NATS).sum()).collect(engine="streaming")
    elif name == "polars collect":
        dataset.scan().select(COLUMNS).collect()
    else:
        counted = collect_statistics(dataset)
        if name == "statistics and sample":
            diagnose(counted, dataset.manifest, take_sample(dataset))
    seconds = time.perf_counter() - wall, time.process_time() - cpu
    print(json.dumps({"wall": seconds[0], "cpu": seconds[1], "peak_bytes": peak_memory_bytes()}))


def measure(name: str, folder: Path) -> dict[str, float]:
    """The same in a process of its own, which has one thread."""
    one = dict.fromkeys(("POLARS_MAX_THREADS", "OMP_NUM_THREADS", "RAYON_NUM_THREADS"), "1")
    command = [sys.executable, __file__, "--run", name, "--shards", str(folder)]
    done = subprocess.run(command, env=os.environ | one, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--shards", type=click.Path(path_type=Path), help="A folder of shards to use instead of invented ones.")
@click.option("--megabytes", default=1000.0, show_default=True, help="Raw bytes of the invented documents, in millions.")
@click.option("--repeats", default=3, show_default=True, help="Timed rounds.")
@click.option("--small", is_flag=True, help="A size that takes seconds.")
@click.option("--run", "contestant", type=click.Choice(CONTESTANTS), hidden=True)
def main(shards: Path | None, megabytes: float, repeats: int, small: bool, contestant: str | None) -> None:
    """Print a table, and one line of JSON."""
    if contestant is not None and shards is not None:
        run(contestant, shards)
        return
    if small:
        megabytes, repeats = 2.0, 1
    with tempfile.TemporaryDirectory() as name:
        if shards is None:
            shards = Path(name)
            write_shards(shards, megabytes)
        rounds = [{each: measure(each, shards) for each in CONTESTANTS} for _ in range(repeats)]
        from bltdata.shards import open_shards

        dataset = open_shards(shards)
    middle = {
        name: {key: statistics.median(found[name][key] for found in rounds) for key in ("wall", "cpu", "peak_bytes")}
        for name in CONTESTANTS
    }
    total = dataset.manifest.totals.num_bytes
    for name, found in middle.items():
        spread = [each[name]["cpu"] for each in rounds]
        print(
            f"{name:24} {total / 1e6 / found['wall']:8.1f} MB/s   {found['cpu']:.3f} s of CPU ({min(spread):.3f} to {max(spread):.3f})   "
            f"{found['peak_bytes'] / 1e6:8.1f} MB at most"
        )
    ours = middle["statistics and sample"]
    times = ours["cpu"] / middle["polars"]["cpu"]
    print(f"All that entropy-stats does: {ours['peak_bytes'] / 1e6:.0f} MB of memory at most, {times:.2f} times the CPU of Polars' scan.")
    result = {
        "raw_megabytes": round(total / 1e6, 3),
        "files_megabytes": round(sum(record.size_bytes for record in dataset.manifest.shards) / 1e6, 3),
        "repeats": repeats,
        "seconds": {name: round(found["wall"], 4) for name, found in middle.items()},
        "cpu_seconds": {name: round(found["cpu"], 4) for name, found in middle.items()},
        "peak_megabytes": {name: round(found["peak_bytes"] / 1e6, 1) for name, found in middle.items()},
        "times_polars_cpu": {
            name: round(found["cpu"] / middle["polars"]["cpu"], 2) for name, found in middle.items() if name.startswith("statistics")
        },
        "times_polars_collect_cpu": {
            name: round(found["cpu"] / middle["polars collect"]["cpu"], 2)
            for name, found in middle.items()
            if name.startswith("statistics")
        },
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
