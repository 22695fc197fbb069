"""Starting JAX: CPU devices, processes, the compilation cache. Called once, before anything touches a device."""

from __future__ import annotations

import dataclasses
import math
import os
from pathlib import Path

import jax

from vdit.config import Config, UserError

CACHE = Path(os.environ.get("VDIT_CACHE", Path.home() / ".cache" / "vdit"))


PROCESSES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
"""Environment variables that make this process one of several."""


def process_count() -> int:
    """Processes of this run, before JAX is started."""
    return int(os.environ.get("JAX_NUM_PROCESSES") or 1)


def cpu_devices_for(config: Config) -> int:
    """Virtual CPU devices of one process: as the mesh says, or as many of the cores as share a step's rows evenly."""
    sizes = dataclasses.astuple(config.mesh)
    fixed = math.prod(size for size in sizes if size > 0)
    within_row = max(1, config.mesh.context) * max(1, config.mesh.tensor)
    if -1 not in sizes:
        return max(1, fixed // process_count())
    for devices in range(os.cpu_count() or 1, 0, -1):
        even = devices % fixed == 0 and devices % process_count() == 0
        if even and config.data.rows_per_step % max(1, devices // within_row) == 0:
            return devices // process_count()
    return max(1, fixed // process_count())


def initialise(cpu_devices: int = 0, cache: bool = True) -> None:
    """Sets up JAX for this process.

    Several processes are started when JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID are set.

    Args:
      cpu_devices: virtual devices of a CPU; 0 takes one per core. Two rows on two devices use two cores fully,
        which one device's thread pool does not. JAX_NUM_CPU_DEVICES overrides it.
      cache: keep compiled programs on disk, so that a restart does not compile again.

    Raises:
      UserError: if only some of the three variables are set.
    """
    values = [os.environ.get(name) for name in PROCESSES]
    if any(values) and not all(values):
        missing = [name for name, value in zip(PROCESSES, values, strict=True) if not value]
        raise UserError(f"{', '.join(missing)} not set; a run of several processes needs {', '.join(PROCESSES)}")
    processes = process_count()
    if not os.environ.get("JAX_NUM_CPU_DEVICES"):
        jax.config.update("jax_num_cpu_devices", cpu_devices or max(1, (os.cpu_count() or 1) // processes))
    if cache:
        jax.config.update("jax_compilation_cache_dir", str(CACHE / "xla"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)
    if processes > 1:
        jax.distributed.initialize(values[0], processes, int(values[2] or 0), initialization_timeout=120)
