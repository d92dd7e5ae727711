import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from bltdata.cli import main
from tests.bltdata.damage import both, put, rewrite
from tests.bltdata.small import opinionated_model


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["verify", "--workers", "1", *map(str, arguments)])


@pytest.fixture
def shards(dataset_folder, rows) -> Path:
    return dataset_folder(rows(20), rows(20, seed=1))


def test_a_good_dataset(shards):
    result = run(shards)
    assert (result.exit_code, result.stdout) == (0, "")
    assert f"{shards}: 2 shards, 40 documents, " in result.stderr
    assert result.stderr.endswith("No faults.\n")


def test_a_line_for_each_fault(shards):
    rewrite(shards, 1, both(*(put("nll_nats", row, -1.0) for row in range(5))))
    (shards / "part-00007.parquet").write_bytes(b"")
    result = run(shards, "--max-faults", "2")
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert len(lines) == 4
    assert lines[0].startswith(f"{shards / 'part-00007.parquet'}: the manifest doesn't list this file, and ")
    assert lines[1].startswith(f"{shards / 'part-00001.parquet'}, row group 0, row 0, document 'doc-1-0': nll_nats is -1.0, which is not ")
    assert lines[3] == "3 more of the kind nll; --max-faults lists more of them."
    assert result.stderr.endswith("6 faults.\n")


def test_a_missing_shard_was_not_looked_at(shards):
    (shards / "part-00001.parquet").unlink()
    result = run(shards)
    assert result.exit_code == 1
    assert f"{shards}: 1 of 2 shards, 20 documents, " in result.stderr
    assert result.stderr.endswith("1 fault.\n")


def test_json(shards, dataset_folder, rows):
    other = dataset_folder(rows(5), name="other")
    result = run(shards, other, "--json")
    report = json.loads(result.stdout)
    assert result.exit_code == 1
    assert result.stdout.count("\n") == 1
    assert (report["is_good"], report["num_faults"]) == (False, {"overlap": 5})
    assert report["faults"][0]["file"] == "part-00000.parquet"
    assert [dataset["num_documents"] for dataset in report["datasets"]] == [40, 5]


def test_no_dataset_is_a_fault(tmp_path, shards):
    for name in ("model/config.json", "model/model.safetensors", "begun/plan.json", "damaged/manifest.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
    for name, line in [
        ("no", "no: there is no such folder; give the folder that build-shards wrote."),
        ("model", "model: it holds a model and no shards; give the folder that build-shards wrote."),
        ("begun", "begun: it has no manifest.json: the build did not finish; run build-shards again to resume."),
        ("shards/part-00000.parquet", f"shards/part-00000.parquet: it is a file, and a dataset is a folder; give its own, {shards}."),
        ("damaged", "damaged/manifest.json: it has format version None, and this tool reads version 1: "),
    ]:
        result = run(tmp_path / name)
        assert (result.exit_code, result.stdout.count("\n")) == (1, 1)
        assert result.stdout.startswith(f"{tmp_path}/{line}")
        assert result.stdout.endswith(" [manifest]\n")
    parent = run(tmp_path)
    assert parent.stdout.startswith(f"{tmp_path}: it holds the datasets begun, damaged, shards; name one of them, such as ")


def test_deep(shards, tmp_path):
    opinionated_model(num_layers=1).save(tmp_path / "model")
    result = run(shards, "--deep", "--deep-documents", "3", "--entropy-model", tmp_path / "model")
    assert result.exit_code == 1
    assert "its manifest names the entropy model 0123456789abcdef, and" in result.stdout


def test_a_mistake_ends_in_one_sentence(shards, tmp_path):
    for arguments, message in [
        ([shards, shards], "is given 2 times"),
        ([shards, "--deep"], "--deep scores documents again and needs the model that scored them; give its folder with --entropy-model."),
        ([shards, "--deep-documents", "3"], "--deep-documents is given without --deep"),
        ([shards, "--entropy-model", tmp_path], "--entropy-model is given without --deep"),
        ([shards, "--deep", "--entropy-model", tmp_path], "holds no model"),
    ]:
        result = run(*arguments)
        assert (result.exit_code, result.stdout) == (1, ""), message
        assert message in result.stderr
        assert result.stderr.count("\n") == 1
    assert run().exit_code == 2
