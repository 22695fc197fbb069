import contextlib
import io
import json
import runpy
import shutil
import subprocess
import sys

import numpy as np
import pytest
from absl import flags
from inline_engine import inline
from PIL import Image
from small_dataset import PATCH, TEXT_WIDTH, write_dataset

from data_pipelines import inspect
from data_pipelines.building.build_args import BuildArgs
from data_pipelines.building.builder import build as build_data
from data_pipelines.inspecting import contact_sheet as contact_sheets
from data_pipelines.inspecting.contact_sheet import contact_sheet
from data_pipelines.inspecting.histograms import bins_of, histograms
from data_pipelines.media.clip import Options
from data_pipelines.reading.mixture import open_data
from data_pipelines.reading.pipeline import make_plan
from data_pipelines.reading.store import Dataset
from vdit import flops
from vdit.config import DataConfig
from vdit.config_dict import build
from vdit.errors import UserError

SIZES = ["--row_tokens=128", "--row_examples=8", "--row_text=48", "--max_frames=13", "--pack_window=16"]


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    for n, name in enumerate(("one", "two")):
        write_dataset(folder / name, examples=24 + 16 * n, seed=n)
    return [str(folder / name) for name in ("one", "two")]


def run(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "data_pipelines.inspect", *arguments], capture_output=True, text=True, timeout=600
    )


def figures_of(*arguments: str) -> dict:
    """What --json prints, without another process."""
    values = inspect.define_flags(flags.FlagValues())
    rest = values(["inspect", *arguments, "--json"])
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        inspect.main(rest, values)
    return json.loads(printed.getvalue(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def test_json_says_what_the_plan_of_the_mixture_says(paths):
    done = run(*paths, *SIZES, "--rows_per_step=2", "--seed=3", "--json")
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    config = DataConfig(",".join(paths), "train", 128, 8, 48, max_frames=13, pack_window=16)
    data = open_data(config)
    epoch = make_plan(data, config, data.patch, 3).epoch(0)
    assert figures["examples"] == 24 + 40
    assert figures["rows"] == epoch.rows
    assert figures["slots"] == 128 * figures["rows"]
    assert figures["fill"] == pytest.approx(int(epoch.tokens.sum()) / figures["slots"])
    assert figures["balance"] >= 1
    assert figures["splits"] == {"train": 64, "val": 8}
    assert "stages" not in figures and "budget" not in figures
    first, second = figures["datasets"]
    assert first["splits"] == {"train": 24, "val": 3} and second["examples"] == 40
    assert first["share"] + second["share"] == pytest.approx(1)
    assert first["tokens"] + second["tokens"] == figures["tokens"] == int(epoch.tokens.sum())
    assert sum(size["examples"] for size in first["shapes"]["sizes"]) <= 24
    assert sum(first["captions"]["detailed"]["histogram"]["counts"]) == 24
    assert sum(figures["captions"]["detailed"]["histogram"]["counts"]) == 64
    assert first["changes"] is None


def test_one_data_set_is_described_as_itself(paths):
    figures = figures_of(paths[0], *SIZES)
    assert figures["path"] == paths[0] and len(figures["datasets"]) == 1
    assert figures["shapes"] == figures["datasets"][0]["shapes"]
    assert figures_of(f"{paths[0]},{paths[1]}", *SIZES) == figures_of(*paths, *SIZES)


def test_weights_and_budget(paths):
    figures = figures_of(*paths, *SIZES, "--weights=1,0.5", "--steps=30", "--rows_per_step=4")
    assert [each["examples_an_epoch"] for each in figures["datasets"]] == [24, 20]
    budget = figures["budget"]
    assert budget["steps"] == 30 and budget["flops"] is None
    assert budget["epochs"] == [pytest.approx(30 * 4 / figures["rows"])]
    assert budget["visits"] == pytest.approx([budget["epochs"][0], budget["epochs"][0] / 2])
    assert budget["patches"] + budget["text"] == pytest.approx(figures["tokens"] * budget["epochs"][0])
    again = figures_of(*paths, *SIZES, "--weights=1,0.5", f"--tokens={budget['patches']}", "--rows_per_step=4")
    assert again["budget"]["visits"] == pytest.approx(budget["visits"]) and again["budget"]["steps"] == 30


@pytest.fixture
def config_file(paths, tmp_path):
    data = {
        **{"path": ",".join(paths), "row_tokens": 128, "row_examples": 8, "row_text": 48, "rows_per_step": 2},
        "stages": ({"step": 0, "max_area": 4, "max_frames": 5}, {"step": 10, "weights": (0, 2)}),
    }
    text = f"""from ml_collections import ConfigDict

def get_config():
    return ConfigDict({{"data": {data!r}, "model": {{"width": 32, "depth": 2}}, "seed": 3}})
"""
    (tmp_path / "config.py").write_text(text)
    return tmp_path / "config.py"


def test_stages_and_flops_of_a_config(paths, config_file):
    figures = figures_of(f"--config={config_file}", "--flops=1e9")
    first, second = figures["stages"]
    assert (first["step"], first["max_frames"], second["weights"]) == (0, 5, [0, 2])
    assert first["examples"] + first["left_out"] == 64
    assert second["examples"] == 2 * 40 and second["left_out"] == 24
    budget = figures["budget"]
    assert budget["flops"] == pytest.approx(1e9) and len(budget["epochs"]) == 2
    assert budget["epochs"][0] == pytest.approx(10 * 2 / first["rows"])
    assert budget["visits"][1] == pytest.approx(budget["epochs"][0] + 2 * budget["epochs"][1])
    # The same from the rows themselves: FLOPs of all but the last step are below the budget.
    config = build(runpy.run_path(str(config_file))["get_config"]().to_dict())
    data = open_data(config.data)
    plan, index = make_plan(data, config.data, data.patch, 3), data.index("train")
    shape = flops.ModelShape(32, 2, 4 * 8 * 8 * 3, TEXT_WIDTH)
    spent = 0.0
    for number in range(2 * budget["steps"]):
        row = plan.row(number)
        patches = np.prod(index.grid_N3(PATCH)[row.examples][:, 1:], axis=1)
        patches = patches * (1 + (row.frames - 1) // 4)
        text = index.text_tokens[row.examples, row.captions]
        squares = ((patches + text) ** 2.0).sum()
        spent += flops.training_flops_of_sums(shape, patches.sum(), text.sum(), squares, len(row))
    assert spent == pytest.approx(1e9, rel=0.1)


def test_changes_come_from_the_ledger(paths, tmp_path):
    shutil.copytree(paths[0], tmp_path / "data")
    lines = """item,split,status,reason,shape_before,shape_after
a,train,accepted,,17x32x48,17x32x48
b,train,scaled,,20x720x1280,17x72x128
c,train,scaled,trimmed,9x144x256,9x72x128
d,train,rejected,no video stream,,
e,val,rejected,truncated,,
"""
    (tmp_path / "data" / "ledger.csv").write_text(lines)
    changes = figures_of(str(tmp_path / "data"), *SIZES)["datasets"][0]["changes"]
    assert changes["statuses"] == {"accepted": 1, "scaled": 2, "rejected": 1}
    assert changes["reasons"] == {"scaled: trimmed": 1, "rejected: no video stream": 1}
    assert changes["scale"] == pytest.approx({"min": 0.1, "mean": 0.3, "max": 0.5})
    assert changes["resized"][0] == {"from": "720x1280", "to": "72x128", "clips": 1}
    assert changes["frames_dropped"] == pytest.approx(3 / 46)
    (tmp_path / "data" / "ledger.csv").write_text(lines.replace("17x32x48", "17xwide"))
    with pytest.raises(UserError, match="ledger.csv is damaged"):
        figures_of(str(tmp_path / "data"), *SIZES)


def test_everything_is_printed(paths, config_file, tmp_path, capsys):
    shutil.copytree(paths[0], tmp_path / "data")
    (tmp_path / "data" / "ledger.csv").write_text(
        "item,split,status,reason,shape_before,shape_after\nb,train,scaled,late,20x720x1280,17x72x128\n"
    )
    values = inspect.define_flags(flags.FlagValues())
    rest = values(["inspect", str(tmp_path / "data"), paths[1], f"--config={config_file}", "--flops=1e9"])
    inspect.main(rest, values)
    printed = capsys.readouterr().out
    for words in (
        "inputs: 1 scaled",
        "height stored / original where it changed: 0.1 to 0.1, mean 0.1",
        "720x1280 to 72x128 (1)",
        "scaled: late",
        "no ledger.csv",
        "weight  an epoch",
        "patches of a frame",
        "stage from step",
        "1e+09 training FLOPs",
        "every example",
    ):
        assert words in printed


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
        (["{0}", "--weights=1,2"], "data.weights=(1.0, 2.0)"),
        (["{0}", "--weights=much"], "--weights=much"),
        (["{0}", "--flops=1e12"], "--flops needs a model"),
        (["no/such/folder"], "no/such/folder"),
        (["{0}", "--split=test"], "test"),
        (["{0}", "--row_tokens=8"], "data.row_tokens=8"),
        (["{0}", "--devices=3"], "--devices=3"),
        (["{0}", *SIZES, "--sheet=no/such/folder/sheet.png"], "--sheet=no/such/folder/sheet.png"),
        (["{0}", *SIZES, "--page=no/such/folder/a.html"], "--page=no/such/folder/a.html"),
        (["{0}", *SIZES, "--filter=frames > 0", "--pairs=a.png"], "--pairs: the build of"),
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


@pytest.fixture(scope="module")
def balls(tmp_path_factory):
    """A data set with measures."""
    path = str(tmp_path_factory.mktemp("balls") / "set")
    with inline():
        build_data(BuildArgs("physics", path, Options(limit=24)))
    return path


def test_a_histogram_tells_what_a_filter_keeps():
    values = np.array([0, 0, 1, 2, 2, 2], np.float32)
    bars = bins_of(values, values != 2)
    assert sum(bar["to"] - bar["from"] for bar in bars) == 6
    assert [(bar["series"], bar["from"], bar["to"]) for bar in bars] == [
        ("kept", 0, 2), ("kept", 0, 1), ("left out", 0, 3)
    ]  # fmt: skip
    assert [(bar["low"], bar["high"]) for bar in bars[:2]] == [(-0.5, 0.5), (0.5, 1.5)]  # whole numbers
    plain = bins_of(np.array([0, 0.5, 12], np.float32), None)
    assert {bar["series"] for bar in plain} == {"kept"} and plain[-1]["high"] == 12 and len(plain) == 3


def test_the_page_shows_columns_quantiles_and_what_a_filter_keeps(balls, tmp_path):
    files = [f"--{name}={tmp_path}/{name}" for name in ("page", "histograms")]
    figures_of(balls, "--filter=motion > 0.1", *files)
    text = (tmp_path / "page").read_text()
    index = open_data(DataConfig(balls)).index("train")
    kept = int((keeps_N := index.measures["motion"] > 0.1).sum())
    assert 0 < kept < 24 and f"keeps {kept} of them" in text and "left out" in text
    varied = {name for name, values in index.columns().items() if np.nanmin(values) < np.nanmax(values)}
    drawn = {each["title"]: each["data"]["values"] for each in histograms(index, keeps_N).to_dict()["concat"]}
    assert drawn.keys() == varied and {"motion", "height"} < varied < index.columns().keys()
    for bars in drawn.values():
        counts = {series: 0 for series in ("kept", "left out")}
        for bar in bars:
            counts[bar["series"]] += bar["to"] - bar["from"]
        assert counts == {"kept": kept, "left out": 24 - kept}
    assert text.count('<img class="sheet"') == 3 + len(varied)
    with Image.open(tmp_path / "histograms") as picture:
        assert picture.format == "PNG" and len(picture.convert("RGB").getcolors(256)) > 2


def test_sheets_show_what_is_kept_and_known(balls, monkeypatch):
    data, drawn = Dataset(balls), []
    strip = contact_sheets._strip
    monkeypatch.setattr(contact_sheets, "_strip", lambda *a: drawn.append(a[2]) or strip(*a))
    contact_sheet(data, "train", 24, "motion", np.arange(24) % 2 == 0)
    motion = data.index("train").measures["motion"]
    assert sorted(drawn) == list(range(0, 24, 2)) and (np.diff(motion[drawn]) >= 0).all()
    data.index("train").measures["motion"][:] = np.nan
    with pytest.raises(UserError, match="of none motion is known"):
        contact_sheet(data, "train", by="motion")


def test_measures_filters_and_sheets_by_quantile(balls, tmp_path):
    """What a filter keeps is said before anything is built again, and trained."""
    path = balls
    motion = open_data(DataConfig(path)).index("train").measures["motion"]
    middle = float(np.median(motion))
    figures = figures_of(path, f"--filter=motion > {middle}", "--strata=motion: 1, 2")
    assert figures["kept"] == (motion > middle).sum() == 12 and figures["examples"] == 18
    assert figures["measures"]["motion"]["median"] == pytest.approx(middle)
    assert sum(figures["measures"]["sharpness"]["histogram"]["counts"]) == 24
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        values = inspect.define_flags(flags.FlagValues())
        flagged = [f"--filter=motion > {middle}", f"--sheet={tmp_path}/a.png", "--sheet_by=motion"]
        inspect.main(values(["inspect", path, *flagged]), values)
    assert f"data.filter='motion > {middle}' keeps 12 of 24 examples" in printed.getvalue()
    assert Image.open(tmp_path / "a.png").size[1] > 100
    with pytest.raises(UserError, match="--sheet_by=grey is not a column of .*; it has aspect, bars"):
        contact_sheet(open_data(DataConfig(path)), "train", by="grey")
