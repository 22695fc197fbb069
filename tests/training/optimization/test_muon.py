"""Muon: orthogonal updates, those of optax, the same on every mesh."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from small_model import CONFIG, initial, one_device, shard_like

from vdit import flops
from vdit.config import MeshConfig, OptimizerConfig
from vdit.parallel.mesh import make_mesh, use_mesh
from vdit.training.optimization import muon
from vdit.training.optimization.muon import BETA, orthogonalise, scale_by_muon, shape_factor, uses_muon
from vdit.training.optimization.optimizer import make_optimizer, rate_multipliers

MUON = OptimizerConfig(method="muon", weight_decay=0.0, clip=1e9)


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 8, 32), (2, 32, 8)])
def test_singular_values_end_near_one_and_the_singular_vectors_stay(shape):
    x = jax.random.normal(jax.random.key(0), shape)
    even = np.asarray(orthogonalise(x))
    values = np.linalg.svd(even, compute_uv=False)
    assert values.min() > 0.4 and values.max() < 1.3
    u, _, vt = np.linalg.svd(np.asarray(x), full_matrices=False)
    cosine = (even * (u @ vt)).sum((1, 2)) / np.linalg.norm(even, axis=(1, 2)) / np.linalg.norm(u @ vt, axis=(1, 2))
    assert cosine.min() > 0.95


def test_its_flops_are_those_of_the_products_it_makes():
    """Of one block: q, k, v and out, and both of the feed-forward, as the planner counts them."""
    model = dataclasses.replace(CONFIG.model, depth=1)
    d, f = model.width, model.feed_forward_width
    counted = 0.0
    for count, m, n in ((4, d, d), (1, d, f), (1, f, d)):
        jaxpr = jax.make_jaxpr(orthogonalise)(jnp.zeros((count, m, n)))
        for equation in jaxpr.eqns:
            if equation.primitive.name == "dot_general":
                (left, _), _ = equation.params["dimension_numbers"]
                contracted = np.prod([equation.invars[0].aval.shape[axis] for axis in left])
                counted += 2 * contracted * equation.outvars[0].aval.size
    assert flops.muon_flops(model) == counted
    assert flops.muon_flops(dataclasses.replace(model, depth=3)) == 3 * counted


def test_only_the_matrices_of_blocks_are_muons():
    params = initial(CONFIG)[1]
    chosen = {
        jax.tree_util.keystr(path, simple=True, separator=".")
        for path, param in jax.tree_util.tree_leaves_with_path(
            params, is_leaf=lambda node: isinstance(node, nnx.Variable)
        )
        if uses_muon(param)
    }
    assert chosen == {f"blocks.{name}" for name in ("qkv", "out", "up", "down")}


def test_updates_are_those_of_optax():
    """q, k and v are matrices of their own; momentum is Nesterov's."""
    params = initial(CONFIG)[1]
    dimensions = {
        "qkv": optax.contrib.MuonDimensionNumbers(1, (3, 4)),
        "out": optax.contrib.MuonDimensionNumbers((1, 2), 3),
        "up": optax.contrib.MuonDimensionNumbers(1, 2),
        "down": optax.contrib.MuonDimensionNumbers(1, 2),
    }
    ours = scale_by_muon()
    for name, numbers in dimensions.items():
        theirs = optax.contrib.scale_by_muon(beta=BETA, weight_dimension_numbers=numbers)
        with use_mesh(one_device()):
            param = shard_like(params, CONFIG)["blocks"][name]
            state = ours.init(param)
        gradients = [jax.random.normal(jax.random.key(seed), param[...].shape) for seed in range(2)]
        expected, _ = theirs.update(gradients[0], theirs.init(gradients[0]))
        # Their second step corrects gradient and momentum for different ages; Jordan et al. correct neither.
        ahead = (1 + BETA) * gradients[1] + BETA**2 * gradients[0]
        second, _ = theirs.update(ahead, theirs.init(ahead))
        for gradient, wanted in zip(gradients, (expected, second), strict=True):
            with use_mesh(one_device()):
                update, state = ours.update(param.replace(jax.device_put(gradient, param[...].sharding)), state)
            np.testing.assert_allclose(update[...], wanted, atol=1e-4, err_msg=name)


def test_the_step_is_the_rate_times_the_square_root_of_outputs_over_inputs():
    params = initial(CONFIG)[1]
    rates = rate_multipliers(params, CONFIG.model, MUON)
    width, hidden = CONFIG.model.width, CONFIG.model.feed_forward_width
    base = MUON.muon_rate / MUON.learning_rate
    for name, factor in {"qkv": 1, "out": 1, "up": (hidden / width) ** 0.5, "down": (width / hidden) ** 0.5}.items():
        assert shape_factor(params["blocks"][name]) == pytest.approx(factor)
        assert rates["blocks"][name].get_value() == pytest.approx(base * factor)
    adam = rate_multipliers(params, CONFIG.model, OptimizerConfig())
    assert rates["patch_in"].get_value() == adam["patch_in"].get_value()


@pytest.mark.parametrize("layout", [MeshConfig(2, 2, 1, 2), MeshConfig(1, 4, 2, 1), MeshConfig(1, 1, 2, 4)], ids=str)
def test_every_mesh_gives_the_update_of_one_device(layout):
    """Value and state; and no device ever gathers more than one matrix of one block."""
    config = dataclasses.replace(CONFIG, model=dataclasses.replace(CONFIG.model, width=64, head_width=16, depth=3))
    optimizer = make_optimizer(MUON)

    def update(params, gradients):
        updates, state = optimizer.update(gradients, optimizer.init(params), params)
        return updates, state

    params = initial(config)[1]
    gradients = jax.tree.map(lambda p: jax.random.normal(jax.random.key(p.size), p.shape), params)
    with use_mesh(one_device()):
        expected = jax.jit(update)(shard_like(params, config), shard_like(gradients, config))
    mesh = make_mesh(layout)
    with use_mesh(mesh):
        placed = [shard_like(tree, config) for tree in (params, gradients)]
        compiled = jax.jit(update).lower(*placed).compile()
        found = compiled(*placed)
    for a, b in zip(jax.tree.leaves(expected), jax.tree.leaves(found), strict=True):
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), atol=2e-5)
    largest = max(int(np.prod(p.shape[1:])) for p in jax.tree.leaves(params["blocks"]))
    for line in compiled.as_text().splitlines():
        if " all-gather(" in line:
            sizes = line.split("= ")[1].split("[")[1].split("]")[0]
            assert np.prod([int(size) for size in sizes.split(",") if size]) <= largest, line


def test_a_quadratic_is_minimised():
    """Steps of a falling rate reach the minimum of |W - target|^2 for a stack of matrices."""
    target = jax.random.normal(jax.random.key(1), (2, 6, 6))
    with use_mesh(one_device()):
        param = nnx.Param(jnp.zeros((2, 6, 6)), role="matrix", fan_in=6, ndim=2, separate=())
        rule = scale_by_muon()
        state = rule.init(param)
        for step in range(200):
            gradient = param.replace(param[...] - target)
            update, state = rule.update(gradient, state)
            param = param.replace(param[...] - 0.2 * (1 - step / 200) * update[...])
    np.testing.assert_allclose(param[...], target, atol=0.05)


@pytest.mark.parametrize("replicas", [1, 2, 3])
def test_matrices_that_are_made_even_together_are_those_made_one_by_one(replicas, monkeypatch):
    """Two devices share them out; three cannot: there are eight and four of a shape."""
    config = dataclasses.replace(CONFIG, model=dataclasses.replace(CONFIG.model, width=32, head_width=16, depth=2))
    params = initial(config)[1]
    gradients = jax.tree.map(lambda p: jax.random.normal(jax.random.key(p.size), p.shape), params)
    optimizer = make_optimizer(MUON)

    def update(params, gradients):
        return optimizer.update(gradients, optimizer.init(params), params)[0]

    found = []
    for together in (0, muon.TOGETHER):
        monkeypatch.setattr(muon, "TOGETHER", together)
        mesh = make_mesh(MeshConfig(replica=replicas), jax.devices()[:replicas])
        with use_mesh(mesh):
            placed = [shard_like(tree, config) for tree in (params, gradients)]
            compiled = jax.jit(lambda *trees: update(*trees)).lower(*placed).compile()
            assert ("all-gather" in compiled.as_text()) == (bool(together) and replicas == 2)
            found.append(jax.tree.leaves(compiled(*placed)))
    for one_by_one, together in zip(*found, strict=True):
        np.testing.assert_allclose(np.asarray(together), np.asarray(one_by_one), atol=2e-6)
