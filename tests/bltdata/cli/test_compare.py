import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from bltdata.cli import main
from bltdata.patching import PatchRule
from bltdata.shards import open_shards
from bltdata.stats.compare import describe_rules

Rows = Callable[..., list[dict[str, Any]]]
MakeDataset = Callable[..., Path]


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["compare", *map(str, arguments)])


@pytest.fixture
def two(dataset_folder: MakeDataset, rows: Rows) -> list[Path]:
    documents = rows(40)
    stride = [row | {"patch_lengths": PatchRule(scheme="fixed", stride=8).lengths(row["data"])} for row in documents]
    other = dataset_folder(
        stride, rows(5, seed=3, sources=["[b]$x_1$"]), name="$_[i]b", patch_rule={"scheme": "fixed", "stride": 8, "min_length": 1}
    )
    return [dataset_folder(documents, name="a"), other]


def test_numbers_are_those_of_the_datasets(two: list[Path]) -> None:
    found = json.loads(run(*two, "--json").stdout)["datasets"]
    assert [each["dataset"] for each in found] == [str(folder) for folder in two]
    assert [each["rule"] for each in found] == ["entropy, threshold 2.5", "fixed, stride 8"]
    for folder, each in zip(two, found, strict=True):
        rows = list(open_shards(folder))
        assert each["documents"] == len(rows)
        positions, patches = sum(row.num_bytes + 1 for row in rows), sum(row.num_patches for row in rows)
        assert each["mean_patch_length"] == pytest.approx(positions / patches)
        assert each["patches_per_byte"] == pytest.approx(patches / (positions - len(rows)))
        assert set(each["mean_patch_length_by_source"]) == {row.source for row in rows}


def test_tables_and_plot(two: list[Path], tmp_path: Path) -> None:
    result = run(*two, "--plot", tmp_path / "lengths.png")
    assert result.exit_code == 0, result.output
    assert "fixed, stride 8" in result.stdout
    assert "$_[i]b" in result.stdout
    assert "[b]$x_1$" in result.stdout
    line = next(line for line in result.stdout.splitlines() if "[b]$x_1$" in line)
    assert line.split()[1] == "-"
    assert f"Wrote {tmp_path / 'lengths.png'}." in result.stdout
    assert (tmp_path / "lengths.png").read_bytes().startswith(b"\x89PNG")


def test_page_and_markdown(two: list[Path], tmp_path: Path) -> None:
    page, markdown = tmp_path / "out" / "comparison.html", tmp_path / "out" / "comparison.md"
    result = run(*two, "--html", page, "--markdown", markdown)
    assert result.exit_code == 0, result.output
    assert result.stdout.endswith(f"Wrote {markdown}.\nWrote {page}.\n")
    text = page.read_text()
    assert (text.count("<svg "), text.count("<table>"), text.count("<script")) == (1, 2, 0)
    assert f"<title>Comparison of {two[0]}, {two[1]}</title>" in text
    for written in (text, markdown.read_text()):
        assert "fixed, stride 8" in written
        assert "entropy, threshold 2.5" in written


@pytest.mark.slow
def test_the_comparison_does_not_depend_on_the_workers(two: list[Path]) -> None:
    assert json.loads(run(*two, "--json", "--workers", "2").stdout) == json.loads(run(*two, "--json").stdout)


def test_sources_with_rules_of_their_own_are_mentioned(dataset_folder: MakeDataset, rows: Rows) -> None:
    folder = dataset_folder(rows(2), source_rules={"code": {"scheme": "entropy", "threshold": 1.0}, "unused": {"scheme": "byte"}})
    manifest = open_shards(folder).manifest
    assert describe_rules(manifest, ["code", "news"]) == "entropy, threshold 2.5; others for 1 of the 2 sources"
    assert describe_rules(manifest, ["news"]) == "entropy, threshold 2.5"


@pytest.mark.parametrize(
    ("news", "said"),
    [
        ({"scheme": "entropy", "threshold": 1.75, "max_length": None}, "entropy, threshold 1.0 to 1.75, by source"),
        ({"scheme": "entropy", "threshold": 1.0, "max_length": None}, "entropy, threshold 1.0, by source"),
        ({"scheme": "entropy", "threshold": 1.0, "max_length": 8}, "entropy, threshold 1.0, max_length none or 8, by source"),
        ({"scheme": "byte"}, "entropy or byte, threshold 1.0 or none, by source"),
    ],
)
def test_a_rule_that_no_source_has_is_not_shown(dataset_folder: MakeDataset, rows: Rows, news: dict[str, Any], said: str) -> None:
    code = {"scheme": "entropy", "threshold": 1.0, "max_length": None}
    folder = dataset_folder(rows(40), source_rules={"code": code, "news": news})
    found = json.loads(run(folder, dataset_folder(rows(3), name="other"), "--json").stdout)["datasets"]
    assert [each["rule"] for each in found] == [said, "entropy, threshold 2.5"]


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ({"scheme": "entropy", "threshold": 0.0, "min_length": 1, "max_length": None}, "entropy, threshold 0.0"),
        ({"scheme": "space", "characters": True, "reset_at_newline": False}, "space, characters True"),
        ({"scheme": "byte"}, "byte"),
    ],
)
def test_a_rule_says_what_it_sets(dataset_folder: MakeDataset, rows: Rows, rule: dict[str, Any], said: str) -> None:
    manifest = open_shards(dataset_folder(rows(2))).manifest
    assert describe_rules(dataclasses.replace(manifest, patch_rule=rule), ["code"]) == said


@pytest.mark.parametrize(("option", "what"), [("--html", "the page"), ("--markdown", "the tables"), ("--plot", "the picture")])
def test_what_could_not_be_written_is_not_compared(
    two: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str, what: str
) -> None:
    monkeypatch.setattr("bltdata.cli.compare.counted", lambda *_: pytest.fail("it is counted"))
    result = run(*two, option, tmp_path)
    assert (result.exit_code, result.stderr) == (1, f"Error: {tmp_path} is a folder; give a file to write {what} to.\n")
    below = run(*two, option, two[0] / "manifest.json" / "report")
    assert below.stderr == f"Error: {two[0] / 'manifest.json'} is a file, and so {what} can't be written below it; give another path.\n"


def test_one_dataset_is_none_to_compare(two: list[Path]) -> None:
    result = run(two[0])
    assert result.exit_code == 1
    assert "nothing to compare it with; give at least two folders" in result.stderr
