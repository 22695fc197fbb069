"""notebooks/sample.ipynb runs from the first cell to the last, with a model that is hardly trained."""

import io
import shutil
import subprocess
from pathlib import Path

import nbformat
import pytest
import stored_notebooks
import tiny
from nbclient import NotebookClient
from PIL import Image

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "sample.ipynb"
SMALL = {
    'PROMPT = "A large red ball glides right."': 'PROMPT = ""',  # captions need weights that come over the network
    'SECOND = "A small blue ball glides left."': 'SECOND = ""',
    "TRAIN = False": "TRAIN = True",
    "STEPS = 1200": "STEPS = 5",
    "CLIPS = 3000": "CLIPS = 40",
    'TEXT_ENCODER = "minilm"': 'TEXT_ENCODER = "none"',
}


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """(folder, notebook with outputs)."""
    notebook = stored_notebooks.read_smaller(NOTEBOOK, SMALL)
    for cell in notebook.cells:
        cell.source = cell.source.replace("steps=16", "steps=2")
    folder = tmp_path_factory.mktemp("notebook")
    environment = tiny.environment()
    client = NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(folder)}})
    client.execute(env=environment)  # raises if a cell does
    return folder, notebook


def test_every_way_to_prompt_makes_a_video_and_shows_it(executed):
    folder, notebook = executed
    names = {path.stem for path in (folder / "out").glob("*.mp4")}
    assert names == {
        *("text", "text-two", "text-three", "ball", "from-first", "to-last", "both-ends"),
        *("extended", "backward", "loop", "connected", "edited", "inpainted"),
    }
    frames = [Image.open(io.BytesIO(picture)).n_frames for picture in stored_notebooks.pictures(notebook)]
    assert frames == [11, 1, 9, 21, 9, 11, 9]


def test_it_is_stored_with_outputs():
    stored = stored_notebooks.read(NOTEBOOK)
    assert stored_notebooks.unfinished(stored) == [], "run python -m benchmarks.notebooks --only=sample"
    assert stored_notebooks.private(stored) == [] and stored_notebooks.overwritten(stored) == []
    assert len([*stored_notebooks.pictures(stored)]) == 7


def test_one_command_says_whose_copy_the_badge_opens(tmp_path):
    root = NOTEBOOK.parents[1]
    shutil.copy(root / "Makefile", tmp_path)
    shutil.copytree(root / "notebooks", tmp_path / "notebooks")
    make = lambda *arguments: subprocess.run(  # noqa: E731
        ["make", "badge", *arguments], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert make().returncode and make("REPO=alone").returncode
    for repo in ("me/my.video", "other/vdit"):
        done = make(f"REPO={repo}")
        assert done.returncode == 0, done.stderr
        first, second = nbformat.read(tmp_path / "notebooks" / "sample.ipynb", as_version=4).cells[:2]
        assert f"research.google.com/github/{repo}/blob/main/notebooks/sample.ipynb)" in first.source
        assert f'REPOSITORY = "https://github.com/{repo}"' in second.source
    assert {path.suffix for path in (tmp_path / "notebooks").iterdir()} == {".ipynb"}
