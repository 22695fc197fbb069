import os

import pytest

from vdit.config import Config, DataConfig, MeshConfig, UserError
from vdit.parallel.runtime import PROCESSES, cpu_devices_for, initialise


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
