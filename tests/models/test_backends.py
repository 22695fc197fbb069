"""Which attention backend "auto" takes, and what of the GPU's can be seen without one: it lowers for CUDA.

tokamax asks the device at hand what it is, so the tests put an H100 there. Nothing runs on it.
"""

import dataclasses

import jax
import numpy as np
import pytest
from absl import flags
from jax import export
from jax.extend import backend as jax_backend
from small_model import CONFIG, INTERFACE, SHAPE, clips, one_device, pack

from vdit.config import ModelConfig
from vdit.models.attention.gpu import IMPLEMENTATIONS, gpu_attention
from vdit.parallel.mesh import platform, to_global, use_mesh
from vdit.training.step import abstract_state, make_train_step

flags.FLAGS.mark_as_parsed()  # tokamax reads absl flags, as they are in every command of ours
TRITON = export.DisabledSafetyCheck.custom_call("__gpu$xla.gpu.triton")
"""Triton's calls may change with a version of JAX, which matters to programs that are kept."""


@dataclasses.dataclass(frozen=True)
class H100:
    """What tokamax asks of a device."""

    platform: str = "gpu"
    device_kind: str = "NVIDIA H100 80GB HBM3"
    compute_capability: str = "9.0"
    core_count: int = 132


@pytest.fixture
def h100(monkeypatch):
    from tokamax._src import config

    monkeypatch.setattr(jax_backend, "get_default_device", H100)
    with config.cross_compile(True):
        yield


@pytest.mark.parametrize(
    ("here", "backend"), [("cpu", "chunked"), ("tpu", "splash"), ("gpu", "gpu"), ("another", "chunked")]
)
def test_auto_takes_the_backend_of_the_devices(here, backend):
    assert ModelConfig().backend(here) == backend
    assert ModelConfig(attention="reference").backend(here) == "reference"


def test_devices_are_those_of_the_mesh():
    with use_mesh(one_device()):
        assert platform() == "cpu"


def lower(slots: int, dtype: str, implementations: tuple[str, ...]) -> export.Exported:
    """The backend with its gradient, lowered for CUDA."""
    x_BHLK = jax.ShapeDtypeStruct((2, 2, slots, 64), dtype)
    segments_BL = jax.ShapeDtypeStruct((2, slots), np.int32)

    def both(q, k, v, grad, segments_BL):
        out, pull = jax.vjp(lambda *qkv: gpu_attention(*qkv, segments_BL, implementations=implementations), q, k, v)
        return out, *pull(grad)

    return export.export(jax.jit(both), platforms=["cuda"], disabled_checks=[TRITON])(*[x_BHLK] * 4, segments_BL)


def calls(lowered: export.Exported, kernel: str) -> int:
    return sum("custom_call" in line and kernel in line for line in lowered.mlir_module().splitlines())


@pytest.mark.parametrize(
    ("kernel", "dtype"), [("mosaic_gpu", "bfloat16"), ("triton", "bfloat16"), ("triton", "float32")]
)
def test_kernels_lower_for_cuda_with_their_gradients(h100, kernel, dtype):
    """Mosaic's take no float32; the backend then takes Triton's."""
    lowered = lower(256, dtype, (kernel,))
    assert [out.shape for out in lowered.out_avals] == [(2, 2, 256, 64)] * 4
    assert calls(lowered, kernel) >= 2  # forward and backward


@pytest.mark.parametrize(
    ("slots", "dtype", "kernel"),
    [(256, "bfloat16", "mosaic_gpu"), (192, "bfloat16", "triton"), (256, "float32", "triton")],
)
def test_the_first_kernel_that_can_is_taken(h100, slots, dtype, kernel):
    """Mosaic's take rows of whole blocks of 128 tokens in bfloat16."""
    lowered = lower(slots, dtype, IMPLEMENTATIONS)
    assert [name for name in IMPLEMENTATIONS if calls(lowered, name)] == [kernel]


def test_the_train_step_lowers_for_cuda(h100):
    """All of it, with the kernels in their place; on a mesh of one device, in bfloat16."""
    model = dataclasses.replace(CONFIG.model, width=128, head_width=64, dtype="bfloat16", attention="gpu")
    config = dataclasses.replace(CONFIG, model=model)
    mesh = one_device()
    with use_mesh(mesh):
        graph, state = abstract_state(config, INTERFACE, mesh)
        batch = to_global(pack([clips()], dataclasses.replace(SHAPE, tokens=256)), mesh)
        lowered = export.export(make_train_step(graph, config), platforms=["cuda"], disabled_checks=[TRITON])(
            state, batch, np.float32(0)
        )
    assert lowered.platforms == ("cuda",) and "mosaic_gpu" in lowered.mlir_module()
