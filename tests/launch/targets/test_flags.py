"""Every flag of every set is one that the real compilers know: they stop at an unknown one."""

import os
import subprocess
import sys

import pytest

from launch.sweeps import tpu_slices
from launch.targets import compiler_flags
from vdit.errors import UserError

COMPILE = """
import jax
from jax.experimental import topologies
topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x2")
"""
DEVICES = """
from jax.experimental import topologies
for name in {names}:
    print(len(topologies.get_topology_desc(platform="tpu", topology_name=name).devices))
"""
ON_CPU = "import jax; jax.jit(lambda x: x + 1)(1)"


def run(code: str, **values: str) -> subprocess.CompletedProcess:
    quiet = {"JAX_PLATFORMS": "cpu", "TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}
    environment = {**os.environ, **quiet, **values}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=600)


def test_the_tpu_compiler_knows_the_flags():
    everything = {
        flag.name: flag
        for name in compiler_flags.SETS
        if name not in ("gpu", "none")
        for flag in compiler_flags.SETS[name]
    }
    given = " ".join(f"--{flag.name}={flag.value}" for flag in everything.values())
    done = run(COMPILE, LIBTPU_INIT_ARGS=given)
    assert done.returncode == 0, done.stderr
    done = run(COMPILE, LIBTPU_INIT_ARGS="--xla_tpu_no_such_flag=true")
    assert done.returncode and "no_such_flag" in done.stderr


def test_the_tpu_compiler_sees_as_many_devices():
    """Of v4 it sees two a chip, which real ones join to one."""
    names = ("v5e:2x2", "v5p:2x2x1", "v6e:2x2", "tpu7x:2x2x1")
    devices = run(DEVICES.format(names=names)).stdout.split()
    assert [int(count) for count in devices] == [tpu_slices.parse(name).devices for name in names] == [4, 4, 4, 8]


def test_xla_knows_the_gpu_flags():
    assert run(ON_CPU, **compiler_flags.environment("gpu")).returncode == 0
    assert run(ON_CPU, XLA_FLAGS="--xla_gpu_no_such_flag=true").returncode


def test_sets(monkeypatch):
    monkeypatch.setenv("LIBTPU_INIT_ARGS", "--mine=1")
    (value,) = compiler_flags.environment("v6e").values()
    assert value.endswith(" --mine=1") and "xla_tpu_scoped_vmem_limit_kib=98304" in value  # a user's own wins
    assert compiler_flags.environment("none") == compiler_flags.environment("") == {}
    assert all(flag.why for flags_of in compiler_flags.SETS.values() for flag in flags_of)
    with pytest.raises(UserError, match="flags='v9' is not one of v4, v5e"):
        compiler_flags.environment("v9")
