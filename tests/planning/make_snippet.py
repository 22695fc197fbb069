"""Writes tests/planning/two_slices.hlo: what the TPU compiler makes of five scanned layers and a ring, on two slices.

    python -m tests.planning.make_snippet

Of every instruction only what vdit.planning.hlo reads is kept.
"""

from __future__ import annotations

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from vdit.planning.compile import describe

TOKENS = P(("replica", "fsdp"), "context", None)
LAYERS, ROWS, LENGTH, WIDTH, TURNS = 5, 8, 2048, 1024, 7


def program(weights_LDD: jax.Array, x_BLD: jax.Array) -> jax.Array:
    """Gradient of five linear layers, whose input goes round a ring seven times."""

    def turn(_: int, x_BLD: jax.Array) -> jax.Array:
        return jax.lax.ppermute(x_BLD, "context", [(0, 1), (1, 0)]) * 2

    def loss(weights_LDD: jax.Array, x_BLD: jax.Array) -> jax.Array:
        def layer(x_BLD: jax.Array, weight_DD: jax.Array) -> tuple[jax.Array, None]:
            weight_DD = jax.sharding.reshard(weight_DD.astype(jnp.bfloat16), P(None, None))
            return x_BLD + jnp.einsum("bld,de->ble", x_BLD, weight_DD, out_sharding=TOKENS), None

        x_BLD, _ = jax.lax.scan(layer, x_BLD, weights_LDD)
        return (x_BLD.astype(jnp.float32) ** 2).mean()

    ring = jax.shard_map(lambda x: jax.lax.fori_loop(0, TURNS, turn, x), out_specs=TOKENS, check_vma=False)
    return jax.grad(loss)(weights_LDD, ring(x_BLD))


def compiled(slices: int) -> jax.stages.Compiled:
    """`program` for v5e:2x2, two devices along fsdp and two along context in each slice."""
    devices = np.array(describe("v5e:2x2", slices)).reshape(slices, 2, 2)
    mesh = jax.sharding.Mesh(devices, ("replica", "fsdp", "context"), axis_types=(AxisType.Explicit,) * 3)

    def array(shape: tuple[int, ...], dtype: jnp.dtype, spec: P) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, spec))

    weights = array((LAYERS, WIDTH, WIDTH), jnp.float32, P(None, "fsdp", None))
    with jax.set_mesh(mesh):
        return jax.jit(program).lower(weights, array((ROWS, LENGTH, WIDTH), jnp.bfloat16, TOKENS)).compile()


def trimmed(text: str) -> str:
    """The computations, without what is not read."""
    text = text[re.search(r"^%\w.*\{$", text, re.MULTILINE).start() :]
    text = re.sub(r" stack_frame_id=\d+", "", text)

    def cycles(match: re.Match[str]) -> str:
        found = re.search(r'"estimated_cycles":"\d+"', match.group())
        return f", backend_config={{{found.group()}}}" if found else ""

    return re.sub(r", backend_config=\{.*\}$", cycles, text, flags=re.MULTILINE)


if __name__ == "__main__":
    Path(__file__).with_name("two_slices.hlo").write_text("HloModule jit_program\n\n" + trimmed(compiled(2).as_text()))
