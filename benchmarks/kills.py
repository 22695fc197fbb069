"""Kills runs at random moments, and says what they were doing and whether anything was lost.

A killed run is a fork of one process that has imported everything and never starts JAX, so a start costs little.
Moments are drawn over the processor time of a run's whole life, so they do not depend on what else the machine does.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import json
import mmap
import os
import random
import shutil
import signal
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from etils import epath

from data_pipelines.reading.mixture import open_data
from data_pipelines.reading.pipeline import RowReader
from vdit.config import Config
from vdit.errors import UserError
from vdit.evaluation import validation
from vdit.io.files import read_json, write_json
from vdit.parallel.runtime import initialise
from vdit.scaling.runs import result_row
from vdit.train import train
from vdit.training import loop
from vdit.training.record.heartbeat import Heartbeat
from vdit.training.record.metrics import MetricWriter
from vdit.training.recovery.checkpoint import Checkpoints, checkpoint_steps
from vdit.training.run import open_run

TIMES = ("seconds", "data_wait", "started", "train_seconds", "accelerator_hours", "tokens_per_second", "tflops")
"""Values in rows of metrics and in results that tell of time, which differs from run to run."""

DOING = (
    "starting up",
    "restoring",
    "compiling the step",
    "stepping",
    "evaluating",
    "writing metrics",
    "handing over or awaiting a save",
    "finishing",
    "done",
)
"""What a run's main thread can be doing; "stepping" is all of its loop, after its first step, that is nothing else."""


class Doing:
    """What a forked run is doing, in memory that it shares with the one that kills it."""

    def __init__(self) -> None:
        self._shared = mmap.mmap(-1, 2)
        self._lock = threading.Lock()

    @property
    def now(self) -> str:
        """What the main thread is doing."""
        return DOING[self._shared[0]]

    @now.setter
    def now(self, name: str) -> None:
        self._shared[0] = DOING.index(name)

    @property
    def reads(self) -> bool:
        """Whether a thread is reading rows of data."""
        return self._shared[1] > 0

    def reset(self) -> None:
        """Says what a process does that is about to be started."""
        self._shared[:] = bytes(2)

    def watch(self) -> None:
        """Makes this process, which must be a fork, tell what it does from now on."""
        self._during("restoring", Checkpoints, "restore")
        self._during("handing over or awaiting a save", Checkpoints, "save", "wait")
        self._during("writing metrics", MetricWriter, "__init__", "write")
        self._during("writing metrics", Heartbeat, "beat", after="stepping")  # the first comes after the first step
        self._during("evaluating", validation, "evaluate_run")
        self._during("compiling the step", loop, "train_loop", after="finishing")
        read = RowReader.__call__

        def reading(*arguments: Any) -> Any:
            with self._lock:
                self._shared[1] += 1
            try:
                return read(*arguments)
            finally:
                with self._lock:
                    self._shared[1] -= 1

        setattr(RowReader, "__call__", reading)  # noqa: B010

    def _during(self, name: str, owner: Any, *functions: str, after: str = "") -> None:
        for function in functions:
            setattr(owner, function, self._telling(name, getattr(owner, function), after))

    def _telling(self, name: str, function: Callable[..., Any], after: str) -> Callable[..., Any]:
        def told(*arguments: Any, **named: Any) -> Any:
            before, self.now = self.now, name
            try:
                return function(*arguments, **named)
            finally:
                self.now = after or before

        return told


def fork(work: Callable[[], Any], log: Path) -> int:
    """Does `work` in a process of its own, which has everything imported already; gives its id.

    What is returned is written to `log`.json, what is printed to `log`. It does not outlive this process.
    """
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        with log.open("a") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        initialise(2)
        jax.config.update("jax_compilation_cache_dir", str(log.parent / "xla"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        result = work()
        log.with_name(log.name + ".json").write_text(json.dumps(result))
        status = 0
    except BaseException:  # a child that went on would do the parent's work
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def finish(child: int, log: Path) -> Any:
    """Waits for a process; gives what its work returned.

    Raises:
      RuntimeError: if it failed.
    """
    _, status = os.waitpid(child, 0)
    if status:
        raise RuntimeError(f"a process ended with status {status}: {log.read_text()[-3000:]}")
    return read_json(log.with_name(log.name + ".json"))


def outcome(config: Config, workdir: Path) -> dict[str, Any]:
    """All of a finished run that interruptions must not change, read from its files.

    Returns:
      Name -> digest of each array of the newest checkpoint (parameters, averages, optimiser state), and under
      "position", "checkpoints", "metrics" and "result" what these hold, times left out. A line of metrics.jsonl that is
      cut off is an error.
    """
    run = open_run(config, workdir, open_data(config.data).meta)
    arrays = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(run.state)}
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return {
        **{name: hashlib.sha256(np.asarray(array).tobytes()).hexdigest() for name, array in arrays.items()},
        "position": repr(run.position),
        "checkpoints": checkpoint_steps(workdir),
        "metrics": [_without_times(row) for row in rows],
        "result": _without_times(read_json(workdir / "result.json")),
    }


def _without_times(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in TIMES}


def differing(ours: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    """Names of what our run lacks or has otherwise than theirs.

    A checkpoint more is no difference: a kill between the last save and the removal of an old one leaves it there.
    """
    names = {name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name)}
    if set(theirs.get("checkpoints", ())) <= set(ours.get("checkpoints", ())):
        names.discard("checkpoints")
    return sorted(names)


def training(config: Config, workdir: Path, doing: Doing | None = None) -> Callable[[], Any]:
    """Trains to the end and writes result.json, as `vdit.train` does.

    Returns:
      Work that gives its processor time up to there in seconds, and the run's `outcome`.
    """

    def work() -> Any:
        if doing:
            doing.watch()
        result = train(config, workdir)
        write_json(epath.Path(workdir / "result.json"), result_row(config, result))
        if doing:
            doing.now = "done"
        return {"life": time.process_time(), "outcome": outcome(config, workdir)}

    return work


def kill_when(child: int, ready: Callable[[], bool], doing: Doing) -> bool:
    """Kills a process with SIGKILL as soon as `ready` says so; False if its run was done before that."""
    while not os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT):
        if doing.now == "done":
            return False
        if ready():
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return True
        time.sleep(0.002)
    return False


def processor_seconds(process: int) -> float:
    """Processor time that another process has used so far."""
    return time.clock_gettime((~process << 3) | 2)  # the clock of clock_getcpuclockid(3)


def kills(count: int, config: Config, folder: Path, say: Callable[[str], None] = print) -> dict[str, Any]:
    """Kills runs, one after another, until `count` kills are done and the last run is finished.

    Goes on from what `folder` holds, if this was interrupted.

    Args:
      count: of kills.
      config: the run, which must save and log.
      folder: for all files.
      say: told how it goes.

    Returns:
      What killed runs were doing, how many runs there were, and what of them differed from the undisturbed one.

    Raises:
      UserError: if `folder` holds what was found of another config.
      RuntimeError: if a run fails.
    """
    log, doing, workdir, record = folder / "log", Doing(), folder / "killed", epath.Path(folder / "kills.json")
    if not record.exists():
        for name in ("cold", "undisturbed"):  # the first fills the compilation cache
            shutil.rmtree(folder / name, ignore_errors=True)
            found = finish(fork(training(config, folder / name), log), log)
            say(f"{name} run: {found['life']:.1f} s of processor time")
        first = {
            "config": repr(config),
            "kills": 0,
            "processes": 0,
            "runs": 0,
            "minutes": 0.0,
            "doing": {},
            "differing": {},
        }
        write_json(record, {**found, **first, "reading": 0, "saves_cut_off": 0})
    state = read_json(record)
    if state["config"] != repr(config):
        raise UserError(f"{folder} holds what was found of another config; take another --folder")
    while state["kills"] < count or workdir.exists():
        began, unfinished = time.monotonic(), _unfinished(workdir)
        moment = random.Random(f"kill {state['processes']}").uniform(0.0, state["life"])
        doing.reset()
        child = fork(training(config, workdir, doing), log)
        late = lambda child=child, moment=moment: processor_seconds(child) >= moment  # noqa: E731
        if state["kills"] < count and kill_when(child, late, doing):
            state["kills"] += 1
            state["doing"] = dict(Counter(state["doing"]) + Counter([doing.now]))
            state["reading"] += doing.reads
            state["saves_cut_off"] += doing.now != "starting up" and not _unfinished(workdir) <= unfinished
            say(f"kill {state['kills']} of {count}, after {moment:.1f} s: {doing.now}")
        else:
            found = finish(child, log)
            state["runs"] += 1
            state["differing"] |= dict.fromkeys(differing(found["outcome"], state["outcome"]), state["runs"])
            say(f"run {state['runs']} finished, differing: {', '.join(state['differing']) or 'nothing'}")
            shutil.rmtree(folder / "finished", ignore_errors=True)
            workdir.rename(folder / "finished")  # not removed in place: half of it must not be gone on with
        state["processes"] += 1
        state["minutes"] += (time.monotonic() - began) / 60
        write_json(record, state)
    return {
        **{name: state[name] for name in ("kills", "doing", "reading", "saves_cut_off", "runs", "processes")},
        "steps_of_a_run": config.train.steps,
        "damaged": log.read_text().count("warning: checkpoint"),
        "differing": sorted(state["differing"]),
        "minutes": round(state["minutes"], 1),
    }


def _unfinished(workdir: Path) -> set[tuple[str, int]]:
    """Names and times of change of checkpoints that are not whole."""
    found = set()
    for path in (workdir / "checkpoints").glob("*tmp*"):
        with contextlib.suppress(FileNotFoundError):
            found.add((path.name, path.stat().st_ctime_ns))
    return found
