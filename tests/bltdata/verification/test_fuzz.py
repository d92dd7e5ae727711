"""Mutated files: a clear error or a correct read, and verification that finds every one of them.

Shards are read in another process, as verification does: some footers make Parquet's reader abort, which nobody in Python can catch.
"""

import contextlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bltdata.errors import BltError, ShardError
from bltdata.patching.sources import SourceRules
from bltdata.shards import Manifest, ShardDataset, open_shards, read_record
from bltdata.shards.footer import Footer
from bltdata.verification import verify_dataset
from bltdata.verification.isolation import Lost, Tell, run_isolated
from bltdata.verification.shard import ShardJob, check_shard
from tests.bltdata.conftest import make_rows, write_dataset

NUM_MUTANTS = 300
FOOTER = Footer(
    format_version=1,
    tool_version="0.1.0",
    metadata={"patch_rule": {"threshold": 1.25}, "split": None},
    num_documents=2,
    num_bytes=30,
    num_patches=7,
    left_out={"too short": 1},
)


def mutant(good: bytes, seed: int) -> bytes:
    """The file with bits flipped, bytes changed, a part cut out, doubled or put elsewhere, or the end cut off; half of them at its end."""
    rng = np.random.default_rng(seed)
    footer = 8 + int.from_bytes(good[-8:-4], "little")
    begin = int(rng.integers(len(good) - footer, len(good)) if seed % 2 else rng.integers(0, len(good)))
    end = min(begin + int(rng.integers(1, 40)), len(good))
    part = good[begin:end]
    other = int(rng.integers(0, len(good)))
    match seed // 2 % 6:
        case 0:
            return good[:begin] + bytes([part[0] ^ (1 << int(rng.integers(8)))]) + good[begin + 1 :]
        case 1:
            return good[:begin] + rng.bytes(1) + good[begin + 1 :]
        case 2:
            return good[:begin] + rng.bytes(len(part)) + good[end:]
        case 3:
            return good[:begin] + good[end:]
        case 4:
            return good[:other] + part + good[other:]
        case _:
            return good[:begin]


def read_mutant(item: tuple[Path, int], tell: Tell) -> str:
    """What reading and checking a mutant of the shard in a folder comes to; any exception but ours is raised."""
    folder, seed = item
    good = (folder / "good").read_bytes()
    damaged = mutant(good, seed)
    shard = folder / "part-00000.parquet"
    shard.write_bytes(damaged)
    manifest = Manifest.read(folder)
    rules = SourceRules.from_mapping({"patch_rule": manifest.patch_rule})
    settings = {"rules": rules, "precision": "grid", "is_scored": True, "max_faults": 3, "run_again": "run build-shards again"}
    job = ShardJob(folder=folder, record=manifest.shards[0], **settings)
    found = check_shard(job, tell)
    # Everything but a file that is as it was has a fault, and that is what is wrong with its bits before anything else.
    if bool(found.num_faults) != (damaged != good) or (found.faults and found.faults[0].kind not in ("size", "checksum")):
        return f"verification found {found.num_faults}"
    with contextlib.suppress(BltError):
        read_record(shard)
        # As if the checksum of the whole file didn't matter: those of its pages do.
        rows = list(ShardDataset(folder, manifest))
        expected = make_rows(6, seed=3)
        is_same = len(rows) == len(expected) and all(
            row.data == good_row["data"]
            and np.array_equal(row.entropy_nats, good_row["entropy_nats"])
            and np.array_equal(row.patch_lengths, good_row["patch_lengths"])
            and (row.doc_id, row.source, row.nll_nats) == (good_row["doc_id"], good_row["source"], good_row["nll_nats"])
            for row, good_row in zip(rows, expected, strict=False)
        )
        return "read" if is_same else "nonsense"
    return "error"


@pytest.mark.slow
def test_mutated_shards(tmp_path: Path) -> None:
    write_dataset(tmp_path, [make_rows(6, seed=3)])
    (tmp_path / "part-00000.parquet").rename(tmp_path / "good")
    items = [(tmp_path, seed) for seed in range(NUM_MUTANTS)]
    outcomes = Counter(
        "crash" if isinstance(outcome, Lost) else outcome for _, outcome in run_isolated(read_mutant, items, 1, tell=lambda amount: None)
    )
    assert set(outcomes) <= {"error", "read", "crash"}, outcomes
    assert outcomes["error"] > NUM_MUTANTS * 0.8
    # Of Parquet's reader, on a footer in a hundred or fewer.
    assert outcomes["crash"] < NUM_MUTANTS * 0.05


def test_a_footer_that_makes_the_reader_abort(tmp_path: Path) -> None:
    write_dataset(tmp_path, [make_rows(6, seed=3)], row_group_bytes=10**6)
    shard = tmp_path / "part-00000.parquet"
    data = bytearray(shard.read_bytes())
    # With pyarrow 26 here is the size of a histogram, which is checked where an exception ends the process.
    data[len(data) - 8 - int.from_bytes(data[-8:-4], "little") + 586] ^= 16
    shard.write_bytes(data)
    assert set(verify_dataset(tmp_path).num_faults) in ({"checksum", "reader"}, {"checksum", "footer"})


@pytest.fixture(scope="module")
def manifest_text(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    folder = write_dataset(tmp_path_factory.mktemp("fuzzed"), [make_rows(3), make_rows(3, seed=1)])
    return folder, (folder / "manifest.json").read_bytes()


def replaced(text: bytes, begin: int, length: int, new: bytes) -> bytes:
    begin %= len(text)
    return text[:begin] + new + text[begin + length :]


@given(
    begin=st.integers(0, 10**6),
    length=st.integers(0, 60),
    new=st.binary(max_size=20) | st.sampled_from([b'"', b"-", b"9", b"null", b"1e999"]),
)
def test_mutated_manifests(manifest_text: tuple[Path, bytes], begin: int, length: int, new: bytes) -> None:
    folder, good = manifest_text
    damaged = replaced(good, begin, length, new)
    (folder / "manifest.json").write_bytes(damaged)
    sentence = ""
    try:
        manifest = Manifest.read(folder)
    except ShardError as error:
        sentence = str(error)
    assert "\n" not in sentence
    if sentence:
        return
    with contextlib.suppress(BltError):
        assert len(list(open_shards(folder))) == manifest.totals.num_documents


KEYS = ("format_version", "patch_rule", "source_rules", "shards", "totals", "fingerprint", "corpus", "entropy_model", "entropy_precision")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5) | st.sampled_from(["file", "scheme"]), inner, max_size=3)
    ),
    max_leaves=6,
)


@settings(max_examples=60)
@given(key=st.sampled_from(KEYS), inner=st.sampled_from([None, 0, "file", "num_bytes", "num_documents", "checksum", "scheme"]), value=JSON)
def test_manifests_with_other_values(manifest_text: tuple[Path, bytes], key: str, inner: Any, value: Any) -> None:
    folder, good = manifest_text
    mapping = json.loads(good)
    table = mapping[key][0] if key == "shards" else mapping[key]
    if inner is not None and isinstance(table, dict):
        table[inner] = value
    else:
        mapping[key] = value
    changed = mapping != json.loads(good)
    (folder / "manifest.json").write_text(json.dumps(mapping))
    with contextlib.suppress(ShardError):
        len(open_shards(folder))
    report = verify_dataset(folder)
    # A corpus is described and named nowhere else.
    if changed and key != "corpus":
        assert not report.is_good
    json.dumps(report.to_mapping(), allow_nan=False)


@pytest.mark.parametrize(
    "text", [b"[" * 10**5, b'{"a":' * 10**5, b"[" * 500 + b"]" * 500, b'{"format_version": 1, "x": NaN}', b"1" * 10**5]
)
def test_texts_that_defeat_a_parser(text: bytes, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_bytes(text)
    for read in (lambda: Manifest.read(tmp_path), lambda: Footer.decode(text, tmp_path)):
        with pytest.raises(ShardError):
            read()
    assert set(verify_dataset(tmp_path).num_faults) == {"manifest"}


@given(begin=st.integers(0, 10**6), length=st.integers(0, 40), new=st.binary(max_size=10))
def test_mutated_descriptions(begin: int, length: int, new: bytes) -> None:
    damaged = replaced(FOOTER.encode(), begin, length, new)
    sentence, footer = "", FOOTER
    try:
        footer = Footer.decode(damaged, Path("x.parquet"))
    except ShardError as error:
        sentence = str(error)
    assert "\n" not in sentence
    assert footer == FOOTER
