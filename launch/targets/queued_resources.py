"""Cloud TPU queued resources: requests slices, watches them, replaces those that were taken away, deletes dead ones.

The machines finish on their own: launch/targets/machine/startup.sh deletes a slice whose run has ended. What must be
done from outside, while `launch.sweep` runs, is to bring back what was preempted and to keep to the limits.
"""

from __future__ import annotations

import dataclasses
import shlex
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from launch.sweeps import tpu_slices
from launch.sweeps.expand import Run, Sweep, name_of
from launch.sweeps.settings import QueuedResources, require
from launch.sweeps.state import Folder, State
from launch.targets import cloud, gcloud, run_file
from vdit.command.exit_status import USER_ERROR
from vdit.command.stopping import Stopped
from vdit.errors import UserError

MACHINE = Path(__file__).parent / "machine"
DEAD = ("FAILED", "SUSPENDED")
GOING = ("DELETING", "SUSPENDING")


def create_arguments(sweep: Sweep, run: Run, settings: QueuedResources, files: dict[str, Path]) -> list[str]:
    """Arguments of gcloud that request a run's slices; `files` are the metadata, by attribute."""
    shape = tpu_slices.parse(settings.topology)
    name = name_of(run.id)
    one = [f"--node-id={name}"]
    optional = {"service-account": settings.service_account, "network": settings.network}
    optional["subnetwork"] = settings.subnetwork
    capacity = {"spot": ["--spot"], "reserved": ["--reserved"], "on_demand": []}[settings.capacity]
    return [
        *("compute", "tpus", "queued-resources", "create", name),
        *(f"--project={settings.project}", f"--zone={settings.zone}"),
        f"--accelerator-type={shape.accelerator_type}",
        f"--runtime-version={settings.runtime or shape.generation.runtime}",
        *(one if settings.slices == 1 else [f"--node-count={settings.slices}", f"--node-prefix={name}"]),
        *capacity,
        *(f"--{flag}={value}" for flag, value in optional.items() if value),
        "--labels=" + ",".join(f"{key}={value}" for key, value in cloud.labels(sweep, run).items()),
        "--metadata-from-file=" + ",".join(f"{key}={path}" for key, path in files.items()),
        "--async",
    ]


def metadata(sweep: Sweep, run: Run, settings: QueuedResources, commit: str, code: str, attempt: str) -> dict[str, str]:
    """Attributes of the machines; launch/targets/machine/startup.sh says what each is."""
    shape = tpu_slices.parse(settings.topology)
    data = cloud.data_sets(run, settings)
    return {
        "startup-script": (MACHINE / "startup.sh").read_text(),
        "shutdown-script": (MACHINE / "shutdown.sh").read_text(),
        "vdit-name": name_of(run.id),
        "vdit-zone": settings.zone,
        "vdit-repository": code,
        "vdit-commit": commit,
        "vdit-extras": "tpu,cloud",
        "vdit-folder": cloud.workdir(settings, sweep.name, run.id),
        "vdit-run": cloud.file_of(sweep, run, settings, "", settings.flags or shape.name),
        "vdit-data": "".join(f"{staged.source}\t{staged.folder}\n" for staged in data),
        "vdit-hosts": str(shape.hosts),
        "vdit-slices": str(settings.slices),
        "vdit-attempt": attempt,
    }


def check(settings: QueuedResources) -> None:
    """Raises UserError if a setting is missing."""
    require("queued_resources", settings, "project", "zone", "topology", "bucket")
    _ = tpu_slices.parse(settings.topology).accelerator_type


def describe(sweep: Sweep, run: Run, folder: Folder, settings: QueuedResources) -> str:
    """The gcloud command for a run, and the metadata that it sends."""
    del folder
    check(settings)
    code = settings.repository or f"{cloud.sweep_folder(settings, sweep.name)}/code-COMMIT.bundle"
    values = metadata(sweep, run, settings, cloud.git("rev-parse", "HEAD"), code, "1")
    files = {key: Path(key) for key in values}
    shown = [
        f"# metadata {key}:\n{run_file.as_comment(value, indent=2)}"
        for key, value in values.items()
        if key.startswith("vdit-")
    ]
    return "\n".join([shlex.join(["gcloud", *create_arguments(sweep, run, settings, files)]), *shown])


class Watcher:
    """Brings the runs of a sweep to their end on queued resources.

    Args:
      sweep, folder, settings: what, where and how.
      commit, code: what the machines run, and where they find it.
      sleep: waits that many seconds.
    """

    def __init__(
        self,
        sweep: Sweep,
        folder: Folder,
        settings: QueuedResources,
        commit: str,
        code: str,
        sleep: Callable[[float], None] = time.sleep,
    ):
        self._sweep, self._folder, self._settings = sweep, folder, settings
        self._commit, self._code, self._sleep = commit, code, sleep
        self._tpus = gcloud.Tpus(settings)
        self._hold = 0.0  # nothing is created before this time
        self._wait = settings.poll  # after the next refusal
        self._said: dict[str, str] = {}

    def run(self) -> int:
        """Watches until every run is finished, failed or stopped; gives the number of failed runs."""
        for run in self._sweep.runs:
            self._folder.reopen(run)
        while True:
            try:
                open_runs = self.poll_once()
            except gcloud.Transient as error:
                self._say("gcloud", f"{error}; trying again")
                open_runs = 1
            if not open_runs:
                break
            self._sleep(self._settings.poll)
        states = [self._folder.state(run.id) for run in self._sweep.runs]
        return sum(state is not None and state.state == "failed" for state in states)

    def poll_once(self) -> int:
        """Looks once at everything and does what is to be done; gives the number of runs that are not at their end.

        Raises:
          Transient: if it could not be seen.
          UserError: if gcloud is not installed or may not do this.
        """
        cloud.mirror(self._folder, self._settings, self._sweep.name)
        resources = self._tpus.states()
        over = self._over_budget()
        open_runs, at_once = 0, self._settings.at_once
        held = sum(name_of(run.id) in resources for run in self._sweep.runs)
        for run in self._sweep.runs:
            state = self._folder.state(run.id) or State()
            before = dataclasses.asdict(state)
            found = resources.get(name_of(run.id))
            if over and state.state not in ("finished", "failed") and not self._folder.finished(run):
                self._give_up(run, state, found, "stopped", "max_spend is reached")
            elif self._folder.trunk_failed(run) and state.state not in ("stopped", "failed"):
                self._give_up(run, state, found, "failed", f"its trunk {run.trunk} has not finished")
            elif self._follow(run, state, found) and self._folder.ready(run) and not found and held < at_once:
                held += self._create(run, state)
            if dataclasses.asdict(state) != before:
                self._folder.write_state(run.id, state)
            open_runs += state.state in ("waiting", "running") or (found is not None and found not in GOING)
            self._say(run.id, f"{state.state}{f' ({state.reason})' if state.reason else ''}: {run.label}")
        return open_runs

    def _follow(self, run: Run, state: State, found: str | None) -> bool:
        """Takes note of what has become of a run; True if it needs a resource."""
        if state.state in ("stopped", "failed"):
            self._release(run, found)
            return False
        if self._folder.finished(run):
            if state.state != "finished":
                state.end("finished", 0)
            self._release(run, found)
            return False
        running = bool(state.attempts) and state.attempts[-1]["end"] is None
        attempt, status, reason = self._exit(run)
        if running and attempt == state.attempts[-1].get("name"):  # the machines say how it ended
            if status == USER_ERROR:
                self._give_up(run, state, found, "failed", reason or "the run made a mistake")
                return False
            self._failed(run, state, found, f"training ended with status {status}")
        elif found in DEAD:
            why = "preempted" if running and found == "SUSPENDED" else found.lower()
            self._failed(run, state, found, why)
        elif found is None:
            if running:
                self._failed(run, state, None, "its resource is gone")
            return state.state == "waiting"
        elif found == "ACTIVE" and not running:
            state.begin(name=state.requested)
        elif found not in ("ACTIVE", *GOING):
            state.state, state.reason = "waiting", found.lower().replace("_", " ")
        return False

    def _failed(self, run: Run, state: State, found: str | None, why: str) -> None:
        """An attempt has ended without a result; the dead resource is deleted, as it counts against the quota."""
        if state.failed(self._folder.step(run.id), self._settings.retries):
            return self._give_up(run, state, found, "failed", f"{why}, {state.failures} times without a new step")
        state.end("waiting", why, why)
        self._release(run, found)
        return None

    def _give_up(self, run: Run, state: State, found: str | None, name: str, why: str) -> None:
        state.end(name, why, why)
        self._release(run, found)

    def _release(self, run: Run, found: str | None) -> None:
        """Deletes a run's resource, unless it is gone or going."""
        if found and found not in GOING:
            self._tpus.delete(name_of(run.id))

    def _create(self, run: Run, state: State) -> bool:
        """Asks for a run's slices; False if it was refused for now."""
        if time.time() < self._hold:
            return False
        attempt = f"{len(state.attempts) + 1}-{int(time.time())}"
        values = metadata(self._sweep, run, self._settings, self._commit, self._code, attempt)
        with tempfile.TemporaryDirectory(prefix="vdit-") as directory:
            files = {key: Path(directory) / key for key in values}
            for key, value in values.items():
                files[key].write_text(value)
            try:
                self._tpus.create(create_arguments(self._sweep, run, self._settings, files))
            except (gcloud.QuotaExceeded, gcloud.Transient) as error:
                self._hold = time.time() + self._wait
                self._wait = min(2 * self._wait, 30 * self._settings.poll)
                state.reason = f"not created: {error}"
                return False
        self._wait = self._settings.poll
        state.state, state.reason, state.requested = "waiting", "slices are requested", attempt
        return True

    def _exit(self, run: Run) -> tuple[str, int, str]:
        """(attempt, exit status, error) that a run's machines left last."""
        path = self._folder.run(run.id) / "exit"
        parts = path.read_text().strip().split(" ", 2) if path.is_file() else []
        if len(parts) < 2 or not parts[1].isdigit():
            return "", 0, ""
        return parts[0], int(parts[1]), parts[2].removeprefix("error: ") if len(parts) > 2 else ""

    def _over_budget(self) -> bool:
        if not self._settings.max_spend:
            return False
        return spent(self._folder, self._sweep, self._settings) >= self._settings.max_spend

    def _say(self, about: str, line: str) -> None:
        if self._said.get(about) != line:
            self._said[about] = line
            print(f"{time.strftime('%T')} {about} {line}", flush=True)


def spent(folder: Folder, sweep: Sweep, settings: QueuedResources) -> float:
    """What a sweep has cost so far."""
    states = [state for run in sweep.runs if (state := folder.state(run.id))]
    hours = sum(state.hours(time.time()) for state in states)
    return hours * settings.chips * settings.price_per_chip_hour


def start(sweep: Sweep, folder: Folder, settings: QueuedResources) -> int:
    """Starts a sweep and watches it; gives the number of runs that have failed."""
    check(settings)
    commit = cloud.commit()
    with folder.launcher():
        folder.write_plan(sweep, "queued_resources", settings)
        where = cloud.sweep_folder(settings, sweep.name)
        code = settings.repository or cloud.upload_code(where, folder.path, commit)
        try:
            return Watcher(sweep, folder, settings, commit, code).run()
        except (KeyboardInterrupt, Stopped):
            print(f"not watched any more, but the slices keep running; the same command watches again: {folder.path}")
            return 0
        except UserError as error:
            raise UserError(f"{error}; what was created keeps running, and the same command watches again") from error


def synchronise(folder: Folder, settings: QueuedResources) -> None:
    """Brings the folder up to date with the bucket."""
    cloud.mirror(folder, settings, folder.plan()["name"])


def stop(folder: Folder, settings: QueuedResources, ids: list[str]) -> str:
    """Deletes the resources of runs; their machines save a checkpoint first."""
    resources = gcloud.Tpus(settings).states()
    deleted = []
    for run_id in ids:
        state = folder.state(run_id) or State()
        if state.state in ("waiting", "running"):
            state.end("stopped", "stopped", "stopped by launch.stop")
            folder.write_state(run_id, state)
        if resources.get(name_of(run_id), "DELETING") not in GOING:
            gcloud.Tpus(settings).delete(name_of(run_id))
            deleted.append(name_of(run_id))
    return f"deleted: {', '.join(deleted) or 'none, as there is none'}"


def fetch_logs(folder: Folder, settings: QueuedResources, run_id: str) -> None:
    """Copies a run's logs from the bucket."""
    cloud.fetch_logs(folder, settings, folder.plan()["name"], run_id)
