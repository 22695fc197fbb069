"""The first step of a run, and plain paths to what it computes: see `diagnostics.check`."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from vdit.batch import PackedBatch, alone_rows, empty_row, generated_part, stack_rows
from vdit.config import Config, MeshConfig
from vdit.data import Interface, TrainingData
from vdit.diffusion import corruption
from vdit.diffusion.loss import loss_and_gradients
from vdit.errors import UserError
from vdit.models.attention.attention import attention
from vdit.parallel.mesh import ROWS, make_mesh, process_allgather, specs_of, tokens_spec, use_mesh
from vdit.training.initial import named
from vdit.training.step import abstract_state, init_state

NOISE = 0.2
"""Standard deviation of the noise on fresh weights, over the root of the inputs that a weight sums over."""


@dataclasses.dataclass(frozen=True)
class Computed:
    """What a step computes: the mean loss over the `scored` patches that carry it, and its gradient by parameter."""

    loss: float
    gradient: dict[str, np.ndarray]
    scored: float


def plain_mesh() -> jax.sharding.Mesh:
    """One CPU device of this process, beside any accelerator.

    Raises:
      UserError: if JAX is set to have none.
    """
    try:
        return make_mesh(MeshConfig(replica=1), [jax.local_devices(backend="cpu")[0]])
    except RuntimeError as error:
        platforms = os.environ.get("JAX_PLATFORMS") or jax.default_backend()
        raise UserError(
            f"--check compares with the CPU, which JAX_PLATFORMS={platforms} hides; set JAX_PLATFORMS={platforms},cpu"
        ) from error


def plain_config(config: Config) -> Config:
    """The config of the plain path: rows one after another, as dense attention needs much memory."""
    plain: dict[str, Any] = dict(
        dtype="float32", remat="none", keep_weights=False, attention="reference", context="auto"
    )
    return dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, **plain),
        optimizer=dataclasses.replace(config.optimizer, accumulate=config.data.rows_per_step),
        mesh=MeshConfig(replica=1),
    )


def first_rows(data: TrainingData) -> tuple[PackedBatch, list[PackedBatch]]:
    """The rows of the first step, and batches of the same shape that hold one example of them in each row, or none."""
    batches = data.batches(0, 0, 1)
    packed = next(batches)
    if close := getattr(batches, "close", None):
        close()
    count = len(packed.segments_BL)
    alone = [row for b in range(count) for row in alone_rows(packed.map(lambda array: array[b]))]  # noqa: B023
    alone += [empty_row(alone[0])] * (-len(alone) % count)
    return packed, [stack_rows(alone[i : i + count]) for i in range(0, len(alone), count)]


def noisy_params(config: Config, interface: Interface) -> Any:
    """Fresh parameters with noise as NumPy arrays, the same on every process."""
    rng = np.random.default_rng(config.seed)
    with use_mesh(plain_mesh()):
        params = init_state(config, interface)[1].params

    def noisy(param: nnx.Variable) -> nnx.Variable:
        value = np.asarray(param[...])
        scale = NOISE * param.get_metadata()["fan_in"] ** -0.5
        return param.replace(value + scale * rng.standard_normal(value.shape, np.float32))

    return jax.tree.map(noisy, params, is_leaf=lambda node: isinstance(node, nnx.Variable))


class FirstStep:
    """Loss and gradient of step 0 as a config and a mesh compute them."""

    def __init__(self, config: Config, interface: Interface, mesh: jax.sharding.Mesh, params: Any):
        self._mesh = mesh
        with use_mesh(mesh):
            graph, like = abstract_state(config, interface, mesh)
        self._params = jax.tree.map(lambda value, a: _place(value, a.sharding), params, like.params)

        def step(params: Any, batch: PackedBatch) -> Any:
            key = jax.random.fold_in(jax.random.key(config.seed), 0)
            clean = generated_part(batch, config.model.condition)
            scored = corruption.corrupt_batch(clean, key, config.diffusion).loss_mask_BL.sum()
            return loss_and_gradients(graph, params, batch, key, config), scored

        self._function = jax.jit(step)
        self._compiled: Any = None

    def __call__(self, batch: PackedBatch) -> Computed:
        """Computes it on the rows of `batch`, which every process holds whole.

        Raises:
          UserError: if the CPU has too little memory.
        """
        with use_mesh(self._mesh):
            placed = jax.tree.map(lambda x, spec: _place(x, NamedSharding(self._mesh, spec)), batch, specs_of(batch))
            if self._compiled is None:
                self._compiled = self._function.lower(self._params, placed).compile()
                _require_memory(self._compiled, self._mesh)
            (loss, gradient), scored = self._compiled(self._params, placed)
            return Computed(
                float(loss), {name: process_allgather(leaf) for name, leaf in named(gradient).items()}, float(scored)
            )


def attender(
    config: Config, mesh: jax.sharding.Mesh, backend: str
) -> Callable[[Sequence[np.ndarray], np.ndarray], list[np.ndarray]]:
    """Attention of a run by a backend.

    Returns:
      A function from inputs [q, k, v, gradient of out] and segments_BL to [out, dq, dk, dv], all _BHLK. It raises
      UserError if the backend cannot do it here.
    """
    own = config.model.backend(mesh.devices.flat[0].platform)
    block = config.model.attention_block if backend == own else 0

    @jax.jit
    def both(q: jax.Array, k: jax.Array, v: jax.Array, grad: jax.Array, segments_BL: jax.Array) -> Any:
        options: dict[str, Any] = {"backend": backend, "block": block, "context": config.model.context}
        out, pull = jax.vjp(lambda q, k, v: attention(q, k, v, segments_BL, **options), q, k, v)
        return out, *pull(grad)

    def attend(inputs: Sequence[np.ndarray], segments_BL: np.ndarray) -> list[np.ndarray]:
        heads, ids = (NamedSharding(mesh, spec) for spec in (P(ROWS, "tensor", "context", None), tokens_spec(2)))
        with use_mesh(mesh):
            return [process_allgather(x) for x in both(*(_place(x, heads) for x in inputs), _place(segments_BL, ids))]

    return attend


def physical_memory() -> int:
    """Bytes of this machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _require_memory(compiled: Any, mesh: jax.sharding.Mesh) -> None:
    """Raises UserError if a program for the CPU needs more memory than there is: it would be killed without a word."""
    need, there = mesh.size * compiled.memory_analysis().temp_size_in_bytes, physical_memory()
    if mesh.devices.flat[0].platform == "cpu" and need > there:
        raise UserError(
            f"--check needs {need / 2**30:.3g} GiB on the CPU, which has {there / 2**30:.3g}; check a smaller model on "
            "the same rows: set --config.model.depth=2 and a smaller --config.model.width"
        )


def _place(array: np.ndarray, sharding: Any) -> jax.Array:
    """A global array from one that every process holds whole."""
    return jax.make_array_from_callback(array.shape, sharding, lambda part: array[part])
