"""A bounded sample of a dataset's documents, and what it costs others to code it: the yardsticks beside the entropy model."""

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from bltdata.compressors import CompressedSizes, bits_per_raw_byte
from bltdata.errors import ConfigError, PatchingError
from bltdata.patching import SourceRules
from bltdata.patching.bpe import load_tokenizer, token_flags, tokenizer_fingerprint
from bltdata.shards import Manifest, ShardDataset, schema
from bltdata.shards.batches import cut_again
from bltdata.shards.columns import bytes_column, list_column
from bltdata.stats.context_model import ContextModel

SAMPLE_BYTES = 2_000_000
"""Raw bytes of a sample: enough for a compressor to show what it can, and coded in seconds."""

COMPRESSOR = "xz"
"""The strongest of those that are everywhere."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sample:
    """What documents from all over a dataset cost."""

    num_documents: int
    num_bytes: int
    """Raw bytes."""
    num_patches: int
    model_bits_per_byte: float | None
    """The entropy model's, from the stored likelihoods; None where one is unknown."""
    order_0_bits_per_byte: float | None
    """A context model's that knows no byte but how often each came so far; ends of documents included, as in the entropy model's."""
    order_2_bits_per_byte: float | None
    """A context model's that knows the last two bytes."""
    compressor_bits_per_byte: float | None
    """xz's, the documents end to end."""
    num_cut_otherwise: int | None
    """Documents whose patches aren't those that the manifest's rule makes of the stored entropies; None where it can't be applied."""
    num_tokens: int | None
    """Tokens of the tokenizer that was asked for, the end of each document being one."""

    @property
    def bytes_per_token(self) -> float | None:
        """Raw bytes for a token of that tokenizer."""
        return self.num_bytes / self.num_tokens if self.num_tokens else None

    def to_mapping(self) -> dict[str, Any]:
        """Plain values."""
        bytes_per_patch = self.num_bytes / self.num_patches if self.num_patches else None
        return dataclasses.asdict(self) | {"bytes_per_patch": bytes_per_patch, "bytes_per_token": self.bytes_per_token}


def take_sample(dataset: ShardDataset, *, max_bytes: int = SAMPLE_BYTES, tokenizer: Path | str | None = None) -> Sample:
    """Read documents from all over a dataset, whole row groups if they fit, and measure what they cost.

    Which documents depends on the dataset and `max_bytes` alone.

    Args:
        dataset: what `open_shards` gives.
        max_bytes: about how many raw bytes to read; a document is never cut, and one is taken however long it is.
        tokenizer: a `tokenizer.json` whose tokens are counted too.

    Raises:
        ShardError: a shard is damaged.
        ConfigError: `max_bytes` is below 1, or the tokenizer can't be read.
        PatchingError: it is no tokenizer, or `tokenizers` isn't installed.
    """
    if max_bytes < 1:
        raise ConfigError(f"The sample has {max_bytes} bytes; it must have at least 1.")
    encoder = None if tokenizer is None else load_tokenizer(str(tokenizer), tokenizer_fingerprint(str(tokenizer)))
    model, sizes, nll_nats = ContextModel(), CompressedSizes([COMPRESSOR]), 0.0
    num_documents = num_bytes = num_patches = num_tokens = 0
    rules = _rules(dataset.manifest)
    num_cut_otherwise: int | None = 0
    for table in _tables(dataset, max_bytes):
        flat, offsets = bytes_column(table[schema.DATA])
        for begin, end in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
            model.add(flat[begin:end])
            sizes.add(flat[begin:end].tobytes())
            if encoder is not None:
                num_tokens += int(token_flags(flat[begin:end].tobytes(), encoder).sum())
        nll_nats += math.fsum(table[schema.NLL_NATS].to_pylist())
        num_documents += table.num_rows
        num_bytes += int(offsets[-1])
        num_patches += int(table[schema.NUM_PATCHES].to_numpy().sum())
        differing = _cut_otherwise(table, rules)
        num_cut_otherwise = None if differing is None or num_cut_otherwise is None else num_cut_otherwise + differing

    def per_byte(bits: float) -> float | None:
        return bits / num_bytes if num_bytes and not math.isnan(bits) else None

    none, _, second = model.bits
    return Sample(
        num_documents=num_documents,
        num_bytes=num_bytes,
        num_patches=num_patches,
        model_bits_per_byte=per_byte(nll_nats / math.log(2)),
        order_0_bits_per_byte=per_byte(none),
        order_2_bits_per_byte=per_byte(second),
        compressor_bits_per_byte=bits_per_raw_byte(sizes.finish(), num_bytes)[COMPRESSOR],
        num_cut_otherwise=num_cut_otherwise,
        num_tokens=None if encoder is None else num_tokens,
    )


def _tables(dataset: ShardDataset, max_bytes: int) -> Iterator[pa.Table]:
    """Row groups at equal distances, and of the last one as many rows as there is room for."""
    groups = [group for group in dataset.row_groups if group.num_documents]
    total = sum(group.num_bytes for group in groups)
    mean = total / max(len(groups), 1)
    wanted = len(groups) if total <= max_bytes else max(min(len(groups), int(max_bytes // max(mean, 1)), len(groups)), 1)
    room = max_bytes
    for index in (np.arange(wanted) * len(groups) // max(wanted, 1)).tolist():
        table = dataset.read_row_group(groups[index].shard, groups[index].row_group)
        ends = np.cumsum(table[schema.NUM_BYTES].to_numpy())
        rows = max(int(np.searchsorted(ends, room, side="right")), 1 if room == max_bytes else 0)
        if rows:
            # Taken, not sliced: flat columns begin at the array's first row.
            yield table.take(pa.array(np.arange(rows))).combine_chunks() if rows < table.num_rows else table
            room -= int(ends[rows - 1])
        if room <= 0:
            return


def _rules(manifest: Manifest) -> SourceRules | None:
    """The manifest's rules if they cut by entropies and can be read; an import doesn't always say what cut its patches."""
    try:
        rules = SourceRules.from_mapping({"patch_rule": manifest.patch_rule, "source_rules": manifest.source_rules})
    except ConfigError:
        return None
    return rules if all(rule.needs_entropies for rule in (rules.default, *rules.by_source.values())) else None


def _cut_otherwise(table: pa.Table, rules: SourceRules | None) -> int | None:
    if rules is None:
        return None
    try:
        again = cut_again(table, rules)
    except PatchingError:
        # Entropies that no rule takes; that they are out of range is a finding of its own.
        return None
    (stored, stored_offsets), (cut, offsets) = (list_column(each[schema.PATCH_LENGTHS]) for each in (table, again))
    pairs = zip(stored_offsets[:-1], stored_offsets[1:], offsets[:-1], offsets[1:], strict=True)
    return sum(not np.array_equal(stored[a:b], cut[c:d]) for a, b, c, d in pairs)
