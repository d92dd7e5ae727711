"""Which folders shards may be written to, and what a folder is that is no dataset."""

from pathlib import Path

import pytest

from bltdata.errors import BuildError, ShardError
from bltdata.remote import RemotePath, as_path
from bltdata.shards import Manifest
from bltdata.shards.folder import check_holds_only, check_out, check_outside

TRACES = (".lock", ".lock-000007", ".plan.json.77-0a1b.tmp", "built/part-00000.json", "part-00000.parquet", "part-123456.parquet")


@pytest.fixture(params=["local", "memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path | RemotePath:
    return as_path(str(tmp_path / "out") if request.param == "local" else f"{request.getfixturevalue('memory')}/out")


def put(folder: Path | RemotePath, *names: str) -> None:
    for name in names:
        path = folder / name
        if isinstance(path, Path):
            path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"{}")


def test_an_empty_folder_and_none_at_all(folder, tmp_path):
    check_out(folder)
    check_out(tmp_path)


def test_what_was_begun_is_gone_on_with(folder):
    put(folder, *TRACES)
    check_out(folder)


@pytest.mark.parametrize("name", ["plan.json", "manifest.json"])
def test_a_dataset_may_have_something_beside_it(folder, name):
    put(folder, "notes.txt", name)
    check_out(folder)


def test_what_is_somebody_elses_stays_alone(folder):
    put(folder, ".lock", "model.safetensors", "config.json")
    with pytest.raises(BuildError) as caught:
        check_out(folder)
    assert str(caught.value) == (
        f"{folder} holds other things already (config.json, model.safetensors); give a folder that doesn't exist or is empty."
    )
    put(folder, "a.txt", "b.txt", "c/d.txt")
    with pytest.raises(BuildError, match=r"already \(a\.txt, b\.txt, c and 2 more\)"):
        check_out(folder)


def test_nothing_is_ours_but_what_the_caller_says(folder):
    put(folder, "a.txt", ".lock")
    check_holds_only(folder, lambda name: name == "a.txt")
    put(folder, "part-00000.parquet")
    with pytest.raises(BuildError, match=r"\(part-00000\.parquet\)"):
        check_holds_only(folder, lambda name: name == "a.txt")


def test_a_file_instead(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(BuildError, match=r"file is a file; give a folder that doesn't exist or is empty\.$"):
        check_out(tmp_path / "file")


def test_shards_stay_out_of_those_that_they_are_made_of(folder, tmp_path):
    for inner, message in (
        (folder, "is the folder of the shards themselves"),
        (folder / "new" / "train", "lies in the folder of the shards"),
    ):
        with pytest.raises(BuildError, match=f"{message}; choose another one"):
            check_outside(inner, folder)
    for outer in (folder.parent, folder.parent / "out-6", tmp_path / "elsewhere", as_path("memory://elsewhere")):
        check_outside(outer, folder)


def test_links_lead_into_shards_too(tmp_path):
    (tmp_path / "shards").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "shards")
    with pytest.raises(BuildError, match="lies in the folder of the shards"):
        check_outside(tmp_path / "link" / "new", tmp_path / "shards")


GIVE = "give the folder that build-shards wrote"


@pytest.mark.parametrize(
    ("names", "plan", "said"),
    [
        (
            ["plan.json", "part-00000.parquet"],
            '{"identity": {}}',
            "has no manifest.json: the build did not finish; run build-shards again to",
        ),
        (["plan.json"], '{"identity": {}, "repatch": {}}', "has no manifest.json: the build did not finish; run repatch again to resume."),
        (["plan.json"], '{"from_arrow": {}}', "has no manifest.json: the build did not finish; run convert again to resume."),
        (["plan.json"], "{", "has no manifest.json: the build did not finish; run build-shards again to resume."),
        (["plan.json", "a.arrow"], '{"to_arrow": {}}', "holds Arrow files and no shards; bltdata convert --arrow makes shards of them."),
        (
            ["part-00000.parquet"],
            "",
            "has no manifest.json: the build did not finish, or not all of it was copied; copy the rest, or build it",
        ),
        (["config.json", "model.safetensors", "metrics.jsonl"], "", f"holds a model and no shards; {GIVE}."),
        (
            ["train/manifest.json", "validation/plan.json", "a.txt"],
            "",
            "holds the datasets train, validation; name one of them, such as {}/train.",
        ),
        (["test/manifest.json"], "", "holds the dataset test; name one of them, such as {}/test."),
        (["a.txt", "sub/b.txt"], "", f"has no manifest.json, so it is no dataset; {GIVE}."),
    ],
)
def test_what_a_folder_is_instead(folder, names, plan, said):
    put(folder, *names)
    if plan:
        (folder / "plan.json").write_bytes(plan.encode())
    with pytest.raises(ShardError) as caught:
        Manifest.read(folder)
    assert str(caught.value).startswith(f"{folder} {said.format(folder)}")
    assert str(caught.value).endswith(".")


def test_what_is_no_folder(folder, dataset_folder, rows):
    with pytest.raises(ShardError) as caught:
        Manifest.read(folder)
    nothing = (
        f"There is nothing at {folder}; check the address." if isinstance(folder, RemotePath) else f"There is no folder {folder}; {GIVE}."
    )
    assert str(caught.value) == nothing
    put(folder, "a.txt")
    with pytest.raises(ShardError) as caught:
        Manifest.read(folder / "a.txt")
    assert str(caught.value) == f"{folder / 'a.txt'} is a file, and a dataset is a folder; {GIVE}."
    shards = dataset_folder(rows(3))
    with pytest.raises(ShardError, match=f"is a file, and a dataset is a folder; give its own, {shards}"):
        Manifest.read(shards / "part-00000.parquet")
