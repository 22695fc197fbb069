"""Adapters at the matrices of a model's blocks: made, left out in part, and added to the weights."""

from __future__ import annotations

import dataclasses
import math
import typing
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import qwix
from flax import nnx
from jax.sharding import PartitionSpec as P

from vdit.config import ModelConfig
from vdit.lora_config import LoraConfig
from vdit.models.weights import Adapted

BLOCKS = "blocks"
"""Attribute of a model that holds its blocks, every weight stacked over them."""


@dataclasses.dataclass(frozen=True)
class Axes:
    """How the axes of a matrix are divided: over blocks, what it sums over, what lies apart, its outputs.

    Attributes:
      shape: of all blocks' matrices.
      spec: their partition spec.
      inputs, apart: numbers of axes of either kind, behind the first.
    """

    shape: tuple[int, ...]
    spec: tuple[Any, ...]
    inputs: int
    apart: int

    def a(self, rank: int) -> tuple[tuple[int, ...], P]:
        """(shape, spec) of A: the rank takes the place of the outputs."""
        kept = 1 + self.inputs + self.apart
        return (*self.shape[:kept], rank), P(*self.spec[:kept], None)

    def b(self, rank: int) -> tuple[tuple[int, ...], P]:
        """(shape, spec) of B: the rank takes the place of the inputs."""
        kept = 1 + self.inputs
        return (self.shape[0], rank, *self.shape[kept:]), P(self.spec[0], None, *self.spec[kept:])

    @property
    def added(self) -> str:
        """The equation of A B."""
        letters = "abcdefgh"[: len(self.shape)]
        first, inputs = letters[0], letters[1 : 1 + self.inputs]
        apart, outputs = letters[1 + self.inputs :][: self.apart], letters[1 + self.inputs + self.apart :]
        return f"{first}{inputs}{apart}r,{first}r{apart}{outputs}->{letters}"


def axes_of(param: nnx.Variable) -> Axes:
    """The axes of a matrix of the blocks, from how it was declared (`weights.weight`)."""
    metadata, value = param.get_metadata(), param[...]
    own = value.shape[1:]
    inputs = next(n for n in range(1, len(own) + 1) if math.prod(own[:n]) == metadata["fan_in"])
    return Axes(value.shape, tuple(jax.typeof(value).sharding.spec), inputs, len(metadata["separate"]))


def attach(model: Any, lora: LoraConfig, family: str, seed: int) -> None:
    """Puts an adapter at the chosen matrices, in place: A random, B zero, so that the model stays what it is.

    All weights of the model but vectors become of the number format lora.base.
    """
    blocks, names = getattr(model, BLOCKS), lora.chosen(family)
    quantised = [getattr(blocks, name) for name in names] if lora.base == "int8" else []
    _convert(model, jnp.dtype("float32" if lora.base == "float32" else "bfloat16"), skip=quantised)
    for name in names:
        setattr(blocks, name, _adapted(getattr(blocks, name), lora, jax.random.key(seed), name))


def _convert(model: Any, dtype: Any, skip: Sequence[nnx.Param] = ()) -> None:
    """Makes all weights but vectors of a dtype, in place."""
    for module in (model, getattr(model, BLOCKS)):
        for name, param in list(vars(module).items()):
            if isinstance(param, nnx.Param) and not is_vector(param) and not any(param is other for other in skip):
                setattr(module, name, param.replace(param[...].astype(dtype)))


def is_vector(param: nnx.Variable) -> bool:
    """Whether a weight is a bias, gain or table: a small part of all, which stays in float32."""
    return param.get_metadata()["role"] == "vector"


def as_dtype(like: Any, dtype: Any) -> Any:
    """Shapes of parameters, of which all but vectors are of a dtype."""

    def of_dtype(param: nnx.Variable) -> nnx.Variable:
        shape = param.get_value()
        return param.replace(jax.ShapeDtypeStruct(shape.shape, dtype, sharding=shape.sharding))

    each = lambda param: param if is_vector(param) else of_dtype(param)  # noqa: E731
    return jax.tree.map(each, like, is_leaf=lambda node: isinstance(node, nnx.Variable))


def _adapted(param: nnx.Param, lora: LoraConfig, key: jax.Array, name: str) -> Adapted:
    axes, fan_in = axes_of(param), param.get_metadata()["fan_in"]
    (shape_a, spec_a), (shape_b, spec_b) = axes.a(lora.rank), axes.b(lora.rank)
    random = jax.random.normal(jax.random.fold_in(key, _number(name)), shape_a, jnp.float32) * fan_in**-0.5
    a = nnx.LoRAParam(jax.sharding.reshard(random, spec_a), role="matrix", fan_in=fan_in, ndim=len(shape_a) - 1)
    # B sums over the rank, which does not grow with width: as an output layer it takes the rate itself (Hayou et al.
    # 2024: the rate of A falls with width, that of B does not).
    zeros = jax.sharding.reshard(jnp.zeros(shape_b, jnp.float32), spec_b)
    b = nnx.LoRAParam(zeros, role="output", fan_in=lora.rank, ndim=len(shape_b) - 1)
    if lora.base != "int8":
        return Adapted(param, None, a, b, lora.scale)
    apart = [axis for axis in range(len(axes.shape)) if not 1 <= axis <= axes.inputs]
    whole = qwix.quantize(param[...], jnp.int8, channelwise_axes=apart)
    values, step = (typing.cast(nnx.Param, param.replace(x)) for x in (whole.qvalue, whole.scale))
    return Adapted(values, step, a, b, lora.scale)


def _number(name: str) -> int:
    return zlib.crc32(name.encode())


def detach(model: Any, dtype: Any) -> None:
    """Adds every adapter to its matrix, in place; all weights but vectors become of `dtype`."""
    blocks = getattr(model, BLOCKS)
    for name, value in list(vars(blocks).items()):
        if isinstance(value, Adapted):
            base = value.base[...].astype(jnp.float32)
            if value.step is not None:
                base *= value.step[...].astype(jnp.float32)
            merged = add(base, axes_of(value.base), value.a[...], value.b[...], value.scale)
            setattr(blocks, name, value.base.replace(merged))
    _convert(model, dtype)


def add(base: jax.Array, axes: Axes, a: jax.Array, b: jax.Array, scale: float) -> jax.Array:
    """A matrix with scale * A B added, of all blocks, sharded as the base."""
    return base + scale * jnp.einsum(axes.added, a, b, out_sharding=P(*axes.spec)).astype(base.dtype)


def split(model: Any) -> tuple[Any, Any, Any]:
    """(graph definition, adapters, all other weights) of a model with adapters."""
    parts: Any = nnx.split(model, nnx.LoRAParam, ...)
    return parts


def merged(graph: Any, adapters: Any, base: Any, model: ModelConfig) -> tuple[Any, Any]:
    """(graph definition, weights) of the model without adapters, which have been added to its matrices.

    Weights are in the compute dtype, to which they are rounded when they are used.
    """
    graphs: list[Any] = []

    def merge(adapters: Any, base: Any) -> Any:
        whole = nnx.merge(graph, adapters, base)
        detach(whole, jnp.dtype(model.dtype))
        plain, params = nnx.split(whole)
        graphs.append(plain)
        return params

    params = jax.jit(merge)(adapters, base)
    return graphs[0], params


def drop_inputs(adapters: Any, key: jax.Array, share: float) -> Any:
    """Adapters of which a share of the inputs counts nothing and the others more; all tokens lose the same ones.

    It is the column-wise pattern of Wang et al. 2024 (arXiv 2403.00812): a mask of A's rows instead of one of each
    token, so that it depends neither on packing nor on the mesh.
    """
    if not share:
        return adapters

    def drop(path: Any, param: Any) -> Any:
        if param.get_metadata()["role"] != "matrix":
            return param
        value = param[...]
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        kept = jax.random.bernoulli(jax.random.fold_in(key, _number(name)), 1 - share, (*value.shape[:-1], 1))
        kept = jax.sharding.reshard(kept, P(*jax.typeof(value).sharding.spec[:-1], None))
        return param.replace(jnp.where(kept, value / (1 - share), 0))

    return jax.tree_util.tree_map_with_path(drop, adapters, is_leaf=lambda node: isinstance(node, nnx.Variable))


def add_all(params: Any, adapters: Mapping[str, tuple[Any, Any]], scale: float) -> Any:
    """The weights of a model without adapters, with those of a file added: matrix of a block -> (A, B)."""

    def with_added(params: Any, adapters: Any) -> Any:
        out: Any = nnx.State(params)
        blocks: Any = nnx.State(out[BLOCKS])
        for name, (a, b) in adapters.items():
            param = blocks[name]
            axes = axes_of(param)
            a, b = (jax.sharding.reshard(x, spec) for x, (_, spec) in ((a, axes.a(0)), (b, axes.b(0))))
            value = param[...].astype(jnp.float32)
            blocks[name] = param.replace(add(value, axes, a, b, scale).astype(param[...].dtype))
        out[BLOCKS] = blocks
        return out

    return jax.jit(with_added)(params, dict(adapters))
