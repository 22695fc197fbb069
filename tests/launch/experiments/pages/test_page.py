"""The page of an experiment: its findings, figures, tables and notes."""

import dataclasses
import pathlib
import shutil
import subprocess
import sys

import numpy as np
from small_experiment import as_text, small

from data_pipelines.packing.index import Index
from launch.experiments.pages import notes
from launch.experiments.pages import page as experiment_page
from launch.experiments.pages.page import write_page
from launch.experiments.spec import Figure


def test_a_trend_is_judged_by_the_exponents_of_the_seeds():
    def rows(*exponents):
        return [
            {"kind": "arm", "seed": seed, "budget": c, "flops": c, "loss": c**-0.1, "x": c**exponent}
            for seed, exponent in enumerate(exponents)
            for c in (1e8, 4e8, 1.6e9)
        ]  # fmt: skip

    wanted = dataclasses.replace(small(), compare=(), laws=[("x", "")])
    (found,) = experiment_page._findings(wanted, rows(-0.2, -0.3, -0.4))
    assert "**falls** with compute: exponent -0.3 (95% interval over 3 seeds -0.548 to -0.0516)" in found
    (found,) = experiment_page._findings(wanted, rows(-0.1, -0.3, -0.5))  # all fall, but three seeds do not show it
    assert "**no trend**" in found
    (found,) = experiment_page._findings(wanted, rows(0.2, 0.3, 0.4))
    assert "**rises** with compute" in found
    (found,) = experiment_page._findings(wanted, [*rows(-0.2, -0.3, -0.4)[:-1]])  # seed 2 lacks a budget
    assert "over 2 seeds" in found
    (found,) = experiment_page._findings(wanted, rows(-0.2))
    assert "fewer than two seeds" in found


def test_how_full_rows_are(out):
    lines = as_text(notes.fill("packing", [], {"lengths": out / "data" / "tiny"}, out)).strip().splitlines()[-3:]
    shares = [[float(part[:-1]) for part in line.replace(" ", "").split("|")[2:4] if part] for line in lines]
    assert len(shares) == 3 and len(shares[0]) == 1
    assert all(own >= rows for rows, own in shares[1:]) and shares[1][1] >= shares[2][1]
    assert notes.own_shapes(np.array([4, 1, 2, 3]), 1) == 10 / 16
    assert notes.own_shapes(np.array([4, 1, 2, 3]), 2) == 10 / 12


class Subjects:
    """A data set with the boxes of subjects: 128 x 64 pixels, one clip without a subject."""

    path, splits = pathlib.Path("clips"), ("train", "val")

    def index(self, split):
        sides = {"train": [[0.25, 0.75], [0, 0.25], [0.5, 1]], "val": [[np.nan, np.nan], [0.0, 0.5]]}[split]
        x_N2, count = np.array(sides, np.float32), len(sides)
        y_N2 = np.where(np.isnan(x_N2), x_N2, [0.1, 0.9]).astype(np.float32)
        measures = {f"subject_{axis}{end}": a[:, end] for axis, a in (("x", x_N2), ("y", y_N2)) for end in (0, 1)}
        return Index(
            id=np.arange(count, dtype=np.uint64),
            frames=np.full(count, 9, np.int32),
            height=np.full(count, 64, np.int32),
            width=np.full(count, 128, np.int32),
            fps=np.full(count, 8, np.float32),
            text_tokens=np.ones((count, 1), np.int32),
            measures=measures,
        )


def test_what_a_square_crop_keeps_of_the_subjects_in_the_index(monkeypatch):
    np.testing.assert_allclose(notes.subjects_kept(Subjects()), [1, 0, 0.5, 0.5])
    monkeypatch.setattr(notes, "Dataset", lambda path: Subjects())
    lines = as_text(notes.boxes("native", [], {"clips": Subjects.path}, Subjects.path)).strip().splitlines()
    assert "| film, by eye | 120 | 85.0% |" in lines[-2]
    assert lines[-1].replace("--", "") == "| clips, by its columns | 4 | 50.0% | 25.0% | 25.0% |"


def test_a_page_needs_no_measure_of_every_arm(tmp_path):
    common = {"kind": "arm", "params": 10, "tokens": 1.0, "epochs": 1.0, "flops": 1e9, "budget": 1e9}
    common |= {"train_seconds": 1.0, "seconds": 2.0}
    rows = [
        {**common, "arm": arm, "group": arm, "seed": seed, "run": f"{arm}{seed}", "loss": 0.1 + seed / 100}
        | ({"kid": 0.2} if arm == "all" else {})
        for arm in ("half", "all")
        for seed in (0, 1, 2)
    ]
    wanted = dataclasses.replace(small(), laws=[("kid", "")], figures=(Figure("flops", ("kid",), "KID"),))
    page = write_page(wanted, rows, {}, {}, tmp_path, ["c"]).read_text()
    assert "No law of `kid`: kid is known at one budget only" in page
    assert "balls" not in page and "tuned" not in page


def test_a_new_measure_has_a_column_whatever_its_name(tmp_path):
    common = {"kind": "arm", "params": 10, "tokens": 1.0, "epochs": 1.0, "flops": 1e9, "train_seconds": 1.0}
    rows = [{**common, "arm": "half", "group": "a", "seed": s, "run": f"r{s}", "gripper_slip": 0.25 + s / 100}
            for s in (0, 1, 2)]  # fmt: skip
    page = write_page(small(), rows, {}, {}, tmp_path, ["c"]).read_text()
    assert "| gripper_slip |" in page and "| 0.26 ± 0.025 |" in page
    same = write_page(small(), [{**row, "gripper_slip": 0.5} for row in rows], {}, {}, tmp_path, ["c"]).read_text()
    assert "The same for all runs: `gripper_slip` 0.5." in same and "| gripper_slip |" not in same


def test_figures_are_drawn_again_from_the_tables(tmp_path):
    shutil.copy("docs/experiments/recipe.csv", tmp_path)
    command = [sys.executable, "-m", "launch.experiments.figures", f"--docs={tmp_path}"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and "recipe.svg" in done.stdout, done.stderr
    assert (tmp_path / "figures" / "recipe.png").read_bytes().startswith(b"\x89PNG")
    failed = subprocess.run([*command, "nothing"], capture_output=True, text=True)
    assert failed.returncode == 2 and failed.stderr.count("\n") == 1 and "nothing" in failed.stderr
