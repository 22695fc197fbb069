"""notebooks/scaling_laws.ipynb runs from the first cell to the last, on the runs that come with the tests."""

from pathlib import Path

import pytest
import stored_notebooks
from nbclient import NotebookClient

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "notebooks" / "scaling_laws.ipynb"


@pytest.fixture(scope="module")
def outputs() -> list:
    smaller = {'"study/runs.csv"': '"nowhere/runs.csv"', "BOOTSTRAPS = 1000": "BOOTSTRAPS = 60"}
    notebook = stored_notebooks.read_smaller(NOTEBOOK, smaller)
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


def test_it_is_stored_with_outputs():
    stored = stored_notebooks.read(NOTEBOOK)
    assert stored_notebooks.unfinished(stored) == [], "run python -m benchmarks.notebooks --only=scaling_laws"
    assert stored_notebooks.private(stored) == [] and stored_notebooks.overwritten(stored) == []
    assert len([*stored_notebooks.pictures(stored)]) == 4
