"""What faults do to a run: kills at random moments, and a soak; writes docs/reliability.md.

    python -m benchmarks.faults --kills=200          one run after another, killed with SIGKILL 200 times
    python -m benchmarks.faults --soak_minutes=30    one run, watched for leaks, killed now and then
    python -m benchmarks.faults --write              write the page from benchmarks/faults.json, measure nothing

Prints JSON; with --keep it is kept in benchmarks/faults.json, and the page written. With --folder an interrupted
measurement goes on where it was: the same command again.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from benchmarks import pages
from vdit.command.run import no_arguments, run_main
from vdit.config import Config, DataConfig, ModelConfig, OptimizerConfig, TrainConfig

KILLS = flags.DEFINE_integer("kills", 0, "Kill runs so many times.", lower_bound=0)
SOAK = flags.DEFINE_float("soak_minutes", 0.0, "Watch one run for so long.", lower_bound=0.0)
OFTEN = flags.DEFINE_bool("soak_often", False, "Save every 20 steps of that run, not every 200.")
FOLDER = flags.DEFINE_string("folder", None, "For all files, and to go on from; else a temporary one.")
KEEP = flags.DEFINE_bool("keep", False, "Keep the figures in benchmarks/faults.json and write docs/reliability.md.")
WRITE = flags.DEFINE_bool("write", False, "Write docs/reliability.md from benchmarks/faults.json.")

SLOPE = 1
"""MiB a minute by which the memory of a run may grow."""

RESULTS = Path(__file__).with_suffix(".json")


def experiment(root: Path, steps: int, **changes: Any) -> Config:
    """A run of 30,000 parameters on 60 physics clips, which saves and evaluates often."""
    data = root / "physics"
    if not data.exists():
        build = [f"--out={data}", "--source=physics", "--limit=60", "--text_encoder=none"]
        command = [sys.executable, "-m", "data_pipelines.build", *build]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    train = TrainConfig(**{"steps": steps, "log_every": 1, "checkpoint_every": 8, "evaluate_every": 20, **changes})
    return Config(
        data=DataConfig(str(data), row_tokens=512, row_text=64, row_examples=20, rows_per_step=2),
        model=ModelConfig(width=16, depth=2, head_width=16, base_width=16),
        optimizer=OptimizerConfig(warmup=5),
        train=train,
    )


def use(pid: int) -> dict[str, float]:
    """MiB of memory, file descriptors, threads and child processes of a process."""
    proc = Path(f"/proc/{pid}")
    status = dict(line.split(":", 1) for line in (proc / "status").read_text().splitlines() if ":" in line)
    return {
        "mib": int(status["VmRSS"].split()[0]) / 1024,
        "files": len(os.listdir(proc / "fd")),
        "threads": int(status["Threads"]),
        "children": sum(map(_children, proc.glob("task/*"))),
    }


def _children(thread: Path) -> int:
    """Child processes that a thread has started; none if it has just ended."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return len((thread / "children").read_text().split())
    return 0


def soak(
    minutes: float, root: Path, save_every: int = 200, kills_at: tuple[float, ...] = (0.05, 0.1, 0.15, 0.2)
) -> dict[str, Any]:
    """One run with evaluations and saves all the time, killed and started again; what it uses is noted every second.

    Args:
      minutes: from beginning to end.
      root: for its files.
      save_every: steps from one checkpoint to the next.
      kills_at: parts of that time after which it is killed; it is watched after the last.

    Returns:
      Of the last life, after a warm-up of a quarter of it: the growth of memory in MiB a minute (least squares), memory
      minute by minute, and memory, file descriptors, threads and child processes at its beginning and end.
    """
    from benchmarks.kills import fork, training
    from vdit.training.recovery.checkpoint import checkpoint_steps

    config, log = experiment(root, 10**6, log_every=20, checkpoint_every=save_every, evaluate_every=400), root / "log"
    shutil.rmtree(root / "soak", ignore_errors=True)
    began = time.monotonic()
    for end in (*kills_at, 1.0):
        child, seen = fork(training(config, root / "soak"), log), []
        while time.monotonic() < began + 60 * minutes * end:
            time.sleep(1.0)
            if os.waitpid(child, os.WNOHANG)[0]:
                raise RuntimeError(f"the run ended: {log.read_text()[-2000:]}")
            seen.append({"minutes": time.monotonic() / 60, **use(child)})
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    life = seen[-1]["minutes"] - seen[0]["minutes"]
    warm = [x for x in seen if x["minutes"] > seen[0]["minutes"] + life / 4]
    slope = np.polyfit([x["minutes"] for x in warm], [x["mib"] for x in warm], 1)[0]
    first, last = (
        {name: int(np.median([x[name] for x in part])) for name in ("mib", "files", "threads", "children")}
        for part in (warm[:10], warm[-10:])
    )
    return {
        "minutes": minutes,
        "save_every": save_every,
        "kills": len(kills_at),
        "watched_minutes": round(warm[-1]["minutes"] - warm[0]["minutes"], 1),
        "steps": max(checkpoint_steps(root / "soak"), default=0),
        "mib_a_minute": round(float(slope), 3),
        "mib_by_minute": [round(x["mib"], 1) for x in warm[::60]],
        "after_warm_up": first,
        "at_the_end": last,
    }


def page(found: dict[str, Any]) -> str:
    """The figures in words, for docs/reliability.md."""
    lines = []
    if killed := found.get("kills"):
        doing = ", ".join(f"{count} {name}" for name, count in sorted(killed["doing"].items(), key=lambda x: -x[1]))
        outcome = f"DIFFERED in {', '.join(killed['differing'])}" if killed["differing"] else "nothing differed"
        lines.append(
            f"`python -m benchmarks.faults --kills={killed['kills']}`: {killed['kills']} of {killed['processes']} "
            "processes were killed with SIGKILL at random moments of their processor time. Their main threads were: "
            f"{doing}. In {killed['reading']} of them a thread was reading rows; {killed['saves_cut_off']} left a "
            f"checkpoint half-written. Of those that counted as whole {killed['damaged']} were found damaged. "
            f"The {killed['runs']} runs of {killed['steps_of_a_run']} steps that came of it were compared with the "
            "undisturbed one, bit for bit: parameters, averages, optimiser state, position, checkpoints that are kept, "
            f"rows of metrics and result.json. {outcome[0].upper()}{outcome[1:]}."
        )
    for soaked in filter(None, (found.get("soak"), found.get("soak_often"))):
        first, last = soaked["after_warm_up"], soaked["at_the_end"]
        counts = ", ".join(
            f"{first[name]} to {last[name]} {words}"
            for name, words in (("files", "open files"), ("threads", "threads"), ("children", "child processes"))
        )
        every = soaked.get("save_every", 200)
        command = f"--soak_minutes={soaked['minutes']:g}{' --soak_often' * (every < 200)}"
        lines.append(
            f"`python -m benchmarks.faults {command}`: {soaked['steps']} steps with an "
            f"evaluation every 400 and a save every {every}, killed {soaked['kills']} times. Over the last "
            f"{soaked['watched_minutes']} minutes, after a warm-up, memory grew by {soaked['mib_a_minute']} MiB a "
            f"minute (from {first['mib']} to {last['mib']} MiB), the aim being less than {SLOPE}; {counts}."
        )
    return "\n\n".join(lines)


def write_page(found: dict[str, Any]) -> None:
    """Puts the figures between the marks of docs/reliability.md."""
    body = "\n\n".join(textwrap.fill(part, 120) for part in page(found).split("\n\n"))
    pages.put("reliability.md", "python -m benchmarks.faults", f"\n{body}\n")


def kept() -> dict[str, Any]:
    """What was found before, and kept."""
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else {}


def show(found: dict[str, Any]) -> None:
    """Prints what was found, and with --keep keeps it and writes the page."""
    found = {**found, "cores": os.cpu_count()}
    print(json.dumps(found, indent=1), flush=True)
    if KEEP.value:
        RESULTS.write_text(json.dumps(kept() | found, indent=1) + "\n")
        write_page(kept())


def main(argv: list[str]) -> None:
    no_arguments(argv)
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(FOLDER.value or temporary)
        root.mkdir(parents=True, exist_ok=True)
        if KILLS.value:
            from benchmarks.kills import kills

            say = lambda line: print(line, file=sys.stderr, flush=True)  # noqa: E731
            show({"kills": kills(KILLS.value, experiment(root, steps=40), root, say)})
        if SOAK.value:
            name, every = ("soak_often", 20) if OFTEN.value else ("soak", 200)
            show({name: soak(SOAK.value, root, every)})
    if WRITE.value:
        write_page(kept())


if __name__ == "__main__":
    run_main(main)
