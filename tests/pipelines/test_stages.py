import json

import pytest

from pipelines.stages import StageRunner


class Run:
    """One run of two stages, of which the second reads what the first wrote; `done` lists what was really done."""

    def __init__(self, folder, *, first="a", second="b", fails=False):
        self.done, self.said = [], []
        self.runner = StageRunner(folder, self.said.append)
        self.folder = folder
        self.fails = fails
        self.result = [
            self.runner.run("first", first, (), ("one.txt",), lambda: self._write("one.txt", first)),
            self.runner.run("second", second, ("first",), ("two",), lambda: self._write("two/x.txt", second)),
        ]

    def _write(self, name, text):
        self.done.append(name)
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        if self.fails:
            raise RuntimeError("stopped half-way")
        return {"wrote": text}


def test_a_stage_runs_once(tmp_path):
    assert Run(tmp_path).done == ["one.txt", "two/x.txt"]
    again = Run(tmp_path)
    assert again.done == []
    assert again.result == [{"wrote": "a"}, {"wrote": "b"}]
    assert again.said == ["first: nothing has changed, skipped.", "second: nothing has changed, skipped."]


def test_a_change_redoes_a_stage_and_what_follows_it(tmp_path):
    Run(tmp_path)
    assert Run(tmp_path, second="c").done == ["two/x.txt"]
    assert Run(tmp_path, first="z", second="c").done == ["one.txt", "two/x.txt"]


def test_a_changed_stage_starts_without_its_old_outputs(tmp_path):
    Run(tmp_path)
    (tmp_path / "two" / "old.txt").write_text("")
    Run(tmp_path, second="c")
    assert not (tmp_path / "two" / "old.txt").exists()


def test_a_stopped_stage_keeps_its_outputs_and_goes_on(tmp_path):
    with pytest.raises(RuntimeError):
        Run(tmp_path, fails=True)
    (tmp_path / "state").write_text("")
    assert (tmp_path / "one.txt").exists()
    assert Run(tmp_path).done == ["one.txt", "two/x.txt"]


def test_missing_outputs_are_made_again(tmp_path):
    Run(tmp_path)
    (tmp_path / "one.txt").unlink()
    assert Run(tmp_path).done == ["one.txt"]


@pytest.mark.parametrize("record", ["", "[]", '{"key": 1'])
def test_a_damaged_record_counts_for_nothing(tmp_path, record):
    Run(tmp_path)
    (tmp_path / "stages" / "first.json").write_text(record)
    assert Run(tmp_path).done == ["one.txt"]


def test_a_record_says_how_long_it_took(tmp_path):
    Run(tmp_path)
    assert json.loads((tmp_path / "stages" / "first.json").read_text())["seconds"] >= 0
