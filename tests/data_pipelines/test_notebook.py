"""notebooks/data.ipynb runs from the first cell to the last, on the clips it makes."""

from pathlib import Path

import nbformat
import pytest
import stored_notebooks
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "data.ipynb"


@pytest.fixture(scope="module")
def outputs(tmp_path_factory) -> list:
    """What its code cells put out."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    (parameters,) = (cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ()))
    assert 'TEXT_ENCODER = "minilm"' in parameters.source
    parameters.source = parameters.source.replace('"minilm"', '"none"')  # whose weights come over the network
    folder = {"metadata": {"path": str(tmp_path_factory.mktemp("notebook"))}}
    NotebookClient(notebook, timeout=600, resources=folder).execute()  # raises if a cell does
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


def test_every_cell_runs_and_pictures_are_drawn(outputs):
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 4


def test_the_ledger_and_the_plan_are_shown(outputs):
    printed = "".join(output.get("text", "") for output in outputs)
    for words in ("broken.mp4     rejected", "still.png      scaled", "6 examples", "of the slots hold tokens"):
        assert words in printed


def test_it_is_stored_with_outputs():
    stored = stored_notebooks.read(NOTEBOOK)
    assert stored_notebooks.unfinished(stored) == [], "run python -m benchmarks.notebooks --only=data"
    assert stored_notebooks.private(stored) == [] and stored_notebooks.overwritten(stored) == []
