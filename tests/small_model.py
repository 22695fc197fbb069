"""A tiny model and rows of random clips of different sizes, for the tests of model, loss and generation."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from vdit.batch import Example, PackedBatch, RowShape, empty_row, generated_part, pack_row, stack_rows
from vdit.config import Config, DiffusionConfig, MeshConfig, ModelConfig
from vdit.data import Interface
from vdit.diffusion.corruption import DenoisingInputs, corrupt_batch
from vdit.diffusion.loss import denoising_loss
from vdit.parallel.mesh import make_mesh, to_global, use_mesh
from vdit.patches import Patch, patchify
from vdit.training.step import abstract_state, init_state

PATCH = Patch(2, 4, 4)
TEXT_WIDTH = 5
INTERFACE = Interface(PATCH.size(3), TEXT_WIDTH)
MODEL = ModelConfig(width=32, depth=2, head_width=16, base_width=16, attention_block=8)
WAN_MODEL = ModelConfig(
    family="wan", width=32, depth=2, head_width=16, base_width=32, feed_forward=2.5, prediction="v", attention_block=8
)
CONFIG = Config(model=MODEL, diffusion=DiffusionConfig(caption_dropout=0.3))
SHAPE = RowShape(tokens=64, examples=6, text=16)
SIZES = ((5, 8, 8, 3), (1, 4, 12, 2), (7, 4, 4, 0), (3, 12, 8, 5), (9, 4, 8, 1))
"""(frames, height, width, caption tokens): 52 of the 64 slots."""
CLIP_MEANS = (-0.3, 0.1, 0.4)


def clip(number: int, frames: int, height: int, width: int, words: int) -> Example:
    """A random clip with a random caption; all of it is a function of `number`, which is both halves of its id."""
    rng = np.random.default_rng(number)
    video = rng.integers(0, 256, (frames, height, width, 3), np.uint8)
    text = rng.normal(size=(words, TEXT_WIDTH)).astype(np.float32)
    grid = PATCH.grid(frames, height, width)
    return Example(number << 32 | 3 * number, patchify(video, PATCH), grid, 6.0, text)


def clips(first: int = 1) -> list[Example]:
    """One clip of each of `SIZES`."""
    return [clip(first + i, *size) for i, size in enumerate(SIZES)]


def pack(rows: Sequence[Sequence[Example]], shape: RowShape = SHAPE, count: int = 0) -> PackedBatch:
    """A batch with the given examples in each row, and empty rows up to `count`."""
    packed = [pack_row(row, shape, PATCH) for row in rows]
    return stack_rows(packed + [empty_row(packed[0])] * (count - len(rows)))


@functools.cache
def one_device() -> jax.sharding.Mesh:
    return make_mesh(MeshConfig(), jax.devices()[:1])


@functools.cache
def initial(config: Config) -> tuple[Any, Any]:
    """(graph, parameters as NumPy arrays) of a fresh model."""
    shapes = ("family", "width", "depth", "head_width", "feed_forward", "condition", "image")
    fields = {name: getattr(config.model, name) for name in shapes}
    plain = Config(seed=config.seed, model=ModelConfig(**fields))  # what the values depend on
    with use_mesh(one_device()):
        if config == plain:
            graph, state = init_state(config, INTERFACE)
            return graph, jax.tree.map(np.asarray, state.params)
        return abstract_state(config, INTERFACE, one_device())[0], initial(plain)[1]


@functools.cache
def stirred(config: Config) -> tuple[Any, Any]:
    """The same with noise on every parameter: a fresh model's gates and outputs are zero, so it would hide faults."""
    graph, params = initial(config)
    rng = np.random.default_rng(0)
    return graph, jax.tree.map(lambda p: p + 0.2 * rng.normal(size=p.shape).astype(p.dtype), params)


def shard_like(params: Any, config: Config) -> Any:
    """The parameters laid out over the mesh in use as the model declares them."""
    _, abstract = abstract_state(config, INTERFACE, jax.sharding.get_mesh())
    return jax.tree.map(lambda value, a: jax.device_put(value, a.sharding), params, abstract.params)


@functools.cache
def _loss_function(config: Config) -> Callable[..., Any]:
    """Compiled (parameters, batch, inputs) -> (loss, gradients)."""
    graph, _ = initial(config)

    def loss(params: Any, batch: PackedBatch, inputs: DenoisingInputs) -> jax.Array:
        error_BL, count = denoising_loss(graph, params, batch, inputs, config)
        return error_BL.sum() / count

    return jax.jit(jax.value_and_grad(loss))


@functools.cache
def inputs_function(config: Config) -> Callable[[PackedBatch], DenoisingInputs]:
    """The compiled inputs of the network in training step 0."""
    key = lambda: jax.random.fold_in(jax.random.key(config.seed), 0)  # noqa: E731
    return jax.jit(lambda batch: corrupt_batch(generated_part(batch, config.model.condition), key(), config.diffusion))


def loss_and_gradients(
    batch: PackedBatch,
    config: Config = CONFIG,
    mesh: jax.sharding.Mesh | None = None,
    inspect: Callable[[str], None] | None = None,
) -> tuple[float, dict[str, np.ndarray]]:
    """Training loss of the stirred model and its gradient by parameter; all in float64 if the model is.

    `inspect` is called with the text of the compiled program.
    """
    mesh = mesh or one_device()
    dtype = np.float64 if config.model.dtype == "float64" else np.float32
    with use_mesh(mesh), jax.enable_x64(dtype == np.float64):
        params = shard_like(jax.tree.map(lambda p: p.astype(dtype), stirred(config)[1]), config)
        placed = to_global(batch, mesh)
        arguments = params, placed, inputs_function(config)(placed)
        if inspect:
            inspect(_loss_function(config).lower(*arguments).compile().as_text())
        loss, gradients = _loss_function(config)(*arguments)
    return float(loss), {
        jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(gradients)
    }


def assert_same_gradients(found: dict[str, np.ndarray], expected: dict[str, np.ndarray], tolerance: float) -> None:
    """Compares every leaf, relative to its largest element."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert value.any(), f"{name} has no gradient, so nothing is tested"
        np.testing.assert_allclose(found[name], value, rtol=0, atol=tolerance * np.abs(value).max(), err_msg=name)
