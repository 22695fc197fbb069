"""AdamW by hand, the decay's mask, and the course of the learning rate."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from small_model import CONFIG, initial, stirred

from vdit.config import ModelConfig, OptimizerConfig
from vdit.training.optimization.optimizer import learning_rate, make_optimizer, rate_multipliers


def params_of(**arrays) -> nnx.State:
    roles = {"matrix": ("matrix", 4), "output": ("output", 4), "vector": ("vector", 1)}
    return nnx.State(
        {name: nnx.Param(jnp.asarray(a), role=roles[name][0], fan_in=roles[name][1]) for name, a in arrays.items()}
    )


def by_name(tree) -> dict[str, np.ndarray]:
    return {name: np.asarray(leaf.get_value()) for name, leaf in tree.items()}


def test_adamw_by_hand():
    config = OptimizerConfig(beta1=0.8, beta2=0.95, weight_decay=0.1, clip=1e9)
    optimizer = make_optimizer(config)
    rng = np.random.default_rng(0)
    values = {name: rng.normal(size=(4, 3)).astype(np.float32) for name in ("matrix", "output", "vector")}
    params = params_of(**values)
    state = optimizer.init(params)
    first, second = ({name: np.zeros((4, 3)) for name in values} for _ in range(2))
    for t in range(1, 4):
        gradients = {name: rng.normal(size=(4, 3)).astype(np.float32) for name in values}
        updates, state = optimizer.update(params_of(**gradients), state, params)
        for name, update in by_name(updates).items():
            g = gradients[name]
            first[name] = 0.8 * first[name] + 0.2 * g
            second[name] = 0.95 * second[name] + 0.05 * g**2
            expected = first[name] / (1 - 0.8**t) / (np.sqrt(second[name] / (1 - 0.95**t)) + 1e-8)
            expected += 0.1 * values[name] * (name == "matrix")
            np.testing.assert_allclose(update, expected, rtol=1e-4, atol=1e-5, err_msg=name)


def test_the_gradient_is_clipped_by_its_global_norm():
    """Adam forgets a constant factor, so it takes a second, small gradient to tell."""

    def second_update(clip: float, first: float) -> float:
        optimizer = make_optimizer(OptimizerConfig(clip=clip, weight_decay=0))
        params = params_of(matrix=jnp.zeros(()), vector=jnp.zeros(()))
        state = optimizer.init(params)
        _, state = optimizer.update(params_of(matrix=first * 0.6, vector=first * 0.8), state, params)
        updates, _ = optimizer.update(params_of(matrix=0.6, vector=0.8), state, params)
        return float(by_name(updates)["matrix"])

    assert second_update(2.0, 100.0) == pytest.approx(second_update(1e9, 2.0), rel=1e-5)
    assert second_update(1e9, 100.0) != pytest.approx(second_update(1e9, 2.0), rel=1e-2)


def test_only_matrices_inside_decay():
    optimizer = make_optimizer(OptimizerConfig(weight_decay=0.5))
    _, params = stirred(CONFIG)
    update = lambda p: optimizer.update(jax.tree.map(jnp.zeros_like, p), optimizer.init(p), p)[0]  # noqa: E731
    updates = jax.jit(update)(params)
    decayed = set()
    for (path, update), value in zip(
        jax.tree_util.tree_leaves_with_path(updates), jax.tree.leaves(params), strict=True
    ):
        if np.asarray(update).any():
            np.testing.assert_allclose(update, 0.5 * value, rtol=1e-6)
            decayed.add("/".join(str(part.key) for part in path if hasattr(part, "key")))
    assert decayed == {
        *(f"blocks/{name}" for name in ("qkv", "out", "up", "down")),
        *("patch_in", "text_in", "time_in", "position_in", "modulation", "final"),
    }


@pytest.mark.parametrize("width", [16, 64])
def test_rates_are_those_of_the_base_width_over_the_fan_in(width):
    params = params_of(matrix=0.0, output=0.0, vector=0.0)
    rates = rate_multipliers(params, ModelConfig(width=width, head_width=16, base_width=32), OptimizerConfig())
    assert {name: leaf.get_value() for name, leaf in rates.items()} == {"matrix": 8.0, "output": 1.0, "vector": 1.0}


def test_every_parameter_says_what_it_sums_over():
    _, params = initial(CONFIG)
    for name, leaf in params["blocks"].items():
        metadata = leaf.get_metadata()
        if metadata["role"] == "matrix":
            shape = leaf.get_value().shape[1:]  # without the layers
            inputs = shape[:-1] if name == "out" else shape[:1]  # (H, K, D) sums over heads and their width
            assert metadata["fan_in"] == np.prod(inputs), name


class TestLearningRate:
    CONFIG = OptimizerConfig(learning_rate=0.5, warmup=10, cooldown=20)

    def rates(self, config: OptimizerConfig, steps: int = 100) -> np.ndarray:
        return np.array([learning_rate(step, steps, config) for step in range(steps)])

    def test_rises_stays_and_falls_to_zero(self):
        rates = self.rates(self.CONFIG)
        np.testing.assert_allclose(rates[:10], 0.05 * np.arange(1, 11))
        np.testing.assert_allclose(rates[10:81], 0.5)
        np.testing.assert_allclose(rates[80:], 0.5 * np.arange(20, 0, -1) / 20)
        assert learning_rate(100, 100, self.CONFIG) == 0
        assert learning_rate(150, 100, self.CONFIG) == 0

    def test_without_cool_down_it_stays(self):
        rates = self.rates(OptimizerConfig(learning_rate=0.5, warmup=0, cooldown=0))
        np.testing.assert_array_equal(rates, 0.5)

    def test_a_branch_follows_its_trunk_up_to_the_cool_down(self):
        trunk = self.rates(OptimizerConfig(learning_rate=0.5, warmup=10, cooldown=0), 300)
        np.testing.assert_array_equal(self.rates(self.CONFIG)[:81], trunk[:81])

    def test_a_run_shorter_than_its_warm_up_never_reaches_the_peak(self):
        rates = self.rates(OptimizerConfig(learning_rate=0.5, warmup=10, cooldown=4), 6)
        assert rates.max() < 0.5
        assert rates.min() > 0
