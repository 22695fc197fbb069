"""What devices could compute at most, by which a run's model FLOP utilisation (MFU) is told.

Published peaks are those of dense bfloat16 products (of float16 on T4, which has no bfloat16), whatever a run computes
in. TPUs: docs.cloud.google.com/tpu/docs. GPUs: NVIDIA's data sheets, without sparsity.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

PUBLISHED = {
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5e": 197e12,
    "TPU v5p": 459e12,
    "TPU v5": 459e12,
    "TPU v6 lite": 918e12,
    "TPU v6e": 918e12,
    "TPU7x": 2307e12 / 2,  # JAX sees two devices a chip
    "GB200": 2500e12,
    "B200": 2250e12,
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "T4": 65e12,
}
"""FLOP/s of one device, by the start of a TPU's or a word of a GPU's name; the first that fits holds."""

PRODUCT_SIZE, REPEATS = 768, 5
"""Side of the matrices whose product is timed, and how often it is timed: the fastest counts."""


def published(kind: str) -> float | None:
    """The published peak of a device by what JAX calls its kind; None if it is not known."""
    for name, rate in PUBLISHED.items():
        gpu = not name.startswith("TPU")
        if kind.startswith(name) or (gpu and f" {name} " in f" {kind.replace('-', ' ')} "):
            return rate
    return None


def peak_rate() -> tuple[float, str]:
    """FLOP/s of all devices, and where the figure is from: "published", or "measured" products of float32 matrices."""
    rate = published(jax.devices()[0].device_kind)
    if rate is not None:
        return rate * jax.device_count(), "published"
    return _fastest() / jax.local_device_count() * jax.device_count(), "measured"


def product_rate() -> Callable[[], float]:
    """A function that times one round of matrix products on this process's devices, one on each at once: FLOP/s."""
    devices, size = jax.local_devices(), PRODUCT_SIZE
    mesh = jax.sharding.Mesh(np.array(devices), ("device",), axis_types=(jax.sharding.AxisType.Auto,))
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("device"))

    def product(x_NDD: jax.Array) -> jax.Array:
        return jnp.einsum("nij,njk->nik", x_NDD, x_NDD)

    compiled = jax.jit(product)
    with jax.set_mesh(mesh):
        x_NDD = jax.device_put(np.random.default_rng(0).standard_normal((len(devices), size, size), np.float32), rows)
        _timed(compiled, x_NDD)  # which also compiles it

    def rate() -> float:
        with jax.set_mesh(mesh):
            return 2 * len(devices) * size**3 / _timed(compiled, x_NDD)

    return rate


@functools.cache
def _fastest() -> float:
    """The fastest of some rounds."""
    rate = product_rate()
    return max(rate() for _ in range(REPEATS))


def _timed(function: Any, *arguments: Any) -> float:
    start = time.perf_counter()
    jax.block_until_ready(function(*arguments))
    return time.perf_counter() - start
