"""Runs on this machine: a queue, one or several processes a run, restarts, and a Ctrl-C that loses nothing."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tqdm import tqdm

from launch.sweeps.expand import Run, Sweep
from launch.sweeps.settings import Local
from launch.sweeps.state import Folder, State
from launch.targets import compiler_flags
from vdit.command.exit_status import PREEMPTED, USER_ERROR
from vdit.command.stopping import noted
from vdit.io.storage.lock import writer_of

POLL_SECONDS = 0.1
MAX_WAIT = 300.0


def command(sweep: Sweep, run: Run, folder: Folder) -> list[str]:
    """What one process of a run executes."""
    return [sys.executable, "-m", "vdit.train", *sweep.arguments(run, str(folder.run(run.id)))]


def environment(settings: Local, slot: int, process: int, port: int | str) -> dict[str, str]:
    """Environment variables that are set for one process of a run."""
    out = dict(compiler_flags.environment(settings.flags))
    if settings.cpu_devices:
        out["JAX_NUM_CPU_DEVICES"] = str(settings.cpu_devices)
    if settings.gpus:
        share = settings.gpus // settings.processes
        first = slot * settings.gpus + process * share
        out["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, range(first, first + share)))
    if settings.processes > 1:
        out["JAX_COORDINATOR_ADDRESS"] = f"127.0.0.1:{port}"
        out["JAX_NUM_PROCESSES"] = str(settings.processes)
        out["JAX_PROCESS_ID"] = str(process)
    return out


def describe(sweep: Sweep, run: Run, folder: Folder, settings: Local) -> str:
    """The shell commands that would make a run."""
    lines = []
    for process in range(settings.processes):
        values = [f"{name}={value}" for name, value in environment(settings, 0, process, "PORT").items()]
        lines.append(shlex.join([*(["env", *values] if values else []), *command(sweep, run, folder)]))
    return "\n".join(lines)


@dataclasses.dataclass
class _Active:
    """A run with its processes."""

    run: Run
    state: State
    slot: int
    lock: int
    processes: list[subprocess.Popen[bytes]]
    kill_at: float | None = None

    def signal(self, number: int) -> None:
        for process in self.processes:
            with contextlib.suppress(ProcessLookupError):
                if process.poll() is None:
                    os.killpg(process.pid, number)


class Launcher:
    """Brings the runs of a sweep to their end.

    Args:
      sweep, folder, settings: what, where and how.
    """

    def __init__(self, sweep: Sweep, folder: Folder, settings: Local):
        self._sweep, self._folder, self._settings = sweep, folder, settings
        self._waiting: list[tuple[float, Run]] = []
        self._active: list[_Active] = []
        self._stopping = False
        self._took: list[float] = []
        self._bar: Any = None

    def run(self) -> int:
        """Runs all; gives the number of runs that have failed for good."""
        total = len(self._sweep.runs)
        done = [run for run in self._sweep.runs if self._folder.finished(run)]
        self._waiting = [(0.0, run) for run in self._sweep.runs if run not in done]
        for run in self._sweep.runs:
            (self._folder.run(run.id) / "stop").unlink(missing_ok=True)
        with (
            noted(self._stop, insist=False),
            tqdm(total=total, initial=len(done), unit="run", disable=not sys.stderr.isatty()) as self._bar,
        ):
            for _, run in self._waiting:
                self._folder.reopen(run)  # so that branches wait for them again
            self._say(f"{total} runs, {len(done)} finished before; logs in {self._folder.path}/runs/*/logs")
            while self._active or (self._waiting and not self._stopping):
                self._give_up_branches()
                self._start_some()
                for active in list(self._active):
                    self._poll(active)
                time.sleep(POLL_SECONDS)
        if self._stopping:
            self._say("stopped; the same command resumes from the checkpoints")
            sys.exit(PREEMPTED)
        states = [self._folder.state(run.id) for run in self._sweep.runs]
        return sum(state is not None and state.state == "failed" for state in states)

    def _give_up_branches(self) -> None:
        """Those whose trunk will not come."""
        for item in [item for item in self._waiting if self._folder.trunk_failed(item[1])]:
            self._waiting.remove(item)
            run, state = item[1], self._folder.state(item[1].id) or State()
            state.end("failed", None, f"its trunk {run.trunk} has not finished")
            self._folder.write_state(run.id, state)
            self._bar.update()
            self._say(f"{run.id} failed: {state.reason}")

    def _start_some(self) -> None:
        ready = [item for item in self._waiting if item[0] <= time.monotonic() and self._folder.ready(item[1])]
        for item in ready[: self._settings.at_once - len(self._active)]:
            if self._stopping:
                return
            self._waiting.remove(item)
            lock = self._folder.lock(item[1].id)
            if lock is None:  # its processes survived the launcher that started them
                self._waiting.append((time.monotonic() + 1, item[1]))
            elif self._folder.finished(item[1]):
                os.close(lock)
                self._bar.update()
            else:
                self._start(item[1], lock)

    def _start(self, run: Run, lock: int) -> None:
        slots = set(range(self._settings.at_once)) - {active.slot for active in self._active}
        slot, port = min(slots), _free_port() if self._settings.processes > 1 else 0
        state = self._folder.state(run.id) or State()
        state.end("waiting", "lost")  # if the launcher was killed in mid-run
        state.begin()
        logs = self._folder.run(run.id) / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        processes = []
        for process in range(self._settings.processes):
            values = environment(self._settings, slot, process, port)
            with (logs / f"{process}.log").open("ab") as log:
                log.write(f"=== attempt {len(state.attempts)}, {time.strftime('%F %T')}\n".encode())
                log.flush()
                processes.append(
                    subprocess.Popen(
                        command(self._sweep, run, self._folder),
                        env={**os.environ, **values},
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=log,
                        start_new_session=True,  # Ctrl-C is handled here, which signals them to save
                        pass_fds=[lock],
                    )
                )
        state.pids = [process.pid for process in processes]
        self._folder.write_state(run.id, state)
        self._active.append(_Active(run, state, slot, lock, processes))
        more = f", attempt {len(state.attempts)}" if len(state.attempts) > 1 else ""
        self._say(f"{run.id} started{more}: {run.label}")

    def _poll(self, active: _Active) -> None:
        """Sees whether the processes of a run have ended or must be stopped."""
        statuses = [process.poll() for process in active.processes]
        stop = (self._folder.run(active.run.id) / "stop").exists()
        if (stop or self._stopping) and active.kill_at is None:
            active.signal(signal.SIGTERM)
            active.kill_at = time.monotonic() + self._settings.grace
        if None in statuses:
            if any(statuses) and active.kill_at is None:  # the others would wait for the one that is gone
                active.kill_at = time.monotonic() + (self._settings.grace if PREEMPTED in statuses else 1.0)
            if active.kill_at is not None and time.monotonic() > active.kill_at:
                active.signal(signal.SIGKILL)
            return
        self._active.remove(active)
        self._end(active, [int(status or 0) for status in statuses], stop)
        self._folder.write_state(active.run.id, active.state)
        os.close(active.lock)

    def _end(self, active: _Active, statuses: list[int], stop: bool) -> None:
        """Decides what becomes of a run whose processes have ended."""
        run, state, status = active.run, active.state, _worst(statuses)
        if self._folder.finished(run):
            state.end("finished", status)
            attempt = state.attempts[-1]
            self._took.append(attempt["end"] - attempt["start"])
            self._bar.update()
            loss = self._folder.read(run.id, "result.json").get("loss")
            shown = f", loss {loss:.4f}" if loss is not None else ""
            return self._say(f"{run.id} finished{shown}{self._time_left()}: {run.label}")
        if stop or self._stopping:
            state.end("stopped", status)
            return self._say(f"{run.id} stopped at step {self._folder.step(run.id)}")
        if status == PREEMPTED:
            state.end("waiting", status, "stopped by something else")
            self._waiting.insert(0, (0.0, run))
            return None
        reason = self._last_error(run.id) if status == USER_ERROR else f"ended with status {status}"
        if status == USER_ERROR or state.failed(self._folder.step(run.id), self._settings.restarts):
            state.end("failed", status, reason)
            self._bar.update()
            return self._say(f"{run.id} failed: {reason}; see {self._folder.run(run.id)}/logs")
        wait = min(MAX_WAIT, self._settings.backoff * 2 ** (state.failures - 1))
        state.end("waiting", status, f"{reason}; starts again")
        self._waiting.append((time.monotonic() + wait, run))
        return self._say(f"{run.id} {reason} at step {self._folder.step(run.id)}; starts again in {wait:.0f} s")

    def _time_left(self) -> str:
        left = len(self._waiting) + len(self._active)
        seconds = sum(self._took) / len(self._took) * left / self._settings.at_once
        return f" ({left} left, about {seconds / 60:.0f} min)" if left else ""

    def _last_error(self, run_id: str) -> str:
        return last_line(self._folder.run(run_id) / "logs" / "0.log", "error: ")

    def _say(self, line: str) -> None:
        if self._bar.disable:
            print(line, flush=True)
        else:
            tqdm.write(line)

    def _stop(self) -> None:
        """Asks the runs to save; a second time, kills those that have not saved yet."""
        if self._stopping:
            for active in self._active:
                active.kill_at = 0.0
        self._stopping = True


def start(sweep: Sweep, folder: Folder, settings: Local) -> int:
    """Runs a sweep here until all is finished, failed or stopped; gives the number of failed runs."""
    with folder.launcher():
        folder.write_plan(sweep, "local", settings)
        return Launcher(sweep, folder, settings).run()


def synchronise(folder: Folder, settings: Local) -> None:
    """Runs write where they are read."""


def fetch_logs(folder: Folder, settings: Local, run_id: str) -> None:
    """Logs are written where they are read."""


def stop(folder: Folder, settings: Local, ids: list[str]) -> str:
    """Signals runs to save and stop: through their launcher, or directly if that is gone."""
    del settings
    launcher = folder.launched_by()
    if launcher:
        here = any((state := folder.state(run_id)) and state.pids == [launcher.pid] for run_id in ids)
        if here or len(ids) == len(folder.plan()["runs"]):  # an experiment's launcher trains its runs itself
            _terminate([launcher.pid])
            return f"{folder.path} is asked to stop"
    asked = []
    for run_id in ids:
        if launcher:
            folder.run(run_id).mkdir(parents=True, exist_ok=True)
            (folder.run(run_id) / "stop").touch()
            asked.append(run_id)
        elif folder.locked(run_id):
            state, writer = folder.state(run_id), writer_of(folder.run(run_id))
            if _terminate({*(state.pids if state else []), *([writer.pid] if writer else [])}):
                asked.append(run_id)
    return f"asked to stop: {', '.join(asked) or 'none, as none is running'}"


def _terminate(pids: Iterable[int]) -> bool:
    """Sends SIGTERM to the processes that are there, one after another; whether some were."""
    found = False
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):  # gone, or its number is another user's by now
            os.kill(pid, signal.SIGTERM)
            found = True
    return found


def last_line(log: Path, start_with: str = "") -> str:
    """The last line of a log that starts so."""
    lines = log.read_text(errors="replace").splitlines() if log.is_file() else []
    return next((line for line in reversed(lines) if line.startswith(start_with)), "it printed no reason")


def _worst(statuses: list[int]) -> int:
    """The status that says what happened: a mistake, else the first that is neither success nor our own kill."""
    for status in (USER_ERROR, PREEMPTED):
        if status in statuses:
            return status
    others = [status for status in statuses if status]
    return next((status for status in others if status != -signal.SIGKILL), others[0] if others else 0)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])
