import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from bltdata.cli import main
from bltdata.patching import PatchRule
from bltdata.shards import Manifest, open_shards
from tests.bltdata.reference_files import find_shards, read_file, samples, write_file


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["convert", "--workers", "1", *map(str, arguments)])


@pytest.fixture
def shards(dataset_folder, row) -> Path:
    return dataset_folder([row("a", b"text"), row("b", b"\xff")], [row("c", b"more text")])


@pytest.fixture
def arrow(tmp_path) -> Path:
    write_file(tmp_path / "arrow" / "wiki.chunk.00.jsonl.shard_00.arrow", samples(20))
    return tmp_path / "arrow"


def test_to_arrow(shards, tmp_path):
    out = tmp_path / "out"
    options = ["--dataset-name", "pages", "--entropy-model-name", "small", "--num-chunks", "2", "--invalid-utf8", "leave-out"]
    result = run("--shards", shards, *options, "--out", out)
    assert (result.exit_code, result.stdout) == (0, "")
    ids = [[name for name, _, _ in read_file(path)] for paths in find_shards(out, out, "pages", "small") for path in paths]
    assert ids == [["a"], ["c"]]
    assert "1 of 3 documents are not valid UTF-8 and are left out; the first is 'b'." in result.stderr
    assert "2 documents, 13 bytes in 2 files; 1 left out." in result.stderr
    assert f"root_dir and preprocess_dir {out}, the source pages, entropy_model_name small" in result.stderr
    again = run("--shards", shards, *options, "--out", out, "--json")
    assert "2 of 2 files already; 0 to go." in again.stderr
    assert json.loads(again.stdout) == {
        "folder": str(out),
        "dataset_name": "pages",
        "entropy_model_name": "small",
        "num_chunks": 2,
        "num_documents": 2,
        "num_bytes": 13,
        "left_out": 1,
        "files": ["pages.chunk.00.jsonl.shard_00.arrow", "pages.chunk.01.jsonl.shard_00.arrow"],
    }


def test_from_arrow(arrow, tmp_path):
    result = run("--arrow", arrow, "--threshold", "1.5", "--max-length", "6", "--source", "mine", "--out", tmp_path / "out")
    assert (result.exit_code, result.stdout) == (0, "")
    rule = PatchRule(threshold=1.5, max_length=6)
    dataset = open_shards(tmp_path / "out")
    assert PatchRule(**dataset.manifest.patch_rule) == rule
    assert [(row.doc_id, row.source, row.data.decode()) for row in dataset] == [(name, "mine", text) for name, text, _ in samples(20)]
    assert f"20 documents, {dataset.manifest.totals.num_bytes} bytes, " in result.stderr
    taken = run("--arrow", arrow, "--rule-from", tmp_path / "out", "--json", "--out", tmp_path / "taken")
    report = json.loads(taken.stdout)
    assert (report["patch_rule"], report["num_documents"]) == (dataset.manifest.patch_rule, 20)


def test_entropies_without_bos(tmp_path):
    rows = [(name, text, entropies[1:-1]) for name, text, entropies in samples(5)]
    path = write_file(tmp_path / "a.arrow", rows)
    result = run("--arrow", path, "--framing", "none", "--threshold", "1.5", "--out", tmp_path / "out")
    assert result.exit_code == 0
    assert "nothing is known of each document's first byte; its entropy is stored as ln 260." in result.stderr


def test_settings_from_a_file(arrow, tmp_path):
    (tmp_path / "convert.toml").write_text('[from_arrow]\nentropy_precision = "grid"\n[rule]\nscheme = "fixed"\nstride = 4\n')
    assert run("--arrow", arrow, "--config", tmp_path / "convert.toml", "--out", tmp_path / "out").exit_code == 0
    manifest = Manifest.read(tmp_path / "out")
    assert (manifest.entropy_precision, manifest.patch_rule["stride"]) == ("grid", 4)


def test_a_mistake_ends_in_one_sentence(shards, arrow, tmp_path):
    (tmp_path / "a.toml").write_text("[rule]\nthreshold = 1.0\n")
    (tmp_path / "b.toml").write_text("[to_arrow]\nnum_chunks = 2\n")
    for arguments, message in [
        ([], "Give either --shards, a folder of shards to convert, or --arrow"),
        (["--shards", shards, "--arrow", arrow], "Give either --shards, a folder of shards to convert, or --arrow"),
        (["--shards", shards], "1 of the 3 documents of"),
        (["--shards", shards, "--framing", "bos", "--threshold", "1"], "With --shards nothing reads framing, threshold; leave it out"),
        (["--shards", shards, "--by", "source", "--rule-from", shards], "With --shards nothing reads by, rule-from; leave it out"),
        (["--shards", shards, "--config", tmp_path / "a.toml"], "With --shards nothing reads threshold; leave it out"),
        (["--arrow", arrow, "--num-chunks", "2"], "With --arrow nothing reads num-chunks; leave it out"),
        (["--arrow", arrow, "--config", tmp_path / "b.toml"], "With --arrow nothing reads num-chunks; leave it out"),
        (["--arrow", arrow], "The rule 'entropy' has no threshold: give --threshold, or --target-patch-length"),
        (["--arrow", tmp_path / "no.arrow", "--threshold", "1"], "Cannot read"),
        (["--arrow", arrow, "--threshold", "1", "--framing", "none"], "--framing bos-eos means so many"),
    ]:
        # What is written for one direction is no place for the other.
        result = run(*arguments, "--out", tmp_path / ("files" if "--shards" in arguments else "shards-of-files"))
        assert (result.exit_code, result.stdout) == (1, ""), message
        assert message in result.stderr
        assert result.stderr.count("\n") == 1


def test_one_is_no_plural(dataset_folder, row, tmp_path):
    shards = dataset_folder([row("a", b"t")])
    there = run("--shards", shards, "--out", tmp_path / "files")
    assert "1 document, 1 byte in 1 file; 0 left out." in there.stderr.splitlines()
    back = run("--arrow", tmp_path / "files", "--scheme", "fixed", "--stride", "9", "--out", tmp_path / "back")
    assert back.stderr.endswith(f"1 document, 1 byte, 1 patch of 2.000 bytes on average in 1 shard in {tmp_path / 'back'}.\n")
