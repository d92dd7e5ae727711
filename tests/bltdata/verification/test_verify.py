import dataclasses
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import bltdata
from bltdata.convert import FromArrowConfig, arrow_to_shards
from bltdata.corpus import open_corpus
from bltdata.engines.share import Share
from bltdata.errors import CheckpointError, ConfigError
from bltdata.patching import PatchRule
from bltdata.repatch import RepatchConfig, repatch_shards
from bltdata.shards import Manifest, ShardDataset, open_shards, round_entropies, schema
from bltdata.shards.footer import Footer, read_footer
from bltdata.verification import DeepCheck, VerificationReport, verify_dataset
from bltdata.verification import verify as module
from bltdata.verification.isolation import Lost
from tests.bltdata.damage import both, change_list, edit_json, edit_manifest, flip, page_position, put, relist, rewrite, write_shard
from tests.bltdata.reference_files import samples, write_file
from tests.bltdata.small import opinionated_model, write_lines

FIRST, SECOND = "part-00000.parquet", "part-00001.parquet"
ROW = 4
DOC_ID, SOURCE, DATA, NATS, LENGTHS = schema.DOC_ID, schema.SOURCE, schema.DATA, schema.ENTROPY_NATS, schema.PATCH_LENGTHS

Plant = Callable[[Path], Any]


@pytest.fixture
def one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Damaged files too are read here: a process for each would take seconds. Those that crash the reader have tests of their own."""

    def here(function: Any, items: Any, workers: int, *, tell: Any) -> Any:
        return ((index, function(item, tell)) for index, item in enumerate(items))

    monkeypatch.setattr(module, "run_isolated", here)


def kinds(report: VerificationReport) -> set[str]:
    return set(report.num_faults)


def in_rows(*changes: Callable[[pa.Table], pa.Table]) -> Plant:
    """Changes rows of the first shard, everything else in order."""
    return lambda folder: rewrite(folder, 0, both(*changes))


def in_footer(**changes: Any) -> Plant:
    return lambda folder: rewrite(folder, 0, describe=lambda footer: dataclasses.replace(footer, **changes))


def in_metadata(**changes: Any) -> Plant:
    def describe(footer: Footer) -> Footer:
        return dataclasses.replace(footer, metadata=footer.metadata | changes)

    return lambda folder: rewrite(folder, 0, describe=describe)


def in_record(**changes: Any) -> Plant:
    def plant(folder: Path) -> None:
        first, *others = Manifest.read(folder).shards
        relist(folder, shards=[dataclasses.replace(first, **changes), *others])

    return plant


def in_file(change: Callable[[bytes], bytes]) -> Plant:
    return lambda folder: (folder / FIRST).write_bytes(change((folder / FIRST).read_bytes()))


def in_manifest(text: str | bytes) -> Plant:
    return lambda folder: (folder / "manifest.json").write_bytes(text if isinstance(text, bytes) else text.encode())


def nats(value: float) -> Plant:
    return in_rows(change_list(NATS, ROW, lambda old: np.append(np.float16(value), old[1:])))


def first_two_joined(lengths: np.ndarray) -> np.ndarray:
    return np.append(lengths[0] + lengths[1], lengths[2:])


def border_moved(lengths: np.ndarray) -> np.ndarray:
    at = int(np.argmax(lengths > 1))
    other = at + 1 if at + 1 < len(lengths) else at - 1
    lengths = lengths.copy()
    lengths[at] -= 1
    lengths[other] += 1
    return lengths


def garbage_footer(data: bytes) -> bytes:
    rng = np.random.default_rng(0)
    size = int.from_bytes(data[-8:-4], "little")
    return data[: -8 - size] + rng.bytes(size) + data[-8:]


def huge_footer(data: bytes) -> bytes:
    return data[:-8] + (2**31 - 1).to_bytes(4, "little") + data[-4:]


def unlist(folder: Path, *, in_order: bool, delete: bool) -> None:
    if in_order:
        relist(folder, shards=Manifest.read(folder).shards[1:])
    else:
        edit_manifest(folder, lambda mapping: mapping["shards"].pop(0))
    if delete:
        (folder / FIRST).unlink()


def cut_short(folder: Path) -> None:
    """Remove the last shard, and the manifest's entry, as if there had never been one."""
    *kept, last = Manifest.read(folder).shards
    relist(folder, shards=kept)
    (folder / last.file).unlink()


def emptied(folder: Path) -> None:
    while Manifest.read(folder).shards:
        cut_short(folder)


def in_plan(change: Callable[[dict[str, Any]], Any]) -> Plant:
    return lambda folder: edit_json(folder / "plan.json", change)


def repeat_row(table: pa.Table) -> pa.Table:
    return pa.concat_tables([table, table.slice(ROW, 1)]).unify_dictionaries().combine_chunks()


def contradictory_counts(folder: Path) -> None:
    rewrite(folder, 0, describe=lambda footer: dataclasses.replace(footer, num_bytes=footer.num_bytes + 1))


def without_a_column(folder: Path) -> None:
    footer, _ = read_footer(folder / FIRST)
    write_shard(folder / FIRST, pq.read_table(folder / FIRST).drop_columns(["nll_nats"]), footer)
    relist(folder, {0: footer})


def one_byte_more(table: pa.Table) -> pa.Table:
    data = table[DATA][ROW].as_py() + b"!"
    return both(put(DATA, ROW, data), put("num_bytes", ROW, len(data)))(table)


def a_folder_instead(folder: Path) -> None:
    (folder / FIRST).unlink()
    (folder / FIRST).mkdir()


FAULTS: dict[str, tuple[Plant, set[str]]] = {
    # ---- the files
    "a flipped bit in a page": (lambda folder: flip(folder / FIRST, page_position(folder / FIRST, NATS)), {"checksum", "page"}),
    "a flipped bit in the description": (in_file(lambda data: data.replace(b'"plan', b'"plaN', 1)), {"checksum", "footer"}),
    "a cut file": (in_file(lambda data: data[: len(data) * 2 // 3]), {"size", "footer"}),
    "a longer file": (in_file(lambda data: data + bytes(100)), {"size", "footer"}),
    "an empty file": (in_file(lambda data: b""), {"size", "footer"}),
    "a footer of garbage": (in_file(garbage_footer), {"checksum", "footer"}),
    "a footer that claims two gigabytes": (in_file(huge_footer), {"checksum", "footer"}),
    "a shard missing": (lambda folder: (folder / FIRST).unlink(), {"missing_shard"}),
    "a folder instead of a shard": (a_folder_instead, {"missing_shard"}),
    "a file too much": (lambda folder: shutil.copy(folder / FIRST, folder / "part-00099.parquet"), {"unlisted_file"}),
    "two shards exchanged": (
        lambda folder: [os.rename(folder / a, folder / b) for a, b in [(FIRST, "x"), (SECOND, FIRST), ("x", SECOND)]],
        {"size", "record", "order"},
    ),
    # ---- the manifest
    "no manifest": (lambda folder: (folder / "manifest.json").unlink(), {"manifest"}),
    "a cut manifest": (lambda folder: os.truncate(folder / "manifest.json", 300), {"manifest"}),
    "a manifest that is no JSON": (in_manifest(b"\xff\xfe{"), {"manifest"}),
    "a manifest that is a list": (in_manifest("[1]"), {"manifest"}),
    "a manifest without end": (in_manifest("[" * 100_000), {"manifest"}),
    "a manifest with infinity": (lambda folder: edit_manifest(folder, lambda m: m["corpus"].update(x=float("inf"))), {"manifest"}),
    "an old manifest": (lambda folder: edit_manifest(folder, lambda m: m.update(format_version=0)), {"manifest"}),
    "a manifest with an unknown key": (lambda folder: edit_manifest(folder, lambda m: m.update(extra=0)), {"manifest"}),
    "an entry removed": (
        lambda folder: unlist(folder, in_order=False, delete=False),
        {"manifest_totals", "manifest_fingerprint", "unlisted_file", "missing_fragment"},
    ),
    "an entry removed in order": (lambda folder: unlist(folder, in_order=True, delete=False), {"unlisted_file", "missing_fragment"}),
    "an entry and its file removed in order": (lambda folder: unlist(folder, in_order=True, delete=True), {"missing_fragment"}),
    "the last entry and its file removed": (cut_short, {"missing_fragment"}),
    "all entries and files removed": (emptied, {"missing_fragment"}),
    "an entry twice": (
        lambda folder: relist(folder, shards=[*Manifest.read(folder).shards, Manifest.read(folder).shards[-1]]),
        {"manifest_entry"},
    ),
    "an entry elsewhere": (in_record(file="../x.parquet"), {"manifest_entry", "unlisted_file", "missing_fragment"}),
    "an entry with a name too long": (in_record(file="x" * 300), {"unreadable", "unlisted_file", "missing_fragment"}),
    "an impossible count": (in_record(num_patches=-1), {"manifest_entry", "record"}),
    "another checksum": (in_record(checksum="0" * 32), {"checksum"}),
    "another size": (in_record(size_bytes=10), {"size"}),
    "a record with too many bytes": (in_record(num_bytes=10**6), {"record"}),
    "a record with too few documents": (in_record(num_documents=1), {"record"}),
    "a record that leaves out others": (in_record(left_out={"too long": 3}), {"record"}),
    "totals changed": (lambda folder: edit_manifest(folder, lambda m: m["totals"].update(num_bytes=1)), {"manifest_totals"}),
    "the fingerprint changed": (lambda folder: edit_manifest(folder, lambda m: m.update(fingerprint="0" * 16)), {"manifest_fingerprint"}),
    "the rule changed": (lambda folder: relist(folder, patch_rule={"scheme": "fixed", "stride": 3}), {"another_dataset", "patches"}),
    "a rule that doesn't exist": (lambda folder: relist(folder, patch_rule={"scheme": "magic"}), {"another_dataset", "manifest_rule"}),
    "the precision changed": (lambda folder: relist(folder, entropy_precision="float16"), {"another_dataset"}),
    "the shards in another order": (lambda folder: relist(folder, shards=Manifest.read(folder).shards[::-1]), {"order"}),
    "another corpus": (lambda folder: relist(folder, corpus={"specs": ["another"], "split": None}), {"plan"}),
    # ---- the plan
    "a cut plan": (lambda folder: os.truncate(folder / "plan.json", 100), {"plan"}),
    "a plan that is a list": (lambda folder: (folder / "plan.json").write_text("[1]"), {"plan"}),
    "a plan without end": (lambda folder: (folder / "plan.json").write_text("[" * 100_000), {"plan"}),
    "a plan with a fragment less": (in_plan(lambda plan: plan["fragments"].pop()), {"plan"}),
    "a plan with a fragment without a number": (in_plan(lambda plan: plan["fragments"][0].update(index="0")), {"plan"}),
    "the plan of another build": (in_plan(lambda plan: plan["patch_rule"].update(threshold=4.5)), {"plan"}),
    "a plan that is a folder": (
        lambda folder: ((folder / "plan.json").unlink(), (folder / "plan.json").mkdir()),
        {"plan"},
    ),
    # ---- what a shard says of itself
    "an old shard": (in_footer(format_version=0), {"footer"}),
    "counts that contradict the rows": (contradictory_counts, {"footer"}),
    "a column missing": (without_a_column, {"footer"}),
    "a shard of another plan": (in_metadata(plan="0" * 16), {"another_dataset"}),
    "a shard of another rule": (in_metadata(patch_rule={"scheme": "fixed", "stride": 3}), {"another_dataset"}),
    "a shard of another model": (in_metadata(entropy_model={"fingerprint": "0" * 16}), {"another_dataset"}),
    "a shard of another corpus": (in_metadata(corpus={"fingerprint": "0" * 16, "split": None}), {"another_dataset"}),
    # ---- the rows
    "a wrong num_bytes": (in_rows(put("num_bytes", ROW, 3)), {"num_bytes"}),
    "one byte more": (in_rows(one_byte_more), {"entropy_count", "patch_sum"}),
    "an entropy too few": (in_rows(change_list(NATS, ROW, lambda old: old[1:])), {"entropy_count"}),
    "an entropy of NaN": (nats(np.nan), {"entropy_range"}),
    "an infinite entropy": (nats(np.inf), {"entropy_range"}),
    "a negative entropy": (nats(-0.5), {"entropy_range"}),
    "an entropy of -0.0": (nats(-0.0), {"entropy_range"}),
    "an entropy above ln 260": (nats(5.57), {"entropy_range"}),
    "an entropy off the grid": (nats(0.001), {"entropy_grid"}),
    "a patch too long": (in_rows(change_list(LENGTHS, ROW, lambda old: np.append(old[0] + 1, old[1:]))), {"patch_sum"}),
    "a patch of length 0": (
        in_rows(
            change_list(LENGTHS, ROW, lambda old: np.append(0, old)), lambda table: put("num_patches", ROW, len(table[LENGTHS][ROW]))(table)
        ),
        {"patch_zero"},
    ),
    "a wrong num_patches": (in_rows(put("num_patches", ROW, 1000)), {"num_patches"}),
    "no patches": (in_rows(put(LENGTHS, ROW, []), put("num_patches", ROW, 0)), {"patch_sum"}),
    "two patches joined": (
        in_rows(change_list(LENGTHS, ROW, first_two_joined), lambda table: put("num_patches", ROW, len(table[LENGTHS][ROW]))(table)),
        {"patches"},
    ),
    "a border moved": (in_rows(change_list(LENGTHS, ROW, border_moved)), {"patches"}),
    "another entropy": (in_rows(change_list(NATS, ROW, lambda old: np.append(old[0], 5.5 - old[1:]))), {"patches"}),
    "a likelihood of NaN": (in_rows(put("nll_nats", ROW, float("nan"))), {"nll"}),
    "an infinite likelihood": (in_rows(put("nll_nats", ROW, float("inf"))), {"nll"}),
    "a negative likelihood": (in_rows(put("nll_nats", ROW, -1e-9)), {"nll"}),
    "a document without a name": (in_rows(put(DOC_ID, ROW, b"")), {"doc_id"}),
    "a name that isn't UTF-8": (in_rows(put(DOC_ID, ROW, b"a\xff")), {"doc_id"}),
    "a document without a source": (in_rows(put(SOURCE, ROW, b"")), {"source"}),
    "a source that isn't UTF-8": (in_rows(put(SOURCE, ROW, b"\xc3")), {"source"}),
    "a name twice": (in_rows(lambda table: put(DOC_ID, ROW, table[DOC_ID][1].as_py().encode())(table)), {"doc_id_twice"}),
    "a row twice": (in_rows(repeat_row), {"doc_id_twice"}),
}


@pytest.mark.usefixtures("one_process")
@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_found_and_no_other(name: str, copy: Callable[..., Path]) -> None:
    plant, expected = FAULTS[name]
    folder = copy()
    plant(folder)
    report = verify_dataset(folder)
    assert kinds(report) == expected
    assert not report.is_good
    for fault in report.faults:
        line = str(fault)
        assert line.startswith(str(folder)), line
        assert line.isprintable(), line
        assert line.endswith(f". [{fault.kind}]"), line
    # The other shards are looked at all the same.
    if "manifest" not in expected:
        assert report.datasets[0].num_documents >= len(open_shards_of(folder)) // 2


def open_shards_of(folder: Path) -> ShardDataset:
    return ShardDataset(folder, Manifest.parse(folder))


def test_there_are_enough_planted_faults() -> None:
    assert len(FAULTS) >= 30


def test_a_fault_says_where(copy: Callable[..., Path]) -> None:
    folder = copy()
    name = next(iter(open_shards(folder).read_row_group(0, 0)[DOC_ID].slice(ROW, 1))).as_py()
    in_rows(change_list(LENGTHS, ROW, border_moved))(folder)
    (fault,) = verify_dataset(folder).faults
    assert (fault.file, fault.row_group, fault.row, fault.doc_id, fault.kind) == (FIRST, 0, ROW, name, "patches")
    assert str(fault).startswith(f"{folder / FIRST}, row group 0, row {ROW}, document {name!r}: its patches are not those that")
    assert "(entropy, threshold 4.4)" in fault.message


@pytest.mark.usefixtures("one_process")
def test_rows_are_counted_over_row_groups(dataset_folder: Callable[..., Path], rows: Callable[..., list[dict[str, Any]]]) -> None:
    made = rows(40)
    folder = dataset_folder(made, rows(3, seed=1))
    groups = open_shards(folder).row_groups
    assert [group.shard for group in groups].count(0) > 3
    assert verify_dataset(folder).is_good
    # A page of the third row group is damaged: what stands in the others is told, rows and all.
    shard = folder / FIRST
    metadata = pq.ParquetFile(shard).metadata
    flip(shard, metadata.row_group(2).column(2).data_page_offset + 60)
    report = verify_dataset(folder)
    assert kinds(report) == {"checksum", "page"}
    page = next(fault for fault in report.faults if fault.kind == "page")
    assert page.row_group == 2
    assert page.message.startswith("data: cannot be read as a shard")
    assert report.datasets[0].num_documents == 43 - groups[2].num_documents
    made[30] = made[30] | {"doc_id": made[2]["doc_id"]}
    folder = dataset_folder(made, name="twice")
    (fault,) = verify_dataset(folder).faults
    assert (fault.kind, fault.row, fault.doc_id) == ("doc_id_twice", 30, made[2]["doc_id"])
    assert fault.row_group == sum(np.cumsum([group.num_documents for group in open_shards(folder).row_groups]) <= 30)
    assert f"{FIRST}, row 2 has the same doc_id" in fault.message


def test_faults_beyond_the_limit_are_counted(copy: Callable[..., Path]) -> None:
    folder = copy()
    for shard in (0, 1):
        rewrite(folder, shard, both(*(put("nll_nats", row, -1.0) for row in range(5))))
    rewrite(folder, 0, put(DOC_ID, 0, b""))
    report = verify_dataset(folder, max_faults=3)
    assert report.num_faults == {"doc_id": 1, "nll": 10}
    assert [fault.kind for fault in report.faults].count("nll") == 3
    assert report.num_not_shown == {"nll": 7}
    assert len(verify_dataset(folder, max_faults=100).faults) == 11
    mapping = json.loads(json.dumps(report.to_mapping()))
    assert (mapping["is_good"], mapping["num_faults"], len(mapping["faults"])) == (False, {"doc_id": 1, "nll": 10}, 4)


# ------------------------------------------------------------------------------------------------------- good datasets


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("float16", {"entropy_precision": "float16"}),
        ("fixed", {"rule": PatchRule(scheme="fixed", stride=3)}),
        ("quantile", {"rule": PatchRule(scheme="quantile", target_length=3.0)}),
        ("one shard", {"fragment_bytes": 10**6}),
        ("lines", {"reset_at_newline": True}),
    ],
)
def test_good_builds_have_no_fault(made: Any, name: str, config: dict[str, Any]) -> None:
    folder = made.build(name, **config)
    report = verify_dataset(folder)
    assert report.faults == ()
    assert report.is_good
    totals = Manifest.read(folder).totals
    (dataset,) = report.datasets
    assert (dataset.num_documents, dataset.num_bytes, dataset.num_shards) == (totals.num_documents, totals.num_bytes, totals.num_shards)


@pytest.mark.parametrize(
    "config",
    [
        {"rule": PatchRule(scheme="space")},
        {"target_patch_length": 3.0, "by_source": True, "rule": PatchRule()},
        {"source_rules": {"left": PatchRule(scheme="fixed", stride=2)}},
    ],
    ids=["one rule", "thresholds by source", "rules by source"],
)
def test_good_repatched_datasets_have_no_fault(made: Any, config: dict[str, Any], request: pytest.FixtureRequest) -> None:
    report = verify_dataset(made.repatch(f"again {request.node.callspec.id}", **config))
    assert report.faults == ()


def test_the_last_shard_of_a_repatched_dataset_is_missed(made: Any, copy: Callable[..., Path]) -> None:
    folder = copy(made.repatch("cut short", rule=PatchRule(scheme="space")))
    last = len(Manifest.read(folder).shards) - 1
    cut_short(folder)
    (fault,) = verify_dataset(folder).faults
    assert str(fault) == (
        f"{folder / 'manifest.json'}: no shard of fragment {last} of the plan is listed; run repatch again. [missing_fragment]"
    )


def test_what_to_do_is_to_run_what_made_it(made: Any, copy: Callable[..., Path]) -> None:
    def damaged(name: str, dataset: Path, forget: tuple[str, ...] = ()) -> Path:
        folder = copy(dataset, name)
        flip(folder / FIRST, page_position(folder / FIRST, NATS))
        os.truncate(folder / SECOND, 100)
        (folder / "part-00002.parquet").unlink()
        edit_manifest(folder, lambda manifest: manifest["totals"].update(num_bytes=1))
        for file in forget:
            (folder / file).unlink()
        return folder

    converted = made.folder / "converted"
    arrow = write_file(made.folder / "wiki.arrow", samples(40))
    arrow_to_shards([arrow], RepatchConfig(rule=PatchRule(threshold=1.5)), FromArrowConfig(fragment_bytes=100), converted)
    cut_again = made.repatch("made again", rule=PatchRule(scheme="space"))
    for command, folder in [
        ("build-shards", damaged("built", made.folder / "grid")),
        ("repatch", damaged("cut again", cut_again)),
        ("convert", damaged("converted", converted)),
        # Of what was converted the manifest tells.
        ("convert", damaged("no plan", converted, ("plan.json",))),
    ]:
        report = verify_dataset(folder)
        assert kinds(report) >= {"checksum", "page", "size", "footer", "missing_shard", "manifest_totals"}
        assert {re.search(r"run \S+ again", fault.message)[0] for fault in report.faults} == {f"run {command} again"}


def test_how_many_shards_could_be_looked_into(copy: Callable[..., Path]) -> None:
    folder = copy()
    number = len(Manifest.read(folder).shards)
    assert verify_dataset(folder).datasets[0].num_readable == number
    (folder / FIRST).unlink()
    os.truncate(folder / SECOND, 100)
    (report,) = verify_dataset(folder).datasets
    assert (report.num_readable, report.num_shards) == (number - 2, number)


def test_a_dataset_is_whole_without_its_plan(made: Any, copy: Callable[..., Path]) -> None:
    folder = copy()
    (folder / "plan.json").unlink()
    assert verify_dataset(folder).is_good
    # And what is cut again then has a plan without fragments.
    repatch_shards(folder, RepatchConfig(rule=PatchRule(scheme="space")), folder.parent / "again")
    assert verify_dataset(folder.parent / "again").is_good


def test_a_source_that_was_cut_by_the_rule_of_another(made: Any, copy: Callable[..., Path]) -> None:
    folder = copy(made.repatch("two rules", source_rules={"left": PatchRule(scheme="fixed", stride=2)}))
    assert verify_dataset(folder).is_good
    rewrite(folder, 0, put(SOURCE, ROW, b"right"))
    (fault,) = verify_dataset(folder).faults
    assert (fault.kind, fault.row) == ("patches", ROW)


def test_empty_documents_and_empty_shards(made: Any, tmp_path: Path) -> None:
    for name, text in {"a": b"", "b": b"long enough to be kept", "c": b"more of it, longer still, and kept"}.items():
        (tmp_path / "docs").mkdir(exist_ok=True)
        (tmp_path / "docs" / name).write_bytes(text)
    folder = made.build("empty documents", open_corpus(f"files:{tmp_path / 'docs'}"), fragment_bytes=1)
    report = verify_dataset(folder)
    assert (report.faults, report.datasets[0].num_documents) == ((), 3)
    folder = made.build("an empty shard", open_corpus(f"files:{tmp_path / 'docs'}#min_bytes=1"), fragment_bytes=1)
    assert min(record.num_documents for record in Manifest.read(folder).shards) == 0
    assert verify_dataset(folder).faults == ()


def test_what_else_is_in_the_folder_is_a_note(copy: Callable[..., Path]) -> None:
    folder = copy()
    (folder / "README.md").write_text("mine")
    (folder / ".part-00000.parquet.77.tmp").write_bytes(b"half")
    report = verify_dataset(folder)
    assert report.is_good
    assert [note.message for note in report.notes] == [
        "2 other entries of the folder are no part of the dataset: .part-00000.parquet.77.tmp, README.md."
    ]


def test_locks_are_not_worth_a_note(copy: Callable[..., Path]) -> None:
    folder = copy()
    with Share(0, 2).writing(folder):
        assert (folder / ".jobs").is_dir()
        assert verify_dataset(folder).notes == ()


# ---------------------------------------------------------------------------------------------------- several datasets


def test_datasets_must_not_share_documents(made: Any, good: Path, tmp_path: Path) -> None:
    shared = [row.data for row in open_shards(good)][::7]
    corpus = open_corpus(f"files:{write_lines(tmp_path / 'other.txt', [*shared, b'its own', b'its own'])}#document=line")
    other = made.build("other", corpus)
    report = verify_dataset(good, other, max_faults=3)
    assert report.num_faults == {"overlap": len(shared)}
    fault = report.faults[0]
    assert (fault.folder, fault.row, fault.doc_id) == (str(other), 0, next(iter(open_shards(other))).doc_id)
    assert f"{good / FIRST}, row 0 has the same bytes" in fault.message
    assert [note.message for note in report.notes] == [f"1 of its {len(shared) + 2} documents have the same bytes as an earlier one."]
    assert verify_dataset(good).is_good
    assert verify_dataset(other).is_good


def test_empty_documents_may_be_shared(dataset_folder: Callable[..., Path], row: Callable[..., dict[str, Any]]) -> None:
    first = dataset_folder([row("a", b""), row("b", b"x")], name="first")
    second = dataset_folder([row("a", b""), row("b", b"y")], name="second")
    report = verify_dataset(first, second)
    assert report.is_good
    assert [str(note) for note in report.notes] == [f"{second}: the empty document is in another dataset too."]


def test_one_dataset_that_cant_be_read_doesnt_stop_the_others(good: Path, tmp_path: Path) -> None:
    report = verify_dataset(tmp_path / "no", good)
    assert kinds(report) == {"manifest"}
    assert report.faults[0].message == "there is no such folder; give the folder that build-shards wrote."
    assert [dataset.num_documents for dataset in report.datasets] == [0, len(open_shards(good))]


# ---------------------------------------------------------------------------------------------- how it runs, and errors


@pytest.mark.slow
def test_workers_make_no_difference(copy: Callable[..., Path]) -> None:
    folder = copy()
    flip(folder / SECOND, page_position(folder / SECOND, DATA))
    in_rows(put("num_patches", ROW, 1))(folder)
    done: list[int] = []
    reporter = module.VerifyReporter(planned=lambda num_bytes: done.append(-num_bytes), done=done.append)
    one = verify_dataset(folder, reporter=reporter)
    assert kinds(one) == {"checksum", "page", "num_patches"}
    assert verify_dataset(folder, workers=2) == one
    lost = open_shards(folder).manifest.shards[1].num_bytes
    assert sum(done) == -lost


def test_a_shard_that_crashes_the_reader_costs_itself(copy: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def crashing(function: Any, items: Any, workers: int, *, tell: Any) -> Any:
        return ((index, Lost("crashes the reader (signal 6)")) for index, _ in enumerate(items))

    monkeypatch.setattr(module, "run_isolated", crashing)
    folder = copy()
    flip(folder / FIRST, page_position(folder / FIRST, DATA))
    report = verify_dataset(folder)
    assert kinds(report) == {"checksum", "reader"}
    assert "reading it crashes the reader (signal 6): it is damaged; delete the file" in report.faults[1].message
    assert report.datasets[0].num_documents > 0


def test_mistakes(good: Path, tmp_path: Path) -> None:
    for folders, options, message in [
        ([], {}, "There is no folder to verify"),
        ([good, good / ".." / good.name], {}, "is given 2 times"),
        ([good], {"workers": 0}, "workers is 0; it must be at least 1"),
        ([good], {"max_faults": 0}, "max_faults is 0; it must be at least 1"),
    ]:
        with pytest.raises(ConfigError, match=message):
            verify_dataset(*folders, **options)
    with pytest.raises(ConfigError, match="to score again is 0; it must be at least 1"):
        DeepCheck(entropy_model=tmp_path, num_documents=0)
    with pytest.raises(CheckpointError, match="holds no model"):
        verify_dataset(good, deep=DeepCheck(entropy_model=tmp_path))


def test_the_public_name(good: Path) -> None:
    assert bltdata.verify_dataset(good).is_good


# ---------------------------------------------------------------------------------------------------------------- deep


@pytest.mark.parametrize("config", [{}, {"entropy_precision": "float16"}, {"precision": "bfloat16"}, {"reset_at_newline": True}], ids=str)
def test_scores_are_the_models(made: Any, config: dict[str, Any], request: pytest.FixtureRequest) -> None:
    folder = made.build(f"deep {request.node.callspec.id}", **config)
    report = verify_dataset(folder, deep=DeepCheck(entropy_model=made.model, num_documents=10))
    assert report.faults == ()
    (deep,) = report.deep
    assert deep.num_documents == 10
    assert deep.num_entropies > 100
    assert deep.largest_difference_nats < (0.5 if "precision" in config else 0.01)
    again = verify_dataset(folder, deep=DeepCheck(entropy_model=made.model, num_documents=10))
    assert again == report


def test_scores_of_another_model_are_told(made: Any, copy: Callable[..., Path], tmp_path: Path) -> None:
    opinionated_model(seed=1, num_layers=1).save(tmp_path / "other")
    folder = copy()
    deep = DeepCheck(entropy_model=tmp_path / "other", num_documents=1000)
    report = verify_dataset(folder, deep=deep)
    assert (kinds(report), report.deep) == ({"entropy_model"}, ())
    # A dataset that claims the other model.
    other = bltdata.EntropyModel.load(tmp_path / "other")
    claimed = Manifest.read(folder).entropy_model | {"fingerprint": other.fingerprint}
    relist(folder, entropy_model=claimed)
    for shard in range(len(Manifest.read(folder).shards)):
        rewrite(folder, shard, describe=lambda footer: dataclasses.replace(footer, metadata=footer.metadata | {"entropy_model": claimed}))
    assert verify_dataset(folder).is_good
    report = verify_dataset(folder, deep=deep)
    rows = list(open_shards(folder))
    scores = list(other.score_with_nll(row.data for row in rows))
    new = [round_entropies(score.entropy_nats, "grid") for score in scores]
    rule = PatchRule(**Manifest.read(folder).patch_rule)
    # A step of the grid and what a score may move by; the likelihood by as much at each position.
    off = [float(np.abs(row.entropy_nats - nats).max()) > 1 / 256 + 1e-4 for row, nats in zip(rows, new, strict=True)]
    less_likely = [abs(row.nll_nats - score.nll_nats) > 1e-4 * (row.num_bytes + 1) for row, score in zip(rows, scores, strict=True)]
    cut_otherwise = [not np.array_equal(rule.lengths(row.data, nats), row.patch_lengths) for row, nats in zip(rows, new, strict=True)]
    assert sum(off) > 5
    assert report.num_faults == {"entropy_rescored": sum(off), "nll_rescored": sum(less_likely)}
    assert (report.deep[0].num_documents, report.deep[0].num_patched_otherwise) == (len(rows), sum(cut_otherwise))
    assert report.deep[0].largest_difference_nats > 0.1


def test_one_entropy_that_isnt_the_models(made: Any, copy: Callable[..., Path]) -> None:
    folder = copy()
    lowered = change_list(NATS, ROW, lambda old: np.append(old[0] - 4 / 256, old[1:]))
    in_rows(lowered, put("nll_nats", ROW + 1, 1.0))(folder)
    assert verify_dataset(folder).is_good
    report = verify_dataset(folder, deep=DeepCheck(entropy_model=made.model, num_documents=1000))
    assert report.num_faults == {"entropy_rescored": 1, "nll_rescored": 1}
    assert [fault.row for fault in report.faults] == [ROW, ROW + 1]
    assert "1 of its" in report.faults[0].message
    assert "the first, at position 0, is" in report.faults[0].message
    assert report.deep[0].num_documents == len(open_shards(folder))


def test_shards_with_faults_are_not_scored_again(made: Any, copy: Callable[..., Path]) -> None:
    folder = copy()
    others = Manifest.read(folder).shards[1:]
    in_rows(put("nll_nats", ROW, -1.0))(folder)
    report = verify_dataset(folder, deep=DeepCheck(entropy_model=made.model, num_documents=1000))
    assert kinds(report) == {"nll"}
    assert report.deep[0].num_documents == sum(record.num_documents for record in others)
