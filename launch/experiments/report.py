"""What an experiment with a folder of its own writes there besides its runs, for the report to read."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path
from typing import Any

from launch.experiments.runs.data_sets import write_packing
from launch.experiments.runs.runner import Runner
from launch.experiments.spec import Arm, Experiment
from launch.sweeps.expand import run_of
from vdit.io.files import read_json, write_json


def describe(experiment: Experiment, out: Path, command: str) -> None:
    """Writes study.json: what is planned, by which command, on which machine, and what the report is to say of it."""
    from vdit.training.record.workdir import environment

    path = out / "study.json"
    out.mkdir(parents=True, exist_ok=True)
    before = read_json(path) if path.exists() else {}
    grid = [arm for arm in experiment.arms if arm.kind == "grid"]
    held_out = [arm for arm in experiment.arms if arm.kind == "heldout"]
    values = {
        "title": experiment.title,
        "machine": {**environment(), "processor": _processor()},
        "command": command,
        "started": before.get("started", time.strftime("%Y-%m-%dT%H:%M:%S%z")),
        "planned": sum(len(experiment.seeds_of(arm)) for arm in (*grid, *held_out)),
        "budgets": sorted({arm.budget for arm in grid}),
        "held_out": max((arm.budget for arm in held_out), default=None),
        "sizes": _sizes(experiment, grid),
        "limits": list(experiment.limits),
    }
    if said := experiment.report:
        values |= {"tokens": said.tokens, "measures": dict(said.measures), "samples": dict(said.samples)}
    write_json(path, values)


def write_inputs(runner: Runner) -> None:
    """Writes floor.json and data/NAME.json as far as their data sets are there."""
    experiment, floor = runner.experiment, runner.out / "floor.json"
    if experiment.floors and not floor.exists():
        write_json(floor, runner.floors())
    for name, packing in (experiment.report.packing if experiment.report else {}).items():
        if runner.data.is_made(packing.path):
            config = run_of(experiment.base, packing.fields).config
            write_packing(runner.out / "data" / f"{name}.json", runner.data.fill_in(packing.path), config.data)


def _sizes(experiment: Experiment, arms: list[Arm]) -> list[dict[str, Any]]:
    """Model sizes of some arms, each once."""
    models = (run_of(experiment.base, {**arm.fields, "data.path": ""}).config.model for arm in arms)
    sizes = {(model.width, model.depth, model.head_width) for model in models}
    return [dict(zip(("width", "depth", "head_width"), size, strict=True)) for size in sorted(sizes)]


def _processor() -> str:
    """Name of the processor, where the system says it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0]}, {os.cpu_count()} cores" if names else platform.processor()
