import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from bltdata.cli import main
from bltdata.entropy import EntropyModel
from tests.bltdata.small import opinionated_model, random_documents, write_lines


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["evaluate-entropy-model", *map(str, arguments)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    opinionated_model().save(folder)
    return folder


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_lines(tmp_path_factory.mktemp("lines") / "lines.txt", random_documents(60, 80, seed=2, num_symbols=90))


def test_json_is_one_object(folder, lines):
    result = run("--entropy-model", folder, "--corpus", f"files:{lines}#document=line", "--split", "all", "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.count("\n") == 1
    report = json.loads(result.stdout)
    assert report["entropy_model"] == {"folder": str(folder), "fingerprint": EntropyModel.load(folder).fingerprint}
    assert report["corpus"]["split"] is None
    overall = report["overall"]
    assert overall == {**report["sources"]["lines"]}
    assert 6 < overall["bits_per_byte"] < 20
    assert set(overall["compressors_bits_per_byte"]) == {"gzip", "bzip2", "xz", "zstd"}
    assert sum(found["count"] for found in overall["reliability"]["bins"]) == overall["bytes"] + overall["documents"]


def test_tables_and_plot(folder, lines, tmp_path):
    plot = tmp_path / "new" / "plot.png"
    corpus = ["--corpus", f"files:{lines}#document=line&source=some [b]lines"]
    result = run("--entropy-model", folder, *corpus, "--split", "train", "--plot", plot)
    assert result.exit_code == 0
    assert plot.read_bytes().startswith(b"\x89PNG")
    overall = json.loads(run("--entropy-model", folder, *corpus, "--split", "train", "--json").stdout)["overall"]
    rows = {line.split("  ")[1].strip(): line for line in result.stdout.splitlines() if line.startswith("  ")}
    for name in ("some [b]lines", "all"):
        low, high = overall["bits_per_byte_interval"]
        for figure in (f"{overall['bytes']:,}", f"{overall['bits_per_byte']:.3f}", f"{low:.3f} to {high:.3f}"):
            assert figure in rows[name]
    for found in overall["reliability"]["bins"]:
        cells = [f"{found['from_nats']:.2f}", f"{found['to_nats']:.2f}", f"{found['count']:,}"]
        assert cells in [line.split()[:3] for line in result.stdout.splitlines()]
    # What is left out is said, as JSON says it.
    left_out = 60 - overall["documents"]
    assert re.fullmatch(rf"{overall['documents']} documents, [\d.]+ k?B(ytes)?, {left_out} left out \(other split\)\.\n", result.stderr)
    gap = overall["reliability"]["gap_nats"]
    assert f"it is {'too sure' if gap > 0 else 'not sure enough'} by {abs(gap):.4f} nats" in result.stdout


def test_validation_is_the_default_and_a_sample_is_smaller(folder, lines):
    spec = f"files:{lines}#document=line"
    reports = [
        json.loads(run("--entropy-model", folder, "--corpus", spec, *more, "--json").stdout)
        for more in ([], ["--split", "validation"], ["--split", "all"], ["--split", "all", "--sample-bytes", "500"])
    ]
    assert reports[0] == reports[1]
    assert reports[0]["overall"]["bytes"] < reports[2]["overall"]["bytes"] / 4
    assert 100 < reports[3]["overall"]["bytes"] < 1200 < reports[2]["overall"]["bytes"]


def test_a_mistake_ends_in_one_sentence(folder, lines, tmp_path):
    spec = ["--corpus", f"files:{lines}#document=line"]
    for arguments, message in [
        (["--entropy-model", tmp_path, *spec], "holds no model"),
        (
            ["--entropy-model", folder, *spec, "--min-bytes", "1000"],
            "has no documents in the split 'validation'; all there is was left out",
        ),
        (["--entropy-model", folder, *spec, "--split", "valid"], "'valid'"),
        (["--entropy-model", folder, *spec, "--device", "gpu"], "The device 'gpu' can't be used here"),
        (["--entropy-model", folder, *spec, "--plot", tmp_path], "is a folder; give a file to write the plot to."),
    ]:
        result = run(*arguments)
        assert (result.exit_code, result.stdout) == (1, ""), message
        assert message in result.stderr
        assert result.stderr.count("\n") == 1
    assert run("--entropy-model", folder, "--sample-bytes", "0").exit_code == 2
