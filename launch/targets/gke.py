"""Google Kubernetes Engine: a JobSet for every run, queued by Kueue, on TPU slices or GPU nodes.

The cluster does the watching: JobSet starts a run again after a failure, and after a preemption without counting it.
The run resumes from its checkpoint. `docs/launch.md` says how the cluster is made.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from typing import Any

import yaml

from launch.sweeps import tpu_slices
from launch.sweeps.expand import Run, Sweep, name_of
from launch.sweeps.settings import Gke, require
from launch.sweeps.state import Folder, State
from launch.targets import cloud, manifests, run_file
from vdit.errors import UserError


def describe(sweep: Sweep, run: Run, folder: Folder, settings: Gke) -> str:
    """The commands that make its nodes, as comments, and the manifests of a run, as they are applied."""
    del folder
    check(settings)
    pool = run_file.as_comment("\n".join(node_pool(settings)))
    return f"{pool}\n---\n" + yaml.safe_dump_all(manifests.of_run(sweep, run, settings), sort_keys=False)


def check(settings: Gke) -> None:
    """Raises UserError if a setting is missing or two contradict each other."""
    require("gke", settings, "image", "bucket")
    if bool(settings.topology) == bool(settings.gpu):
        raise UserError("set one of gke.topology, such as v5e:4x4, and gke.gpu, such as nvidia-h100-80gb")


def node_pool(settings: Gke) -> list[str]:
    """Commands that make the node pool of a TPU slice, and the workload policy that places the hosts of tpu7x.

    CLUSTER, ZONE and REGION are for the user to replace.
    """
    if not settings.topology:
        return []
    shape = tpu_slices.parse(settings.topology)
    name, policy = f"{shape.name}-{shape.topology}", []
    placement = f"--tpu-topology={shape.topology}"
    if shape.needs_workload_policy:
        placement = f"--placement-policy={name}"
        kind = f"--type=HIGH_THROUGHPUT --accelerator-topology={shape.topology} --region=REGION"
        policy = [f"gcloud compute resource-policies create workload-policy {name} {kind}"]
    pool = [f"gcloud container node-pools create {name} --cluster=CLUSTER --zone=ZONE", placement]
    pool += [f"--machine-type={shape.machine_type}", f"--num-nodes={shape.hosts}", *(["--spot"] * settings.spot)]
    return [*policy, " ".join(pool)]


def start(sweep: Sweep, folder: Folder, settings: Gke) -> int:
    """Applies the JobSets of all runs that are neither finished nor there; gives 0, as the cluster does the rest."""
    check(settings)
    with folder.launcher():
        folder.write_plan(sweep, "gke", settings)
        synchronise(folder, settings)
        there = _jobsets(folder, settings)
        failed = [run_id for run_id, item in there.items() if _condition(item) == "Failed"]
        if failed:
            kubectl(settings, ["delete", "jobset", *map(name_of, failed), "--ignore-not-found", "--wait=true"])
        todo = [run for run in sweep.runs if not folder.finished(run) and (run.id not in there or run.id in failed)]
        todo = folder.without_trunk(todo)
        documents = manifests.queue(settings) if settings.queue and settings.quota else []
        for run in todo:
            documents += manifests.of_run(sweep, run, settings)
        if documents:
            print(kubectl(settings, ["apply", "-f", "-"], yaml.safe_dump_all(documents)), end="")
        for run in todo:
            state = folder.state(run.id) or State()
            state.end("waiting", "lost", "nodes are requested")
            folder.write_state(run.id, state)
    print(
        f"{len(todo)} runs started, {len(sweep.runs) - len(todo)} finished or there before; launch.status {folder.path}"
    )
    return 0


def synchronise(folder: Folder, settings: Gke) -> None:
    """Brings the folder up to date with the bucket and the cluster."""
    cloud.mirror(folder, settings, folder.plan()["name"])
    there = _jobsets(folder, settings)
    for entry in folder.plan()["runs"]:
        state = folder.state(entry["id"])
        if state is None or state.state in ("stopped", "finished"):
            continue
        item = there.get(entry["id"])
        condition = _condition(item) if item else "Gone"
        going = bool(state.attempts) and state.attempts[-1]["end"] is None
        if folder.finished(entry["id"]) or condition == "Completed":
            state.end("finished", 0)
        elif item and condition == "Failed":
            state.end("failed", "failed", _message(item))
        elif item is None:
            state.end("waiting", "gone", "its JobSet is gone; start the sweep again")
        elif condition == "Suspended":
            state.end("waiting", "suspended", "queued")
        elif not going:
            state.begin()
        folder.write_state(entry["id"], state)


def stop(folder: Folder, settings: Gke, ids: list[str]) -> str:
    """Deletes the JobSets of runs; their pods get SIGTERM and save a checkpoint."""
    there = [run_id for run_id in ids if run_id in _jobsets(folder, settings)]
    if there:
        names = [name_of(run_id) for run_id in there]
        kubectl(settings, ["delete", "jobset,configmap", *names, "--ignore-not-found", "--wait=false"])
    for run_id in there:
        state = folder.state(run_id) or State()
        state.end("stopped", "stopped", "stopped by launch.stop")
        folder.write_state(run_id, state)
    return f"deleted: {', '.join(map(name_of, there)) or 'none, as there is none'}"


def fetch_logs(folder: Folder, settings: Gke, run_id: str) -> None:
    """Writes the logs of a run's pods, as far as the cluster has them."""
    logs = folder.run(run_id) / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    selector = f"jobset.sigs.k8s.io/jobset-name={name_of(run_id)}"
    text = kubectl(settings, ["logs", f"--selector={selector}", "--container=train", "--prefix", "--tail=-1"])
    (logs / "pods.log").write_text(text)


def kubectl(settings: Gke, arguments: Sequence[str], given: str | None = None) -> str:
    """Runs kubectl and gives what it printed.

    Raises:
      UserError: in one line, if it is not installed or fails.
    """
    where = [f"--namespace={settings.namespace}"] + ([f"--context={settings.context}"] if settings.context else [])
    try:
        done = subprocess.run(["kubectl", *where, *arguments], input=given, capture_output=True, text=True, timeout=300)
    except FileNotFoundError as error:
        raise UserError("kubectl is not installed or not on PATH; docs/launch.md says how to set it up") from error
    except subprocess.TimeoutExpired as error:
        raise UserError(f"kubectl {arguments[0]} took longer than 300 s; is the cluster reachable?") from error
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["it printed no reason"]
        hint = ""
        if "no matches for kind" in done.stderr or "the server doesn't have a resource type" in done.stderr:
            hint = "; install JobSet and Kueue in the cluster, see docs/launch.md"
        raise UserError(f"kubectl {arguments[0]} failed: {lines[-1]}{hint}")
    return done.stdout


def _jobsets(folder: Folder, settings: Gke) -> dict[str, dict[str, Any]]:
    """The sweep's JobSets by run."""
    text = kubectl(settings, ["get", "jobsets.jobset.x-k8s.io", "--selector=vdit-run", "--output=json"])
    known = {entry["id"] for entry in folder.plan()["runs"]}
    found = {item["metadata"]["labels"]["vdit-run"]: item for item in json.loads(text)["items"]}
    return {run_id: item for run_id, item in found.items() if run_id in known}


def _condition(item: dict[str, Any]) -> str:
    """What has become of a JobSet: Completed, Failed, Suspended, or nothing while it runs."""
    true = [c["type"] for c in item.get("status", {}).get("conditions", []) if c.get("status") == "True"]
    return next((name for name in ("Completed", "Failed", "Suspended") if name in true), "")


def _message(item: dict[str, Any]) -> str:
    conditions = item.get("status", {}).get("conditions", [])
    return next((str(c.get("message", "")) for c in conditions if c["type"] == "Failed"), "")
