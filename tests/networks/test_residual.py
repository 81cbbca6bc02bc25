"""Residual networks with layer normalization, against numpy in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rljax.networks.encoder import Inputs
from rljax.networks.residual import ResidualBlock, ResidualCritic, ResidualPolicy, ResidualTorso

pytestmark = pytest.mark.usefixtures("quick_compiles")

SIZES, N, A = (6, 6), 5, 2


def perturbed(params, seed=0):
    """Random parameters in place of initial ones: biases of 0 and scales of 1 would hide errors."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape), jnp.float32), params)


def dense(params, x):
    return x @ np.asarray(params["kernel"], np.float64) + np.asarray(params["bias"], np.float64)


def layer_norm(params, x):
    centered = x - x.mean(axis=-1, keepdims=True)
    normalized = centered / np.sqrt(np.square(centered).mean(axis=-1, keepdims=True) + 1e-6)
    return normalized * np.asarray(params["scale"], np.float64) + np.asarray(params["bias"])


def block(params, x):
    hidden = dense(params["Dense_0"], layer_norm(params["LayerNorm_0"], x))
    return x + dense(params["Dense_1"], np.maximum(hidden, 0.0))


def torso(params, x):
    x = dense(params["Dense_0"], x)
    for i in range(len(SIZES)):
        x = block(params[f"ResidualBlock_{i}"], x)
    return layer_norm(params["LayerNorm_0"], x)


def inputs(seed=1):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(N, 3)).astype(np.float32), rng.uniform(-1, 1, (N, A)).astype("f4")


def test_a_block_adds_a_hidden_layer_of_the_normalized_input():
    x = 10.0 + 3.0 * np.random.default_rng(2).normal(size=(N, 4)).astype(np.float32)
    module = ResidualBlock("relu")
    params = perturbed(module.init(jax.random.key(0), x))
    assert params["params"]["Dense_0"]["kernel"].shape == (4, 16)  # 4 times as wide
    np.testing.assert_allclose(module.apply(params, x), block(params["params"], x), rtol=1e-4)


def test_a_torso_has_one_block_per_hidden_size_and_normalizes_last():
    obs, action = inputs()
    module = ResidualTorso(SIZES)
    params = perturbed(module.init(jax.random.key(0), obs, action))
    expected = torso(params["params"], np.concatenate([obs, action], axis=-1))
    np.testing.assert_allclose(module.apply(params, obs, action), expected, rtol=1e-4, atol=1e-4)


def test_critics_are_linear_in_the_features_of_observation_and_action():
    obs, action = inputs()
    module = ResidualCritic(ResidualTorso(SIZES))
    params = perturbed(module.init(jax.random.key(0), obs, action))
    features = torso(params["params"]["torso"], np.concatenate([obs, action], axis=-1))
    expected = dense(params["params"]["Dense_0"], features)[:, 0]
    np.testing.assert_allclose(module.apply(params, obs, action), expected, rtol=1e-4, atol=1e-4)


def test_policies_scale_the_log_standard_deviation_to_its_range():
    obs, _ = inputs()
    module = ResidualPolicy(ResidualTorso(SIZES), A)
    params = perturbed(module.init(jax.random.key(0), obs))
    mean, log_std = module.apply(params, obs)
    out = dense(params["params"]["Dense_0"], torso(params["params"]["torso"], obs))
    np.testing.assert_allclose(mean, out[:, :A], rtol=1e-4, atol=1e-4)
    expected = -4.0 + 6.0 * np.tanh(out[:, A:])  # from -10 to 2
    np.testing.assert_allclose(log_std, expected, rtol=1e-4, atol=1e-4)
    assert np.ptp(expected) > 1


@pytest.mark.parametrize(
    ("obs", "inputs"),
    [
        (jnp.ones((N, 2, 3)), Inputs((2,), ("",))),
        (jnp.zeros(N, jnp.int32), Inputs((0,), ("",), num_states=4)),
    ],
    ids=["matrix", "numbered"],
)
def test_observations_of_any_form_are_flattened(obs, inputs):
    module = ResidualTorso(SIZES, inputs=inputs)
    features = jax.eval_shape(lambda key: module.init_with_output(key, obs)[0], jax.random.key(0))
    assert features.shape == (N, 6)


def test_initial_features_have_unit_scale_at_any_depth():
    """Layer normalization bounds them: mean 0 and variance 1 over the features."""
    obs, _ = inputs()
    module = ResidualTorso((32,) * 8)
    features = np.asarray(module.init_with_output(jax.random.key(0), 100.0 * obs)[0])
    np.testing.assert_allclose(features.mean(axis=-1), 0.0, atol=1e-5)
    np.testing.assert_allclose(features.std(axis=-1), 1.0, rtol=1e-3)
