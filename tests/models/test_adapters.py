"""Adapters: the model with them is the model of the summed weights, on any mesh, in value and gradient."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import PartitionSpec as P
from small_model import CONFIG, INTERFACE, WAN_MODEL, clips, initial, inputs_function, one_device, pack, stirred

from vdit import flops
from vdit.config import MeshConfig
from vdit.errors import UserError
from vdit.lora_config import BLOCK_MATRICES, LoraConfig
from vdit.models import adapters
from vdit.models.weights import LowRank, product
from vdit.parallel.mesh import make_mesh, to_global, use_mesh
from vdit.training.initial import named
from vdit.training.step import abstract_state, frozen_weights

LORA = LoraConfig(rank=3, alpha=6.0, base="float32")
CONFIGS = {"spacetime": CONFIG, "wan": dataclasses.replace(CONFIG, model=WAN_MODEL)}


def with_lora(family: str, **changes):
    return dataclasses.replace(CONFIGS[family], lora=dataclasses.replace(LORA, **changes))


def state_of(config, mesh):
    """(graph, adapters with noise in A and B, frozen weights of a stirred model) over a mesh in use."""
    graph, like = abstract_state(config, INTERFACE, mesh)
    rng = np.random.default_rng(1)
    random = jax.tree.map(
        lambda x: jax.device_put(0.2 * rng.normal(size=x.shape).astype(x.dtype), x.sharding), like.params
    )
    base = stirred(dataclasses.replace(config, lora=None))[1]
    put = lambda like: jax.tree.map(lambda x, to: jax.device_put(x.astype(to.dtype), to.sharding), base, like)  # noqa: E731
    return graph, random, frozen_weights(config, INTERFACE, put)


@pytest.mark.parametrize(
    ("equation", "shape", "inputs", "apart"),
    [
        ("bld,dhk->blhk", (8, 2, 3), 1, 0),
        ("bld,dchk->cbhlk", (8, 3, 2, 3), 1, 1),
        ("bhlk,hkd->bld", (2, 4, 6), 2, 0),
        ("bld,df->blf", (8, 5), 1, 0),
        ("d,dchk->chk", (8, 2, 2, 3), 1, 1),
    ],
)
def test_a_product_is_that_with_the_summed_matrix(equation, shape, inputs, apart):
    rng = np.random.default_rng(0)
    draw = lambda *sizes: jnp.asarray(rng.normal(size=sizes), jnp.float32)  # noqa: E731
    rank, kept = 3, inputs + apart
    base, a, b = draw(*shape), draw(*shape[:kept], rank), draw(rank, *shape[inputs:])
    sizes = dict(zip(equation.split("->")[0].split(",")[1], shape, strict=True)) | {"b": 2, "l": 5}
    x = draw(*(sizes[axis] for axis in equation.split(",")[0]))
    axes = adapters.Axes((1, *shape), (None,) * (1 + len(shape)), inputs, apart)

    def low(x, a, b):
        return product(equation, x, LowRank(base, a, b, 0.5))

    def whole(x, a, b):
        return jnp.einsum(equation, x, adapters.add(base[None], axes, a[None], b[None], 0.5)[0])

    with use_mesh(one_device()):
        outs = [
            jax.jit(lambda *args, f=f: (f(*args), jax.grad(lambda *p: (f(*p) ** 2).sum(), (0, 1, 2))(*args)))(x, a, b)
            for f in (low, whole)
        ]
    for found, expected in zip(*map(jax.tree.leaves, outs), strict=True):
        np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-3)


@pytest.mark.parametrize("family", CONFIGS)
def test_the_model_with_adapters_is_that_of_the_summed_weights(family):
    """Over eight devices of all axes; a fresh adapter changes nothing."""
    config, mesh = with_lora(family), make_mesh(MeshConfig(1, 2, 2, 2))
    batch = pack([clips(), clips(7)])
    with use_mesh(mesh):
        graph, trained, frozen = state_of(config, mesh)
        placed = to_global(batch, mesh)
        q = inputs_function(CONFIG)(placed)

        def call(graph):
            return jax.jit(
                lambda *states: nnx.merge(graph, *states)(q.noised_BLP, q.times_BK, q.time_index_BL, placed, q.null_BN)
            )

        run = call(graph)
        plain, merged = adapters.merged(graph, trained, frozen, config.model)
        base = stirred(dataclasses.replace(config, lora=None))[1]
        expected = call(plain)
        before = jax.tree.map(lambda x, to: jax.device_put(x, to.sharding), base, merged)
        found, summed, untouched = (np.asarray(x) for x in (run(trained, frozen), expected(merged), expected(before)))
        fresh = jax.tree_util.tree_map_with_path(lambda path, x: x * ("'b'" not in str(path)), trained)
        unchanged = np.asarray(run(fresh, frozen))
    patches = batch.is_patch_BL
    scale = np.abs(summed[patches]).max()
    np.testing.assert_allclose(found[patches], summed[patches], atol=2e-5 * scale)
    np.testing.assert_allclose(unchanged[patches], untouched[patches], atol=2e-5 * scale)
    assert np.abs(summed - untouched)[patches].max() > 0.01 * scale


@pytest.mark.parametrize("family", CONFIGS)
def test_adapters_lie_as_their_weights_do(family):
    mesh = make_mesh(MeshConfig(1, 2, 2, 2))
    with use_mesh(mesh):
        found = named(abstract_state(with_lora(family), INTERFACE, mesh)[1].params)
    spec = lambda name: found[name].sharding.spec  # noqa: E731
    state = ("fsdp", "context")
    assert spec("blocks.qkv.a") == P(None, state, None, None) and spec("blocks.qkv.b") == P(
        None, None, None, "tensor", None
    )
    assert spec("blocks.out.a") == P(None, "tensor", None, None) and spec("blocks.out.b") == P(None, None, state)
    assert spec("blocks.down.a") == P(None, "tensor", None) and spec("blocks.up.b") == P(None, None, "tensor")


@pytest.mark.parametrize("family", CONFIGS)
def test_flops_know_the_adapters(family):
    config = with_lora(family, matrices=("blocks.*",))
    with use_mesh(one_device()):
        trained = named(abstract_state(config, INTERFACE, one_device())[1].params)
    assert {name.split(".")[1] for name in trained} == set(BLOCK_MATRICES[family])
    shape = flops.shape_of(config.model, INTERFACE.patch, INTERFACE.text, config.lora)
    count = {name: leaf.size for name, leaf in trained.items()}
    of_text = sum(size for name, size in count.items() if family == "spacetime" or name.startswith("blocks.text_kv."))
    of_patch = sum(
        size for name, size in count.items() if family == "spacetime" or not name.startswith("blocks.text_kv.")
    )
    assert shape.adapters == (of_patch / config.model.depth, of_text / config.model.depth)
    whole = dataclasses.replace(shape, adapters=(0, 0))
    per_patch = lambda shape: float(flops.training_flops(shape, 101) - flops.training_flops(shape, 100))  # noqa: E731
    attention = 6 * 2 * config.model.depth * config.model.width * (101**2 - 100**2 + family.count("wan"))
    linear = per_patch(whole) - attention
    assert 0.6 * linear < per_patch(shape) - attention - 6 * of_patch < 0.7 * linear  # 4 of 6, and 2 at the input


def test_whole_numbers_are_within_half_a_step():
    mesh = one_device()
    with use_mesh(mesh):
        _, _, exact = state_of(with_lora("spacetime"), mesh)
        _, _, rounded = state_of(with_lora("spacetime", base="int8"), mesh)
    for name in BLOCK_MATRICES["spacetime"]:
        base, values, step = (
            exact["blocks"][name]["base"],
            rounded["blocks"][name]["base"],
            rounded["blocks"][name]["step"],
        )
        assert values[...].dtype == jnp.int8 and abs(np.asarray(values[...])).max() == 127
        error = abs(np.asarray(base[...]) - np.asarray(values[...]) * np.asarray(step[...]))
        assert (error <= 0.501 * np.asarray(step[...])).all()
    assert rounded["out"][...].dtype == jnp.bfloat16 and rounded["out_bias"][...].dtype == jnp.float32


def test_dropped_inputs_are_a_share_and_the_rest_makes_up_for_them():
    param = nnx.LoRAParam(jnp.ones((2, 500, 4)), role="matrix", fan_in=500, ndim=2)
    other = nnx.LoRAParam(jnp.ones((2, 4, 5)), role="output", fan_in=4, ndim=2)
    state = nnx.State({"a": param, "b": other})
    with use_mesh(one_device()):
        dropped, again, later = (adapters.drop_inputs(state, jax.random.key(seed), 0.2) for seed in (0, 0, 1))
    a = np.asarray(dropped["a"][...])
    assert set(np.unique(a)) == {0, 1.25} and (a == a[..., :1]).all()  # whole inputs
    assert abs(a.mean() - 1) < 0.05
    assert (np.asarray(dropped["b"][...]) == 1).all()
    np.testing.assert_array_equal(a, again["a"][...])
    assert (a != np.asarray(later["a"][...])).any()
    assert adapters.drop_inputs(state, jax.random.key(0), 0.0) is state


def test_patterns_choose_matrices():
    assert LoraConfig().chosen("spacetime") == ("qkv", "out", "up", "down")
    assert LoraConfig(matrices=("blocks.text_*", "*.qkv")).chosen("wan") == ("qkv", "text_q", "text_kv", "text_out")
    with pytest.raises(
        UserError, match=r"lora.matrices: 'to_q' matches no matrix of model.family=wan; known: blocks.qkv"
    ):
        LoraConfig(matrices=("blocks.up", "to_q")).chosen("wan")
    assert set(BLOCK_MATRICES["spacetime"]) == {
        name for name, param in initial(CONFIG)[1]["blocks"].items() if param.get_metadata()["role"] == "matrix"
    }
