"""The CPU scaling study: `python -m launch.study --out=study [--full]`; what `make study` runs.

Every stage leaves a file and is skipped when that file is there, so a study that was stopped goes on where it was.
"""

from __future__ import annotations

import dataclasses
import os
import platform
import shlex
import sys
import time
from pathlib import Path
from typing import Any

from absl import flags

from launch.experiments import isoflop, study_plan
from vdit.command import run_main
from vdit.config import Config

OUT = flags.DEFINE_string("out", "study", "Folder of the study: data, runs, samples, report.html.")
FULL = flags.DEFINE_bool("full", False, "Budgets over 1.5 decades instead of 1.2; takes about twice as long.")
CONFIG = flags.DEFINE_string("config", "configs/study.py", "Python file with get_config(): sizes, budgets, film run.")


class Study:
    """A study in a folder.

    Args:
      out: the folder.
      plan: sizes, budgets and the film run.
      command: what the report says made it.
    """

    def __init__(self, out: Path, plan: study_plan.StudyPlan, command: str):
        self.out, self.plan = out, plan
        self.physics, self.film = out / "data" / "physics", out / "data" / "film"
        self._command = command

    def run(self) -> None:
        """All stages, in the order in which their results are worth having."""
        self._describe()
        self._build("physics", self.physics, [])
        self._inspect("physics", self.physics, [])
        self._floor()
        for budget, sizes in self.plan.grid:
            for size in sizes:
                self._grid_run(size, budget)
        self._build("film", self.film, [])
        self._inspect("film", self.film, [f"--max_frames={self.plan.film.data.max_frames}"])
        self._inspect("both", f"{self.physics},{self.film}", [f"--max_frames={self.plan.film.data.max_frames}"])
        self._film_run()
        self._held_out()
        self._report()
        print(f"the report is {self.out / 'report.html'}")

    def _describe(self) -> None:
        from vdit.io.files import read_json, write_json
        from vdit.training.workdir import environment

        path = self.out / "study.json"
        self.out.mkdir(parents=True, exist_ok=True)
        before = read_json(path) if path.exists() else {}
        values = {
            "title": "How quality scales with compute: bouncing balls and a film, on a CPU",
            "machine": {**environment(), "processor": _processor()},
            "command": self._command,
            "started": before.get("started", time.strftime("%Y-%m-%dT%H:%M:%S%z")),
            "planned": sum(len(sizes) for _, sizes in self.plan.grid) + 1,
            "budgets": self.plan.budgets,
            "held_out": self.plan.held_out,
            "sizes": [dataclasses.asdict(size) for size in self.plan.sizes],
        }
        write_json(path, values)

    def _build(self, source: str, out: Path, options: list[str]) -> None:
        if not (out / "vdit.json").exists():
            out.parent.mkdir(parents=True, exist_ok=True)
            _call("data_pipelines.build", f"--source={source}", f"--out={out}", *options)

    def _inspect(self, name: str, data: Path | str, options: list[str]) -> None:
        """The packing figures of a data set, as training packs it."""
        path = self.out / "data" / f"{name}.json"
        if not path.exists():
            data_config = self.plan.film.data if name != "physics" else self.plan.base.data
            rows = [f"--row_tokens={data_config.row_tokens}", f"--rows_per_step={data_config.rows_per_step}"]
            rows += [f"--row_text={data_config.row_text}", f"--row_examples={data_config.row_examples}"]
            path.write_text(_call("data_pipelines.inspect", str(data), "--json", *rows, *options, capture=True))

    def _floor(self) -> None:
        """What the velocity measurement says of the true clips."""
        from data_pipelines.reading.store import Dataset
        from vdit.evaluation.balls.physics_task import physics_floor
        from vdit.io.files import write_json

        path = self.out / "floor.json"
        if not path.exists():
            dataset = Dataset(self.physics)
            values = {side: physics_floor(dataset, split, self.plan.clips) for side, split in SPLITS.items()}
            write_json(path, {side: value["mean"] for side, value in values.items()})

    def _grid_run(self, size: study_plan.Size, budget: float, kind: str = "grid") -> None:
        """Extends the size's trunk to where this budget's cool-down branches off, and runs the branch."""
        name = f"{kind}-{size.name}-{budget:.3g}"
        if self._result(name).exists():
            return
        from vdit.training.loop import train

        config = self._config(size)
        steps = isoflop.steps_for(budget, config)
        cooldown = max(1, round(steps * self.plan.cooldown))
        branch_at = steps - cooldown
        trunk = self.out / "runs" / f"trunk-{size.name}"
        trunk_config = _replace(config, train={"steps": branch_at, "keep_steps": (branch_at,), "evaluate_every": -1})
        started = time.time()
        train(trunk_config, trunk)
        branch = _replace(config, optimizer={"cooldown": cooldown}, train={"steps": steps, "branch_from": str(trunk)})
        workdir = self.out / "runs" / name
        result = train(branch, workdir)
        self._finish(name, kind, budget, result, started)

    def _config(self, size: study_plan.Size) -> Config:
        base = _replace(self.plan.base, data={"path": str(self.physics)})
        return _replace(base, model={"width": size.width, "depth": size.depth, "head_width": size.head_width})

    def _result(self, name: str) -> Path:
        return self.out / "runs" / name / "result.json"

    def _finish(self, name: str, kind: str, budget: float, result: dict[str, Any], started: float) -> None:
        """Measures a finished physics run and brings the report up to date."""
        from data_pipelines.reading.store import Dataset
        from launch.experiments.samples import add_physics_samples
        from vdit.evaluation.balls.physics_task import physics_errors
        from vdit.generation.restore import generator_of, load_run
        from vdit.io.files import write_json

        run = load_run(self.out / "runs" / name)
        dataset = Dataset(self.physics)
        generator = generator_of(run)
        errors = {side: physics_errors(generator, dataset, split, self.plan.clips) for side, split in SPLITS.items()}
        values = study_plan.result_row(name, kind, budget, run, result, started)
        write_json(self._result(name), {**values, "physics_error": errors})
        times = budget / self.plan.budgets[0]
        add_physics_samples(self.out, name, times, budget, values["loss"], generator, dataset)
        self._report()

    def _film_run(self) -> None:
        """One text-to-video model on the film, sampled with held-out captions."""
        name = "film"
        if self._result(name).exists():
            return
        from data_pipelines.reading.store import Dataset
        from launch.experiments.samples import add_film_samples
        from vdit.generation.restore import generator_of, load_run
        from vdit.io.files import write_json
        from vdit.training.loop import train

        config = _replace(self.plan.film, data={"path": str(self.film)})
        dataset = Dataset(self.film)
        started = time.time()
        result = train(config, self.out / "runs" / name)
        run = load_run(self.out / "runs" / name)
        values = study_plan.result_row(name, "film", result["flops"], run, result, started)
        write_json(self._result(name), values)
        add_film_samples(self.out, name, generator_of(run), dataset, config)
        self._report()

    def _held_out(self) -> None:
        """Predicts the held-out budget's loss from the grid, writes it down, then runs it."""
        from vdit.io.files import read_json, write_json
        from vdit.scaling.laws.extrapolate import predict_held_out
        from vdit.scaling.runs import gather, table

        grid = table([run for run in gather(self.out).runs if run["kind"] == "grid"])
        size, params, tokens = isoflop.best_size(grid, self.plan, self._config)
        path = self.out / "prediction.json"
        name = f"heldout-{size.name}-{self.plan.held_out:.3g}"
        said = read_json(path) if path.exists() else {}
        if said.get("flops") != self.plan.held_out:
            if said:  # of the study before FULL=1: kept, and followed by that of the larger budget
                path.rename(path.with_name(f"prediction-{said['flops']:.3g}.json"))
            write_json(path, predict_held_out(grid, self.plan.held_out, params, tokens, name))
            self._report()
        self._grid_run(size, self.plan.held_out, "heldout")

    def _report(self) -> None:
        from vdit.scaling.report import write_report

        write_report(self.out, self.out / "report.html")


SPLITS = {"in": "val", "out": "ood"}
"""Names in the report of the physics splits that are measured."""


def _replace(config: Config, **parts: dict[str, Any]) -> Config:
    """A config with some fields of its parts replaced."""
    changed = {name: dataclasses.replace(getattr(config, name), **values) for name, values in parts.items()}
    return dataclasses.replace(config, **changed)


def _call(module: str, *arguments: str, capture: bool = False) -> str:
    """Runs one of our commands in a process of its own, so that its memory is given back."""
    import subprocess

    command = [sys.executable, "-m", module, *arguments]
    print("$ python -m", module, *arguments, flush=True)
    result = subprocess.run(command, stdout=subprocess.PIPE if capture else None, text=True)
    if result.returncode:
        sys.exit(result.returncode)
    return result.stdout or ""


def _processor() -> str:
    """Name of the processor, where the system tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0]}, {os.cpu_count()} cores" if names else platform.processor()


def main(argv: list[str]) -> None:
    del argv
    from vdit.parallel.runtime import cpu_devices_for, initialise

    plan = study_plan.load(CONFIG.value, FULL.value)
    initialise(cpu_devices_for(plan.base))
    command = "python -m launch.study " + " ".join(shlex.quote(argument) for argument in sys.argv[1:])
    Study(Path(OUT.value), plan, command).run()


if __name__ == "__main__":
    run_main(main)
