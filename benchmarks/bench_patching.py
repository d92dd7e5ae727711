"""How fast are patch lengths made from entropies, and how much faster than by transformers?

One process, one thread, CPU time. All contestants run in turn, `--repeats` times, after one untimed round (which also compiles). The
data: documents of 8191 bytes with skewed entropies on the grid of 1/256 nat that shards have; ours get them as float16, as stored,
transformers as float32, so that it has nothing to convert, and in batches of rows as long as a document. It knows no relative rule
and no space rule; `space` is set against a copy of the bytes. The results are compared before anything is timed.

    python benchmarks/bench_patching.py --megabytes 100
"""

import json
import statistics
import sys
from collections.abc import Callable

import click
import numpy as np
import torch
from timing import cpu_seconds
from transformers.models.blt.modeling_blt import BltPatcher, process_patch_lengths

from bltdata.patching import PatchRule

DOCUMENT_BYTES = 8191
ROWS_PER_CALL = 32
"""Of the peer: it is fastest where its temporary tensors fit into the cache."""


def make_documents(megabytes: float) -> tuple[bytes, np.ndarray, np.ndarray]:
    """Bytes, offsets and float16 entropies of documents, end to end: about 4.5 bytes to a patch at a threshold of 2 nats."""
    rng = np.random.default_rng(0)
    num_documents = max(1, round(megabytes * 1e6 / DOCUMENT_BYTES))
    data = rng.choice(np.frombuffer(b"etaoin shrdlu. cmfwyp vbgkqj\n", dtype=np.uint8), num_documents * DOCUMENT_BYTES).tobytes()
    entropies = np.empty(num_documents * (DOCUMENT_BYTES + 1), dtype=np.float16)
    for begin in range(0, entropies.size, 1 << 20):
        part = rng.gamma(1.2, 1.06, min(1 << 20, entropies.size - begin)).clip(0, 5.5)
        entropies[begin : begin + part.size] = np.round(part * 256) / 256
    return data, np.arange(num_documents + 1) * DOCUMENT_BYTES, entropies


def peer(rows: torch.Tensor, threshold: float, max_length: int | None) -> list[torch.Tensor]:
    """Patch lengths by transformers, a batch of rows at a time."""
    lengths = []
    for batch in rows.split(ROWS_PER_CALL):
        found = BltPatcher.patch_lengths_from_entropies(batch, sequence_length=batch.shape[1], threshold=threshold)
        lengths.append(process_patch_lengths(found, max_length))
    return lengths


def check(data: bytes, offsets: np.ndarray, entropies: np.ndarray, rows: torch.Tensor, threshold: float) -> None:
    """Stop if the first documents are not cut where transformers cuts them."""
    lengths, patch_offsets = PatchRule(threshold=threshold).lengths_of_documents(data, offsets, entropies)
    for index in range(min(8, len(rows))):
        theirs = peer(rows[index : index + 1], threshold, None)[0][0]
        ours = lengths[patch_offsets[index] : patch_offsets[index + 1]]
        # Theirs has BOS as a patch in front, and counts to the last token, where ours goes on to the end of the document.
        starts = np.cumsum(theirs.numpy())[:-1] - 1
        if not np.array_equal(starts, np.cumsum(ours) - ours):
            sys.exit(f"document {index} is cut in other places than by transformers")


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--megabytes", default=20.0, show_default=True, help="Bytes of the documents, in millions.")
@click.option("--repeats", default=5, show_default=True, help="Timed rounds.")
@click.option("--small", is_flag=True, help="Two megabytes and two rounds: seconds, and no result worth keeping.")
@click.option("--threshold", default=2.0, show_default=True, help="Global threshold, nats.")
@click.option("--max-length", default=8, show_default=True, help="Maximum patch length where there is one.")
def main(megabytes: float, repeats: int, small: bool, threshold: float, max_length: int) -> None:
    """Print a table, and one line of JSON."""
    if small:
        megabytes, repeats = 2.0, 2
    torch.set_num_threads(1)
    data, offsets, entropies = make_documents(megabytes)
    wide = entropies.astype(np.float32)
    rows = torch.from_numpy(wide).view(-1, DOCUMENT_BYTES + 1)
    check(data, offsets, entropies, rows, threshold)

    source, target = np.frombuffer(data, dtype=np.uint8), np.empty(len(data), dtype=np.uint8)
    rules = {
        "global": PatchRule(threshold=threshold),
        "global, max": PatchRule(threshold=threshold, max_length=max_length),
        "global, min and max": PatchRule(threshold=threshold, min_length=2, max_length=max_length),
        "relative": PatchRule(relative_threshold=threshold / 2),
        "global and relative": PatchRule(threshold=threshold / 2, relative_threshold=threshold / 4),
        "space": PatchRule(scheme="space"),
        "space, characters": PatchRule(scheme="space", characters=True),
        "running quantile": PatchRule(scheme="quantile", target_length=4.5),
    }

    def ours(rule: PatchRule, nats: np.ndarray) -> Callable[[], object]:
        return lambda: rule.lengths_of_documents(data, offsets, nats)

    contestants: dict[str, Callable[[], object]] = {name: ours(rule, entropies) for name, rule in rules.items()}
    contestants["global, float32"] = ours(rules["global"], wide)
    contestants["transformers"] = lambda: peer(rows, threshold, None)
    contestants["transformers, max"] = lambda: peer(rows, threshold, max_length)
    contestants["copy of the bytes"] = lambda: np.copyto(target, source)
    seconds = cpu_seconds(contestants, repeats)

    median = {name: statistics.median(values) for name, values in seconds.items()}
    rates = {name: len(data) / 1e6 / value for name, value in median.items()}
    for name, values in seconds.items():
        print(f"{name:22} {rates[name]:9.0f} MB/s   {min(values) * 1e3:9.2f} to {max(values) * 1e3:9.2f} ms")
    lengths = rules["global"].lengths_of_documents(data, offsets, entropies)[0]
    result = {
        "megabytes": len(data) / 1e6,
        "repeats": repeats,
        "mean_patch_length": len(entropies) / len(lengths),
        "megabytes_per_second": {name: round(rate, 1) for name, rate in rates.items()},
        "times_transformers": round(rates["global"] / rates["transformers"], 1),
        "times_transformers_max": round(rates["global, max"] / rates["transformers, max"], 1),
        "space_of_copy": round(rates["space"] / rates["copy of the bytes"], 3),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
