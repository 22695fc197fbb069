"""SLURM: a job for every run; one that reaches its time limit or is preempted is requeued and resumes."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path

from launch.sweeps.expand import Run, Sweep, name_of
from launch.sweeps.settings import Slurm
from launch.sweeps.state import Folder, State
from launch.targets import run_file
from vdit.errors import UserError

SCRIPT = Path(__file__).parent / "machine" / "run.sbatch"


def sbatch_arguments(run: Run, folder: Folder, settings: Slurm) -> list[str]:
    """The sbatch command of a run."""
    where = folder.run(run.id).resolve()
    optional = {"partition": settings.partition, "account": settings.account}
    return [
        *("sbatch", "--parsable", f"--job-name={name_of(run.id)}"),
        *(f"--nodes={settings.nodes}", "--ntasks-per-node=1", f"--gpus-per-node={settings.gpus_per_node}"),
        f"--cpus-per-task={settings.cpus_per_gpu * settings.gpus_per_node}",
        *(f"--time={settings.time}", f"--signal=B:TERM@{settings.grace}", "--requeue", "--open-mode=append"),
        f"--output={where}/logs/slurm.log",
        *(f"--{flag}={value}" for flag, value in optional.items() if value),
        *(str(SCRIPT), settings.python, str(where / "run.json")),
    ]


def _file_of(sweep: Sweep, run: Run, folder: Folder, settings: Slurm) -> str:
    """run.json of a run."""
    return run_file.text(sweep.arguments(run, str(folder.run(run.id).resolve())), settings.flags)


def describe(sweep: Sweep, run: Run, folder: Folder, settings: Slurm) -> str:
    """The sbatch command of a run, and the file that its job reads."""
    shown = run_file.as_comment(_file_of(sweep, run, folder, settings), indent=2)
    return f"{shlex.join(sbatch_arguments(run, folder, settings))}\n# run.json:\n{shown}"


def start(sweep: Sweep, folder: Folder, settings: Slurm) -> int:
    """Submits the runs that are neither finished nor in the queue; gives 0, as SLURM does the rest."""
    with folder.launcher():
        folder.write_plan(sweep, "slurm", settings)
        there = _queue()
        todo = [run for run in sweep.runs if not folder.finished(run) and name_of(run.id) not in there]
        todo = folder.without_trunk(todo)
        for run in todo:
            logs = folder.run(run.id) / "logs"
            logs.mkdir(parents=True, exist_ok=True)
            (folder.run(run.id) / "stop").unlink(missing_ok=True)
            (folder.run(run.id) / "run.json").write_text(_file_of(sweep, run, folder, settings))
            job = _call(sbatch_arguments(run, folder, settings)).strip()
            state = folder.state(run.id) or State()
            state.end("waiting", "lost", f"job {job} is queued")
            folder.write_state(run.id, state)
            print(f"{run.id} job {job}: {run.label}", flush=True)
    before = len(sweep.runs) - len(todo)
    print(f"{len(todo)} runs submitted, {before} finished or there before; launch.status {folder.path}")
    return 0


def synchronise(folder: Folder, settings: Slurm) -> None:
    """Takes note of what the queue says of the runs."""
    del settings
    there = _queue()
    for entry in folder.plan()["runs"]:
        state = folder.state(entry["id"])
        if state is None or state.state in ("finished", "stopped"):
            continue
        job = there.get(name_of(entry["id"]))
        if folder.finished(entry["id"]):
            state.end("finished", 0)
        elif job in ("RUNNING", "COMPLETING"):
            if not state.attempts or state.attempts[-1]["end"] is not None:
                state.begin()
        elif job:
            state.end("waiting", job, job.lower())
        else:
            state.end("failed", "gone", "its job has ended without a result; see launch.logs")
        folder.write_state(entry["id"], state)


def stop(folder: Folder, settings: Slurm, ids: list[str]) -> str:
    """Cancels jobs; their runs get SIGTERM and save a checkpoint."""
    del settings
    there = _queue()
    names = [name_of(run_id) for run_id in ids if name_of(run_id) in there]
    for run_id in ids:
        if name_of(run_id) in names:
            (folder.run(run_id) / "stop").touch()  # so that the job does not requeue itself
    if names:
        _call(["scancel", "--me", f"--name={','.join(names)}"])
    for run_id in ids:
        if name_of(run_id) in names:
            state = folder.state(run_id) or State()
            state.end("stopped", "stopped", "stopped by launch.stop")
            folder.write_state(run_id, state)
    return f"cancelled: {', '.join(names) or 'none, as none is queued'}"


def fetch_logs(folder: Folder, settings: Slurm, run_id: str) -> None:
    """Logs are written where they are read."""


def _queue() -> dict[str, str]:
    """State of each of our jobs by name, such as PENDING or RUNNING."""
    lines = _call(["squeue", "--me", "--noheader", "--format=%j %T"]).splitlines()
    pairs = [line.rsplit(" ", 1) for line in lines if line.strip()]
    return {name: state for name, state in pairs if name.startswith("vdit-")}


def _call(command: Sequence[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    except FileNotFoundError as error:
        raise UserError(f"{command[0]} is not on PATH; start the sweep on a login node of the cluster") from error
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["it printed no reason"]
        raise UserError(f"{command[0]} failed: {lines[-1]}")
    return done.stdout
