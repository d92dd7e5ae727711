"""Plants faults in datasets: in a shard's columns, its description or its bytes, with manifest and checksums in order again or not."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bltdata.shards import Manifest, schema
from bltdata.shards.columns import list_array
from bltdata.shards.footer import Footer, read_footer
from bltdata.shards.manifest import Totals
from bltdata.shards.record import make_record

Change = Callable[[pa.Table], pa.Table]


def rewrite(
    folder: Path, shard: int = 0, change: Change = lambda table: table, describe: Callable[[Footer], Footer] = lambda footer: footer
) -> None:
    """Change the rows or the description of a shard, and put its counts, its record and the manifest in order again."""
    path = Manifest.parse(folder).shards[shard].file
    footer, _ = read_footer(folder / path)
    table = change(pq.read_table(folder / path))
    lists = {name: table[name].combine_chunks() for name in (schema.ENTROPY_NATS, schema.PATCH_LENGTHS) if name in table.column_names}
    counts = {
        "num_documents": table.num_rows,
        "num_bytes": len(lists[schema.ENTROPY_NATS].flatten()) - table.num_rows,
        # Parquet counts an empty list as a value.
        "num_patches": sum(max(1, len(each)) for each in lists[schema.PATCH_LENGTHS]),
    }
    footer = describe(dataclasses.replace(footer, **counts))
    write_shard(folder / path, table, footer)
    relist(folder, {shard: footer})


def write_shard(path: Path, table: pa.Table, footer: Footer) -> None:
    with pq.ParquetWriter(
        path, table.schema, compression="zstd", use_dictionary=list(schema.DICTIONARY_COLUMNS), write_page_checksum=True
    ) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({schema.METADATA_KEY: footer.encode()})


def relist(folder: Path, footers: dict[int, Footer] | None = None, **settings: Any) -> None:
    """Write the manifest again, with the records of these shards made anew and these settings changed, so that it fits."""
    manifest = Manifest.parse(folder)
    shards = list(settings.pop("shards", manifest.shards))
    for index, footer in (footers or {}).items():
        shards[index] = make_record(folder / shards[index].file, shards[index].file, footer)
    changed = dataclasses.replace(manifest, shards=tuple(shards), totals=Totals.of(shards), **settings)
    dataclasses.replace(changed, fingerprint=changed.expected_fingerprint).write(folder)


def edit_manifest(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change the manifest, and leave its totals and its fingerprint as they are."""
    edit_json(folder / "manifest.json", change)


def edit_json(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change a file of JSON."""
    mapping = json.loads(path.read_text())
    change(mapping)
    path.write_text(json.dumps(mapping))


def put(column: str, row: int, value: Any) -> Change:
    """Another value in one cell; for a list an array, for a text bytes, which need not be UTF-8."""

    def change(table: pa.Table) -> pa.Table:
        kind = schema.SCHEMA.field(column).type
        if pa.types.is_list(kind):
            values = [np.asarray(each.values) for each in table[column].combine_chunks()]
            values[row] = np.asarray(value, dtype=values[row].dtype)
            array = list_array(values, kind)
        elif column in (schema.DOC_ID, schema.SOURCE):
            values = [each.encode() for each in table[column].to_pylist()]
            values[row] = value
            array = pa.array(values, pa.binary()).view(pa.string())
            array = array.dictionary_encode() if column == schema.SOURCE else array
        else:
            values = table[column].to_pylist()
            values[row] = value
            array = pa.array(values, kind)
        return table.set_column(table.schema.get_field_index(column), schema.SCHEMA.field(column), array)

    return change


def change_list(column: str, row: int, change: Callable[[np.ndarray], np.ndarray | list[Any]]) -> Change:
    """Another list in one cell, made of the one that is there."""
    return lambda table: put(column, row, change(np.asarray(table[column][row].values)))(table)


def both(*changes: Change) -> Change:
    def change(table: pa.Table) -> pa.Table:
        for each in changes:
            table = each(table)
        return table

    return change


def page_position(path: Path, column: str) -> int:
    """A position in the middle of a column's data in the first row group of a shard."""
    group = pq.ParquetFile(path).metadata.row_group(0)
    chunk = next(group.column(i) for i in range(group.num_columns) if group.column(i).path_in_schema.split(".")[0] == column)
    return chunk.data_page_offset + chunk.total_compressed_size - 3


def flip(path: Path, position: int, bit: int = 0) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1 << bit
    path.write_bytes(data)
