import json
import math
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from click.testing import CliRunner, Result

from bltdata.cli import main
from bltdata.entropy import EntropyModel, scores
from bltdata.entropy.scores import METADATA_KEY
from tests.bltdata.small import opinionated_model, random_documents, write_lines

COLUMNS = ["doc_id", "source", "num_bytes", "nll_nats", "bits_per_byte", "entropy_nats"]


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "model"
    opinionated_model().save(folder)
    return folder


@pytest.fixture
def corpus(tmp_path: Path) -> str:
    lines = write_lines(tmp_path / "lines.txt", [data.hex().encode() for data in random_documents(40, 30)])
    return f"files:{lines}#document=line&source=lines"


def run(model_folder: Path, *arguments: str | Path, given: bytes | None = None) -> Result:
    options = ["score", "--entropy-model", model_folder, "--device", "cpu", *arguments]
    return CliRunner().invoke(main, list(map(str, options)), input=given)


def lines_of(model_folder: Path, *arguments: str | Path, given: bytes | None = None) -> list[dict[str, Any]]:
    result = run(model_folder, *arguments, given=given)
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def check(line: dict[str, Any], data: bytes, **options: Any) -> None:
    """What a line must say of a document."""
    (expected,) = opinionated_model().score_with_nll([data], **options)
    assert list(line) == COLUMNS
    assert line["num_bytes"] == len(data)
    # Neighbours in the stream change the last digits.
    np.testing.assert_allclose(line["entropy_nats"], expected.entropy_nats, rtol=0, atol=1e-5)
    assert line["nll_nats"] == pytest.approx(expected.nll_nats, abs=1e-3)
    assert line["bits_per_byte"] == (pytest.approx(expected.nll_nats / math.log(2) / len(data), abs=1e-4) if data else None)


def test_a_text(model_folder: Path) -> None:
    result = run(model_folder, "--text", "d\u00e9j\u00e0 vu")
    (line,) = result.stdout.splitlines()
    check(json.loads(line), "d\u00e9j\u00e0 vu".encode())
    assert (json.loads(line)["doc_id"], json.loads(line)["source"]) == ("text", "text")
    rate = json.loads(line)["bits_per_byte"]
    assert result.stderr == f"1 document, 9 bytes, {rate:.3f} bits per byte.\n"


def test_an_empty_text(model_folder: Path) -> None:
    (line,) = lines_of(model_folder, "--text", "")
    check(line, b"")
    assert len(line["entropy_nats"]) == 1


def test_numbers_have_six_decimals(model_folder: Path) -> None:
    result = run(model_folder, "--text", "some words")
    numbers = result.stdout.partition('"entropy_nats": [')[2].removesuffix("]}\n").split(", ")
    assert len(numbers) == 11
    assert all(len(number.partition(".")[2]) <= 6 for number in numbers)
    assert any(len(number.partition(".")[2]) == 6 for number in numbers)


def test_a_file_of_any_bytes(model_folder: Path, tmp_path: Path) -> None:
    data = bytes(range(256)) * 3
    (tmp_path / "bytes.bin").write_bytes(data)
    (line,) = lines_of(model_folder, "--file", tmp_path / "bytes.bin")
    check(line, data)
    assert (line["doc_id"], line["source"]) == (str(tmp_path / "bytes.bin"), "file")


def test_standard_input(model_folder: Path) -> None:
    data = b"piped\xff\nin"
    (line,) = lines_of(model_folder, "--file", "-", given=data)
    check(line, data)
    assert (line["doc_id"], line["source"]) == ("stdin", "stdin")


def test_a_document_that_is_printed_in_pieces(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib

    module = importlib.import_module("bltdata.cli.score")
    for size in (1, 4, 1000):
        monkeypatch.setattr(module, "ENTROPIES_A_WRITE", size)
        (line,) = lines_of(model_folder, "--text", "in pieces")
        check(line, b"in pieces")


def test_a_corpus(model_folder: Path, corpus: str) -> None:
    lines = lines_of(model_folder, "--corpus", corpus)
    assert len(lines) == 40
    for line, data in zip(lines, random_documents(40, 30), strict=True):
        check(line, data.hex().encode())
    assert {line["source"] for line in lines} == {"lines"}
    assert len({line["doc_id"] for line in lines}) == 40


def test_what_is_left_out_is_counted(model_folder: Path, corpus: str) -> None:
    result = run(model_folder, "--corpus", corpus, "--split", "train", "--max-bytes", "30")
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert all(line["num_bytes"] <= 30 for line in lines)
    assert 0 < len(lines) < 40
    assert " left out (other split), " in result.stderr
    assert result.stderr.endswith(" left out (too long).\n")


def test_records_that_are_no_documents(model_folder: Path, tmp_path: Path) -> None:
    pages = tmp_path / "pages.jsonl"
    pages.write_text('{"text": "one"}\n{"text": null}\n{\n')
    stopped = run(model_folder, "--corpus", pages)
    assert stopped.exit_code == 1
    assert "line 2, has null in its column 'text'" in stopped.stderr
    result = run(model_folder, "--corpus", f"{pages}#invalid=leave-out")
    assert [json.loads(line)["doc_id"] for line in result.stdout.splitlines()] == ["pages/pages.jsonl:1"]
    assert result.stderr.endswith(", 1 left out (no JSON object), 1 left out (no text).\n")


def test_the_corpus_of_a_configuration(model_folder: Path, corpus: str, tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text(f"[corpus]\ncorpus = ['{corpus}']\nmin_bytes = 20\n")
    lines = lines_of(model_folder, "--config", tmp_path / "run.toml", "--max-bytes", "40")
    assert lines
    assert all(20 <= line["num_bytes"] <= 40 for line in lines)


def test_a_context_that_is_reset_at_newlines(model_folder: Path) -> None:
    (line,) = lines_of(model_folder, "--text", "one\ntwo\none", "--reset-scoring-at-newline")
    check(line, b"one\ntwo\none", reset_at_newline=True)
    (plain,) = lines_of(model_folder, "--text", "one\ntwo\none")
    assert plain["entropy_nats"][:4] == line["entropy_nats"][:4]
    assert plain["entropy_nats"][5:] != line["entropy_nats"][5:]


def test_bfloat16_changes_a_little(model_folder: Path) -> None:
    (exact,) = lines_of(model_folder, "--text", "precision")
    (rounded,) = lines_of(model_folder, "--text", "precision", "--precision", "bfloat16")
    difference = np.abs(np.array(exact["entropy_nats"]) - np.array(rounded["entropy_nats"]))
    assert 0 < difference.max() < 0.3


def test_a_parquet_file(model_folder: Path, corpus: str, tmp_path: Path) -> None:
    result = run(model_folder, "--corpus", corpus, "--out", tmp_path / "scores.parquet")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr.startswith("40 documents, ")
    assert result.stderr.endswith(f" bits per byte in {tmp_path / 'scores.parquet'}.\n")
    table = pq.read_table(tmp_path / "scores.parquet")
    assert table.column_names == COLUMNS
    for row, line in zip(table.to_pylist(), lines_of(model_folder, "--corpus", corpus), strict=True):
        assert (row["doc_id"], row["source"]) == (line["doc_id"], line["source"])
        np.testing.assert_allclose(row["entropy_nats"], line["entropy_nats"], rtol=0, atol=1e-6)
    metadata = json.loads(table.schema.metadata[METADATA_KEY])
    assert metadata["entropy_model"]["fingerprint"] == opinionated_model().fingerprint
    assert (metadata["precision"], metadata["device"], metadata["reset_at_newline"]) == ("float32", "cpu", False)
    assert metadata["corpus"]["specs"] == [corpus]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "None of --text, --file and --corpus given; give one of the three."),
        (["--text", "a", "--file", "b"], "--text and --file given; give one of the three."),
        (["--file", "b", "--corpus", "python-docs"], "--file and --corpus given; give one of the three."),
        (["--text", "a", "--split", "train"], "--split is given without --corpus; it chooses among the documents of one."),
        (["--text", "a", "--min-bytes", "0"], "--min-bytes is given without --corpus; it chooses among the documents of one."),
        (["--text", "a", "--out", "x"], "The name of x doesn't end in .parquet; end it so, or leave --out away to get JSON lines."),
        (["--file", "no/such/file"], "There is no file or folder 'no/such/file': check the path."),
        (["--corpus", "no/such.txt"], None),
        (["--text", "a", "--device", "abacus"], "The device 'abacus' can't be used here; --device cpu always can."),
    ],
)  # fmt: skip
def test_mistakes(model_folder: Path, arguments: list[str], sentence: str | None) -> None:
    result = run(model_folder, *arguments)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    assert sentence is None or result.stderr == f"Error: {sentence}\n"


def test_a_folder_in_place_of_the_parquet_file(model_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "x.parquet").mkdir()
    result = run(model_folder, "--text", "a", "--out", tmp_path / "x.parquet")
    assert (result.exit_code, result.stderr) == (1, f"Error: {tmp_path / 'x.parquet'} is a folder; give a file to write the scores to.\n")


def test_a_document_that_is_too_long_for_a_row_is_not_scored(model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scored_tokens = 0

    def counted(model: EntropyModel, ids: torch.Tensor, *arguments: Any) -> Any:
        nonlocal scored_tokens
        scored_tokens += ids.numel()
        return forward_chunk(model, ids, *arguments)

    forward_chunk = EntropyModel.forward_chunk
    monkeypatch.setattr(EntropyModel, "forward_chunk", counted)
    monkeypatch.setattr(scores, "MAX_SCORED_BYTES", 1999)
    result = run(model_folder, "--text", "x" * 2000, "--out", tmp_path / "scores.parquet")
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: Document 'text' has 2000 bytes; a row can hold 1999, so leave it out with max_bytes")
    assert (scored_tokens, list(tmp_path.iterdir())) == (0, [])
    assert len(lines_of(model_folder, "--text", "x" * 2000)[0]["entropy_nats"]) == 2001


@pytest.mark.parametrize("out", [False, True])
def test_a_damaged_model(tmp_path: Path, out: bool) -> None:
    model = opinionated_model()
    with torch.no_grad():
        model.head.weight[7] = math.nan
    model.save(tmp_path / "model")
    result = run(tmp_path / "model", "--text", "a", *(["--out", tmp_path / "scores.parquet"] if out else []))
    sentence = "Error: What the entropy model predicts are no numbers; it is damaged, train it again.\n"
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", sentence)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_no_model(tmp_path: Path) -> None:
    result = run(tmp_path / "nothing", "--text", "a")
    assert result.exit_code == 1
    assert "nothing holds no model" in result.stderr


def long_run(model_folder: Path, tmp_path: Path, *arguments: str) -> subprocess.Popen[bytes]:
    """A run that won't end by itself before the test does."""
    lines = write_lines(tmp_path / "many.txt", [b"a line of a corpus that goes on and on " * 5] * 40_000)
    options = ["score", "--entropy-model", str(model_folder), "--corpus", f"files:{lines}#document=line", "--device", "cpu", *arguments]
    code = f"from bltdata.cli import main; main({options!r})"
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_a_reader_that_leaves(model_folder: Path, tmp_path: Path) -> None:
    process = long_run(model_folder, tmp_path)
    assert process.stdout is not None
    assert process.stderr is not None
    first = json.loads(process.stdout.readline())
    assert first["num_bytes"] == 195
    process.stdout.close()
    assert process.wait(timeout=60) == 1
    assert process.stderr.read() == b""
    process.stderr.close()


def test_an_interrupt(model_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out" / "scores.parquet"
    process = long_run(model_folder, tmp_path, "--out", str(out))
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("out/.*")):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"Interrupted" in errors
    assert b"Traceback" not in errors
    assert list(out.parent.iterdir()) == []
