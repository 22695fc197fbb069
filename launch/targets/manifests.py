"""Kubernetes manifests of a run: a ConfigMap that holds what to run, and the JobSet that runs it.

Nothing a sweep names or sets is part of a command: it lies in the ConfigMap, which launch/remote.py reads. Kubernetes
expands $(NAME) in commands, so what does stand there (places in the bucket) has its dollar signs doubled.
"""

from __future__ import annotations

from typing import Any

from launch.sweeps import tpu_slices
from launch.sweeps.expand import Run, Sweep, name_of
from launch.sweeps.settings import Gke
from launch.targets import cloud
from vdit.command.exit_status import USER_ERROR

STAGING_IMAGE = "gcr.io/google.com/cloudsdktool/google-cloud-cli:528.0.0-slim"
HOME = "/opt/vdit"
"""WORKDIR of the images in docker/."""
PORT = 8476
Manifest = dict[str, Any]


def of_run(sweep: Sweep, run: Run, settings: Gke) -> list[Manifest]:
    """ConfigMap and JobSet of a run."""
    labels = cloud.labels(sweep, run)
    meta = {"name": name_of(run.id), "namespace": settings.namespace, "labels": labels}
    flag_set = settings.flags or (tpu_slices.parse(settings.topology).name if settings.topology else "gpu")
    text = cloud.file_of(sweep, run, settings, "", flag_set)
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"run.json": text}}
    return [config, _jobset(run, settings, labels)]


def _jobset(run: Run, settings: Gke, labels: dict[str, str]) -> Manifest:
    name = name_of(run.id)
    queue = {"kueue.x-k8s.io/queue-name": settings.queue} if settings.queue else {}
    slices, hosts = settings.slices, settings.nodes
    annotations = {}
    if settings.topology:
        hosts = tpu_slices.parse(settings.topology).hosts
        # a slice is a node pool: no two slices of a run may share one
        annotations = {"alpha.jobset.sigs.k8s.io/exclusive-topology": "cloud.google.com/gke-nodepool"}
    job = {
        "parallelism": hosts,
        "completions": hosts,
        "completionMode": "Indexed",
        "backoffLimit": 0,
        "podFailurePolicy": {
            "rules": [
                {"action": "FailJob", "onExitCodes": _exit_codes(USER_ERROR)},
                {"action": "FailJob", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
            ]
        },
        "template": _pod(run, settings, labels),
    }
    return {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": {
            "name": name,
            "namespace": settings.namespace,
            "labels": {**labels, **queue},
            **({"annotations": annotations} if annotations else {}),
        },
        "spec": {
            "network": {"enableDNSHostnames": True, "subdomain": name},  # a headless service
            "ttlSecondsAfterFinished": 86400,
            "failurePolicy": {
                "maxRestarts": settings.restarts,
                "rules": [
                    {
                        "name": "mistake",
                        "action": "FailJobSet",
                        "onJobFailureReasons": ["PodFailurePolicy"],
                        "onJobFailureMessagePatterns": [f"exit code {USER_ERROR} "],
                    },
                    {
                        "name": "preempted",
                        "action": "RestartJobSetAndIgnoreMaxRestarts",
                        "onJobFailureReasons": ["PodFailurePolicy"],
                    },
                ],
            },
            "replicatedJobs": [
                {"name": "workers", "replicas": slices if settings.topology else 1, "template": {"spec": job}}
            ],
        },
    }


def _exit_codes(*codes: int) -> Manifest:
    return {"containerName": "train", "operator": "In", "values": list(codes)}


def _pod(run: Run, settings: Gke, labels: dict[str, str]) -> Manifest:
    selector, limits, tolerations = _hardware(settings)
    staged = {"name": "staged", "mountPath": f"{HOME}/staged"}
    mounts = [{"name": "run", "mountPath": "/etc/vdit", "readOnly": True}, staged]
    volumes: list[Manifest] = [
        {"name": "run", "configMap": {"name": name_of(run.id)}},
        {"name": "staged", "emptyDir": {}},
    ]
    if settings.gpu:  # NCCL's shared memory
        mounts.append({"name": "shm", "mountPath": "/dev/shm"})
        volumes.append({"name": "shm", "emptyDir": {"medium": "Memory"}})
    train = {
        "name": "train",
        "image": settings.image,
        "command": ["python", "-m", "launch.remote", "/etc/vdit/run.json"],
        "workingDir": HOME,
        "env": _processes(run, settings),
        "ports": [{"containerPort": PORT, "protocol": "TCP"}],
        "resources": {"limits": limits, "requests": limits},
        "volumeMounts": mounts,
    }
    if settings.secret:
        train["envFrom"] = [{"secretRef": {"name": settings.secret}}]
    spec = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": settings.grace,
        "nodeSelector": selector,
        "tolerations": tolerations,
        "securityContext": {"fsGroup": 1000},
        "initContainers": [
            {
                "name": f"stage-{number}",
                "image": STAGING_IMAGE,
                "command": [
                    "gcloud",
                    "storage",
                    "rsync",
                    "--recursive",
                    _data(data.source),
                    _data(f"{HOME}/{data.folder}"),
                ],
                "volumeMounts": [staged],
            }
            for number, data in enumerate(cloud.data_sets(run, settings))
        ],
        "containers": [train],
        "volumes": volumes,
    }
    if settings.service_account:
        spec["serviceAccountName"] = settings.service_account
    return {"metadata": {"labels": labels}, "spec": spec}


def _data(text: str) -> str:
    """A text that Kubernetes leaves as it is."""
    return text.replace("$", "$$")


def _hardware(settings: Gke) -> tuple[dict[str, str], dict[str, int], list[Manifest]]:
    """(node selector, resource limits of a container, tolerations) of a run's nodes."""
    spot = {"cloud.google.com/gke-spot": "true"} if settings.spot else {}
    tolerations: list[Manifest] = [
        {"key": key, "operator": "Equal", "value": value, "effect": "NoSchedule"} for key, value in spot.items()
    ]
    if settings.topology:
        shape = tpu_slices.parse(settings.topology)
        selector = {
            "cloud.google.com/gke-tpu-accelerator": shape.generation.gke,
            "cloud.google.com/gke-tpu-topology": shape.topology,
        }
        resource, count = "google.com/tpu", shape.per_host
    else:
        selector = {"cloud.google.com/gke-accelerator": settings.gpu}
        resource, count = "nvidia.com/gpu", settings.gpus_per_node
    tolerations.append({"key": resource, "operator": "Exists", "effect": "NoSchedule"})
    return {**selector, **spot}, {resource: count}, tolerations


def _processes(run: Run, settings: Gke) -> list[Manifest]:
    """Environment by which the processes of a run, one a host, find each other; see `launch.remote.joined`."""
    hosts, slices = settings.nodes, 1
    if settings.topology:
        hosts, slices = tpu_slices.parse(settings.topology).hosts, settings.slices
    if hosts * slices == 1:
        return []
    name = name_of(run.id)
    fields = {
        "VDIT_SLICE": "metadata.labels['jobset.sigs.k8s.io/job-index']",
        "VDIT_HOST": "metadata.annotations['batch.kubernetes.io/job-completion-index']",
    }
    return [
        {"name": "JAX_COORDINATOR_ADDRESS", "value": f"{name}-workers-0-0.{name}:{PORT}"},
        {"name": "JAX_NUM_PROCESSES", "value": str(hosts * slices)},
        {"name": "VDIT_HOSTS_OF_SLICE", "value": str(hosts)},
        *({"name": key, "valueFrom": {"fieldRef": {"fieldPath": path}}} for key, path in fields.items()),
    ]


def queue(settings: Gke) -> list[Manifest]:
    """Kueue's objects: nodes of one kind, a quota of them, and the namespace's queue to it."""
    selector, limits, _ = _hardware(settings)
    resource, api = next(iter(limits)), "kueue.x-k8s.io/v1beta1"
    quota = {"name": resource, "nominalQuota": settings.quota}
    group = {"coveredResources": [resource], "flavors": [{"name": settings.queue, "resources": [quota]}]}
    flavor = {"apiVersion": api, "kind": "ResourceFlavor", "metadata": {"name": settings.queue}}
    cluster = {"apiVersion": api, "kind": "ClusterQueue", "metadata": {"name": settings.queue}}
    local = {"apiVersion": api, "kind": "LocalQueue"}
    return [
        flavor | {"spec": {"nodeLabels": selector}},
        cluster | {"spec": {"namespaceSelector": {}, "resourceGroups": [group]}},
        local
        | {
            "metadata": {"name": settings.queue, "namespace": settings.namespace},
            "spec": {"clusterQueue": settings.queue},
        },
    ]
