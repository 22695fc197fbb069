"""Starting JAX: CPU devices, processes, the compilation cache. Called once, before anything touches a device."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import glob
import math
import os
import sys
import threading
from collections.abc import Callable
from typing import Any

import jax

from vdit.config import Config
from vdit.errors import UserError
from vdit.io.files import cache_dir

PROCESSES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
"""Environment variables that make this process one of several."""


def process_count() -> int:
    """Processes of this run on CPUs, before JAX is started."""
    return int(os.environ.get("JAX_NUM_PROCESSES") or 1)


def process_index() -> int | None:
    """This process's place among those of its run before JAX is started, where variables or SLURM say."""
    value = os.environ.get("JAX_PROCESS_ID") or (os.environ.get("SLURM_PROCID") if cluster() == "slurm" else None)
    return int(value) if value else None


def cluster() -> str:
    """What says that this process is one of several: "variables", "slurm", "tpu", or "" where nothing does.

    SLURM sets SLURM_NTASKS and the like in every task of `srun`. A Cloud TPU VM or a GKE pod of more than one host has
    TPU_WORKER_HOSTNAMES; GKE sets MEGASCALE_NUM_SLICES for several slices.
    """
    if any(os.environ.get(name) for name in PROCESSES):
        return "variables"
    if int(os.environ.get("SLURM_NTASKS") or 1) > 1 and os.environ.get("SLURM_PROCID"):
        return "slurm"
    hosts = [host for host in os.environ.get("TPU_WORKER_HOSTNAMES", "").split(",") if host]
    if len(hosts) > 1 or int(os.environ.get("MEGASCALE_NUM_SLICES") or 1) > 1:
        return "tpu"
    return ""


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


def initialise(cpu_devices: int = 0, cache: bool = True, missing: Callable[[], str] | None = None) -> None:
    """Sets up JAX for this process, and joins it to the others of its run where there are any (see `cluster`).

    Args:
      cpu_devices: virtual devices of a CPU; 0 takes one per core. Two rows on two devices use two cores fully,
        which one device's thread pool does not. JAX_NUM_CPU_DEVICES overrides it.
      cache: keep compiled programs on disk, so that a restart does not compile again.
      missing: gives text on which processes have not been started; called when they do not meet.

    Raises:
      UserError: if only some of the variables of `PROCESSES` are set. If the other processes do not come within
        VDIT_START_SECONDS (300 if it is not set), the process ends with an error of one line and status 2.
    """
    values = [os.environ.get(name) for name in PROCESSES]
    if any(values) and not all(values):
        unset = [name for name, value in zip(PROCESSES, values, strict=True) if not value]
        raise UserError(f"{', '.join(unset)} not set; a run of several processes needs {', '.join(PROCESSES)}")
    _few_arenas()
    if not _has_tpu():
        quiet_libtpu()
    if not os.environ.get("JAX_NUM_CPU_DEVICES"):
        jax.config.update("jax_num_cpu_devices", cpu_devices or max(1, (os.cpu_count() or 1) // process_count()))
    if cache:
        jax.config.update("jax_compilation_cache_dir", str(cache_dir() / "xla"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)
    kind = cluster()
    if not kind or (kind == "variables" and process_count() == 1):
        return
    given = (values[0], process_count(), int(values[2] or 0)) if kind == "variables" else ()
    seconds = int(os.environ.get("VDIT_START_SECONDS") or 300)
    _join(kind, given, seconds, missing)


def quiet_libtpu() -> None:
    """Keeps libtpu, which may be installed where there is no TPU, from warning that it finds no metadata server."""
    os.environ["TPU_SKIP_MDS_QUERY"] = "1"
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-16")  # any will do
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")


def _has_tpu() -> bool:
    """Whether this machine has devices of a TPU, under either of the names that its drivers give them."""
    return bool(glob.glob("/dev/accel*") or glob.glob("/dev/vfio/*"))


def _few_arenas() -> None:
    """Keeps memory flat: threads come and go with every epoch and save, and leave holes in the heap they were given.

    One heap a core instead of glibc's eight; MALLOC_ARENA_MAX overrides it. Holds for heaps not made yet, so it comes
    before the threads of JAX.
    """
    if "MALLOC_ARENA_MAX" not in os.environ:
        with contextlib.suppress(AttributeError):  # a C library other than glibc
            ctypes.CDLL(None).mallopt(-8, os.cpu_count() or 1)  # M_ARENA_MAX


def _join(kind: str, given: tuple[Any, ...], seconds: int, missing: Callable[[], str] | None) -> None:
    """Waits for the other processes; JAX finds out about them itself unless it is given (coordinator, number, own)."""
    where = f"coordinator {given[0]}, process {given[2]} of {given[1]}" if given else f"found by {kind}"

    def give_up(reason: str) -> None:
        reason = f"{reason}, {missing()}" if missing else reason
        print(
            f"error: the processes of this run did not meet ({where}): {reason}; check that all of them run and reach "
            "the coordinator, or set VDIT_START_SECONDS",
            file=sys.stderr,
            flush=True,
        )
        os._exit(2)

    # Past its own limit the distributed runtime aborts the process with a stack trace, so ours comes first.
    timer = threading.Timer(seconds, give_up, [f"not all came within {seconds} s"])
    timer.daemon = True
    timer.start()
    try:
        named = dict(zip(("coordinator_address", "num_processes", "process_id"), given, strict=False))
        jax.distributed.initialize(**named, initialization_timeout=seconds + 60)
    except Exception as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise UserError(f"the processes of this run did not meet ({where}): {reason}") from error
    finally:
        timer.cancel()
