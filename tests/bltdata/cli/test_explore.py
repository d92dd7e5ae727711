import base64
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from bltdata.cli import main
from bltdata.patching import PatchRule, calibrate
from bltdata.shards import open_shards, round_entropies
from tests.bltdata.small import opinionated_model

MakeRow = Callable[..., dict[str, Any]]
MakeDataset = Callable[..., Path]


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["explore", *map(str, arguments)])


def page_data(page: Path) -> dict[str, Any]:
    text = page.read_bytes().decode()
    found: dict[str, Any] = json.loads(re.search(r'id="explorer-data">(.*?)</script>', text)[1])
    return found


def entropies_of(packed: dict[str, Any]) -> np.ndarray:
    return np.frombuffer(base64.b64decode(packed["entropies"]), dtype="<u2").view(np.float16)


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "model"
    opinionated_model().save(folder)
    return folder


@pytest.fixture
def dataset(dataset_folder: MakeDataset, row: MakeRow) -> Path:
    rows = [row(f"doc {i}", f"document {i}, with some text in it".encode() * (i + 1)) for i in range(5)]
    return dataset_folder(rows[:3], rows[3:], row_group_bytes=100)


def test_a_sample_of_a_dataset(dataset: Path, tmp_path: Path) -> None:
    pages = [tmp_path / "new folder" / "page.html", tmp_path / "again.html"]
    for page in pages:
        result = run("--shards", dataset, "--documents", "3", "--out", page)
        assert result.exit_code == 0, result.output
        assert result.stdout.startswith(f"Wrote {page}: 3 documents, ")
    assert pages[0].read_bytes() == pages[1].read_bytes(), "the same sample"
    data = page_data(pages[0])
    assert (data["choice"], data["values"]["threshold"]) == ("global", open_shards(dataset).manifest.patch_rule["threshold"])
    for packed in data["documents"]:
        stored = open_shards(dataset).document(packed["name"])
        assert base64.b64decode(packed["data"]) == stored.data
        assert np.array_equal(entropies_of(packed), stored.entropy_nats)


def test_one_document_and_a_limit(dataset: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    result = run("--shards", dataset, "--document", "doc 4", "--max-bytes", "40", "--out", page, "--json")
    found = json.loads(result.stdout)
    left_out = open_shards(dataset).document("doc 4").num_bytes - 40
    expected = {"documents": 1, "num_bytes": 40, "num_bytes_left_out": left_out}
    assert found == {"out": str(page), "size_bytes": page.stat().st_size, **expected}
    assert [packed["name"] for packed in page_data(page)["documents"]] == ["doc 4"]
    result = run("--shards", dataset, "--document", "doc 4", "--max-bytes", "40", "--out", page)
    assert f"1 document, 40 bytes; {left_out:,} more bytes of them are left out, --max-bytes takes in more." in result.stdout


def test_sources_with_rules_of_their_own_begin_as_stored(dataset_folder: MakeDataset, row: MakeRow, tmp_path: Path) -> None:
    rules = {"news": {"scheme": "entropy", "threshold": 1.75}}
    folder = dataset_folder([row("a", b"abc", "code"), row("b", b"abc", "news")], source_rules=rules)
    assert run("--shards", folder, "--out", tmp_path / "page.html").exit_code == 0
    assert page_data(tmp_path / "page.html")["choice"] == "stored"
    assert run("--shards", folder, "--document", "b", "--out", tmp_path / "page.html").exit_code == 0
    assert page_data(tmp_path / "page.html")["values"]["threshold"] == 1.75


def test_a_file_is_scored_and_begins_with_patches_of_4_5_bytes(model_folder: Path, tmp_path: Path) -> None:
    path, page = tmp_path / "any", tmp_path / "page.html"
    data = b"</script> \xff\0" + bytes(range(256))
    path.write_bytes(data + b"more")
    result = run("--file", path, "--entropy-model", model_folder, "--max-bytes", str(len(data)), "--out", page)
    assert result.exit_code == 0, result.output
    (packed,) = page_data(page)["documents"]
    entropies = round_entropies(next(opinionated_model().score([data])))
    assert base64.b64decode(packed["data"]) == data
    assert np.array_equal(entropies_of(packed), entropies)
    assert (packed["stored"], packed["num_left_out"], packed["name"]) == (None, 4, str(path))
    found = calibrate([(data, entropies)], PatchRule(), 4.5)
    assert page_data(page)["values"]["threshold"] == found.threshold


def test_the_standard_input(model_folder: Path, tmp_path: Path) -> None:
    page, data = tmp_path / "page.html", b"any bytes \xff of a pipe"
    options = ["--file", "-", "--entropy-model", model_folder, "--max-bytes", "12", "--out", page]
    result = CliRunner().invoke(main, ["explore", *map(str, options)], input=data)
    assert result.exit_code == 0, result.output
    (packed,) = page_data(page)["documents"]
    assert (packed["name"], base64.b64decode(packed["data"]), packed["num_left_out"]) == ("stdin", data[:12], len(data) - 12)


def test_a_text_too_short_for_a_mean(model_folder: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    for text in ("", "a"):
        assert run("--text", text, "--entropy-model", model_folder, "--out", page).exit_code == 0
        assert page_data(page)["choice"] == "global"


def test_a_text_with_the_rule_of_a_dataset(model_folder: Path, dataset_folder: MakeDataset, row: MakeRow, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    rule = {"scheme": "space", "min_length": 2}
    folder = dataset_folder([row("a", b"abc")], patch_rule=rule, entropy_model={"fingerprint": opinionated_model().fingerprint})
    result = run("--text", "some text", "--entropy-model", model_folder, "--rule-from", folder, "--out", page)
    assert (result.exit_code, result.stderr) == (0, "")
    data = page_data(page)
    assert (data["choice"], data["values"]["min_length"]) == ("space", 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "None of --shards, --text and --file given; give one of the three."),
        (["--text", "a", "--file", "b"], "--text and --file given"),
        (["--text", "a"], "--text needs --entropy-model"),
        (["--text", "a", "--entropy-model", "m", "--document", "b"], "--document is given without --shards"),
        (["--file", "a", "--entropy-model", "m", "--documents", "2"], "--documents is given without --shards"),
        (["--shards", "{dataset}", "--entropy-model", "m"], "leave --entropy-model out"),
        (["--shards", "{dataset}", "--rule-from", "m"], "leave --rule-from out"),
        (["--shards", "{dataset}", "--document", "doc 1", "--documents", "2"], "leave one of them out"),
        (["--shards", "{dataset}", "--document", "doc 9"], "has no document 'doc 9'"),
        (["--shards", "{tmp}/nothing"], "There is no folder"),
        (["--file", "{tmp}/nothing", "--entropy-model", "m"], "There is no file or folder"),
        (["--shards", "{dataset}", "--out", "{tmp}"], "is a folder; give a file"),
    ],
)
def test_a_mistake_ends_in_one_sentence(dataset: Path, tmp_path: Path, arguments: list[str], message: str) -> None:
    out = [] if "--out" in arguments else ["--out", tmp_path / "page.html"]
    result = run(*[argument.format(dataset=dataset, tmp=tmp_path) for argument in arguments], *out)
    assert result.exit_code == 1
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "page.html").exists()


def test_a_rule_that_needs_a_tokenizer(model_folder: Path, dataset_folder: MakeDataset, row: MakeRow, tmp_path: Path) -> None:
    rule = {"scheme": "bpe", "tokenizer": "gone.json", "tokenizer_fingerprint": "0123456789abcdef"}
    folder = dataset_folder([row("a", b"abc")], patch_rule=rule)
    page = tmp_path / "page.html"
    assert run("--shards", folder, "--out", page).exit_code == 0
    assert page_data(page)["choice"] == "stored"
    result = run("--text", "a", "--entropy-model", model_folder, "--rule-from", folder, "--out", page)
    assert "is 'bpe', which a page can't compute; leave --rule-from out" in result.stderr
