"""Arrow files as the BLT's reference implementation writes and names them, from what is documented of it; nothing of ours is used."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

Sample = tuple[str | None, Any, Any]
"""`sample_id`, `text`, `entropies`."""

SCHEMA = pa.schema(
    [
        pa.field("sample_id", pa.string(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("entropies", pa.list_(pa.float16()), nullable=False),
    ]
)


def sample(name: str, text: str, seed: int = 0) -> Sample:
    """A row with invented entropies, one for BOS, each byte and EOS."""
    entropies = np.random.default_rng([seed, len(text)]).gamma(1.3, 1.0, len(text.encode()) + 2).clip(0, 5.5)
    return name, text, entropies.astype(np.float16)


def samples(count: int, seed: int = 0) -> list[Sample]:
    rng = np.random.default_rng(seed)
    alphabet = list("aabcde  \n\u00e9\u65e5")
    texts = ["".join(rng.choice(alphabet, int(rng.integers(0, 60)))) for _ in range(count)]
    return [sample(f"id-{seed}-{number}", text, seed + number) for number, text in enumerate(texts)]


def write_file(path: Path, rows: Sequence[Sample], *, batch_rows: int = 1000, schema: pa.Schema = SCHEMA, marker: bool = True) -> Path:
    """An Arrow IPC file, and its marker."""
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = [pa.array([row[index] for row in rows], field.type) for index, field in enumerate(schema)]
    with pa.ipc.new_file(str(path), schema) as writer:
        writer.write_table(pa.Table.from_arrays(columns, schema=schema), max_chunksize=batch_rows)
    if marker:
        path.with_name(f"{path.name}.complete").touch()
    return path


def read_file(path: Path) -> list[Sample]:
    with pa.ipc.open_file(str(path)) as reader:
        assert reader.schema.equals(SCHEMA, check_metadata=True)
        table = reader.read_all()
    return [(row["sample_id"], row["text"], row["entropies"]) for row in table.to_pylist()]


def find_shards(root_dir: Path, preprocess_dir: Path, dataset: str, entropy_model: str) -> list[list[Path]]:
    """The Arrow files of each chunk, as the trainer looks for them."""
    found = []
    for chunk in sorted((root_dir / dataset).glob("*.chunk.*.jsonl")):
        shards = sorted((preprocess_dir / dataset / entropy_model).glob(f"{chunk.name}.shard_*.arrow"))
        assert shards
        assert all(shard.with_name(f"{shard.name}.complete").exists() for shard in shards)
        found.append(shards)
    return found


def patch_starts(num_tokens: int, entropies: Sequence[float], threshold: float) -> list[int]:
    """Where the reference's trainer lets patches of a document's tokens (BOS, bytes, EOS) start, with a global threshold."""
    values = np.array(entropies, dtype=np.float32)
    return sorted({0, 1} | {token + 1 for token in range(1, num_tokens - 1) if values[token] > np.float32(threshold)})
