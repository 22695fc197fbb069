"""What the Wan transformer sees of a given image beside its latents: CLIP features (Wan 2.1 image to video).

Their tokens stand before the words of a caption. Patches attend to them and to the words apart, and add up the two.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import PartitionSpec as P

from vdit.models.weights import product, use, weight
from vdit.parallel.mesh import STATE

IMAGE_TOKENS = 257
"""Tokens of an image: 16 x 16 squares of its 224 x 224 pixels, and one for the whole (CLIP ViT-H/14)."""

EPSILON = 1e-5


class ImageEmbedder(nnx.Module):
    """CLIP features to tokens of the model's width: a feed-forward layer between two norms."""

    def __init__(self, features: int, width: int, rngs: nnx.Rngs):
        self.norm_in = weight(rngs, (features,), P(None), "vector", fill=1.0)
        self.norm_in_bias = weight(rngs, (features,), P(None), "vector")
        self.up = weight(rngs, (features, features), P(None, STATE), "matrix", fan_in=features)
        self.up_bias = weight(rngs, (features,), P(None), "vector")
        self.down = weight(rngs, (features, width), P(None, STATE), "matrix", fan_in=features)
        self.down_bias = weight(rngs, (width,), P(None), "vector")
        self.norm_out = weight(rngs, (width,), P(None), "vector", fill=1.0)
        self.norm_out_bias = weight(rngs, (width,), P(None), "vector")

    def __call__(self, features_BME: jax.Array) -> jax.Array:
        """Tokens_BMD of features_BME, in their dtype."""
        dtype, spec = features_BME.dtype, jax.typeof(features_BME).sharding.spec
        hidden_BME = product(
            "bme,ef->bmf", _norm(features_BME, self.norm_in, self.norm_in_bias), use(self.up, dtype), spec
        )
        hidden_BME = jax.nn.gelu(hidden_BME + self.up_bias[...].astype(dtype), approximate=False)
        out_BMD = product("bme,ed->bmd", hidden_BME, use(self.down, dtype), spec) + self.down_bias[...].astype(dtype)
        return _norm(out_BMD, self.norm_out, self.norm_out_bias)


def _norm(x_BMD: jax.Array, gain_D: nnx.Param, shift_D: nnx.Param) -> jax.Array:
    """Zero mean and unit variance, scaled and shifted; statistics in float32 or wider."""
    wide = x_BMD.astype(jnp.promote_types(x_BMD.dtype, jnp.float32))
    wide -= wide.mean(-1, keepdims=True)
    wide *= jax.lax.rsqrt(jnp.mean(wide**2, -1, keepdims=True) + EPSILON)
    return (wide * gain_D[...] + shift_D[...]).astype(x_BMD.dtype)
