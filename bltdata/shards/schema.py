"""What a shard holds: its columns, its version, its limits. The only place where they are spelled.

One row is one document of `n` bytes. Entry `i` of `entropy_nats`, `i` in `0 ... n`, is the entropy model's uncertainty about
what stands at position `i`, entry `n` about the end of the document; `patch_lengths` sum to `n + 1`.
"""

import pyarrow as pa

FORMAT_VERSION = 1
"""Raised when a reader of the old version would misread the new one."""

METADATA_KEY = b"blt"
"""Key of the file's own description (JSON) in the Parquet footer."""

MANIFEST_NAME = "manifest.json"
PLAN_FILE = "plan.json"
LEDGER_FOLDER = "built"

DOC_ID = "doc_id"
SOURCE = "source"
DATA = "data"
ENTROPY_NATS = "entropy_nats"
PATCH_LENGTHS = "patch_lengths"
NUM_BYTES = "num_bytes"
NUM_PATCHES = "num_patches"
NLL_NATS = "nll_nats"
"""NaN where nobody knows it, which is where the entropy model is unknown: so a sum over such documents isn't a number either."""

SCHEMA = pa.schema(
    [
        pa.field(DOC_ID, pa.string(), nullable=False),
        pa.field(SOURCE, pa.dictionary(pa.int32(), pa.string()), nullable=False),
        pa.field(DATA, pa.binary(), nullable=False),
        pa.field(ENTROPY_NATS, pa.list_(pa.field("element", pa.float16(), nullable=False)), nullable=False),
        pa.field(PATCH_LENGTHS, pa.list_(pa.field("element", pa.uint32(), nullable=False)), nullable=False),
        pa.field(NUM_BYTES, pa.int64(), nullable=False),
        pa.field(NUM_PATCHES, pa.int64(), nullable=False),
        pa.field(NLL_NATS, pa.float64(), nullable=False),
    ]
)
COLUMNS: tuple[str, ...] = tuple(SCHEMA.names)

COMPRESSION = "zstd"
DICTIONARY_COLUMNS = (SOURCE, f"{PATCH_LENGTHS}.list.element")
"""The rest is plain: DuckDB rejects the denser encodings of float16, and every reader opens this one."""
STATISTICS_COLUMNS = (DOC_ID, SOURCE, NUM_BYTES, NUM_PATCHES, NLL_NATS)
"""Columns whose minimum and maximum help a query to skip row groups; those of `data` would copy documents into the footer."""

ROW_GROUP_BYTES = 4 * 1024 * 1024
"""Raw bytes (and ends of documents) in a row group: small enough to read one at random, large enough to compress well."""
ROW_GROUP_ROWS = 65_536
"""Rows at which a row group is full however short they are, so that a corpus of tiny documents needs no more memory than another."""

MAX_DOCUMENT_BYTES = 1_000_000_000
"""A Parquet page ends at 2 GiB and an entropy takes two bytes; a longer document has to be cut."""


def shard_name(index: int) -> str:
    """File name of the shard made from fragment `index` of a plan.

    >>> shard_name(12)
    'part-00012.parquet'
    """
    return f"part-{index:05d}.parquet"
