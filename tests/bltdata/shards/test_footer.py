from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bltdata.errors import ShardError
from bltdata.shards import read_metadata, schema
from bltdata.shards.footer import Footer, read_footer

PATH = Path("part-00000.parquet")
FOOTER = Footer(
    format_version=schema.FORMAT_VERSION,
    tool_version="0.1.0",
    metadata={"patch_rule": {"threshold": 1.25}, "split": None},
    num_documents=2,
    num_bytes=30,
    num_patches=7,
    left_out={"too short": 1},
)


def test_a_footer_is_read_as_written() -> None:
    assert Footer.decode(FOOTER.encode(), PATH) == FOOTER
    assert FOOTER.encode() == FOOTER.encode()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b"1.25", b"1.35", "its description does not match its fingerprint"),
        (b'"num_bytes": 30', b'"num_bytes": 31', "its description does not match its fingerprint"),
        (b'"num_bytes"', b'"num_byte5"', "has an unknown key 'num_byte5'; the nearest is 'num_bytes'"),
        (b'"num_bytes": 30', b'"num_bytes": "x"', "must be of type int"),
        (b"{", b"", "is damaged"),
        (b'"tool_version"', b'"\xff\xfe"', "is damaged"),
        (
            b'"format_version": 1',
            b'"format_version": 2',
            "has format version 2, and this tool reads version 1: use .*version 0.1.0",
        ),
        (b'"format_version": 1', b'"format_version": "1"', "has format version '1', and this tool"),
    ],
)
def test_a_damaged_or_unknown_footer_is_refused(old: bytes, new: bytes, message: str) -> None:
    text = FOOTER.encode()
    assert old in text
    with pytest.raises(ShardError, match=message) as error:
        Footer.decode(text.replace(old, new, 1), PATH)
    assert str(PATH) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_footer_that_is_no_table() -> None:
    with pytest.raises(ShardError, match=r"is damaged .*not a table"):
        Footer.decode(b"[1]", PATH)


def rewrite(path: Path, table: pa.Table, footer: Footer) -> None:
    with pq.ParquetWriter(path, table.schema) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({schema.METADATA_KEY: footer.encode()})


def test_counts_and_columns_are_compared_with_parquets_own(
    dataset_folder: Callable[..., Path], rows: Callable[..., list[dict[str, Any]]]
) -> None:
    path = dataset_folder(rows(9)) / "part-00000.parquet"
    table, (footer, _) = pq.read_table(path), read_footer(path)
    rewrite(path, table, footer)
    assert read_footer(path)[0] == footer
    rewrite(path, table.slice(1), footer)
    with pytest.raises(ShardError, match=r"is damaged \(its counts disagree with its row groups\)"):
        read_footer(path)
    rewrite(path, table.drop_columns(["nll_nats"]), footer)
    with pytest.raises(ShardError, match=r"is damaged \(its columns are not those of a shard\)"):
        read_footer(path)


def test_a_shard_says_what_made_it(dataset_folder: Callable[..., Path], rows: Callable[..., list[dict[str, Any]]]) -> None:
    metadata = read_metadata(dataset_folder(rows(2), rows(3)) / "part-00001.parquet")
    assert metadata["fragment"] == 1
    assert metadata["patch_rule"]["scheme"] == "entropy"
    assert metadata["entropy_model"]["fingerprint"] == "0123456789abcdef"
