"""Starting JAX: CPU devices, several processes, the compilation cache. Called once, before anything touches a device."""

from __future__ import annotations

import os
from pathlib import Path

import jax

from vdit.config import UserError

CACHE = Path(os.environ.get("VDIT_CACHE", Path.home() / ".cache" / "vdit"))


def initialise(cpu_devices: int = 0, cache: bool = True) -> None:
    """Sets up JAX for this process.

    Several processes are started when JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID are set.

    Args:
      cpu_devices: virtual devices of a CPU; 0 takes one per core. Two rows on two devices use two cores fully,
        which one device's thread pool does not.
      cache: keep compiled programs on disk, so that a restart does not compile again.

    Raises:
      UserError: if only some of the three variables are set.
    """
    names = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
    values = [os.environ.get(name) for name in names]
    if any(values) and not all(values):
        missing = [name for name, value in zip(names, values, strict=True) if not value]
        raise UserError(f"{', '.join(missing)} not set; a run of several processes needs {', '.join(names)}")
    processes = int(values[1] or 1)
    jax.config.update("jax_num_cpu_devices", cpu_devices or max(1, (os.cpu_count() or 1) // processes))
    if cache:
        jax.config.update("jax_compilation_cache_dir", str(CACHE / "xla"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)
    if processes > 1:
        jax.distributed.initialize(values[0], processes, int(values[2] or 0), initialization_timeout=120)
