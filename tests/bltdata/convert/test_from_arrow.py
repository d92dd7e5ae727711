import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bltdata.convert import FromArrowConfig, arrow_to_shards
from bltdata.convert.arrow_files import find_files, fragments_of
from bltdata.engines.resume import BuildReporter
from bltdata.errors import BuildError, ConfigError, CorpusError, PatchingError
from bltdata.patching import PatchRule
from bltdata.patching.rule import starts_of_lengths
from bltdata.repatch import RepatchConfig, repatch_shards
from bltdata.shards import Manifest, ShardRecord, open_shards, read_metadata
from bltdata.stats import collect_statistics
from bltdata.stats.report import to_mapping
from bltdata.verification import verify_dataset
from tests.bltdata.damage import put, rewrite
from tests.bltdata.reference_files import SCHEMA, patch_starts, sample, samples, write_file

RULE = PatchRule(threshold=1.5)
CUT = RepatchConfig(rule=RULE)


def make(
    *locations: Path, out: Path, cut: RepatchConfig = CUT, reporter: BuildReporter | None = None, workers: int = 1, **how: Any
) -> Manifest:
    return arrow_to_shards(locations, cut, FromArrowConfig(**how), out, workers=workers, reporter=reporter)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def preprocessed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three files of two datasets, 30 rows each, in record batches of seven."""
    folder = tmp_path_factory.mktemp("preprocessed")
    for seed, name in enumerate(["wiki.chunk.00.jsonl.shard_00", "wiki.chunk.00.jsonl.shard_01", "code.chunk.03.jsonl.shard_00"]):
        write_file(folder / name.split(".")[0] / "model" / f"{name}.arrow", samples(30, seed), batch_rows=7)
    return folder


# -------------------------------------------------------------------------------------------------------- what it makes


def test_rows_by_hand(tmp_path: Path) -> None:
    rows = [("first", "H\u00e9", [0.5, 1.0, 2.0, 3.0, 5.5]), ("second", "", [1.25, 4.0])]
    path = write_file(tmp_path / "things.arrow", rows, marker=False)
    manifest = make(path, out=tmp_path / "out")
    first, second = open_shards(tmp_path / "out")
    assert (first.doc_id, first.source, first.data) == ("first", "things", b"H\xc3\xa9")
    assert first.entropy_nats.tolist() == [0.5, 1.0, 2.0, 3.0]
    assert first.patch_lengths.tolist() == [2, 1, 1]
    assert (second.data, second.entropy_nats.tolist(), second.patch_lengths.tolist()) == (b"", [1.25], [1])
    assert math.isnan(first.nll_nats)
    assert manifest.entropy_model["fingerprint"] is None
    assert manifest.entropy_precision == "float16"
    assert manifest.corpus == {
        "arrow": [{"file": "things.arrow", "size_bytes": path.stat().st_size}],
        "framing": "bos-eos",
        "doc_ids": "sample",
    }
    assert PatchRule(**manifest.patch_rule) == RULE


def test_folders_become_one_dataset(preprocessed: Path, tmp_path: Path) -> None:
    manifest = make(preprocessed, out=tmp_path / "out", fragment_bytes=500)
    rows = list(open_shards(tmp_path / "out"))
    wanted = [*samples(30, 2), *samples(30, 0), *samples(30, 1)]
    assert [(row.doc_id, row.data.decode(), row.entropy_nats.tolist()) for row in rows] == [
        (name, text, entropies[:-1].tolist()) for name, text, entropies in wanted
    ]
    assert [row.source for row in rows] == ["code"] * 30 + ["wiki"] * 60
    assert all(row.patch_lengths.tolist() == RULE.lengths(row.data, row.entropy_nats).tolist() for row in rows)
    assert all(0 < shard.num_bytes <= 500 for shard in manifest.shards)
    # Each says where it is from.
    first_row = 0
    for shard in manifest.shards:
        about = read_metadata(tmp_path / "out" / shard.file)
        first_row = 0 if about["arrow"]["first_row"] == 0 else first_row
        assert (about["arrow"]["first_row"], about["entropy_model"]) == (first_row, manifest.entropy_model)
        first_row += shard.num_documents


@pytest.mark.parametrize("target", [1, 77, 500, 10**6])
def test_fragments_are_all_rows_once(preprocessed: Path, target: int) -> None:
    files = find_files([preprocessed])
    fragments = list(fragments_of(files, target))
    assert [fragment.index for fragment in fragments] == list(range(len(fragments)))
    for file in files:
        rows = [row for part in fragments if part.file == file.name for row in range(part.first_row, part.first_row + part.num_rows)]
        assert rows == list(range(30))
    assert all(fragment.num_bytes <= target or fragment.num_rows == 1 for fragment in fragments)
    assert all((fragment.first_batch, fragment.skip_rows) == divmod(fragment.first_row, 7) for fragment in fragments)


@given(
    text=st.text(st.characters(codec="utf-8"), max_size=20),
    entropies=st.lists(st.floats(0, 5.5, width=16), min_size=100, max_size=100),
    threshold=st.floats(0, 5.5),
)
@settings(max_examples=30)
def test_patches_are_those_of_the_reference(
    tmp_path_factory: pytest.TempPathFactory, text: str, entropies: list[float], threshold: float
) -> None:
    folder = tmp_path_factory.mktemp("property")
    num_tokens = len(text.encode()) + 2
    path = write_file(folder / "a.arrow", [("a", text, entropies[:num_tokens])])
    make(path, out=folder / "out", cut=RepatchConfig(rule=PatchRule(threshold=threshold)))
    (row,) = open_shards(folder / "out")
    # BOS, which is a patch of its own, is in no shard.
    assert (starts_of_lengths(row.patch_lengths) + 1).tolist() == patch_starts(num_tokens, entropies, threshold)[1:]


@pytest.mark.parametrize(
    ("framing", "entropies", "expected"),
    [
        ("bos-eos", [1, 2, 3, 4], [1, 2, 3]),
        ("bos", [1, 2, 3], [1, 2, 3]),
        ("eos", [2, 3, 4], [5.5625, 2, 3]),
        ("none", [2, 3], [5.5625, 2, 3]),
    ],
)
def test_framings(tmp_path: Path, framing: str, entropies: list[float], expected: list[float]) -> None:
    empty = ("empty", "", [1.0] * (len(entropies) - 2))
    make(write_file(tmp_path / "a.arrow", [("a", "xy", entropies), empty]), out=tmp_path / "out", framing=framing)
    row, second = open_shards(tmp_path / "out")
    assert row.entropy_nats.tolist() == expected
    assert second.entropy_nats.tolist() == [1.0 if framing.startswith("bos") else 5.5625]
    assert Manifest.read(tmp_path / "out").corpus["framing"] == framing


@pytest.mark.parametrize("number", [pa.float16(), pa.float32(), pa.float64()], ids=str)
@pytest.mark.parametrize("is_large", [False, True])
def test_other_types_of_the_same_columns(tmp_path: Path, number: pa.DataType, is_large: bool) -> None:
    text, lists = (pa.large_string(), pa.large_list(number)) if is_large else (pa.string(), pa.list_(number))
    kinds = pa.schema([("more", pa.string()), ("sample_id", text), ("text", text), ("entropies", lists)])
    rows = [("unread", *row) for row in samples(5)]
    make(write_file(tmp_path / "a.arrow", rows, schema=kinds, batch_rows=2), out=tmp_path / "out")
    make(write_file(tmp_path / "b" / "a.arrow", samples(5), batch_rows=2), out=tmp_path / "usual")
    assert [dict(row)["data"] for row in open_shards(tmp_path / "out")] == [row.data for row in open_shards(tmp_path / "usual")]
    for row, usual in zip(open_shards(tmp_path / "out"), open_shards(tmp_path / "usual"), strict=True):
        assert (row.doc_id, row.entropy_nats.tolist()) == (usual.doc_id, usual.entropy_nats.tolist())


def test_names_source_and_precision(tmp_path: Path) -> None:
    rows = [("same", "ab", [1.001, 1.001, 1.001, 0]), ("same", "c", [1, 1, 0])]
    path = write_file(tmp_path / "a.arrow", rows)
    make(path, out=tmp_path / "out", doc_ids="row", source="mine", entropy_precision="grid", fragment_bytes=1)
    found = list(open_shards(tmp_path / "out"))
    assert [(row.doc_id, row.source) for row in found] == [("a.arrow:0", "mine"), ("a.arrow:1", "mine")]
    assert found[0].entropy_nats.tolist() == [1.0, 1.0, 1.0]
    assert Manifest.read(tmp_path / "out").entropy_precision == "grid"


@pytest.mark.slow
def test_workers_make_no_difference(preprocessed: Path, tmp_path: Path) -> None:
    make(preprocessed, out=tmp_path / "one", fragment_bytes=1000)
    make(preprocessed, out=tmp_path / "two", fragment_bytes=1000, workers=2)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


# ------------------------------------------------------------------------------------------ what others make of the shards


def test_calibration(preprocessed: Path, tmp_path: Path) -> None:
    said: list[str] = []
    wanted = RepatchConfig(rule=PatchRule(max_length=8), target_patch_length=2.5)
    manifest = make(preprocessed, out=tmp_path / "all", cut=wanted, reporter=BuildReporter(said=said.append))
    assert manifest.totals.mean_patch_length == pytest.approx(2.5, rel=0.02)
    assert said[0].startswith("Calibrated on 90 documents (")
    by_source = make(preprocessed, out=tmp_path / "each", cut=RepatchConfig(rule=PatchRule(), target_patch_length=2.5, by_source=True))
    assert list(by_source.source_rules) == ["code", "wiki"]
    # As if the shards had been made with any rule, and then cut again.
    make(preprocessed, out=tmp_path / "any")
    repatch_shards(tmp_path / "any", wanted, tmp_path / "again")
    assert Manifest.read(tmp_path / "again").patch_rule == manifest.patch_rule
    with pytest.raises(PatchingError, match="nearest mean that can be reached"):
        make(preprocessed, out=tmp_path / "never", cut=RepatchConfig(rule=PatchRule(), target_patch_length=500.0))


def test_statistics_say_that_the_likelihood_is_unknown(preprocessed: Path, tmp_path: Path) -> None:
    make(preprocessed, out=tmp_path / "out")
    found = to_mapping(collect_statistics(open_shards(tmp_path / "out")))
    assert found["overall"]["documents"] == 90
    assert found["overall"]["entropy_model_bits_per_byte"] is None
    assert found["by_source"]["wiki"]["entropy_model_bits_per_byte"] is None
    json.dumps(found, allow_nan=False)


def test_it_is_what_it_says(preprocessed: Path, tmp_path: Path) -> None:
    for name, cut in [("one", CUT), ("each", RepatchConfig(rule=PatchRule(), target_patch_length=2.5, by_source=True))]:
        make(preprocessed, out=tmp_path / name, cut=cut, fragment_bytes=1000)
        report = verify_dataset(tmp_path / name)
        assert (report.faults, report.notes) == ((), ())
    # A likelihood that nobody can have computed.
    rewrite(tmp_path / "one", 0, put("nll_nats", 1, 2.0))
    assert verify_dataset(tmp_path / "one").num_faults == {"nll": 1}


def test_it_can_be_cut_again(preprocessed: Path, tmp_path: Path) -> None:
    make(preprocessed, out=tmp_path / "out")
    again = RepatchConfig(rule=PatchRule(threshold=2.0))
    repatch_shards(tmp_path / "out", again, tmp_path / "again")
    make(preprocessed, out=tmp_path / "anew", cut=again)
    for one, other in zip(open_shards(tmp_path / "again"), open_shards(tmp_path / "anew"), strict=True):
        assert (one.doc_id, one.patch_lengths.tolist(), math.isnan(one.nll_nats)) == (other.doc_id, other.patch_lengths.tolist(), True)


# ----------------------------------------------------------------------------------------------- stopped, damaged, changed


def test_it_goes_on_where_it_stopped(preprocessed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = RepatchConfig(rule=PatchRule(), target_patch_length=2.5)
    make(preprocessed, out=tmp_path / "undisturbed", cut=wanted, fragment_bytes=1000)
    built: list[ShardRecord] = []

    def stop(record: ShardRecord) -> None:
        built.append(record)
        if len(built) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(preprocessed, out=tmp_path / "out", cut=wanted, fragment_bytes=1000, reporter=BuildReporter(built=stop))
    assert not (tmp_path / "out" / "manifest.json").exists()
    monkeypatch.setattr("bltdata.convert.from_arrow.calibrate_sources", lambda *_, **__: pytest.fail("it has been calibrated"))
    make(preprocessed, out=tmp_path / "out", cut=wanted, fragment_bytes=1000, reporter=BuildReporter(built=built.append))
    assert "part-00000.parquet" not in [record.file for record in built[2:]]
    assert contents(tmp_path / "out") == contents(tmp_path / "undisturbed")


def test_a_folder_that_was_begun_otherwise(preprocessed: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    wiki = preprocessed / "wiki"
    make(wiki, out=folder)
    for locations, changes, message in [
        ([preprocessed], {}, "other Arrow files"),
        ([wiki], {"cut": RepatchConfig(rule=PatchRule(threshold=2.0))}, "other settings"),
        ([wiki], {"entropy_precision": "grid"}, "other settings"),
    ]:
        with pytest.raises(BuildError, match=f"was begun with {message}; choose another folder"):
            make(*locations, out=folder, **changes)
    path = write_file(tmp_path / "a.arrow", samples(3))
    make(path, out=tmp_path / "a")
    write_file(path, samples(3, seed=5)[:0] + samples(3))
    with pytest.raises(BuildError, match=re.escape("was begun with other Arrow files (they have changed)")):
        make(path, out=tmp_path / "a")


def test_shards_are_not_mixed_with_the_files(preprocessed: Path) -> None:
    wiki = preprocessed / "wiki"
    before = sorted(wiki.rglob("*"))
    with pytest.raises(BuildError, match=r"wiki holds other things already \(.*\); give a folder that doesn't exist or is empty"):
        make(wiki, out=wiki)
    assert sorted(wiki.rglob("*")) == before


def bad_row(text: str | None, entropies: Any, name: str | None = "x") -> Callable[[Path], Path]:
    nullable = pa.schema([("sample_id", pa.string()), ("text", pa.string()), ("entropies", pa.list_(pa.float16()))])
    return lambda path: write_file(path, [*samples(8), (name, text, entropies)], batch_rows=4, schema=nullable)


def with_bytes(change: Callable[[bytes], bytes]) -> Callable[[Path], Path]:
    def write(path: Path) -> Path:
        write_file(path, samples(8))
        path.write_bytes(change(path.read_bytes()))
        return path

    return write


def stream(path: Path) -> Path:
    with pa.ipc.new_stream(str(path), SCHEMA) as writer:
        writer.write_table(SCHEMA.empty_table())
    return path


def columns(**kinds: pa.DataType) -> Callable[[Path], Path]:
    fields = list(({"sample_id": pa.string(), "text": pa.string(), "entropies": pa.list_(pa.float16())} | kinds).items())
    return lambda path: write_file(path, [], schema=pa.schema([(name, kind) for name, kind in fields if kind is not None]))


ROW = r"a\.arrow, row 8 \('x'\), "
BAD_FILES: dict[str, tuple[Callable[[Path], Path], str]] = {
    "a value too few": (bad_row("ab", [1, 1, 1]), ROW + r"has 3 entropies for 2 bytes, .* there are 4; --framing bos or eos means so many"),
    "bytes alone": (bad_row("ab", [1, 1]), ROW + r"has 2 entropies .*; --framing none means so many"),
    "characters for bytes": (bad_row("\u65e5\u672c", [1] * 4), ROW + r"has 4 entropies for 6 bytes, .* there are 8; make the file anew"),
    "NaN": (
        bad_row("ab", [1, math.nan, 1, 1]),
        ROW + r"can't be converted: the entropy at position 1 is nan nats; it must lie in 0 \.\.\. 5\.5607",
    ),
    "bits for nats": (bad_row("ab", [1, 1, 7.5, 1]), ROW + r"can't be converted: the entropy at position 2 is 7\.5 nats"),
    "negative": (bad_row("ab", [-1, 1, 1, 1]), ROW + r"can't be converted: the entropy at position 0 is -1 nats"),
    "a null for a text": (bad_row(None, [1, 1]), ROW + "has a null where text or entropies should be"),
    "a null for entropies": (bad_row("a", None), ROW + "has a null where text or entropies should be"),
    "a null among entropies": (bad_row("a", [1, None, 1]), ROW + "has a null where text or entropies should be"),
    "no name": (bad_row("a", [1, 1, 1], name=""), r"row 8 \(''\), has no name; choose --doc-ids row"),
    "a null for a name": (bad_row("a", [1, 1, 1], name=None), r"row 8 \(None\), has no name"),
    "a stream": (stream, r"a\.arrow can't be read as an Arrow IPC file \(.*\); if it is a stream, write it as a file"),
    "cut short": (with_bytes(lambda data: data[: len(data) // 2]), r"a\.arrow can't be read as an Arrow IPC file"),
    "empty": (with_bytes(lambda data: b""), r"a\.arrow can't be read as an Arrow IPC file"),
    "no Arrow": (with_bytes(lambda data: b"{}\n" * 50), r"a\.arrow can't be read as an Arrow IPC file"),
    "not UTF-8": (
        with_bytes(lambda data: data.replace("\u00e9".encode(), b"\xe9\xe9")),
        r"a\.arrow can't be read as an Arrow IPC file \(.*UTF",
    ),
    "another column": (columns(text=None), r"must have one column 'text', and its columns are sample_id, entropies"),
    "numbers for texts": (columns(text=pa.int64()), r"The column 'text' of .*a\.arrow has the type int64; it must be string"),
    "whole entropies": (columns(entropies=pa.list_(pa.int8())), r"The column 'entropies' of .* it must be list of float16"),
    "no rows": (columns(), r"The Arrow files hold no documents \(1 file without a row\)"),
    "no file": (lambda path: path, r"Cannot read .*a\.arrow: No such file"),
}


@pytest.mark.parametrize(("write", "message"), BAD_FILES.values(), ids=BAD_FILES)
def test_files_that_are_refused(tmp_path: Path, write: Callable[[Path], Path], message: str) -> None:
    with pytest.raises(CorpusError, match=message) as caught:
        make(write(tmp_path / "a.arrow"), out=tmp_path / "out")
    assert str(caught.value).endswith(".")
    assert str(caught.value).count("\n") == 0
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_a_row_that_is_refused_is_refused_while_calibrating(tmp_path: Path) -> None:
    wanted = RepatchConfig(rule=PatchRule(), target_patch_length=2.0)
    with pytest.raises(CorpusError, match=ROW):
        make(bad_row("ab", [1, 1, 1])(tmp_path / "a.arrow"), out=tmp_path / "out", cut=wanted)
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".lock"]


def test_places_that_are_refused(tmp_path: Path) -> None:
    for folder in ("one", "two", "empty"):
        (tmp_path / folder).mkdir()
    for folder in ("one", "two"):
        write_file(tmp_path / folder / "a.arrow", [sample("a", "b")])
    with pytest.raises(CorpusError, match=r"has no file \*\.arrow; give a folder or files"):
        make(tmp_path / "empty", out=tmp_path / "out")
    with pytest.raises(CorpusError, match=r"Two files are called a\.arrow: .*one/a\.arrow and .*two/a\.arrow; give one folder"):
        make(tmp_path / "one", tmp_path / "two", out=tmp_path / "out")
    (tmp_path / "two" / "a.arrow.complete").unlink()
    with pytest.raises(CorpusError, match=r"two/a\.arrow has no a\.arrow\.complete beside it, so it may be half-written"):
        make(tmp_path, out=tmp_path / "out")
    # Whoever gives the file itself knows.
    assert make(tmp_path / "two" / "a.arrow", out=tmp_path / "out").totals.num_documents == 1


def test_settings_that_make_no_sense() -> None:
    for settings_, message in [({"fragment_bytes": 0}, "fragment_bytes is 0"), ({"source": ""}, "The source is an empty text")]:
        with pytest.raises(ConfigError, match=message):
            FromArrowConfig(**settings_)
