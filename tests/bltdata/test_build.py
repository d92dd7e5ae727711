import contextlib
import dataclasses
import errno
import gzip
import itertools
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bltdata import build, plan
from bltdata.build import BuildConfig, BuildReporter
from bltdata.config import to_mapping
from bltdata.corpus import open_corpus
from bltdata.errors import BltError, BuildError, ConfigError, CorpusError, PatchingError
from bltdata.lock import exclusive
from bltdata.patching import PatchRule
from bltdata.plan import calibrate_rule
from bltdata.shards import ShardRecord, open_shards, read_metadata
from tests.bltdata.builds import CALIBRATED, CONFIG, DAMAGES, RULE, Stopped, contents, stop_after
from tests.bltdata.small import line_corpus, opinionated_model, random_documents, write_lines


def rows_of(folder: Path) -> list[Any]:
    return list(open_shards(folder))


def sentence_of(error: pytest.ExceptionInfo[BltError]) -> str:
    message = str(error.value)
    assert "\n" not in message
    assert message.endswith(".")
    return message


# ---------------------------------------------------------------------------------------------------- what a build makes


def test_shards_tell_the_truth(run, lines, model_folder, tmp_path):
    manifest = run()
    dataset = open_shards(tmp_path / "shards")
    dataset.verify_checksums()
    model = build.EntropyModel.load(model_folder)
    documents = list(line_corpus(lines))
    assert len(manifest.shards) > 3
    assert manifest.totals.num_documents == len(dataset) == len(documents) == 60
    assert manifest.totals.num_bytes == sum(len(document.data) for document in documents)
    for document, row, alone in zip(documents, dataset, model.score_with_nll(document.data for document in documents), strict=True):
        assert (row.doc_id, row.source, row.data) == (document.doc_id, "lines", document.data)
        assert row.patch_lengths.tolist() == RULE.lengths(row.data, row.entropy_nats).tolist()
        # A grid step is 1/256: rounding may fall to either side.
        assert abs(row.entropy_nats.astype(np.float32) - alone.entropy_nats).max() < 0.6 / 256
        assert row.nll_nats == pytest.approx(alone.nll_nats, rel=1e-5)
    # The rule does something here.
    assert 1.2 < manifest.totals.mean_patch_length < 5


def test_what_the_manifest_and_the_shards_say_of_their_making(run, lines, model_folder, tmp_path):
    manifest = run()
    model = build.EntropyModel.load(model_folder)
    assert manifest.entropy_model == {
        "fingerprint": model.fingerprint,
        "config": dataclasses.asdict(model.config),
        "context": {
            "policy": "each document alone, in one stream, keys and values of the last window carried",
            "window": 8,
            "chunk_tokens": 1024,
            "precision": "float32",
        },
    }
    assert manifest.patch_rule == to_mapping(RULE)
    assert manifest.entropy_precision == "grid"
    assert manifest.corpus == line_corpus(lines).describe()
    for index, path in enumerate(open_shards(tmp_path / "shards").paths):
        metadata = read_metadata(path)
        assert metadata["fragment"] == index
        assert metadata["entropy_model"] == manifest.entropy_model
        assert metadata["patch_rule"] == manifest.patch_rule
    plan = json.loads((tmp_path / "shards" / "plan.json").read_text())
    assert len(plan["fragments"]) == len(manifest.shards)


def test_two_builds_have_the_same_bytes(run, undisturbed, tmp_path):
    run()
    assert contents(tmp_path / "shards") == undisturbed
    assert set(undisturbed) >= {"plan.json", "manifest.json", "part-00000.parquet"}


def test_workers_make_no_difference(run, undisturbed, tmp_path):
    run(workers=2)
    assert contents(tmp_path / "shards") == undisturbed


def test_threads_make_no_difference(run, undisturbed, tmp_path):
    torch.set_num_threads(3)
    run()
    assert contents(tmp_path / "shards") == undisturbed
    assert torch.get_num_threads() == 3


def test_no_workers(run):
    with pytest.raises(ConfigError, match=r"^The number of workers is 0; it must be at least 1\.$"):
        run(workers=0)


def test_who_is_told(run, tmp_path):
    planned: list[float | None] = []
    built: list[ShardRecord] = []
    manifest = run(reporter=BuildReporter(planned=planned.append, built=built.append))
    assert built == list(manifest.shards)
    assert planned == [pytest.approx(manifest.totals.num_bytes, rel=0.1)]


def test_float16_entropies(run, tmp_path):
    run(config=dataclasses.replace(CONFIG, entropy_precision="float16"), folder="exact")
    run(folder="grid")
    exact, grid = (np.concatenate([row.entropy_nats for row in rows_of(tmp_path / name)]) for name in ("exact", "grid"))
    # Between 4 and 5.5 nats a float16 is on the grid anyway, and below it is not.
    assert np.array_equal(exact[exact >= 4], grid[exact >= 4])
    assert not np.array_equal(exact, grid)
    assert abs(exact.astype(np.float32) - grid.astype(np.float32)).max() <= 0.6 / 256


def test_half_precision_is_another_computation(run, tmp_path):
    run(config=dataclasses.replace(CONFIG, precision="bfloat16"), folder="half")
    run(folder="full")
    half, full = (np.concatenate([row.entropy_nats for row in rows_of(tmp_path / name)]).astype(np.float32) for name in ("half", "full"))
    assert 0 < abs(half - full).mean() < 0.02


@pytest.mark.parametrize("rule", [PatchRule(scheme="fixed", stride=3), PatchRule(scheme="byte"), PatchRule(scheme="space")])
def test_rules_without_entropies(run, rule, tmp_path):
    run(config=BuildConfig(rule=rule))
    rows = rows_of(tmp_path / "shards")
    assert [row.patch_lengths.tolist() for row in rows] == [rule.lengths(row.data).tolist() for row in rows]
    # They are stored all the same: another rule may want them.
    assert np.concatenate([row.entropy_nats for row in rows]).std() > 0.1


def test_odd_documents(run, tmp_path):
    odd = {
        "a-empty": b"", "b-one": b"\0", "c-invalid": b"\xff\xfe\x80 caf\xc3", "d-same": b"z" * 9000, "e-lines": b"\n\r\n\n",
        "f-all": bytes(range(256)), "g-empty": b"",
    }  # fmt: skip
    (tmp_path / "odd").mkdir()
    for name, data in odd.items():
        (tmp_path / "odd" / name).write_bytes(data)
    manifest = run(open_corpus(str(tmp_path / "odd")), config=BuildConfig(rule=RULE))
    rows = rows_of(tmp_path / "shards")
    assert {row.doc_id.rpartition("/")[2]: row.data for row in rows} == odd
    assert all(len(row.entropy_nats) == len(row.data) + 1 == row.patch_lengths.sum() for row in rows)
    assert [row.patch_lengths.tolist() for row in rows if row.data == b""] == [[1], [1]]
    # A repeated byte soon looks the same from wherever it is seen.
    same = next(row for row in rows if row.data == odd["d-same"])
    assert len(set(same.entropy_nats[10:].tolist())) == 1
    assert manifest.totals.num_documents == 7


def test_documents_scored_line_by_line(run, model_folder, tmp_path):
    data = b"the first line\nand the second\n\nand what is left"
    (tmp_path / "document.txt").write_bytes(data)
    manifest = run(open_corpus(str(tmp_path / "document.txt")), config=BuildConfig(rule=RULE, reset_at_newline=True))
    assert manifest.entropy_model["context"]["reset_at_newline"] is True
    (row,) = rows_of(tmp_path / "shards")
    model = build.EntropyModel.load(model_folder)
    (by_line,) = model.score([data], reset_at_newline=True)
    (plain,) = model.score([data])
    assert abs(row.entropy_nats.astype(np.float32) - by_line).max() < 0.6 / 256 < abs(by_line - plain).max()
    # A setting that isn't used is told of nowhere, so that what was built before it existed is still the same build.
    assert "reset_at_newline" not in to_mapping(BuildConfig(rule=RULE))
    assert "reset_at_newline" not in build.describe_model(model, BuildConfig(rule=RULE))["context"]


def test_a_document_of_megabytes(run, tmp_path):
    opinionated_model(num_layers=1, num_heads=1, ffn_dim=8, window=32).save(tmp_path / "small")
    data = np.random.default_rng(0).integers(0, 256, 2_100_000, dtype=np.uint8).tobytes()
    (tmp_path / "big").write_bytes(data)
    run(open_corpus(f"files:{tmp_path / 'big'}"), model=tmp_path / "small")
    (row,) = rows_of(tmp_path / "shards")
    assert row.data == data
    assert row.patch_lengths.tolist() == RULE.lengths(data, row.entropy_nats).tolist()


def test_the_fragment_size_changes_the_shards_and_not_the_documents(run, tmp_path):
    run(folder="many")
    run(folder="one", config=dataclasses.replace(CONFIG, fragment_bytes=10**6))
    many, one = rows_of(tmp_path / "many"), rows_of(tmp_path / "one")
    assert len(open_shards(tmp_path / "one").paths) == 1
    for left, right in zip(many, one, strict=True):
        assert (left.doc_id, left.data) == (right.doc_id, right.data)
        assert abs(left.entropy_nats.astype(np.float32) - right.entropy_nats.astype(np.float32)).max() <= 1 / 256


def test_invalid_records_are_left_out_whoever_reads_them(run, tmp_path):
    pages = tmp_path / "pages.jsonl"
    lines = [json.dumps({"text": f"{number} " + "x" * (number % 40)}) for number in range(60)]
    lines[7], lines[30], lines[31] = "{", '{"text": null}', "[]"
    pages.write_text("\n".join(lines))
    corpus = open_corpus(f"{pages}#invalid=leave-out")
    manifest = run(corpus, folder="one")
    assert manifest.totals.left_out == {"no JSON object": 2, "no text": 1}
    assert manifest.totals.num_documents == len(rows_of(tmp_path / "one")) == 57
    assert len(manifest.shards) > 3
    assert manifest.corpus["specs"] == [f"jsonl:{pages}#invalid=leave-out"]
    run(corpus, folder="two", workers=2)
    with pytest.raises(Stopped):
        run(corpus, folder="stopped", reporter=stop_after(2))
    run(corpus, folder="stopped")
    assert contents(tmp_path / "one") == contents(tmp_path / "two") == contents(tmp_path / "stopped")
    # A threshold that is calibrated is so on what is there.
    assert run(corpus, config=CALIBRATED, folder="calibrated").totals.left_out == manifest.totals.left_out
    with pytest.raises(CorpusError, match=r"pages\.jsonl, line 8, is not valid JSON"):
        run(open_corpus(str(pages)), folder="stops")


def test_what_is_left_out_is_counted(run, lines):
    manifest = run(line_corpus(lines, min_bytes=10, max_bytes=50))
    lengths = [len(document.data) for document in line_corpus(lines)]
    assert manifest.totals.left_out == {"too long": sum(n > 50 for n in lengths), "too short": sum(n < 10 for n in lengths)}
    assert manifest.totals.num_documents == sum(10 <= n <= 50 for n in lengths)


# ------------------------------------------------------------------------------------------------------------ calibration


def test_calibration_reaches_its_target(run, tmp_path):
    said: list[str] = []
    manifest = run(config=CALIBRATED, reporter=BuildReporter(said=said.append))
    # The sample is the whole corpus here.
    assert manifest.totals.mean_patch_length == pytest.approx(2.5, abs=0.1)
    threshold = manifest.patch_rule["threshold"]
    assert said[0].startswith("Calibrated on 60 documents (")
    assert f"): threshold {threshold:.4f} nats gives patches of " in said[0]
    for row in rows_of(tmp_path / "shards"):
        assert row.patch_lengths.tolist() == PatchRule(threshold=threshold).lengths(row.data, row.entropy_nats).tolist()


def test_a_resumed_build_keeps_its_calibration(run, tmp_path, monkeypatch):
    run(config=CALIBRATED)
    before = contents(tmp_path / "shards")
    (tmp_path / "shards" / "part-00001.parquet").unlink()
    monkeypatch.setattr(plan, "calibrate_rule", lambda *_: pytest.fail("it has been calibrated"))
    run(config=CALIBRATED)
    assert contents(tmp_path / "shards") == before


def test_calibration_does_not_depend_on_threads(run, tmp_path):
    run(config=CALIBRATED, folder="one")
    torch.set_num_threads(3)
    run(config=CALIBRATED, folder="three")
    assert contents(tmp_path / "one") == contents(tmp_path / "three")


def test_calibration_on_large_documents(run, lines):
    # One document is more than was asked for; it is taken all the same.
    manifest = run(config=dataclasses.replace(CALIBRATED, calibration_bytes=1))
    assert 1.5 < manifest.totals.mean_patch_length < 4


def test_calibrating_keeps_the_other_settings(model_folder):
    model = build.EntropyModel.load(model_folder)
    rule = PatchRule(relative_threshold=0.5, min_length=2)
    found = calibrate_rule(model, random_documents(20, 60), BuildConfig(rule=rule, target_patch_length=3.5))
    assert found.field == "relative_threshold"
    assert dataclasses.replace(found.rule, relative_threshold=0.5) == rule
    assert found.mean_patch_length == pytest.approx(3.5, abs=0.1)


def test_a_target_out_of_reach(run, tmp_path):
    with pytest.raises(PatchingError, match="No threshold makes patches of 500 bytes"):
        run(config=dataclasses.replace(CALIBRATED, target_patch_length=500.0))
    assert not list((tmp_path / "shards").glob("*.parquet"))
    assert not (tmp_path / "shards" / "plan.json").exists()


AT_LEAST_ONE = "; it must be a number of bytes, at least 1."


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rule": PatchRule()}, "The rule 'entropy' has no threshold: give --threshold, or --target-patch-length to calibrate one."),
        (
            {"rule": PatchRule(scheme="space"), "target_patch_length": 4.5},
            "The rule 'space' has no threshold to calibrate; leave --target-patch-length out.",
        ),
        (
            {"rule": PatchRule(threshold=1.5), "target_patch_length": 4.5},
            "Both a threshold (1.5) and a target patch length (4.5) are given; leave one of them out.",
        ),
        ({"rule": PatchRule(), "target_patch_length": 0.9}, "target_patch_length is 0.9" + AT_LEAST_ONE),
        (
            {"rule": PatchRule(), "target_patch_length": float("nan")},
            "target_patch_length is nan; it must be a number of bytes, at least 1.",
        ),
        (
            {"rule": PatchRule(), "target_patch_length": float("inf")},
            "target_patch_length is inf; it must be a number of bytes, at least 1.",
        ),
        ({"rule": RULE, "fragment_bytes": 0}, "fragment_bytes is 0; it must be at least 1."),
        ({"rule": RULE, "calibration_bytes": -1}, "calibration_bytes is -1; it must be at least 1."),
    ],
)
def test_settings_that_make_no_sense(settings, message):
    with pytest.raises(ConfigError) as caught:
        BuildConfig(**settings)
    assert str(caught.value) == message


def test_both_thresholds_and_a_target():
    # Then the target is for the global one, and the relative one stays.
    config = BuildConfig(rule=PatchRule(threshold=1.0, relative_threshold=0.1), target_patch_length=4.0)
    found = calibrate_rule(opinionated_model(), random_documents(20, 60), config)
    assert (found.field, found.rule.relative_threshold) == ("threshold", 0.1)


# ----------------------------------------------------------------------------------------------- stopped, damaged, changed


def test_a_build_goes_on_where_it_stopped(run, undisturbed, tmp_path):
    with pytest.raises(Stopped):
        run(reporter=stop_after(2))
    assert not (tmp_path / "shards" / "manifest.json").exists()
    there = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "shards").glob("*.parquet")}
    assert len(there) == 2
    said: list[str] = []
    built: list[ShardRecord] = []
    manifest = run(reporter=BuildReporter(said=said.append, built=built.append))
    assert said == [
        f"{tmp_path / 'shards'} has {len(there)} of {len(manifest.shards)} shards already; {len(manifest.shards) - len(there)} to go."
    ]
    assert {record.file for record in built}.isdisjoint(there)
    assert {name: (tmp_path / "shards" / name).stat().st_mtime_ns for name in there} == there
    assert contents(tmp_path / "shards") == undisturbed


def test_a_finished_build_is_not_done_again(run, undisturbed, tmp_path):
    first = run()
    built: list[ShardRecord] = []
    assert run(reporter=BuildReporter(built=built.append)) == first
    assert built == []
    assert contents(tmp_path / "shards") == undisturbed


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_shard_is_built_again(run, finished, undisturbed, damage):
    DAMAGES[damage](finished / "part-00002.parquet")
    assert contents(finished).get("part-00002.parquet") != undisturbed["part-00002.parquet"]
    built: list[ShardRecord] = []
    run(reporter=BuildReporter(built=built.append))
    assert [record.file for record in built] == ["part-00002.parquet"]
    assert contents(finished) == undisturbed


@pytest.mark.parametrize("damage", ["a bit of a page's header", "a bit of a page"])
def test_a_shard_that_is_damaged_before_the_build_is_finished(run, undisturbed, tmp_path, damage):
    with pytest.raises(Stopped):
        run(reporter=stop_after(4))
    DAMAGES[damage](tmp_path / "shards" / "part-00002.parquet")
    built: list[ShardRecord] = []
    run(reporter=BuildReporter(built=built.append))
    assert "part-00002.parquet" in [record.file for record in built]
    assert contents(tmp_path / "shards") == undisturbed


@pytest.mark.parametrize("damage", [b"", b"{half", b"\xff\n", b"[1]\n", b"{}\n"])
def test_a_record_of_a_shard_that_is_damaged(run, undisturbed, tmp_path, damage):
    folder = tmp_path / "shards"
    with pytest.raises(Stopped):
        run(reporter=stop_after(4))
    records = sorted((folder / "built").iterdir())
    assert len(records) == 4
    records[1].write_bytes(damage)
    built: list[ShardRecord] = []
    run(reporter=BuildReporter(built=built.append))
    # Three were listed.
    assert len(built) == len(open_shards(folder).paths) - 3
    assert contents(folder) == undisturbed


def test_what_is_repaired_does_not_look_finished_meanwhile(run, finished, undisturbed, tmp_path):
    (tmp_path / "shards" / "part-00002.parquet").unlink()
    (tmp_path / "shards" / "part-00003.parquet").unlink()
    with pytest.raises(Stopped):
        run(reporter=stop_after(1))
    assert not (tmp_path / "shards" / "manifest.json").exists()
    built: list[ShardRecord] = []
    run(reporter=BuildReporter(built=built.append))
    assert [record.file for record in built] == ["part-00003.parquet"]
    assert contents(tmp_path / "shards") == undisturbed


def test_a_shard_of_another_build_is_built_again(run, finished, undisturbed, tmp_path):
    run(folder="other", config=dataclasses.replace(CONFIG, rule=PatchRule(threshold=1.0)))
    other = (tmp_path / "other" / "part-00001.parquet").read_bytes()
    (tmp_path / "shards" / "part-00001.parquet").write_bytes(other)
    run()
    assert contents(tmp_path / "shards") == undisturbed


def test_a_plan_that_was_changed_by_hand_is_what_is_built(run, finished, tmp_path):
    path = tmp_path / "shards" / "plan.json"
    plan = json.loads(path.read_text())
    plan["patch_rule"]["threshold"] = 4.0
    path.write_text(json.dumps(plan))
    assert run().patch_rule["threshold"] == 4.0
    for row in rows_of(tmp_path / "shards"):
        assert row.patch_lengths.tolist() == PatchRule(threshold=4.0).lengths(row.data, row.entropy_nats).tolist()


def test_leftovers_of_a_killed_writer_are_removed(run, undisturbed, tmp_path):
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / ".part-00001.parquet.77.tmp").write_bytes(b"half")
    run()
    assert contents(tmp_path / "shards") == undisturbed


def test_another_model(run, finished, tmp_path):
    opinionated_model(seed=5, num_layers=1).save(tmp_path / "other")
    with pytest.raises(BuildError) as caught:
        run(model=tmp_path / "other")
    assert sentence_of(caught) == (
        f"{tmp_path / 'shards'} was begun with another entropy model; choose another folder, or delete this one to build it anew."
    )


def test_a_model_that_is_replaced_meanwhile(run, tmp_path):
    opinionated_model(num_layers=1).save(tmp_path / "model")

    def replace(num_bytes: float | None) -> None:
        opinionated_model(seed=5, num_layers=1).save(tmp_path / "model")

    build._load_model.cache_clear()
    with pytest.raises(BuildError, match="was replaced while shards were built with it; run the same command again"):
        run(model=tmp_path / "model", reporter=BuildReporter(planned=replace))
    assert not list((tmp_path / "shards").glob("*.parquet"))


def test_another_corpus(run, finished, lines, tmp_path):
    with pytest.raises(BuildError, match="was begun with another corpus; choose another folder"):
        run(line_corpus(lines, min_bytes=3))


def test_a_corpus_that_changed(run, tmp_path):
    own = write_lines(tmp_path / "own.txt", random_documents(40, 60, seed=3))
    run(line_corpus(own))
    data = own.read_bytes()
    own.write_bytes(data[:-2] + b"x\n")
    with pytest.raises(BuildError, match=r"was begun with another corpus \(its files have changed\); choose another folder"):
        run(line_corpus(own))


@pytest.mark.parametrize(
    "changes", [{"rule": PatchRule(threshold=1.0)}, {"fragment_bytes": 500}, {"entropy_precision": "float16"}, {"precision": "bfloat16"}]
)
def test_other_settings(run, finished, changes):
    with pytest.raises(BuildError, match=r"was begun with (other settings|another entropy model); choose another folder"):
        run(config=dataclasses.replace(CONFIG, **changes))


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", '{"identity": {}}', '{"identity": {}, "patch_rule": {"treshold": 1}}', '{"identity": {}, "patch_rule": 3}',
     '{"identity": [1], "patch_rule": {"threshold": 1}}', '{"identity": {}, "patch_rule": {"threshold": -1}}', "\ud800"],
)  # fmt: skip
def test_a_damaged_plan(run, finished, tmp_path, text):
    (tmp_path / "shards" / "plan.json").write_bytes(text.encode(errors="surrogatepass"))
    with pytest.raises(BuildError) as caught:
        run()
    assert sentence_of(caught) == (
        f"{tmp_path / 'shards' / 'plan.json'} is damaged; choose another folder, or delete this one to build again."
    )


@pytest.mark.parametrize("left", ["manifest.json", "part-00000.parquet"])
def test_shards_without_a_plan(run, finished, tmp_path, left):
    for path in (tmp_path / "shards").iterdir():
        if path.name != left:
            path.unlink()
    with pytest.raises(BuildError, match=r"holds shards but no plan\.json, so nobody can tell what made them; choose another folder\.$"):
        run()


def test_folders_that_are_no_place_for_shards(run, lines, model_folder, tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.txt").write_bytes(b"a document")
    opinionated_model(num_layers=1).save(tmp_path / "model")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(BuildError, match=r"model holds other things already \(config\.json, model\.safetensors\)"):
        run(folder="model")
    with pytest.raises(BuildError, match=r"docs holds other things already \(a\.txt\)"):
        run(open_corpus(str(tmp_path / "docs")), folder="docs")
    for make in (build.build_shards, build.plan_shards):
        with pytest.raises(CorpusError, match=r"docs/shards lies where the corpus files:.*docs is read, which would take manifest\.json"):
            make(open_corpus(str(tmp_path / "docs")), model_folder, CONFIG, tmp_path / "docs" / "shards")
    # Not even a lock is left there.
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_second_build_of_the_same_folder(run, tmp_path):
    with exclusive(tmp_path / "shards"), pytest.raises(BuildError, match="Another process is writing to"):
        run()
    assert not list((tmp_path / "shards").glob("*.*[!k]"))


@pytest.mark.parametrize("config", [CONFIG, CALIBRATED], ids=["threshold", "calibrated"])
def test_an_empty_corpus_leaves_no_shards(run, tmp_path, lines, config):
    with pytest.raises(CorpusError, match=r"has no documents; all there is was left out: 60 \(too short\)\.$"):
        run(line_corpus(lines, min_bytes=1000), config=config)
    assert [path.name for path in (tmp_path / "shards").iterdir()] == [".lock"]


def test_a_document_that_cannot_be_read_publishes_nothing(run, tmp_path, model_folder):
    bad = tmp_path / "bad.jsonl"
    bad.write_text("".join(json.dumps({"text": "a" * n}) + "\n" for n in range(40)) + "{half")
    with pytest.raises(CorpusError, match="line 41"):
        run(open_corpus(str(bad)))
    assert not (tmp_path / "shards" / "manifest.json").exists()


def test_a_model_that_gives_nonsense(run, tmp_path):
    model = opinionated_model(num_layers=1)
    torch.nn.init.constant_(model.norm.weight, float("nan"))
    model.save(tmp_path / "nan")
    with pytest.raises(BltError, match="What the entropy model predicts are no numbers; it is damaged"):
        run(model=tmp_path / "nan")
    assert not list((tmp_path / "shards").glob("*.parquet"))


def test_a_source_that_cannot_be_read_to_its_end(run, lines, tmp_path):
    good, bad = tmp_path / "pages" / "a.jsonl.gz", tmp_path / "pages" / "b.jsonl.gz"
    good.parent.mkdir()
    text = "".join(json.dumps({"text": f"{number} {line}"}) + "\n" for number, line in enumerate(lines.read_text("latin-1").split("\n")))
    whole = gzip.compress(text.encode(), mtime=0)
    good.write_bytes(whole)
    bad.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CorpusError, match=r"b\.jsonl\.gz can't be read: .*; it may be damaged or cut off\.$") as caught:
        run(open_corpus(f"jsonl:{good.parent}"))
    sentence_of(caught)
    folder = tmp_path / "shards"
    # What was made before stands, and is listed.
    assert [path.name for path in folder.glob("*.parquet")] == ["part-00000.parquet"]
    assert [path.name for path in (folder / "built").iterdir()] == ["part-00000.json"]
    assert not (folder / "manifest.json").exists()


def test_a_full_disk(run, undisturbed, tmp_path, monkeypatch):
    fsync, calls = os.fsync, itertools.count()

    def full(descriptor: int) -> None:
        if next(calls) == fails_at:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    # Wherever the plan, a shard, a record or the manifest is flushed; each run goes on where the one before failed.
    for fails_at in range(40):  # noqa: B007
        calls = itertools.count()
        with contextlib.suppress(OSError):
            run()
            break
        assert not list((tmp_path / "shards").rglob("*.tmp"))
    else:
        pytest.fail("it never came to an end")
    assert fails_at > 5
    assert contents(tmp_path / "shards") == undisturbed


def test_a_folder_that_a_worker_cannot_see(run, tmp_path):
    def hide(num_bytes: float | None) -> None:
        (tmp_path / "shards").rename(tmp_path / "elsewhere")

    with pytest.raises(
        BuildError, match=r"^A worker can't see .*plan\.json; --out must be a folder that every machine of the run shares\.$"
    ):
        run(reporter=BuildReporter(planned=hide))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there(run):
    with pytest.raises(ConfigError, match="The device 'cuda' can't be used here"):
        run(config=dataclasses.replace(CONFIG, device="cuda"))


def test_the_device_is_a_setting_of_the_shards(model_folder):
    model = build.EntropyModel.load(model_folder)
    on_gpu = dataclasses.replace(CONFIG, device="cuda")
    assert build.describe_model(model, on_gpu)["context"]["device"] == "cuda"
    assert "device" not in build.describe_model(model, CONFIG)["context"]
    assert "device" not in to_mapping(CONFIG)
