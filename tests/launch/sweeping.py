"""Sweeps on the tiny data set, and a trainer that takes no time, for the tests of launching."""

from __future__ import annotations

import sys
from pathlib import Path
from unittest import mock

import tiny

from launch.sweeps import settings
from launch.sweeps.expand import Sweep, expand
from launch.sweeps.grid import Points
from launch.sweeps.state import Folder
from launch.targets import local

STAND_IN = """
import json, os, signal, sys, time
workdir = next(a for a in sys.argv if a.startswith("--workdir=")).split("=", 1)[1]
os.makedirs(workdir, exist_ok=True)
script = os.path.join(workdir, "script")
process = os.environ.get("JAX_PROCESS_ID", "0")
tried = os.path.join(workdir, f"tried-{process}")
count = len(open(tried).read()) if os.path.exists(tried) else 0
open(tried, "a").write("x")
signal.signal(signal.SIGTERM, lambda *_: (open(tried + "-term", "a").write("x"), sys.exit(75)))
print("hello", json.dumps(sys.argv[1:]), os.environ.get("CUDA_VISIBLE_DEVICES"), flush=True)
order = json.load(open(script)) if os.path.exists(script) else [{}]
todo = order[min(count, len(order) - 1)]
if "step" in todo:
    json.dump({"step": todo["step"], "time": time.time()}, open(os.path.join(workdir, "heartbeat.json"), "w"))
while "until" in todo and not os.path.exists(todo["until"]):
    time.sleep(0.01)
if todo.get("status"):
    print("error: as told", flush=True)
    if todo["status"] < 0:
        os.kill(os.getpid(), -todo["status"])
    sys.exit(todo["status"])
if process == "0":
    json.dump({"loss": 0.5, "steps": 6}, open(os.path.join(workdir, "result.json"), "w"))
"""


def stand_in(folder: Path):
    """Within it, runs are made by a script that does what the file `script` in their workdir says, try by try."""
    path = folder / "stand_in.py"
    path.write_text(STAND_IN)

    def command(sweep, run, where):
        return [sys.executable, str(path), *sweep.arguments(run, str(where.run(run.id)))]

    return mock.patch.object(local, "command", command)


def sweep(points: Points, folder: Path, name: str = "tiny", **values) -> Sweep:
    """A sweep over `tiny.tiny_config`; `values` go to the settings of local."""
    config, train = folder / "experiment.py", values.pop("train", {})
    if not config.exists():
        tiny.write_config(config, tiny.tiny_config(**train))
    values = {"backoff": 0.02, "grace": 20.0, **values}
    return Sweep(name, str(config), expand(str(config), points), {"local": settings.Local(**values)})


def launch(made: Sweep, root: Path) -> tuple[Folder, int]:
    """Starts it here; (its folder, number of failed runs)."""
    folder = Folder(root / made.name)
    return folder, local.start(made, folder, made.settings["local"])
