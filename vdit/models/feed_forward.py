"""The feed-forward of a block, with a gradient of its own.

XLA on CPU writes an array in the order in which a product reads it: of a gradient that two products read in two orders
it makes all elementwise work twice, once with strides. Here no array of tokens is transposed that is F wide.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from vdit.models.memory import optimization_barrier
from vdit.models.weights import LowRank, Matrix, product


def feed_forward(x_BLD: jax.Array, up_DF: Matrix, down_FD: Matrix) -> jax.Array:
    """gelu(x @ up) @ down.

    Args:
      x_BLD: tokens.
      up_DF, down_FD: weights in the tokens' dtype, sharded over F at most.

    Returns:
      added_BLD, sharded as x_BLD.
    """
    if not isinstance(up_DF, LowRank) and not isinstance(down_FD, LowRank):
        return _of_arrays(x_BLD, up_DF, down_FD)
    tokens, up = jax.typeof(x_BLD).sharding.spec, up_DF.base if isinstance(up_DF, LowRank) else up_DF
    before_BLF = product("bld,df->blf", x_BLD, up_DF, P(*tokens[:2], jax.typeof(up).sharding.spec[1]))
    return product("blf,fd->bld", optimization_barrier(jax.nn.gelu(before_BLF)), down_FD, tokens)


@jax.custom_vjp
def _of_arrays(x_BLD: jax.Array, up_DF: jax.Array, down_FD: jax.Array) -> jax.Array:
    """The same of plain matrices; the backward pass keeps the arguments and x @ up only."""
    return _feed_forward(x_BLD, up_DF, down_FD)[0]


def _feed_forward(x_BLD: jax.Array, up_DF: jax.Array, down_FD: jax.Array) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    tokens = jax.typeof(x_BLD).sharding.spec
    wide = P(*tokens[:2], jax.typeof(up_DF).sharding.spec[1])
    before_BLF = jnp.einsum("bld,df->blf", x_BLD, up_DF, out_sharding=wide)
    hidden_BLF = optimization_barrier(jax.nn.gelu(before_BLF))
    return jnp.einsum("blf,fd->bld", hidden_BLF, down_FD, out_sharding=tokens), (x_BLD, up_DF, down_FD, before_BLF)


def _feed_forward_gradient(kept: tuple[jax.Array, ...], grad_BLD: jax.Array) -> tuple[jax.Array, ...]:
    """Products with axes in the order that is needed: of what is F wide, only a weight's gradient is transposed."""
    x_BLD, up_DF, down_FD, before_BLF = kept
    specs = [jax.typeof(x).sharding.spec for x in kept]
    hidden_BLF, pull = jax.vjp(jax.nn.gelu, before_BLF)
    grad_hidden_BLF = jnp.einsum("bld,fd->blf", grad_BLD, down_FD, out_sharding=specs[3])
    grad_before_BLF = optimization_barrier(pull(grad_hidden_BLF)[0])
    return (
        jnp.einsum("blf,df->bld", grad_before_BLF, up_DF, out_sharding=specs[0]),
        jnp.einsum("bld,blf->df", x_BLD, grad_before_BLF, out_sharding=specs[1]),
        optimization_barrier(  # or XLA takes the transposition into the product
            jnp.einsum("bld,blf->df", grad_BLD, optimization_barrier(hidden_BLF), out_sharding=P(*specs[2][::-1]))
        ).T,
    )


_of_arrays.defvjp(_feed_forward, _feed_forward_gradient)
