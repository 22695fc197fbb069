"""Products of tokens and matrices: their gradients are those of jnp.einsum."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from small_model import one_device

from vdit.config import MeshConfig
from vdit.models.weights import product
from vdit.parallel.mesh import make_mesh, use_mesh

ROWS, HEADS = ("replica", "fsdp"), "tensor"
CASES = {
    "q, k and v": ("bld,dhk->blhk", P(ROWS, None, None), P(None, HEADS, None), P(ROWS, None, HEADS, None)),
    "heads": ("bhlk,hkd->bld", P(ROWS, HEADS, None, None), P(HEADS, None, None), P(ROWS, None, None)),
    "patches": ("blp,pd->bld", P(ROWS, None, None), P(None, None), P(ROWS, None, None)),
}
SIZES = {"b": 2, "l": 6, "d": 8, "h": 2, "k": 4, "p": 3}


@pytest.mark.parametrize("devices", [1, 4])
@pytest.mark.parametrize(("equation", "of_x", "of_matrix", "of_out"), CASES.values(), ids=CASES.keys())
def test_gradients_are_those_of_einsum(equation, of_x, of_matrix, of_out, devices):
    rng = np.random.default_rng(0)
    axes = equation.replace("->", ",").split(",")
    arrays = [rng.standard_normal([SIZES[axis] for axis in part]).astype(np.float32) for part in axes]

    def both(function, x, matrix, grad):
        out, pull = jax.vjp(function, x, matrix)
        return out, *pull(grad)

    expected = both(lambda x, matrix: jnp.einsum(equation, x, matrix), *arrays)
    mesh = one_device() if devices == 1 else make_mesh(MeshConfig(replica=2, tensor=2), jax.devices()[:4])
    with use_mesh(mesh):
        specs = of_x, of_matrix, of_out
        placed = [jax.device_put(x, NamedSharding(mesh, spec)) for x, spec in zip(arrays, specs, strict=True)]
        found = jax.jit(lambda *given: both(lambda x, matrix: product(equation, x, matrix, of_out), *given))(*placed)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    assert found[2].sharding.spec == of_matrix
