"""Attention within segments: one function, several backends that agree in value and gradient."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from vdit.config import ATTENTION_BACKENDS, ATTENTION_BLOCKS
from vdit.errors import UserError
from vdit.models.attention.chunked import chunked
from vdit.models.attention.context import Attend, Kernel, exchange_heads, ring, scaled, within, without_padding
from vdit.models.attention.gpu import gpu_attention
from vdit.models.attention.splash import splash


@jax.named_scope("attention")
def attention(
    q_BHLK: jax.Array,
    k_BHLK: jax.Array,
    v_BHLK: jax.Array,
    segments_BL: jax.Array,
    *,
    backend: str,
    block: int = 0,
    context: str = "auto",
) -> jax.Array:
    """Softmax attention of every token to the tokens of its own segment, scaled by 1/sqrt(K).

    Scores are scaled in float32 or wider, whatever the dtype of the queries: 1/sqrt(K) has no exact bfloat16.

    Args:
      q_BHLK, k_BHLK, v_BHLK: queries, keys and values.
      segments_BL: int32, contiguous runs of 1, 2, ... along each row; 0 is padding.
      backend: "reference" (dense), "chunked" (any device) or "splash" (TPU), which spend nothing between segments,
        or "gpu".
      block: tokens of a chunk or block; 0 takes the backend's own.
      context: how a row that is spread over the `context` axis attends: "all_to_all" gives every device all tokens of
        some heads (Jacobs et al. 2023, "Ulysses"), "ring" passes keys and values round (Liu et al. 2023); "auto" takes
        the first where the heads can be divided, for it moves less.

    Returns:
      out_BHLK; in padding slots finite and of no meaning, and its gradient there must be 0.

    Raises:
      UserError: for a backend that is not known, or one that cannot do what is requested; none ignores segments.
    """
    sizes = jax.sharding.get_abstract_mesh().shape
    spread, heads = sizes["context"], q_BHLK.shape[1] // sizes["tensor"]
    if context == "auto":
        context = "ring" if heads % spread else "all_to_all"
    if spread == 1:
        function = _rows(backend, block)
    elif context == "ring":
        function = _ring(backend, block)
    elif heads % spread:
        raise UserError(
            f"model.context=all_to_all needs mesh.context={spread} to divide the {heads} heads of a device; take ring"
        )
    else:
        function = _rows(backend, block, spread=True)

    local = jax.shard_map(function, out_specs=jax.typeof(q_BHLK).sharding.spec, check_vma=False)
    return local(q_BHLK, k_BHLK, v_BHLK, segments_BL)


def kernel_of(backend: str, block: int) -> Kernel | None:
    """The kernel of a backend; None for one that has none."""
    kernels = {"chunked": chunked, "splash": splash}
    return kernels[backend](block or ATTENTION_BLOCKS[backend]) if backend in kernels else None


def _rows(backend: str, block: int, spread: bool = False) -> Attend:
    """Attention of whole rows, which may be spread over the `context` axis."""
    if kernel := kernel_of(backend, block):
        return within(kernel, spread)
    if backend not in PLAIN:
        raise UserError(f"model.attention={backend!r} is not one of {', '.join(ATTENTION_BACKENDS)}")
    return exchange_heads(PLAIN[backend]) if spread else PLAIN[backend]


def _ring(backend: str, block: int) -> Attend:
    """Attention of rows that are spread over the `context` axis."""
    if kernel := kernel_of(backend, block):
        return ring(kernel)
    raise UserError(f"model.attention={backend} has no ring over mesh.context; take chunked, splash or all_to_all")


def reference_attention(q_BHLK: jax.Array, k_BHLK: jax.Array, v_BHLK: jax.Array, segments_BL: jax.Array) -> jax.Array:
    """Dense masked attention, in float32 or wider; what every other backend is tested against."""
    q, k, v = (without_padding(x, segments_BL) for x in (q_BHLK, k_BHLK, v_BHLK))
    score_BHLM = jnp.einsum("bhlk,bhmk->bhlm", scaled(q), k.astype(jnp.promote_types(k.dtype, jnp.float32)))
    same_BLM = (segments_BL[:, :, None] == segments_BL[:, None]) & (segments_BL > 0)[:, :, None]
    score_BHLM = jnp.where(same_BLM[:, None], score_BHLM, -jnp.inf)
    peak_BHL1 = jnp.maximum(score_BHLM.max(-1, keepdims=True), -1e30)
    weight_BHLM = jnp.exp(score_BHLM - peak_BHL1)
    weight_BHLM = weight_BHLM / jnp.maximum(weight_BHLM.sum(-1, keepdims=True), 1e-30)
    out_BHLK = jnp.einsum("bhlm,bhmk->bhlk", weight_BHLM, v.astype(weight_BHLM.dtype)).astype(q_BHLK.dtype)
    return without_padding(out_BHLK, segments_BL)  # so that its gradient there is 0, too


PLAIN: dict[str, Attend] = {"reference": reference_attention, "gpu": gpu_attention}
"""Backends that are no `Kernel`."""
