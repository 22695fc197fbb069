"""notebooks/scaling_laws.ipynb runs from the first cell to the last, on the runs that come with the tests."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "notebooks" / "scaling_laws.ipynb"


@pytest.fixture(scope="module")
def outputs() -> list:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    (parameters,) = (cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ()))
    for theirs, ours in (('"study/runs.csv"', '"nowhere/runs.csv"'), ("BOOTSTRAPS = 1000", "BOOTSTRAPS = 60")):
        assert theirs in parameters.source
        parameters.source = parameters.source.replace(theirs, ours)
    NotebookClient(
        notebook, timeout=600, resources={"metadata": {"path": str(ROOT)}}
    ).execute()  # raises if a cell does
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


def test_figures_are_drawn_and_the_law_is_the_known_one(outputs):
    data = [output.get("data", {}) for output in outputs]
    assert sum("vegaEmbed" in each.get("text/html", "") for each in data) == 4
    printed = "".join(output.get("text", "") for output in outputs)
    for words in (
        "240 runs",
        "E     1.817",
        "a = 0.5139",
        "envelope:",
        "parabolas:",
        "80% interval",
        "do not say what",
    ):
        assert words in printed, words


def test_it_is_stored_without_outputs():
    cells = nbformat.read(NOTEBOOK, as_version=4).cells
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)
