"""What faults do to a run: kills at random moments, and a soak; writes docs/reliability.md.

    python -m benchmarks.faults --kills=200          one run after another, killed with SIGKILL 200 times
    python -m benchmarks.faults --soak_minutes=30    one run, watched for leaks, killed twice
    python -m benchmarks.faults --write              write the page from benchmarks/faults.json, measure nothing

Prints JSON; with --keep it is kept in benchmarks/faults.json, and the page written.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import flags

from data_pipelines.mixture import open_data
from vdit.config import Config, DataConfig, ModelConfig, OptimizerConfig, TrainConfig, no_arguments, run_main
from vdit.parallel.runtime import initialise
from vdit.training.checkpoint import checkpoint_steps
from vdit.training.loop import open_run, train
from vdit.training.metrics import read_metrics
from vdit.training.workdir import read_json

KILLS = flags.DEFINE_integer("kills", 0, "Kill runs so many times.", lower_bound=0)
SOAK = flags.DEFINE_float("soak_minutes", 0.0, "Watch one run for so long.", lower_bound=0.0)
KEEP = flags.DEFINE_bool("keep", False, "Keep the figures in benchmarks/faults.json and write docs/reliability.md.")
WRITE = flags.DEFINE_bool("write", False, "Write docs/reliability.md from benchmarks/faults.json.")

RESULTS = Path(__file__).with_suffix(".json")
PAGE = Path(__file__).parents[1] / "docs" / "reliability.md"
TIMES = ("seconds", "data_wait", "started", "train_seconds")


def experiment(root: Path, steps: int, **changes: Any) -> Config:
    """A run of 30,000 parameters on 60 physics clips: a step takes some 10 ms, so much happens in a second."""
    data = root / "physics"
    if not data.exists():
        build = [f"--out={data}", "--source=physics", "--limit=60", "--text_encoder=none"]
        command = [sys.executable, "-m", "data_pipelines.build", *build]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    train = TrainConfig(**{"steps": steps, "log_every": 1, "checkpoint_every": 10, "evaluate_every": 50, **changes})
    return Config(
        data=DataConfig(str(data), row_tokens=512, row_text=64, row_examples=20, rows_per_step=2),
        model=ModelConfig(width=16, depth=2, head_width=16, base_width=16),
        optimizer=OptimizerConfig(warmup=5),
        train=train,
    )


def fork(work: Callable[[], Any], log: Path) -> int:
    """Does `work` in a process of its own, which has everything imported already; gives its id.

    What is returned is written to `log`.json, what is printed to `log`.
    """
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        with log.open("a") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        initialise(2)
        jax.config.update("jax_compilation_cache_dir", str(log.parent / "xla"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        result = work()
        log.with_name(log.name + ".json").write_text(json.dumps(result))
        status = 0
    except BaseException as error:  # a child that went on would do the parent's work
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def finish(child: int, log: Path) -> Any:
    """Waits for a process; gives what its work returned."""
    _, status = os.waitpid(child, 0)
    if status:
        raise RuntimeError(f"a process ended with status {status}: {log.read_text()[-2000:]}")
    return json.loads(log.with_name(log.name + ".json").read_text())


def training(config: Config, workdir: Path) -> Callable[[], Any]:
    """Trains to the end."""

    def work() -> Any:
        train(config, workdir)

    return work


def differences(config: Config, ours: Path, theirs: Path) -> list[str]:
    """What differs between two runs: arrays of the newest checkpoint, the position, rows of metrics. Bit for bit."""
    found = []
    meta = open_data(config.data).meta
    runs = [open_run(config, workdir, meta) for workdir in (ours, theirs)]
    states = [jax.tree_util.tree_leaves_with_path(run.state) for run in runs]
    for (path, a), (_, b) in zip(*states, strict=True):
        if np.asarray(a).tobytes() != np.asarray(b).tobytes():
            found.append(jax.tree_util.keystr(path))
    if runs[0].position != runs[1].position:
        found.append("position")
    rows = [
        [{k: v for k, v in row.items() if k not in TIMES} for row in read_metrics(workdir)]
        for workdir in (ours, theirs)
    ]
    if rows[0] != rows[1]:
        found.append("metrics")
    return found


def moment(workdir: Path, before: tuple[float, int]) -> str:
    """What a run was doing when it was killed; `before` is what `progress` said when the process was started."""
    if any("tmp" in path.name for path in (workdir / "checkpoints").glob("*")):
        return "saving"
    try:
        time_of, step = progress(workdir)
        state = read_json(workdir / "heartbeat.json")["state"] if time_of else ""
    except Exception:
        return "saving"
    if (time_of, step) == before:
        return "starting or restoring"
    return "evaluating" if state == "evaluating" else "stepping, reading or writing rows"


def progress(workdir: Path) -> tuple[float, int]:
    """Time of the last change of the metrics, and their size."""
    path = workdir / "metrics.jsonl"
    return (path.stat().st_mtime, path.stat().st_size) if path.exists() else (0.0, 0)


def kills(count: int, root: Path, steps: int = 120) -> dict[str, Any]:
    """Kills runs at random moments until `count` kills are done and the last run is finished.

    Returns:
      Numbers of kills, by what the run was doing, and of runs that are identical to the undisturbed one.
    """
    config, log = experiment(root, steps), root / "log"
    finish(fork(training(config, root / "cold"), log), log)  # fills the compilation cache
    began = time.monotonic()
    finish(fork(training(config, root / "undisturbed"), log), log)
    life = time.monotonic() - began
    rng, moments, runs, processes, differing = random.Random(0), Counter[str](), 0, 0, []
    workdir = root / "killed"
    before_kills = time.monotonic()
    while sum(moments.values()) < count or workdir.exists():
        before = progress(workdir)
        child, processes = fork(training(config, workdir), log), processes + 1
        wait = rng.uniform(0.0, 0.8 * life) if sum(moments.values()) < count else float("inf")
        end = time.monotonic() + wait
        status: int | None = None
        while status is None and time.monotonic() < end:
            done, found = os.waitpid(child, os.WNOHANG)
            status = found if done else None
            time.sleep(0.002)
        if status is None:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            moments[moment(workdir, before)] += 1
            continue
        if status:
            raise RuntimeError(f"a resumed run failed: {log.read_text()[-2000:]}")
        check = fork(lambda: differences(config, workdir, root / "undisturbed"), log)
        differing += finish(check, log)
        runs += 1
        shutil.rmtree(workdir)
    return {
        "kills": count,
        "moments": dict(sorted(moments.items())),
        "runs": runs,
        "steps_of_a_run": steps,
        "processes": processes,
        "differing": sorted(set(differing)),
        "minutes": round((time.monotonic() - before_kills) / 60, 1),
    }


def use(pid: int) -> dict[str, float]:
    """MiB of memory, file descriptors, threads and child processes of a process."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line)
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return {
        "mib": int(status["VmRSS"].split()[0]) / 1024,
        "files": len(os.listdir(f"/proc/{pid}/fd")),
        "threads": int(status["Threads"]),
        "children": len(children),
    }


def soak(minutes: float, root: Path, lives: int = 3) -> dict[str, Any]:
    """One run with evaluations and saves all the time, killed between its lives; what it uses is noted every second.

    Returns:
      Of the longest life, after a warm-up of a quarter of it (and at least 20 s): the growth of memory in MiB a minute
      (least squares), and file descriptors, threads and child processes at its beginning and end.
    """
    config, log = experiment(root, 10**6, log_every=20, checkpoint_every=200, evaluate_every=400), root / "log"
    ends = [0.2, 0.4, 1.0][-lives:]
    began, longest = time.monotonic(), []
    for end in ends:
        child, seen = fork(training(config, root / "soak"), log), []
        while time.monotonic() < began + 60 * minutes * end:
            time.sleep(1.0)
            if os.waitpid(child, os.WNOHANG)[0]:
                raise RuntimeError(f"the run ended: {log.read_text()[-2000:]}")
            seen.append({"seconds": time.monotonic(), **use(child)})
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        longest = max(longest, seen, key=len)
    warm = [x for x in longest if x["seconds"] > longest[0]["seconds"] + max(20.0, 0.25 * len(longest))]
    slope = np.polyfit([x["seconds"] / 60 for x in warm], [x["mib"] for x in warm], 1)[0]
    first, last = (
        [int(np.median([x[name] for x in part])) for name in ("mib", "files", "threads", "children")]
        for part in (warm[:10], warm[-10:])
    )
    return {
        "minutes": minutes,
        "lives": lives,
        "watched_minutes": round((warm[-1]["seconds"] - warm[0]["seconds"]) / 60, 1),
        "steps": checkpoint_steps(root / "soak")[-1],
        "mib_a_minute": round(float(slope), 3),
        "after_warm_up": dict(zip(("mib", "files", "threads", "children"), first, strict=True)),
        "at_the_end": dict(zip(("mib", "files", "threads", "children"), last, strict=True)),
    }


def page(found: dict[str, Any]) -> str:
    """The figures in words, for docs/reliability.md."""
    lines = []
    if killed := found.get("kills"):
        moments = ", ".join(f"{count} while {name}" for name, count in killed["moments"].items())
        outcome = "were identical to the undisturbed one, bit for bit" if not killed["differing"] else "DIFFERED"
        lines.append(
            f"`python -m benchmarks.faults --kills={killed['kills']}`: {killed['kills']} kills with SIGKILL at random "
            f"moments ({moments}) of {killed['processes']} processes. All {killed['runs']} runs of "
            f"{killed['steps_of_a_run']} steps that they belonged to {outcome}: parameters, averages, optimiser state, "
            "position and rows of metrics."
        )
    if soaked := found.get("soak"):
        first, last = soaked["after_warm_up"], soaked["at_the_end"]
        counts = ", ".join(f"{first[n]} to {last[n]} {w}" for n, w in (("files", "open files"), ("threads", "threads")))
        lines.append(
            f"`python -m benchmarks.faults --soak_minutes={soaked['minutes']:g}`: {soaked['steps']} steps with "
            f"evaluations and saves in {soaked['lives']} lives. Over {soaked['watched_minutes']} minutes of the last "
            f"memory grew by {soaked['mib_a_minute']} MiB a minute; from {counts}, {last['children']} child processes."
        )
    return "\n\n".join(lines)


def write_page(found: dict[str, Any]) -> None:
    """Puts the figures between the marks of docs/reliability.md."""
    begin, end = "<!-- begin: python -m benchmarks.faults -->\n", "<!-- end -->"
    head, rest = PAGE.read_text(encoding="utf-8").split(begin)
    body = "\n\n".join(textwrap.fill(part, 120) for part in page(found).split("\n\n"))
    PAGE.write_text(f"{head}{begin}\n{body}\n\n{end}{rest.split(end)[1]}", encoding="utf-8")


def main(argv: list[str]) -> None:
    no_arguments(argv)
    found = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    with tempfile.TemporaryDirectory() as root:
        if KILLS.value:
            found["kills"] = kills(KILLS.value, Path(root))
        if SOAK.value:
            found["soak"] = soak(SOAK.value, Path(root))
    found["cores"] = os.cpu_count()
    print(json.dumps(found, indent=1))
    if KEEP.value:
        RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    if KEEP.value or WRITE.value:
        write_page(found)


if __name__ == "__main__":
    run_main(main)
