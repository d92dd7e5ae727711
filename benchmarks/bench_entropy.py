"""How fast are entropies computed, against transformers with the same weights, and against what the machine can multiply?

One thread, CPU time, the allocator prepared for all. transformers' BltPatcher gets a document at a time: as it is (plain), or cut into
blocks of `--block-tokens` of which the last is padded (padded), as the paper's code drives its model. All score the same documents: a part
of the case's that has their distribution of lengths. Each scores them once untimed, and the results are compared; then all run in turn,
`--repeats` times. Shares of the peak are of useful FLOPs (a multiplication and its addition count 2; projections, feed-forward, head,
and the keys inside window and document) and of the best matrix product in the same type.

Cases: `c4` and `enwik8` (the pages of its first megabytes) need their files; `mix` has lognormal lengths; `short` documents of 500 bytes.
Models: presets and `reference-256x4` with random weights, and the folders given by --entropy-model.

    python benchmarks/bench_entropy.py --c4 c4.jsonl.gz --enwik8 enwik8 --whole --processes 2 --memory-megabytes 10,100
"""

import json
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import click
import torch
from entropy_contestants import CONFIGS, TYPES, Field, compare, make_contestants, make_models, peak_flops, scored, useful_flops
from entropy_documents import c4_documents, describe, mixed_documents, pages, short_documents, typical
from timing import cpu_seconds

from bltdata.entropy import EntropyModel
from bltdata.nn import prepare_cpu
from bltdata.usage import peak_memory_bytes

CASES = "c4", "enwik8", "mix", "short"
MEGABYTES = {"tiny": 0.2, "small": 0.1, "reference-256x4": 0.1, "medium": 0.03, "base": 0.02}
"""Of the documents, where nothing else is asked for: the slowest of the peers take minutes."""


def score_beside_others(folder: str, documents: list[bytes], kind: str, barrier: Any, spans: Any) -> None:
    """One of several processes that score at the same time."""
    prepare_cpu()
    torch.set_num_threads(1)
    model = EntropyModel.load(folder)
    scored(model, documents[:2], kind)
    barrier.wait()
    begin = time.perf_counter()
    scored(model, documents, kind)
    spans.put((begin, time.perf_counter()))


def aggregate_rate(folder: str, documents: list[bytes], kind: str, processes: int) -> float:
    """Bytes per second of wall time of so many processes, each of which scores all the documents."""
    context = multiprocessing.get_context("spawn")
    barrier, spans = context.Barrier(processes), context.Queue()
    started = [context.Process(target=score_beside_others, args=(folder, documents, kind, barrier, spans)) for _ in range(processes)]
    for process in started:
        process.start()
    begins, ends = zip(*(spans.get() for _ in started), strict=True)
    for process in started:
        process.join()
    return processes * sum(map(len, documents)) / (max(ends) - min(begins))


def peak_memory(folder: str, num_bytes: int, longest: int, kind: str) -> int:
    """Bytes of memory that this process, which must be a fresh one, has had at most after scoring `num_bytes` bytes."""
    prepare_cpu()
    torch.set_num_threads(1)
    for _ in EntropyModel.load(folder).score_with_nll(mixed_documents(num_bytes, longest), TYPES[kind]):
        pass
    return peak_memory_bytes()


def memory_of(folder: str, megabytes: tuple[float, ...], longest: int, kind: str) -> dict[str, Any]:
    """Peak memory of scoring each of these amounts."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), max_tasks_per_child=1) as executor:
        sizes = [round(amount * 1e6) for amount in megabytes]
        peaks = [executor.submit(peak_memory, folder, size, longest, kind).result() for size in sizes]
    return {"type": kind, "bytes": sizes, "peak_megabytes": [round(peak / 1e6, 1) for peak in peaks]}


def bench_case(
    name: str, model: EntropyModel, documents: list[bytes], field: Field, repeats: int, peaks: dict[str, float]
) -> dict[str, Any]:
    """Compare and time one model on one case's documents."""
    about, useful = describe(documents), useful_flops(model.config, documents)
    print(f"{name}: {about['documents']} documents, {about['bytes']:,} bytes, of {about['length_percentiles']}", flush=True)
    contestants = make_contestants(model, documents, field)
    comparison = compare({label: run() for label, run in contestants.items()}, documents, field)
    print("".join(f"    {key}: {value:g}\n" for key, value in comparison.items()), end="")
    seconds = cpu_seconds(contestants, repeats, warm_ups=0)
    median = {label: statistics.median(values) for label, values in seconds.items()}
    rates = {label: about["bytes"] / value for label, value in median.items()}
    shares = {label: useful / value / peaks[label.split()[1]] for label, value in median.items()}
    for label, values in seconds.items():
        spread = f"{min(values):.3f} to {max(values):.3f} s"
        print(f"    {label:18} {rates[label] / 1e3:9.2f} KB/s   {shares[label]:6.1%} of the peak   {spread}", flush=True)
    ours, theirs = ([label for label in median if label.startswith("ours") is mine] for mine in (True, False))
    return {
        "case": name,
        **about,
        "useful_flops_per_byte": round(useful / about["bytes"]),
        "comparison": comparison,
        "cpu_seconds": {label: [round(value, 4) for value in values] for label, values in seconds.items()},
        "bytes_per_second": {label: round(value) for label, value in rates.items()},
        "share_of_peak": {label: round(value, 4) for label, value in shares.items()},
        "times_faster": {f"{mine} / {other}": round(median[other] / median[mine], 2) for mine in ours for other in theirs},
    }


def bench_whole(model: EntropyModel, documents: list[bytes], types: tuple[str, ...]) -> dict[str, Any]:
    """Bytes per second of CPU time of ours alone on all the documents of a case, once."""
    num_bytes = sum(map(len, documents))
    rates = {}
    for kind in types:
        begin = time.process_time()
        scored(model, documents, kind)
        rates[kind] = round(num_bytes / (time.process_time() - begin))
        print(f"    all {len(documents):,} documents, {num_bytes:,} bytes, {kind}: {rates[kind] / 1e3:.2f} KB/s", flush=True)
    return {**describe(documents), "bytes_per_second": rates}


def listed(*known: str) -> Callable[[click.Context, click.Parameter, str], tuple[str, ...]]:
    """Reads names with commas between them; `none` for none."""

    def read(ctx: click.Context, parameter: click.Parameter, value: str) -> tuple[str, ...]:
        names = () if value == "none" else tuple(value.split(","))
        if not set(names) <= set(known):
            raise click.BadParameter(f"{value!r} must be of {', '.join(known)}")
        return names

    return read


def numbers(ctx: click.Context, parameter: click.Parameter, value: str | None) -> tuple[float, ...]:
    """Reads numbers with commas between them."""
    try:
        return tuple(float(number) for number in value.split(",")) if value else ()
    except ValueError as error:
        raise click.BadParameter(f"{value!r} must be numbers with commas between them") from error


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--c4", type=click.Path(exists=True), help="JSONL file, plain or compressed, with the documents in `text`.")
@click.option("--enwik8", type=click.Path(exists=True), help="The file enwik8, plain or compressed.")
@click.option("--enwik8-megabytes", default=5.0, show_default=True, help="How much of it to cut into pages.")
@click.option(
    "--cases", default="c4,enwik8,mix,short", show_default=True, callback=listed(*CASES), help="Those without their file are left out."
)
@click.option(
    "--presets", default="tiny,reference-256x4,base", show_default=True, callback=listed(*CONFIGS), help="Models with random weights."
)
@click.option("--entropy-model", "folders", multiple=True, help="A trained model's folder; may be given again.")
@click.option("--types", default="float32,bfloat16", show_default=True, callback=listed(*TYPES), help="Types of matrix products.")
@click.option(
    "--peers",
    default="plain,padded",
    show_default=True,
    callback=listed("plain", "padded"),
    help="How transformers is driven; none leaves it out.",
)
@click.option("--block-tokens", default=8192, show_default=True, help="Tokens that padded documents are cut and padded to.")
@click.option("--megabytes", type=float, help=f"Of each case's documents.  [default: by preset, {MEGABYTES}; 0.1 for a folder]")
@click.option("--longest", default=32_000, show_default=True, help="Leave out documents of more bytes: the plain peer makes a square mask.")
@click.option("--repeats", default=3, show_default=True, help="Timed rounds.")
@click.option("--whole", is_flag=True, help="Also time ours alone on all the documents of c4 and enwik8.")
@click.option("--processes", default=0, help="Also measure so many processes at once, in wall time, against one.  [default: none]")
@click.option("--memory-megabytes", callback=numbers, help="Also the peak memory of scoring each of these amounts, like 10,1000.")
@click.option("--small", is_flag=True, help="A small model and few documents: seconds, and no result worth keeping.")
def main(
    c4: str | None,
    enwik8: str | None,
    enwik8_megabytes: float,
    cases: tuple[str, ...],
    presets: tuple[str, ...],
    folders: tuple[str, ...],
    types: tuple[str, ...],
    peers: tuple[str, ...],
    block_tokens: int,
    megabytes: float | None,
    longest: int,
    repeats: int,
    whole: bool,
    processes: int,
    memory_megabytes: tuple[float, ...],
    small: bool,
) -> None:
    """Print a table, and one line of JSON."""
    if small:
        presets, cases, megabytes, repeats, longest, block_tokens = ("tiny",), ("mix", "short"), 0.008, 1, 4000, 512
        processes, memory_megabytes = 2, (0.01, 0.1)
    # Each of these starts processes, which takes seconds.
    beside = types[:1] if small else types
    field = Field(types=types, peers=peers, block_tokens=block_tokens)
    prepare_cpu()
    torch.set_num_threads(1)
    models = make_models(presets, folders)
    peaks = {kind: peak_flops(kind, small=small) for kind in types}
    print("best matrix products: " + ", ".join(f"{kind} {peak / 1e12:.3f} TFLOP/s" for kind, peak in peaks.items()), flush=True)
    sets: dict[str, list[bytes]] = {}
    if "c4" in cases and c4:
        sets["c4"] = c4_documents(c4)
    if "enwik8" in cases and enwik8:
        sets["enwik8"] = pages(enwik8, round(enwik8_megabytes * 1e6))
    if "mix" in cases:
        sets["mix"] = list(mixed_documents(3_000_000, longest))
    if "short" in cases:
        sets["short"] = short_documents(1_000_000)
    report: dict[str, Any] = {"repeats": repeats, "peak_flops": {kind: round(peak) for kind, peak in peaks.items()}, "models": []}
    for name, model in models.items():
        num_bytes = round(1e6 * (megabytes or MEGABYTES.get(name, 0.1)))
        about: dict[str, Any] = {"model": name, "weights": "trained" if name in folders else "random", "cases": []}
        for case, documents in sets.items():
            fitting = [data for data in documents if len(data) <= longest]
            found = bench_case(f"{name}, {case}", model, typical(fitting, num_bytes), field, repeats, peaks)
            about["cases"].append(found | {"left_out_as_too_long": len(documents) - len(fitting)})
            if whole and case in ("c4", "enwik8"):
                about["cases"][-1]["whole"] = bench_whole(model, documents, types)
        with tempfile.TemporaryDirectory() as folder:
            model.save(folder)
            if processes:
                documents = typical(next(iter(sets.values())), num_bytes)
                about["processes"] = {
                    f"{kind}, {count}": round(aggregate_rate(folder, documents, kind, count)) for kind in beside for count in (1, processes)
                }
                print(f"    bytes per second of wall time, by processes: {about['processes']}", flush=True)
            if memory_megabytes:
                about["memory"] = [memory_of(folder, memory_megabytes, longest, kind) for kind in beside]
                print(f"    peak memory: {about['memory']}", flush=True)
        report["models"].append(about)
    print(json.dumps(report))


if __name__ == "__main__":
    main()
