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
    assert both == json.loads(run(second, first, "--json").stdout) | {"datasets": both["datasets"]}
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
        (lambda folder: [folder.parent], "has no manifest.json: the build did not finish"),
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


def test_help_has_an_example() -> None:
    result = run("-h")
    assert result.exit_code == 0
    assert "bltdata entropy-stats runs/quickstart/shards --plots plots" in result.stdout
    assert run().exit_code == 2
