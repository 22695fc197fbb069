"""TPU generations: what their slices are called by the Cloud TPU API and by GKE, and how they divide into hosts."""

from __future__ import annotations

import dataclasses
import math
import re

from vdit.errors import UserError


@dataclasses.dataclass(frozen=True)
class Generation:
    """One TPU generation.

    Attributes:
      accelerator: prefix of the API's accelerator type, "" where the API does not offer it.
      per_chip: what the number in the accelerator type counts per chip: 2 where it counts TensorCores.
      gke: value of the node label cloud.google.com/gke-tpu-accelerator.
      runtime: usual image of the TPU VMs.
      axes: of a topology.
      one_host: chips up to which a slice is one host.
      machine: GKE's machine type, with the chips of a host in place of {}.
      per_host: chips of a host in larger slices.
      devices: that JAX sees on a chip.
      workload_policy: GKE places the hosts of a slice by a workload policy, not by the topology of a node pool.
    """

    accelerator: str
    per_chip: int
    gke: str
    runtime: str
    axes: int
    one_host: int
    machine: str
    per_host: int = 4
    devices: int = 1
    workload_policy: bool = False


GENERATIONS = {
    "v4": Generation("v4", 2, "tpu-v4-podslice", "tpu-ubuntu2204-base", 3, 4, "ct4p-hightpu-{}t"),
    "v5e": Generation("v5litepod", 1, "tpu-v5-lite-podslice", "v2-alpha-tpuv5-lite", 2, 8, "ct5lp-hightpu-{}t"),
    "v5p": Generation("v5p", 2, "tpu-v5p-slice", "v2-alpha-tpuv5", 3, 4, "ct5p-hightpu-{}t"),
    "v6e": Generation("v6e", 1, "tpu-v6e-slice", "v2-alpha-tpuv6e", 2, 8, "ct6e-standard-{}t"),
    "tpu7x": Generation("", 1, "tpu7x", "", 3, 4, "tpu7x-standard-{}t", devices=2, workload_policy=True),
}


@dataclasses.dataclass(frozen=True)
class Slice:
    """One slice, such as v5e:4x4."""

    name: str
    shape: tuple[int, ...]

    @property
    def generation(self) -> Generation:
        return GENERATIONS[self.name]

    @property
    def chips(self) -> int:
        return math.prod(self.shape)

    @property
    def devices(self) -> int:
        """Devices that JAX sees on it."""
        return self.chips * self.generation.devices

    @property
    def needs_workload_policy(self) -> bool:
        """Whether GKE places its hosts by a workload policy."""
        return self.generation.workload_policy and self.hosts > 1

    @property
    def machine_type(self) -> str:
        """As GKE writes it: ct5lp-hightpu-4t."""
        return self.generation.machine.format(self.per_host)

    @property
    def topology(self) -> str:
        """As GKE writes it: 4x4."""
        return "x".join(map(str, self.shape))

    @property
    def per_host(self) -> int:
        """Chips of one of its hosts."""
        return self.chips if self.chips <= self.generation.one_host else self.generation.per_host

    @property
    def hosts(self) -> int:
        return self.chips // self.per_host

    @property
    def accelerator_type(self) -> str:
        """As the Cloud TPU API writes it: v5litepod-16.

        Raises:
          UserError: if the API does not offer the generation.
        """
        if not self.generation.accelerator:
            raise UserError(f"{self.name} is offered on GKE only; use --to=gke")
        return f"{self.generation.accelerator}-{self.chips * self.generation.per_chip}"


def parse(text: str) -> Slice:
    """Reads "v5e:4x4".

    Raises:
      UserError: if it is not a slice.
    """
    found = re.fullmatch(r"(\w+):(\d+(?:x\d+)*)", text)
    if not found or found[1] not in GENERATIONS:
        raise UserError(f"topology {text!r} is not GENERATION:SHAPE such as v5e:4x4; known: {', '.join(GENERATIONS)}")
    shape = tuple(int(size) for size in found[2].split("x"))
    axes = GENERATIONS[found[1]].axes
    if len(shape) != axes or min(shape) < 1:
        example = "x".join("4" * axes)
        raise UserError(f"topology {text!r} should have {axes} sizes, such as {found[1]}:{example}")
    return Slice(found[1], shape)
