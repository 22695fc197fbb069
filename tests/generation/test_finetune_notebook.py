"""notebooks/finetune.ipynb runs from the first cell to the last, with models that are hardly trained."""

from pathlib import Path

import nbformat
import numpy as np
import pytest
import stored_notebooks
import tiny
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "finetune.ipynb"
SMALL = {"BASE_CLIPS = 2000": "BASE_CLIPS = 40", "BASE_STEPS = 1000": "BASE_STEPS = 6", "\nSTEPS = 1600": "\nSTEPS = 4"}


@pytest.mark.nightly
def test_it_runs(tmp_path):
    notebook = stored_notebooks.read_smaller(NOTEBOOK, SMALL)
    client = NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}})
    client.execute(env=tiny.environment())  # raises if a cell does
    videos = {name: np.load(tmp_path / f"{name}.npz")["video"] for name in ("before", "half", "after")}
    assert {video.shape for video in videos.values()} == {(9, 16, 16, 3)}
    assert (tmp_path / "finetune.png").exists() and (videos["before"] != videos["after"]).any()


def test_it_is_stored_without_outputs():
    cells = nbformat.read(NOTEBOOK, as_version=4).cells
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)
