"""Every notebook runs from its `.py` without an error, and its `.ipynb` is that `.py` with outputs, and nothing of the machine."""

import json
import re

import nbformat
import pytest
from nbclient.exceptions import CellExecutionError

from notebooks import save

PAIRS = [pytest.param(path, id=path.stem) for path in save.notebooks()]

HEADER = """# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

"""


def saved(path):
    notebook = nbformat.read(path.with_suffix(".ipynb"), as_version=4)
    nbformat.validate(notebook)
    return notebook


def outputs(notebook):
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


def write(folder, source):
    path = folder / "lesson.py"
    path.write_text(HEADER + source, encoding="utf-8")
    return path


def test_there_are_notebooks_and_each_is_a_pair():
    names = {path.stem for path in save.notebooks()}
    assert "01_patch_boundaries" in names
    assert {path.stem for path in save.FOLDER.glob("*.ipynb")} == names
    readme = (save.FOLDER / "README.md").read_text(encoding="utf-8")
    assert [name for name in names if f"`{name}`" not in readme] == []


@pytest.mark.slow
@pytest.mark.parametrize("path", PAIRS)
def test_runs_without_an_error(path):
    executed = save.execute(path)
    assert all(cell.execution_count for cell in executed.cells if cell.cell_type == "code")
    assert {output.output_type for output in outputs(executed)} <= {"display_data", "execute_result", "stream"}
    # A warning isn't an error in a kernel, but it is nothing to show to a reader either.
    assert [output.text for output in outputs(executed) if output.get("name") == "stderr"] == []
    # What is saved was made by the same cells: the same kinds of output from each.
    assert [kinds(cell) for cell in executed.cells] == [kinds(cell) for cell in saved(path).cells]


def kinds(cell):
    return [(output.output_type, sorted(output.get("data", ()))) for output in cell.get("outputs", ())]


@pytest.mark.parametrize("path", PAIRS)
def test_saved_cells_are_those_of_the_source(path):
    source, stored = save.read(path), saved(path)
    assert [(cell.id, cell.cell_type, cell.source) for cell in stored.cells] == [
        (cell.id, cell.cell_type, cell.source) for cell in source.cells
    ]


@pytest.mark.parametrize("path", PAIRS)
def test_saved_outputs_are_complete_and_in_order(path):
    stored = saved(path)
    code = [cell for cell in stored.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    shown = [kind for output in outputs(stored) for kind in output.get("data", ())]
    assert "image/png" in shown
    assert "text/html" in shown
    assert all(output.output_type != "error" and output.get("name") != "stderr" for output in outputs(stored))


@pytest.mark.parametrize("path", PAIRS)
def test_nothing_of_the_machine_is_saved(path):
    stored = saved(path)
    assert stored.metadata == {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    assert all(cell.metadata == {} for cell in stored.cells)
    for output in outputs(stored):
        if "data" in output:
            output.data.pop("image/png", None)
    text = json.dumps(stored, ensure_ascii=False)
    assert re.findall(r"(?<![\w.<])/(?:home|root|Users|usr|var|opt|private|work|tmp)/\w*|\bat 0x[0-9a-f]+|\w:\\\\Users", text) == []


def test_an_error_in_a_cell_is_raised(tmp_path):
    with pytest.raises(CellExecutionError, match="ZeroDivisionError"):
        save.execute(write(tmp_path, "# %%\nprint(1)\n\n# %%\n1 / 0\n"))


def test_two_executions_are_saved_alike(tmp_path):
    path = write(tmp_path, "# %% [markdown]\n# # A lesson\n\n# %%\nimport bltdata\n\nprint('a', flush=True)\nprint(bltdata.__name__)\n")
    first, second = save.execute(path), save.execute(path)
    assert first == second
    assert [output.text for output in outputs(first)] == ["a\nbltdata\n"]
