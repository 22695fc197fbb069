"""Settings of a sweep's targets: where its runs are started and how."""

from __future__ import annotations

import dataclasses

from launch.sweeps import tpu_slices
from vdit.errors import UserError
from vdit.io.names import expand_fields


@dataclasses.dataclass(frozen=True)
class Local:
    """Processes on this machine.

    Attributes:
      at_once: runs at a time.
      processes: processes of one run, joined by jax.distributed over loopback.
      cpu_devices: CPU devices of a process; 0 takes what `vdit.train` takes.
      gpus: GPUs of a run; runs at the same time get different ones. 0 leaves all visible.
      restarts: failures in a row, without a new step, after which a run is given up.
      backoff: seconds before the first restart; doubles with every failure, up to five minutes.
      grace: seconds that a run has to save its checkpoint when it is stopped.
      flags: name of a set of compiler flags in launch/targets/compiler_flags.py.
      price_per_hour: of this machine, shared by the runs at once; for the cost column.
    """

    at_once: int = 1
    processes: int = 1
    cpu_devices: int = 0
    gpus: int = 0
    restarts: int = 3
    backoff: float = 5.0
    grace: float = 60.0
    flags: str = ""
    price_per_hour: float = 0.0

    def __post_init__(self) -> None:
        _at_least("local", self, 1, "at_once", "processes")

    @property
    def devices(self) -> int:
        """Devices of one run; 0 if `vdit.train` takes as many as it can use."""
        return self.gpus or self.cpu_devices * self.processes

    @property
    def price_of_run(self) -> float:
        """What one run costs an hour; 0 if no price is set."""
        return self.price_per_hour / self.at_once


class ByChip:
    """Settings of targets that are paid for by the chip."""

    price_per_chip_hour: float

    @property
    def chips(self) -> int:
        """Chips or GPUs of one run."""
        raise NotImplementedError

    @property
    def devices(self) -> int:
        """Devices of one run, as JAX sees them."""
        return self.chips

    @property
    def price_of_run(self) -> float:
        """What one run costs an hour; 0 if no price is set."""
        return self.chips * self.price_per_chip_hour


@dataclasses.dataclass(frozen=True)
class QueuedResources(ByChip):
    """Cloud TPU slices through `gcloud compute tpus queued-resources`.

    Attributes:
      project, zone: where.
      topology: of one slice, such as "v5e:4x4"; the same notation as `vdit.plan --topology`.
      slices: slices of one run (Multislice).
      capacity: "spot", "on_demand" or "reserved".
      bucket: gs://NAME, perhaps with a folder; or a folder that all machines mount. Holds checkpoints and logs.
      data: folder of the data sets there; empty = BUCKET/data.
      repository: URL from which the machines clone the code; empty = a bundle of HEAD in the bucket.
      runtime: image of the TPU VMs; empty = the usual one of the generation.
      service_account, network, subnetwork: of the VMs; empty = the project's defaults.
      flags: name of a set of compiler flags in launch/targets/compiler_flags.py; empty = that of the generation.
      at_once: runs that hold or wait for resources at a time.
      retries: re-creations in a row, without a new step, after which a run is given up.
      price_per_chip_hour: what a chip costs, from the price list of your region; 0 = unknown.
      max_spend: no more than this is spent on the sweep, in the same currency; 0 = no limit.
      poll: seconds between two polls.
    """

    project: str = ""
    zone: str = ""
    topology: str = ""
    slices: int = 1
    capacity: str = "spot"
    bucket: str = ""
    data: str = ""
    repository: str = ""
    runtime: str = ""
    service_account: str = ""
    network: str = ""
    subnetwork: str = ""
    flags: str = ""
    at_once: int = 4
    retries: int = 10
    price_per_chip_hour: float = 0.0
    max_spend: float = 0.0
    poll: float = 60.0

    def __post_init__(self) -> None:
        expand_fields(self, "bucket", "data")
        if self.capacity not in ("spot", "on_demand", "reserved"):
            raise UserError(f"queued_resources.capacity={self.capacity!r} is not one of spot, on_demand, reserved")
        _at_least("queued_resources", self, 1, "slices", "at_once")
        if self.max_spend and not self.price_per_chip_hour:
            raise UserError("queued_resources.max_spend needs queued_resources.price_per_chip_hour")

    @property
    def chips(self) -> int:
        """Chips of one run."""
        return tpu_slices.parse(self.topology).chips * self.slices

    @property
    def devices(self) -> int:
        """Devices of one run."""
        return tpu_slices.parse(self.topology).devices * self.slices


@dataclasses.dataclass(frozen=True)
class Gke(ByChip):
    """JobSets on Google Kubernetes Engine, queued by Kueue.

    Attributes:
      context: of kubectl; empty = the current one.
      namespace, queue: where, and the Kueue LocalQueue; an empty queue starts at once.
      quota: chips that the queue may use at a time; 0 leaves the cluster's queue as it is, else it is made or changed.
      image: of docker/tpu.Dockerfile or docker/gpu.Dockerfile.
      topology: of a TPU slice, such as "v5e:4x4"; or else
      gpu: value of the node label cloud.google.com/gke-accelerator, such as "nvidia-h100-80gb".
      gpus_per_node, nodes: GPUs of a node, nodes of one run.
      slices: TPU slices of one run.
      bucket, data: as of queued_resources.
      service_account: Kubernetes service account that may use the bucket.
      secret: a Secret whose keys become environment variables, such as tokens; empty = none.
      spot: run on spot nodes.
      restarts: restarts of the JobSet; those that preemption causes do not count.
      grace: seconds to save a checkpoint after SIGTERM.
      flags, price_per_chip_hour: as of queued_resources; a GPU counts as a chip.
    """

    context: str = ""
    namespace: str = "default"
    queue: str = ""
    quota: int = 0
    image: str = ""
    topology: str = ""
    gpu: str = ""
    gpus_per_node: int = 8
    nodes: int = 1
    slices: int = 1
    bucket: str = ""
    data: str = ""
    service_account: str = ""
    secret: str = ""
    spot: bool = True
    restarts: int = 10
    grace: int = 120
    flags: str = ""
    price_per_chip_hour: float = 0.0

    def __post_init__(self) -> None:
        expand_fields(self, "bucket", "data")
        _at_least("gke", self, 1, "slices", "nodes", "gpus_per_node")

    @property
    def chips(self) -> int:
        """Chips or GPUs of one run."""
        if self.topology:
            return tpu_slices.parse(self.topology).chips * self.slices
        return self.gpus_per_node * self.nodes

    @property
    def devices(self) -> int:
        """Devices of one run."""
        return tpu_slices.parse(self.topology).devices * self.slices if self.topology else self.chips


@dataclasses.dataclass(frozen=True)
class Slurm(ByChip):
    """Jobs of a SLURM cluster of GPUs; --out must be on a file system that its nodes share.

    Attributes:
      python: the interpreter of the installed environment.
      partition, account: empty = the cluster's defaults.
      nodes, gpus_per_node: of one run; one process a node.
      cpus_per_gpu: cores of a process, over its GPUs.
      time: limit of one job, as sbatch takes it; a run that needs longer is requeued and resumes.
      grace: seconds before the limit at which the run is signalled to save.
      flags: name of a set of compiler flags in launch/targets/compiler_flags.py.
      price_per_chip_hour: of a GPU; for the cost column.
    """

    python: str = ".venv/bin/python"
    partition: str = ""
    account: str = ""
    nodes: int = 1
    gpus_per_node: int = 8
    cpus_per_gpu: int = 8
    time: str = "24:00:00"
    grace: int = 120
    flags: str = "gpu"
    price_per_chip_hour: float = 0.0

    def __post_init__(self) -> None:
        expand_fields(self, "python")
        _at_least("slurm", self, 1, "nodes", "gpus_per_node", "cpus_per_gpu")

    @property
    def chips(self) -> int:
        """GPUs of one run."""
        return self.nodes * self.gpus_per_node


TARGETS = {"local": Local, "queued_resources": QueuedResources, "gke": Gke, "slurm": Slurm}
Settings = Local | QueuedResources | Gke | Slurm


def require(target: str, settings: Settings, *names: str) -> None:
    """Raises UserError if a setting that the target cannot do without is empty."""
    for name in names:
        if not getattr(settings, name):
            raise UserError(f"{target}.{name} is not set; give it in the sweep file or as --sweep.{target}.{name}=...")


def _at_least(target: str, settings: Settings, least: int, *names: str) -> None:
    for name in names:
        if getattr(settings, name) < least:
            raise UserError(f"{target}.{name}={getattr(settings, name)} must be at least {least}")
