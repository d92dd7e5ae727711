import json
from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl
import pytest
from click.testing import CliRunner

from bltdata.build import BuildReporter, Share, build_shards, build_share
from bltdata.cli import main
from bltdata.corpus import open_corpus
from bltdata.errors import BuildError, RemoteError, ShardError
from bltdata.lock import exclusive
from bltdata.patching import PatchRule
from bltdata.remote import AnyPath, RemotePath, as_path
from bltdata.repatch import RepatchConfig, repatch_shards
from bltdata.shards import Manifest, open_shards
from bltdata.shards.schema import LEDGER_FOLDER, MANIFEST_NAME, PLAN_FILE
from bltdata.verification import verify_dataset
from tests.bltdata.builds import CONFIG, contents
from tests.bltdata.conftest import SECRET
from tests.bltdata.small import line_corpus
from tests.bltdata.stores import FailingFileSystem, run_dying

OTHER_RULE = RepatchConfig(rule=PatchRule(scheme="fixed", stride=3))


@pytest.fixture
def build(model_folder: Path, lines: Path) -> Callable[..., Manifest]:
    def build(folder: AnyPath, **options: object) -> Manifest:
        return build_shards(line_corpus(lines), model_folder, CONFIG, folder, **options)

    return build


@pytest.fixture
def remote(s3: str) -> AnyPath:
    return as_path(f"{s3}/some/shards")


@pytest.fixture
def failing() -> Iterator[type[FailingFileSystem]]:
    FailingFileSystem.reset(forget=True)
    yield FailingFileSystem
    FailingFileSystem.reset(forget=True)


def test_a_remote_build_is_a_local_one(build, remote, undisturbed):
    manifest = build(remote)
    assert contents(remote) == undisturbed
    assert open_shards(str(remote)).manifest == manifest
    assert not (remote / LEDGER_FOLDER).exists()
    said: list[str] = []
    build(remote, reporter=BuildReporter(said=said.append))
    assert f"{remote} has {len(manifest.shards)} of {len(manifest.shards)} shards already; 0 to go." in said


@pytest.mark.slow
def test_workers_send_their_shards_themselves(build, remote, undisturbed):
    build(remote, workers=2)
    assert contents(remote) == undisturbed


def test_from_a_bucket_to_a_bucket(s3, remote, undisturbed_folder, lines, model_folder):
    RemotePath(f"{s3}/lines.txt").write_bytes(lines.read_bytes())
    build_shards(open_corpus(f"files:{s3}/lines.txt#document=line&source=lines"), model_folder, CONFIG, remote)
    there, here = open_shards(remote), open_shards(undisturbed_folder)
    rows = [list(dict(row).values())[:3] for row in here]
    assert [list(dict(row).values())[:3] for row in there] == rows
    assert SECRET.encode() not in b"".join(contents(remote).values())


@pytest.mark.parametrize("damage", ["missing shard", "another shard", "missing manifest", "other bytes"])
def test_resume_makes_again_what_is_not_what_was_listed(build, remote, undisturbed, damage):
    manifest = build(remote)
    shard = remote / manifest.shards[1].file
    if damage == "missing shard":
        shard.unlink()
    elif damage == "another shard":
        # It is of this plan, too.
        other = (remote / manifest.shards[0].file).read_bytes()
        assert len(other) != shard.size_bytes()
        shard.write_bytes(other)
    elif damage == "missing manifest":
        (remote / MANIFEST_NAME).unlink()
    else:
        shard.write_bytes(bytes(shard.size_bytes()))
    build(remote)
    assert contents(remote) == undisturbed


def test_every_write_can_fail_and_the_run_goes_on(build, failing, undisturbed):
    """Whatever was sent when the store went away, nothing looks finished, and the next run makes the same bytes."""
    build(as_path("failing://whole"))
    order = [name.rpartition("/")[2] for name in failing.sent]
    assert order[0] == PLAN_FILE
    assert order[-1] == MANIFEST_NAME
    for number in range(1, len(order) + 1):
        folder = as_path(f"failing://broken/{number}")
        failing.reset(fail_at=number)
        with pytest.raises(RemoteError, match=r"the store is gone; key=\*\*\*") as caught:
            build(folder)
        assert "AKIA" not in str(caught.value)
        failing.reset()
        with pytest.raises(ShardError):
            open_shards(folder)
        if order[number - 1] == PLAN_FILE:
            # Half of a plan is no plan, and the one file that a run doesn't replace. Object stores never show half of a file.
            (folder / PLAN_FILE).unlink()
        build(folder)
        assert contents(folder) == undisturbed, order[number - 1]


def test_shards_come_first_then_their_records_then_the_manifest(build, failing):
    manifest = build(as_path("failing://order"))
    names = [name.removeprefix("/order/") for name in failing.sent]
    pairs = [[record.file, f"{LEDGER_FOLDER}/{Path(record.file).stem}.json"] for record in manifest.shards]
    assert names == [PLAN_FILE, *(name for pair in pairs for name in pair), MANIFEST_NAME]


@pytest.mark.slow
def test_a_run_that_dies_in_every_upload_makes_the_same_bytes(undisturbed, lines, model_folder, tmp_path):
    folder = tmp_path / "shards"
    corpus = ["--corpus", f"files:{lines}#document=line&source=lines", "--split", "all"]
    rule = ["--threshold", "4.4", "--fragment-bytes", "400", "--workers", "1", "--device", "cpu"]
    # So that the plan itself is not what it dies of: a disk, unlike an object store, shows half of it.
    arguments = ["build-shards", *corpus, "--entropy-model", model_folder, *rule, "--out", f"dying://{folder}"]
    assert CliRunner().invoke(main, [*map(str, arguments[:-1]), str(folder), "--plan-only"]).exit_code == 0
    ends = run_dying(*arguments)
    assert len(ends) > 4
    assert ends[-1] == "exit 0"
    assert {name: data for name, data in contents(folder).items() if name.endswith((".parquet", MANIFEST_NAME))} == {
        name: data for name, data in undisturbed.items() if name.endswith((".parquet", MANIFEST_NAME))
    }


def test_a_second_writer_is_refused(build, remote):
    with exclusive(remote), pytest.raises(BuildError, match="Another process is writing to s3://"):
        build(remote)


def test_jobs_of_an_array_are_refused(lines, model_folder, remote):
    with pytest.raises(BuildError, match="can't share the remote folder"):
        build_share(line_corpus(lines), model_folder, CONFIG, remote, Share(0, 2))


def test_a_store_that_fails_does_not_look_like_a_dataset_that_is_missing(build, failing, monkeypatch):
    folder = as_path("failing://finished")
    build(folder)
    whole = contents(folder)

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("try later")

    for way in ("_open", "cat_file"):
        monkeypatch.setattr(FailingFileSystem, way, fail)
    for use in (lambda: open_shards(folder), lambda: build(folder)):
        with pytest.raises(RemoteError, match="try later"):
            use()
    monkeypatch.undo()
    assert contents(folder) == whole


# -------------------------------------------------------------------------------------------------------- what reads it


@pytest.fixture
def finished(undisturbed_folder: Path, remote: RemotePath) -> RemotePath:
    """The local build, copied into a bucket."""
    for path in undisturbed_folder.iterdir():
        if not path.name.startswith(".lock"):
            (remote / path.name).write_bytes(path.read_bytes())
    return remote


def test_the_reader_reads_it(finished, undisturbed_folder):
    here, there = open_shards(undisturbed_folder), open_shards(finished)
    assert there.row_groups == here.row_groups
    assert [dict(row)["doc_id"] for row in there] == [dict(row)["doc_id"] for row in here]
    assert there.scan().select(pl.col("num_bytes").sum(), pl.len()).collect().row(0) == (here.manifest.totals.num_bytes, 60)
    there.verify_checksums()


def test_a_missing_dataset_or_shard_is_one_sentence(finished, s3):
    with pytest.raises(ShardError, match=r"There is nothing at s3://.*/none; check the address"):
        open_shards(f"{s3}/none")
    (finished / open_shards(finished).manifest.shards[0].file).unlink()
    with pytest.raises(ShardError, match=r"The shard s3://.* is missing"):
        open_shards(finished)


def test_verify_finds_nothing_and_then_what_is_wrong(finished):
    assert verify_dataset(finished).is_good
    assert not verify_dataset(finished).notes
    first, second = (finished / record.file for record in open_shards(finished).manifest.shards[:2])
    data = bytearray(first.read_bytes())
    data[len(data) // 2] ^= 1
    first.write_bytes(bytes(data))
    second.unlink()
    report = verify_dataset(str(finished))
    assert {"checksum", "missing_shard"} <= set(report.num_faults)
    assert str(report.faults[0]).startswith(f"{finished}/part-0000")


def test_repatch_from_a_bucket_to_a_bucket(finished, undisturbed_folder, s3, tmp_path):
    repatch_shards(undisturbed_folder, OTHER_RULE, tmp_path / "again")
    repatch_shards(finished, OTHER_RULE, as_path(f"{s3}/again"))
    assert contents(as_path(f"{s3}/again")) == contents(tmp_path / "again")
    with pytest.raises(BuildError, match="is the folder of the shards themselves"):
        repatch_shards(finished, OTHER_RULE, finished)


def run(*arguments: object) -> str:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    assert SECRET not in result.output
    return result.stdout


@pytest.mark.slow
def test_the_commands_read_and_write_addresses(s3, lines, model_folder, undisturbed_folder, finished):
    RemotePath(f"{s3}/lines.txt").write_bytes(lines.read_bytes())
    out = f"{s3}/out"
    corpus = ["--corpus", f"files:{s3}/lines.txt#document=line&source=lines", "--split", "all"]
    settings = ["--rule-from", finished, "--fragment-bytes", "400", "--workers", "1", "--device", "cpu"]
    built = json.loads(run("build-shards", *corpus, "--entropy-model", model_folder, *settings, "--out", out, "--json"))
    assert built["folder"] == out
    assert built["num_documents"] == 60
    assert "No faults." in CliRunner().invoke(main, ["verify", out]).stderr
    counted = json.loads(run("entropy-stats", out, "--json"))
    assert counted["datasets"][0]["folder"] == out
    assert json.loads(run("entropy-stats", undisturbed_folder, "--json"))["overall"] == counted["overall"]
    assert json.loads(run("calibrate", "--shards", out, "--target-patch-length", "3", "--json"))["documents"] == 60
    again = json.loads(run("repatch", "--shards", out, "--scheme", "space", "--workers", "1", "--out", f"{s3}/again", "--json"))
    assert open_shards(f"{s3}/again").manifest.fingerprint == again["fingerprint"]


def test_the_commands_that_show_documents_read_addresses(finished, undisturbed_folder, model_folder, tmp_path):
    here, there = (json.loads(run("show", "--shards", folder, "--json")) for folder in (undisturbed_folder, finished))
    assert there == here
    scored = ["show", "--text", "some text", "--entropy-model", model_folder]
    assert json.loads(run(*scored, "--rule-from", finished, "--json"))["patch_rule"]["threshold"] == 4.4
    pages = []
    for name, folder in (("here", undisturbed_folder), ("there", finished)):
        run("explore", "--shards", folder, "--out", tmp_path / name)
        pages.append((tmp_path / name).read_text().replace(str(folder), "FOLDER"))
    assert pages[0] == pages[1]


def test_converting_from_an_address_and_to_one(s3, undisturbed_folder, finished, tmp_path):
    arrow = ["--invalid-utf8", "leave-out", "--dataset-name", "lines", "--workers", "1"]
    for name, folder in (("here", undisturbed_folder), ("there", finished)):
        run("convert", "--shards", folder, *arrow, "--out", tmp_path / name)
    files = [path.relative_to(tmp_path / "here") for path in (tmp_path / "here").rglob("*.arrow")]
    assert len(files) > 3
    assert all((tmp_path / "there" / path).read_bytes() == (tmp_path / "here" / path).read_bytes() for path in files)
    shards = ["--arrow", (tmp_path / "here" / files[0]).parent, "--threshold", "4.4", "--workers", "1"]
    for folder in (tmp_path / "again", f"{s3}/again"):
        run("convert", *shards, "--out", folder)
    assert contents(as_path(f"{s3}/again")) == contents(tmp_path / "again")
    assert verify_dataset(f"{s3}/again").is_good


def test_arrow_files_are_written_here_only(finished, s3):
    result = CliRunner().invoke(main, ["convert", "--shards", str(finished), "--out", f"{s3}/arrow"])
    assert result.exit_code == 1
    assert result.stderr.strip() == (
        f"Error: Arrow files are written to folders of this machine only, and {s3}/arrow is remote; give --out a local path."
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["verify", "s3://me:hush@bucket/a"], "in the environment"),
        (["train-entropy-model", "--out", "s3://bucket/a"], "works with files of this machine only"),
        (["entropy-stats", "runs", "--plots", "s3://bucket/a"], "works with files of this machine only"),
        (["show", "--file", "s3://bucket/a"], "works with files of this machine only"),
        (["explore", "--shards", "runs", "--out", "s3://bucket/a.html"], "works with files of this machine only"),
        (["convert", "--arrow", "s3://bucket/a.arrow", "--out", "runs"], "works with files of this machine only"),
    ],
)
def test_what_cannot_be_remote_is_said_in_a_sentence(arguments, message):
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert "hush" not in result.stderr
