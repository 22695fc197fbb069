import json
import subprocess
import sys

import pytest
from absl import flags
from PIL import Image
from small_dataset import write_dataset

from data_pipelines import inspect
from data_pipelines.pipeline import make_plan
from data_pipelines.store import Dataset
from vdit.config import DataConfig, UserError

SIZES = ["--row_tokens=128", "--row_examples=8", "--row_text=48", "--max_frames=13", "--pack_window=16"]


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    for n, name in enumerate(("one", "two")):
        write_dataset(folder / name, examples=24 + 16 * n, seed=n)
    return [str(folder / name) for name in ("one", "two")]


def run(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "data_pipelines.inspect", *arguments], capture_output=True, text=True, timeout=120
    )


def test_json_says_what_the_plan_says(paths):
    done = run(*paths, *SIZES, "--rows_per_step=2", "--seed=3", "--json")
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    config = DataConfig(row_tokens=128, row_examples=8, row_text=48, max_frames=13, pack_window=16)
    epochs = []
    for path in paths:
        dataset = Dataset(path)
        epochs.append(make_plan(dataset, config, dataset.patch, 3).epoch(0))
    assert figures["examples"] == 24 + 40
    assert figures["rows"] == sum(epoch.rows for epoch in epochs)
    assert figures["slots"] == 128 * figures["rows"]
    assert figures["fill"] == pytest.approx(sum(int(e.tokens.sum()) for e in epochs) / figures["slots"])
    assert figures["balance"] >= 1
    first = figures["datasets"][0]
    assert first["splits"] == {"train": 24, "val": 3}
    assert sum(size["examples"] for size in first["shapes"]["sizes"]) <= 24
    assert sum(first["captions"]["detailed"]["histogram"]["counts"]) == 24


def test_report_and_contact_sheet(paths, tmp_path):
    sheet = tmp_path / "sheet.png"
    done = run(paths[0], *SIZES, "--split=val", f"--sheet={sheet}")
    assert done.returncode == 0, done.stderr
    for words in ("split val: 3 examples", "caption tokens, detailed", "fill", "slowest device / mean"):
        assert words in done.stdout
    with Image.open(sheet) as picture:
        assert picture.height >= 3 * 96 and len(picture.resize((50, 50)).getcolors(2500)) > 100


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "name a data set"),
        (["no/such/folder"], "no/such/folder"),
        (["{0}", "--split=test"], "test"),
        (["{0}", "--row_tokens=8"], "data.row_tokens=8"),
        (["{0}", "--devices=3"], "--devices=3"),
        (["{0}", *SIZES, "--sheet=no/such/folder/sheet.png"], "--sheet=no/such/folder/sheet.png"),
    ],
)
def test_mistakes_are_one_line(paths, arguments, words):
    values = inspect.define_flags(flags.FlagValues())
    rest = values(["inspect", *(argument.format(*paths) for argument in arguments)])
    with pytest.raises(UserError) as error:
        inspect.main(rest, values)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_a_mistake_ends_with_status_2():
    done = run("no/such/folder")
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: ") and "no/such/folder" in done.stderr and done.stderr.count("\n") == 1
