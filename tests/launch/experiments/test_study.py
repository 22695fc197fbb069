"""The study driver: its plan, the lengths of its runs, its samples, and (nightly) a tiny study started twice."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from data_pipelines.building.build_args import BuildArgs
from data_pipelines.building.builder import build
from data_pipelines.media.clip import Options
from data_pipelines.reading import pipeline
from data_pipelines.reading.store import Dataset
from launch.experiments import spec
from launch.experiments.runs import samples
from launch.sweeps import budget
from vdit import flops
from vdit.config import Config, DataConfig, ModelConfig
from vdit.errors import UserError
from vdit.patches import Patch

CONFIG = Path("configs/study.py")


@pytest.fixture(scope="module")
def physics(tmp_path_factory):
    out = tmp_path_factory.mktemp("data") / "physics"
    build(BuildArgs("physics", str(out), Options(limit=60), text_encoder="none"))
    return out


def test_committed_plan_is_a_grid_over_a_decade_with_a_larger_budget_held_out():
    for length in ("", ":full"):
        plan = spec.load(f"{CONFIG}{length}")
        sizes = Counter(arm.budget for arm in plan.arms if arm.kind == "grid")
        (held_out,) = (arm for arm in plan.arms if arm.kind == "heldout")
        assert max(sizes) / min(sizes) >= (10**1.5 if length else 10)
        assert held_out.budget > max(sizes) and len(held_out.choices) >= 4
        assert len(sizes) >= 3 and min(sizes.values()) >= 4


def test_plan_that_has_no_minima_is_refused(tmp_path):
    text = CONFIG.read_text()
    for row, less in (("8, 12, 16, 24, 32", "8, 12, 16"), ("32, 48, 64, 96", "32, 48, 64")):
        assert f"sizes({row})" in text
        text = text.replace(f"sizes({row})", f"sizes({less})")
    (tmp_path / "few.py").write_text(text)
    with pytest.raises(UserError, match="at least 3 budgets of 4 sizes"):
        spec.load(str(tmp_path / "few.py"))
    with pytest.raises(UserError, match="nor a Python file"):
        spec.load(str(tmp_path / "none.py"))


def test_steps_spend_the_budget(physics):
    data = DataConfig(path=str(physics), row_tokens=512, row_text=64, row_examples=20)
    config = Config(data=data, model=ModelConfig(width=16, depth=2, head_width=16))
    wanted = 4e9
    steps = budget.steps_for(wanted, config)
    dataset = Dataset(physics)
    rows = pipeline.rows(dataset, data, dataset.patch, config.seed)
    shape = budget.model_shape(config)
    batches = [next(rows) for _ in range(steps)]
    spent = sum(flops.batch_training_flops(shape, batch.segments_BL, batch.text_index_BL) for batch in batches)
    assert spent == pytest.approx(wanted, rel=0.03)


class Grey:
    """A generator of grey videos."""

    def generate(self, requests, **_):
        return [np.full((r.frames, r.height, r.width, 3), 128, np.uint8) for r in requests]


def test_samples_are_of_the_best_run_of_each_budget(physics, tmp_path):
    dataset = Dataset(physics)
    for run, times, loss in (("a", 1.0, 0.3), ("b", 1.0, 0.2), ("c", 1.0, 0.4), ("d", 4.0, 0.5)):
        samples.add_physics_samples(tmp_path, "compute", run, times, times * 1e10, loss, Grey(), dataset)
    entries = json.loads((tmp_path / "samples" / "samples.json").read_text())
    assert {entry["run"] for entry in entries} == {"truth", "b", "d"}
    assert {entry.get("given") for entry in entries} == {None, "5 frames"}
    assert len({entry["mp4"] for entry in entries}) == len(entries)
    assert all((tmp_path / "samples" / entry[kind]).stat().st_size for entry in entries for kind in ("mp4", "png"))


TINY = """
from configs import study
from launch.experiments.spec import shrunk

def get_config(length=""):
    return shrunk(study.get_config(length), 15)
"""


def run_study(out, config, *flags: str) -> str:
    """What a study prints, run as a user runs it, on two devices."""
    command = [sys.executable, "-m", "launch.study", f"--out={out}", f"--config={config}", *flags]
    environment = {**os.environ, "JAX_NUM_CPU_DEVICES": "2"}
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True, timeout=1500).stdout


@pytest.mark.nightly
def test_a_tiny_study_resumes_and_repeats_nothing(physics, tmp_path):
    """Other balls stand in for the film: what is tested is the driver."""
    config, out = tmp_path / "tiny.py", tmp_path / "study"
    config.write_text(TINY)
    gliding = Options(Patch(2, 4, 4), limit=60, world="uniform")
    build(BuildArgs("physics", str(out / "data" / "balls"), gliding, text_encoder="none"))
    shutil.copytree(physics, out / "data" / "film")
    for name, made_by in spec.load(str(config)).data.items():
        (out / "data" / f"{name}.txt").write_text(" ".join([*made_by, "minilm"]))
    assert re.search(r"run 1 of \d+: grid-w8d2", run_study(out, config))
    results = {path: path.stat().st_mtime_ns for path in out.glob("runs/*/result.json")}
    assert len(results) == len(spec.load(str(config)).arms)
    prediction = json.loads((out / "prediction.json").read_text())
    held_out = json.loads((out / "runs" / prediction["run"] / "result.json").read_text())
    assert prediction["written"] <= held_out["started"]
    for path in results:
        found = json.loads(path.read_text())
        if found["kind"] != "film":
            assert found["flops"] == pytest.approx(found["budget"], rel=0.05)
    assert "run 1 of" not in run_study(out, config)
    assert {path: path.stat().st_mtime_ns for path in out.glob("runs/*/result.json")} == results

    full = spec.load(f"{config}:full").arms
    run_study(out, config, "--full")  # a finished study gets another budget, and a larger one is held out
    added = {path: json.loads(path.read_text()) for path in out.glob("runs/*/result.json") if path not in results}
    assert all(path.stat().st_mtime_ns == time for path, time in results.items())
    assert sorted(run["kind"] for run in added.values()) == ["grid"] * 4 + ["heldout"]
    before = json.loads((out / f"prediction-{prediction['flops']:.3g}.json").read_text())
    said = json.loads((out / "prediction.json").read_text())
    assert before == prediction and said["flops"] == full[-1].budget
    assert said["written"] <= json.loads((out / "runs" / said["run"] / "result.json").read_text())["started"]
