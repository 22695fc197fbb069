"""How fast sweeps are planned and listed, and what killing a sweep's processes does to its results.

    python -m benchmarks.launch                    1,000 runs planned, listed, shown by launch.status
    python -m benchmarks.launch --disturb=20       20 local runs, with and without 30% of its processes killed

Prints JSON. The second takes about ten minutes on two cores.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from absl import flags

from launch.sweeps import expand, settings
from launch.sweeps.grid import over
from launch.sweeps.state import Folder
from launch.targets import local
from vdit.command.run import run_main
from vdit.training.record.metrics import read_metrics

EXPERIMENT = """
from ml_collections import ConfigDict


def get_config():
    return ConfigDict({{
        "data": {{"path": {data!r}, "row_tokens": 512, "row_text": 64, "row_examples": 20}},
        "model": {{"width": 16, "depth": 2, "head_width": 16}},
        "train": {{"steps": 80, "log_every": 5, "checkpoint_every": 10}},
    }})
"""

SWEEP = """
from ml_collections import ConfigDict
from launch.sweeps.grid import over, product


def get_config():
    ten = range(1, 11)
    runs = product(over("seed", *ten), over("train.steps", *(100 * n for n in ten)), over("model.depth", *ten))
    return ConfigDict({{"name": "many", "config": {config!r}, "runs": runs}})
"""


def listing(rounds: int) -> dict[str, Any]:
    """Seconds of whole commands, imports included: the median of some rounds."""
    with tempfile.TemporaryDirectory() as root:
        (Path(root) / "experiment.py").write_text(EXPERIMENT.format(data="data/physics"))
        path = Path(root) / "sweep.py"
        path.write_text(SWEEP.format(config=f"{root}/experiment.py"))
        flags = [f"--sweep={path}", "--to=local", f"--out={root}"]
        made = expand.build_sweep(expand.load(str(path)), str(path))
        folder = Folder(Path(root) / "many")
        folder.write_plan(made, "local", settings.Local())
        planned = _seconds(rounds, "launch.sweep", *flags, "--dry_run")
        shown = _seconds(rounds, "launch.status", str(folder.path))
        return {"runs": len(made.runs), "planned_and_listed_seconds": planned, "status_seconds": shown}


def _seconds(rounds: int, module: str, *arguments: str) -> float:
    took = []
    for _ in range(rounds):
        before = time.perf_counter()
        subprocess.run([sys.executable, "-m", module, *arguments], check=True, stdout=subprocess.DEVNULL)
        took.append(time.perf_counter() - before)
    return round(sorted(took)[len(took) // 2], 3)


class Killer(threading.Thread):
    """Kills processes of a sweep with SIGKILL, each at a random moment of its life.

    Args:
      folder: the sweep.
      ids: its runs.
      share: of the processes that is killed at least, as long as enough are started.
      life: seconds that an undisturbed process takes.
    """

    def __init__(self, folder: Folder, ids: list[str], share: float, life: float):
        super().__init__(daemon=True)
        self._folder, self._ids, self._share, self._life = folder, ids, share, life
        self._random = random.Random(0)
        self._marked: dict[int, float] = {}
        self.seen: set[int] = set()
        self.killed = 0
        self.over = False

    def run(self) -> None:
        while not self.over:
            for run_id in self._ids:
                with contextlib.suppress(Exception):  # the file is just being replaced
                    state = self._folder.state(run_id)
                    for pid in state.pids if state else []:
                        self._meet(pid)
            for pid, when in list(self._marked.items()):
                if time.monotonic() >= when:
                    del self._marked[pid]
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                        self.killed += 1
            time.sleep(0.05)

    def _meet(self, pid: int) -> None:
        if pid not in self.seen:
            self.seen.add(pid)
            behind = self.killed + len(self._marked) < (self._share + 0.1) * len(self.seen)  # some end before
            if behind or self._random.random() < self._share:
                self._marked[pid] = time.monotonic() + self._random.uniform(0.1, 0.8) * self._life


def disturbed(runs: int, share: float = 0.3, steps: int = 80) -> dict[str, Any]:
    """A sweep whose processes are killed, beside the same one undisturbed.

    Returns:
      How many processes were started and killed, and how many runs are identical bit for bit in losses and counts.
    """
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        data, config = root / "physics", root / "experiment.py"
        build = [f"--out={data}", "--source=physics", "--limit=60", "--text_encoder=none"]
        subprocess.run([sys.executable, "-m", "data_pipelines.build", *build], check=True, stdout=subprocess.DEVNULL)
        config.write_text(EXPERIMENT.format(data=str(data)).replace('"steps": 80', f'"steps": {steps}'))
        rates = over("optimizer.learning_rate", *(round(1e-3 * (1 + n / 4), 6) for n in range(runs)))  # one program
        planned = expand.expand(str(config), rates)
        values = settings.Local(at_once=2, cpu_devices=2, restarts=1000, backoff=0.1)

        def launch(name: str) -> Folder:
            folder = Folder(root / name)
            with contextlib.redirect_stdout(io.StringIO()):
                failed = local.start(expand.Sweep(name, str(config), planned, {"local": values}), folder, values)
            assert failed == 0, f"{failed} runs of {name} failed"
            return folder

        ids = [run.id for run in planned]
        quiet = launch("undisturbed")
        lives = [attempt["end"] - attempt["start"] for i in ids for attempt in quiet.state(i).attempts]  # type: ignore
        killer = Killer(Folder(root / "disturbed"), ids, share, sorted(lives)[len(lives) // 2])
        killer.start()
        noisy = launch("disturbed")
        killer.over = True
        killer.join()
        same = [outcome(quiet, run_id) == outcome(noisy, run_id) for run_id in ids]
        attempts = [len(noisy.state(run_id).attempts) for run_id in ids]  # type: ignore[union-attr]
        return {
            "runs": runs,
            "processes": sum(attempts),
            "killed": killer.killed,
            "killed_share": round(killer.killed / sum(attempts), 3),
            "most_attempts_of_a_run": max(attempts),
            "identical_runs": sum(same),
        }


def outcome(folder: Folder, run_id: str) -> Any:
    """What must not depend on interruptions: every row of metrics and the result, but for times."""
    times = ("seconds", "data_wait", "started", "train_seconds", "tokens_per_second", "tflops")
    rows = [{k: v for k, v in row.items() if k not in times} for row in read_metrics(folder.run(run_id))]
    result = {k: v for k, v in folder.read(run_id, "result.json").items() if k not in times}
    assert rows and result["loss"] > 0
    return json.dumps([rows, result])


def main(argv: list[str]) -> None:
    del argv
    found = disturbed(flags.FLAGS.disturb) if flags.FLAGS.disturb else listing(flags.FLAGS.rounds)
    print(json.dumps({**found, "cores": os.cpu_count()}, indent=1))


if __name__ == "__main__":
    flags.DEFINE_integer("disturb", 0, "disturb a sweep of this many runs", lower_bound=0)
    flags.DEFINE_integer("rounds", 5, "repetitions, of which the median is printed", lower_bound=1)
    run_main(main)
