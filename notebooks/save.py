"""Execute notebooks and save them with their outputs: `python notebooks/save.py [NAME.py ...]`, all of them by default.

The `.py` file of a pair is the source; this makes the `.ipynb`. What differs from one execution to the next without meaning
anything (times, ids, streams in pieces) is not saved.
"""

import asyncio
import os
import sys
import tempfile
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode
from traitlets.config import Config

FOLDER = Path(__file__).resolve().parent
TIMEOUT_SECONDS = 600


def notebooks() -> list[Path]:
    """The `.py` of every pair, in order: a lesson's name begins with its number."""
    return sorted(FOLDER.glob("[0-9][0-9]_*.py"))


def read(path: Path) -> NotebookNode:
    """A `.py` notebook, with cells named by their position."""
    notebook = jupytext.read(path)
    # The header says how the .py is written; in the .ipynb only the kernel matters.
    notebook.metadata = nbformat.from_dict({"kernelspec": notebook.metadata["kernelspec"]})
    for index, cell in enumerate(notebook.cells):
        cell.id = f"cell-{index:02}"
        # How far apart cells stand in the .py.
        cell.metadata.pop("lines_to_next_cell", None)
    return notebook


def execute(path: Path) -> NotebookNode:
    """A notebook run from its `.py` in an empty folder, with its outputs.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell raised.
    """
    notebook = read(path)
    # An empty IPYTHONDIR, so that nobody's own settings or history take part; the packages may not be installed; and
    # figures go into the notebook, whatever else the caller draws them with.
    packages = os.pathsep.join(filter(None, [str(FOLDER.parent), os.environ.get("PYTHONPATH")]))
    with tempfile.TemporaryDirectory() as settings, tempfile.TemporaryDirectory() as folder:
        surroundings = {"IPYTHONDIR": settings, "PYTHONPATH": packages, "MPLBACKEND": "module://matplotlib_inline.backend_inline"}
        client = NotebookClient(
            notebook,
            # No ports, so that nothing else on the machine can listen or be in the way.
            config=Config(KernelManager={"transport": "ipc", "connection_file": f"{settings}/kernel.json"}),
            kernel_name="python3",
            timeout=TIMEOUT_SECONDS,
            resources={"metadata": {"path": folder}},
            record_timing=False,
            coalesce_streams=True,
        )
        asyncio.run(client.async_execute(env={**os.environ, **surroundings}))
    notebook.metadata.language_info = {"name": "python"}
    nbformat.validate(notebook)
    return notebook


def main() -> None:
    """Save the notebooks that are named, or all."""
    for path in [Path(name) for name in sys.argv[1:]] or notebooks():
        nbformat.write(execute(path), path.with_suffix(".ipynb"))
        print(path.with_suffix(".ipynb").name)


if __name__ == "__main__":
    main()
