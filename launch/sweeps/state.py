"""The folder of a sweep: what was planned, how each run fares, and locks, so that nothing is started twice.

sweeps/NAME/sweep.json            runs, target and settings
sweeps/NAME/runs/ID/              workdir of a run: config.json, metrics.jsonl, checkpoints, heartbeat.json, result.json
sweeps/NAME/runs/ID/state.json    what the launcher did with it
sweeps/NAME/runs/ID/logs/         what it printed
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from launch.sweeps.expand import Run, Sweep
from launch.sweeps.settings import TARGETS, Settings
from vdit.errors import UserError
from vdit.io.files import read_json, write_json
from vdit.io.storage.lock import Busy, Writer, check_writer, one_writer, writer_of


@dataclasses.dataclass
class State:
    """What the launcher knows of a run.

    Attributes:
      state: "waiting", "running", "stopped", "failed" or "finished".
      attempts: when it ran: {"start", "end", "status"}, Unix seconds; an end of None: it is running.
      failures: failures in a row without a new step.
      step: the newest step known at the last failure.
      reason: why it waits or has failed, in a line.
      requested: name of the attempt for which machines are requested.
      pids: of its processes on this machine.
    """

    state: str = "waiting"
    attempts: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    failures: int = 0
    step: int = 0
    reason: str = ""
    requested: str = ""
    pids: list[int] = dataclasses.field(default_factory=list)

    def begin(self, **values: Any) -> None:
        """An attempt starts."""
        self.attempts.append({"start": time.time(), "end": None, **values})
        self.state, self.reason = "running", ""

    def end(self, state: str, status: Any, reason: str = "") -> None:
        """The attempt has ended."""
        if self.attempts and self.attempts[-1]["end"] is None:
            self.attempts[-1] |= {"end": time.time(), "status": status}
        self.state, self.reason, self.pids = state, reason, []

    def failed(self, step: int, limit: int) -> bool:
        """Counts a failure at a step; True if there have been more than `limit` without a new step."""
        self.failures = 1 if step > self.step else self.failures + 1
        self.step = max(step, self.step)
        return self.failures > limit

    def hours(self, until: float) -> float:
        """Hours that it has run; an attempt that is running counts to `until`."""
        return sum((attempt["end"] or until) - attempt["start"] for attempt in self.attempts) / 3600


STATE_FIELDS = {field.name for field in dataclasses.fields(State)}


class Folder:
    """The folder of a sweep."""

    def __init__(self, path: Path):
        self.path = path

    def run(self, run_id: str) -> Path:
        """Workdir of a run."""
        return self.path / "runs" / run_id

    def write_plan(self, sweep: Sweep, target: str, settings: Settings) -> None:
        """Writes sweep.json; runs of an earlier plan that have been started stay listed."""
        runs = {run.id: _entry(run) for run in sweep.runs}
        if (self.path / "sweep.json").exists():
            old = [entry for entry in self.plan()["runs"] if self.run(entry["id"]).exists()]
            runs = {entry["id"]: entry for entry in old} | runs
        values = {
            "name": sweep.name,
            "config": sweep.config,
            "target": target,
            "settings": dataclasses.asdict(settings),
            "runs": list(runs.values()),
        }
        self.path.mkdir(parents=True, exist_ok=True)
        write_json(self.path / "sweep.json", values)

    def plan(self) -> dict[str, Any]:
        """What sweep.json holds.

        Raises:
          UserError: if this is not the folder of a sweep.
        """
        if not (self.path / "sweep.json").is_file():
            raise UserError(f"{self.path} is not the folder of a sweep; launch.sweep writes sweeps/NAME")
        mend = "restore it, or start the sweep again"
        values = read_json(self.path / "sweep.json", keys=("name", "target", "settings", "runs"), mend=mend)
        runs = values["runs"]
        if values["target"] not in TARGETS or not isinstance(values["settings"], dict) or not _are_entries(runs):
            raise UserError(f"{self.path / 'sweep.json'} is damaged (it does not list runs and a target); {mend}")
        return values

    def state(self, run_id: str) -> State | None:
        """What the launcher knows of a run; None if it has not been started.

        A damaged file costs what it says of earlier attempts, no more: `reason` tells; the next change rewrites it.
        """
        path, mend = self.run(run_id) / "state.json", "the launcher writes it anew"
        if not path.is_file():
            return None
        try:
            values = read_json(path, mend=mend)  # perhaps of another version
            if not (known := {name: values[name] for name in values.keys() & STATE_FIELDS}):
                raise ValueError(f"it holds {', '.join(values)}")
            return _checked(State(**known))
        except UserError as error:
            return State(reason=str(error))
        except (TypeError, ValueError, KeyError) as error:
            return State(reason=f"{path} is damaged ({error}); {mend}")

    def write_state(self, run_id: str, state: State) -> None:
        check_writer(self.path)
        self.run(run_id).mkdir(parents=True, exist_ok=True)
        write_json(self.run(run_id) / "state.json", dataclasses.asdict(state))

    def reopen(self, run: Run) -> None:
        """Gives a run that was stopped or given up another chance, when its sweep is started again."""
        state = self.state(run.id)
        if state is not None and state.state in ("stopped", "failed"):
            state.state, state.failures = "waiting", 0
            self.write_state(run.id, state)

    def read(self, run_id: str, name: str) -> dict[str, Any]:
        """A JSON file of a run, empty if it is missing or just being written."""
        path = self.run(run_id) / name
        try:
            return read_json(path) if path.is_file() else {}
        except (UserError, OSError):
            return {}

    def finished(self, run: Run | str) -> bool:
        """Whether a run has its result."""
        return (self.run(run if isinstance(run, str) else run.id) / "result.json").is_file()

    def ready(self, run: Run) -> bool:
        """Whether the trunk that a run branches off, if any, is finished."""
        return not run.trunk or self.finished(run.trunk)

    def trunk_failed(self, run: Run) -> bool:
        """Whether the trunk that a run branches off has failed for good, or was stopped."""
        state = self.state(run.trunk) if run.trunk and not self.finished(run.trunk) else None
        return state is not None and state.state in ("failed", "stopped")

    def without_trunk(self, runs: Sequence[Run]) -> list[Run]:
        """Runs that can start now; says which must wait for a trunk."""
        waiting = [run for run in runs if not self.ready(run)]
        if waiting:
            print(f"{len(waiting)} runs branch off trunks that are not finished; start the sweep again when they are")
        return [run for run in runs if run not in waiting]

    def step(self, run_id: str) -> int:
        """The newest step that a run has reported."""
        return int(self.read(run_id, "heartbeat.json").get("step", 0))

    def lock(self, name: str) -> int | None:
        """Takes a lock and gives its descriptor, or None if a process has it.

        It is held until the descriptor is closed here *and* in every process that inherited it: processes of a launcher
        that was killed keep their run's lock.
        """
        path = self.path / "locks" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        return descriptor

    def locked(self, name: str) -> bool:
        """Whether some process holds a lock."""
        if not (self.path / "locks" / name).exists():
            return False
        descriptor = self.lock(name)
        if descriptor is not None:
            os.close(descriptor)
        return descriptor is None

    @contextlib.contextmanager
    def launcher(self) -> Iterator[None]:
        """Only one launcher at a time works on a sweep (see `vdit.io.storage.lock`).

        Raises:
          UserError: if another one does.
        """
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(one_writer(self.path))
            except Busy as busy:
                raise UserError(
                    f"{self.path} is being run already, by {busy.writer}; see launch.status {self.path}"
                ) from busy
            yield

    def launched_by(self) -> Writer | None:
        """The launcher that works on the sweep, if there is one."""
        return writer_of(self.path)


def _checked(state: State) -> State:
    """The state, if its values are those of one; else raises TypeError, KeyError or ValueError."""
    for field in dataclasses.fields(State):
        kind, value = type(getattr(State(), field.name)), getattr(state, field.name)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise ValueError(f"{field.name}={value!r}")
    for attempt in state.attempts:
        if not isinstance(attempt["start"], int | float) or not isinstance(attempt["end"], int | float | None):
            raise ValueError(f"attempt {attempt}")
    if not all(isinstance(pid, int) and pid > 0 for pid in state.pids):
        raise ValueError(f"pids={state.pids}")
    return state


def _are_entries(runs: Any) -> bool:
    kinds = {"id": str, "label": str, "varies": list, "steps": int}
    return isinstance(runs, list) and all(
        isinstance(run, dict) and all(isinstance(run.get(name), kind) for name, kind in kinds.items()) for run in runs
    )


def _entry(run: Run) -> dict[str, Any]:
    """What sweep.json says of a run."""
    varies = [] if run.title else run.varies
    return {"id": run.id, "label": run.label, "varies": varies, "steps": run.config.train.steps}
