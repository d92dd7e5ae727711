"""Shards: documents with their entropies and patches, as Parquet files that tell the truth.

A dataset is a folder of `part-00000.parquet`, ... and a `manifest.json` that is written last. `ShardWriter` writes one shard,
`Manifest` names the shards of a dataset, `open_shards` reads it. `schema` has the columns.
"""

from bltdata.shards.context import EntropyContext
from bltdata.shards.manifest import Manifest
from bltdata.shards.precision import round_entropies
from bltdata.shards.reader import Row, RowGroup, ShardDataset, open_shards
from bltdata.shards.record import ShardRecord, read_metadata, read_record
from bltdata.shards.writer import ShardWriter

__all__ = [
    "EntropyContext",
    "Manifest",
    "Row",
    "RowGroup",
    "ShardDataset",
    "ShardRecord",
    "ShardWriter",
    "open_shards",
    "read_metadata",
    "read_record",
    "round_entropies",
]
