import os
import platform
import socket
import subprocess
import sys

import jax
import pytest

from vdit.config import Config, DataConfig, MeshConfig
from vdit.errors import UserError
from vdit.parallel import runtime
from vdit.parallel.runtime import PROCESSES, cluster, cpu_devices_for, initialise


@pytest.mark.parametrize(
    ("cores", "processes", "rows", "mesh", "devices"),
    [
        (2, 1, 2, MeshConfig(), 2),
        (8, 1, 2, MeshConfig(), 2),  # more would have no row
        (8, 1, 6, MeshConfig(), 6),
        (8, 1, 5, MeshConfig(), 5),
        (4, 1, 5, MeshConfig(), 1),
        (1, 1, 4, MeshConfig(), 1),
        (8, 2, 4, MeshConfig(), 2),  # of each process
        (8, 1, 4, MeshConfig(fsdp=2), 4),
        (8, 1, 2, MeshConfig(tensor=4), 8),
        (2, 1, 8, MeshConfig(replica=2, fsdp=4), 8),  # asked for: virtual devices can be more than cores
        (2, 1, 3, MeshConfig(fsdp=2), 2),  # does not go: make_mesh and train say so
    ],
)
def test_virtual_devices(monkeypatch, cores, processes, rows, mesh, devices):
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    monkeypatch.setenv("JAX_NUM_PROCESSES", str(processes))
    assert cpu_devices_for(Config(data=DataConfig(rows_per_step=rows), mesh=mesh)) == devices


def test_half_a_description_of_processes(monkeypatch):
    for name in PROCESSES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("JAX_NUM_PROCESSES", "2")
    with pytest.raises(UserError, match="JAX_COORDINATOR_ADDRESS, JAX_PROCESS_ID not set; a run of several processes"):
        initialise()


CLUSTERS = [
    ({}, ""),
    ({"JAX_COORDINATOR_ADDRESS": "a:1", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "0"}, "variables"),
    ({"SLURM_NTASKS": "4", "SLURM_PROCID": "1"}, "slurm"),
    ({"SLURM_NTASKS": "1", "SLURM_PROCID": "0"}, ""),  # an interactive allocation of one task
    ({"TPU_WORKER_HOSTNAMES": "10.0.0.1,10.0.0.2"}, "tpu"),
    ({"TPU_WORKER_HOSTNAMES": "localhost"}, ""),  # one host, as in Colab
    ({"TPU_WORKER_HOSTNAMES": "a", "MEGASCALE_NUM_SLICES": "2"}, "tpu"),
]


@pytest.mark.parametrize(("variables", "expected"), CLUSTERS, ids=[kind or "alone" for _, kind in CLUSTERS])
def test_what_tells_that_there_are_other_processes(monkeypatch, variables, expected):
    for name in {name for given, _ in CLUSTERS for name in given}:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert cluster() == expected


@pytest.mark.parametrize("kind", ["slurm", "tpu"])
def test_jax_finds_the_processes_of_a_cluster(monkeypatch, kind):
    calls = []
    monkeypatch.setattr(runtime, "cluster", lambda: kind)
    monkeypatch.setattr(jax.distributed, "initialize", lambda **options: calls.append(options))
    monkeypatch.setattr(jax.config, "update", lambda *_: None)
    monkeypatch.setenv("VDIT_START_SECONDS", "17")
    initialise()
    assert calls == [{"initialization_timeout": 77}]


@pytest.mark.parametrize("process", [0, 1])
def test_processes_that_do_not_meet_are_one_line(process):
    """Process 0 waits for process 1, or 1 for the coordinator; neither comes."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    many = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": str(process)}
    environment = {**os.environ, **many, "VDIT_START_SECONDS": "1", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", "from vdit.parallel.runtime import initialise; initialise()"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert f"(coordinator {address}, process {process} of 2): not all came within 1 s" in line


HEAPS = """
import ctypes, os, sys, threading
from vdit.parallel.runtime import initialise

initialise(1, cache=False)
libc = ctypes.CDLL(None)
libc.malloc.restype = libc.fopen.restype = ctypes.c_void_p
libc.malloc_info.argtypes = ctypes.c_int, ctypes.c_void_p
libc.fclose.argtypes = (ctypes.c_void_p,)
all_there = threading.Barrier(4 * os.cpu_count())
work = lambda: (libc.malloc(5000), all_there.wait())
threads = [threading.Thread(target=work) for _ in range(all_there.parties)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
file = libc.fopen(sys.argv[1].encode(), b"w")
libc.malloc_info(0, file)
libc.fclose(file)
"""
"""Asks for memory in four threads a core at once, and writes down what malloc made of it."""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another malloc")
def test_threads_share_few_heaps(tmp_path):
    def heaps(**values: str) -> int:
        environment = {**os.environ, "JAX_PLATFORMS": "cpu", **values}
        subprocess.run([sys.executable, "-c", HEAPS, str(tmp_path / "info")], env=environment, check=True, timeout=600)
        return (tmp_path / "info").read_text().count("<heap nr=")

    cores = os.cpu_count()
    assert heaps() <= cores < heaps(MALLOC_ARENA_MAX=str(3 * cores)) <= 3 * cores


QUIET = """
import glob, os, sys
from vdit.parallel.runtime import initialise

glob.glob = lambda pattern: ["/dev/accel0"] * ("accel" in pattern and sys.argv[1] == "tpu")
initialise(1, cache=False)
print(os.environ.get("TPU_WORKER_HOSTNAMES"))
"""


@pytest.mark.parametrize(("machine", "told"), [("cpu", "localhost"), ("tpu", "None")])
def test_libtpu_is_kept_quiet_where_there_is_no_tpu_only(machine, told):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TPU_")}
    done = subprocess.run(
        [sys.executable, "-c", QUIET, machine], env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0 and done.stdout.strip() == told, done.stderr
