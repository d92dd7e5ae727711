import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from bltdata.cli import main
from bltdata.shards import open_shards
from bltdata.stats import collect_statistics, to_mapping

Rows = Callable[..., list[dict[str, Any]]]
MakeDataset = Callable[..., Path]


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["entropy-stats", *map(str, arguments)])


def test_tables_on_stdout(dataset_folder: MakeDataset, rows: Rows) -> None:
    result = run(dataset_folder(rows(30), rows(20, seed=1)))
    assert result.exit_code == 0
    assert result.stderr == ""
    assert "boundaries per document" in result.stdout
    first_words = [line.split()[0] for line in result.stdout.splitlines() if line.split()]
    assert [word for word in first_words if word in ("code", "news", "all")] == ["code", "news", "all"]
    assert "Documents left out: 1 too short." in result.stdout


def test_json_is_the_last_line_and_all_of_it(dataset_folder: MakeDataset, rows: Rows) -> None:
    folder = dataset_folder(rows(30))
    result = run(folder, "--json")
    dataset = open_shards(folder)
    report = json.loads(result.stdout)
    assert {key: report[key] for key in ("overall", "by_source")} == to_mapping(collect_statistics(dataset))
    assert report["datasets"] == [{"folder": str(folder), "fingerprint": dataset.manifest.fingerprint}]
    assert (report["plots"], report["left_out"]) == ([], {"too short": 0})
    assert result.stdout.count("\n") == 1


def test_several_folders_are_one_dataset(dataset_folder: MakeDataset, rows: Rows) -> None:
    first, second = dataset_folder(rows(10), name="a"), dataset_folder(rows(15, seed=3), [], name="b")
    both = json.loads(run(first, second, "--json").stdout)
    listed = ("datasets", "samples", "diagnostics")
    other = json.loads(run(second, first, "--json").stdout)
    assert both == other | {key: both[key] for key in listed}
    for key in listed:
        assert sorted(both[key], key=str) == sorted(other[key], key=str)
    assert both["overall"]["documents"] == 25
    assert both["left_out"] == {"too short": 1}


def test_plots(dataset_folder: MakeDataset, rows: Rows, tmp_path: Path) -> None:
    folder = tmp_path / "pictures" / "here"
    result = run(dataset_folder(rows(30)), "--plots", folder)
    assert result.exit_code == 0
    assert sorted(os.listdir(folder)) == ["boundaries_per_document.png", "entropy.png", "patch_length.png"]
    assert f"Wrote {folder / 'entropy.png'}." in result.stdout
    report = json.loads(run(tmp_path / "shards", "--plots", folder, "--json").stdout)
    assert sorted(report["plots"]) == sorted(str(folder / name) for name in os.listdir(folder))


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ([{"scheme": "entropy", "threshold": 2.5}], 2.5),
        ([{"scheme": "entropy", "threshold": 2.5}, {"scheme": "entropy", "threshold": 2.5}], 2.5),
        ([{"scheme": "entropy", "threshold": 2.5}, {"scheme": "entropy", "threshold": 2.0}], None),
        ([{"scheme": "entropy", "threshold": 2.5}, {"scheme": "space", "threshold": None}], None),
        ([{"scheme": "fixed", "stride": 4}], None),
    ],
)
def test_the_threshold_that_all_rules_share_is_marked(
    dataset_folder: MakeDataset,
    rows: Rows,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    rules: list[dict[str, Any]],
    expected: float | None,
) -> None:
    marked: list[float | None] = []
    monkeypatch.setattr("bltdata.stats.plots.write_plots", lambda *_, threshold_nats: marked.append(threshold_nats) or [])
    folders = [dataset_folder(rows(3, seed=i), name=f"{i}", patch_rule=rule) for i, rule in enumerate(rules)]
    assert run(*folders, "--plots", tmp_path / "plots").exit_code == 0
    assert marked == [expected]


def test_no_documents(dataset_folder: MakeDataset, tmp_path: Path) -> None:
    folder = dataset_folder([])
    assert json.loads(run(folder, "--json").stdout)["overall"]["entropy_nats"]["mean"] is None
    result = run(folder, "--plots", tmp_path / "plots")
    assert result.exit_code == 0
    assert "nan" not in result.stdout


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda folder: [folder / "nothing"], "There is no folder"),
        (lambda folder: [folder.parent], "holds the dataset shards; name one of them, such as "),
        (lambda folder: [folder, folder / ".." / folder.name], "is given twice"),
        (lambda folder: os.truncate(folder / "part-00000.parquet", 100) or [folder], "has 100 bytes instead of"),
        (lambda folder: (folder / "part-00000.parquet").unlink() or [folder], "is missing; put it back"),
    ],
)
def test_a_mistake_ends_in_one_sentence(
    dataset_folder: MakeDataset, rows: Rows, prepare: Callable[[Path], list[Path]], message: str
) -> None:
    result = run(*prepare(dataset_folder(rows(3))), "--json")
    assert result.exit_code == 1
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("option", "path", "message"),
    [
        ("--html", "", "is a folder; give a file to write the page to."),
        ("--markdown", "", "is a folder; give a file to write the tables to."),
        ("--plots", "file", "is a file; give a folder to write the pictures to."),
        ("--html", "file/report.html", "is a file, and so the page can't be written below it; give another path."),
        ("--plots", "file/deep/plots", "is a file, and so the pictures can't be written below it; give another path."),
    ],
)
def test_a_report_that_could_not_be_written_is_not_made(
    dataset_folder: MakeDataset, rows: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str, path: str, message: str
) -> None:
    monkeypatch.setattr("bltdata.cli.entropy_stats.counted", lambda *_: pytest.fail("it is counted"))
    (tmp_path / "file").write_bytes(b"")
    result = run(dataset_folder(rows(3)), option, tmp_path / path)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.endswith(f" {message}\n")
    assert result.stderr.count("\n") == 1


def test_help_has_an_example() -> None:
    result = run("-h")
    assert result.exit_code == 0
    assert "bltdata entropy-stats runs/quickstart/shards/train --html report.html --strict" in result.stdout
    assert run().exit_code == 2


def test_page_and_markdown(dataset_folder: MakeDataset, rows: Rows, tmp_path: Path) -> None:
    folder = dataset_folder(rows(30, sources=["<script>alert(1)</script>"]))
    page, markdown = tmp_path / "out" / "report.html", tmp_path / "out" / "report.md"
    result = run(folder, "--html", page, "--markdown", markdown)
    assert result.exit_code == 0, result.output
    assert f"Wrote {markdown}." in result.stdout
    assert f"Wrote {page}." in result.stdout
    assert page.read_text().count("<svg ") == 6
    assert "<script" not in page.read_text() + markdown.read_text()
    # The threshold of the manifest.
    assert "threshold 2.5:" in page.read_text()


def test_strict_fails_where_a_diagnostic_does(dataset_folder: MakeDataset, rows: Rows) -> None:
    # Random bytes that a model pays less than two bits for: more than an error of rounding.
    bad = [row | {"nll_nats": row["nll_nats"] / 4} for row in rows(400)]
    folder = dataset_folder(bad)
    assert run(folder).exit_code == 0
    result = run(folder, "--strict")
    assert result.exit_code == 1
    assert result.stderr == ""
    assert "  error        not too good to be true: " in result.stdout
    assert "Check the entropy model's mask" in result.stdout
    report = json.loads(run(folder, "--strict", "--json").stdout)
    assert {each["name"] for each in report["diagnostics"] if each["verdict"] == "error"} == {
        "not too good to be true",
        "entropies can be believed",
    }
    assert run(dataset_folder(rows(5), name="small"), "--strict").exit_code == 0


def test_splits_that_share_documents(dataset_folder: MakeDataset, rows: Rows, row: Callable[..., dict[str, Any]]) -> None:
    train = [*rows(20), row("empty", b""), row("twice in the other", rows(20)[5]["data"])]
    other = [row("other name", train[3]["data"]), row("again", train[3]["data"]), row("none", b""), *rows(3, seed=9)]
    first, second = dataset_folder(train, name="train"), dataset_folder(other, name="validation")
    found = json.loads(run(second, "--against", first, "--json").stdout)["diagnostics"][-1]
    assert (found["name"], found["verdict"], found["numbers"]) == ("splits are apart", "error", {"shared": {str(first): 2}})
    apart = dataset_folder(rows(3, seed=9), name="apart")
    assert json.loads(run(apart, "--against", first, "--json").stdout)["diagnostics"][-1]["verdict"] == "ok"
    assert "is given twice" in run(first, "--against", first).stderr


@pytest.mark.slow
def test_the_report_does_not_depend_on_the_workers(dataset_folder: MakeDataset, rows: Rows) -> None:
    folder = dataset_folder(rows(20), rows(10, seed=1), [], rows(5, seed=2))
    assert json.loads(run(folder, "--json", "--workers", "2").stdout) == json.loads(run(folder, "--json").stdout)


def test_a_sample_as_large_as_asked(dataset_folder: MakeDataset, rows: Rows) -> None:
    folder = dataset_folder(rows(60))
    sampled = [json.loads(run(folder, "--json", "--sample-bytes", size).stdout)["samples"][0]["num_bytes"] for size in ("1500", "2000000")]
    assert sampled[0] <= 1500 < sampled[1]
    assert run(folder, "--tokenizer", folder / "nothing.json").exit_code == 1
