"""Q-networks: formulas, shapes and noise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rljax.networks import action_values
from rljax.types import EnvSpec

pytestmark = pytest.mark.usefixtures("quick_compiles")

VECTOR = EnvSpec(obs_shape=(3,), num_actions=4)
SPECS = {
    "vector": VECTOR, "image": EnvSpec(obs_shape=(5, 6, 2), num_actions=4),
    "matrix": EnvSpec(obs_shape=(2, 3), num_actions=4),
    "numbered": EnvSpec(obs_shape=(), num_states=6, num_actions=4),
}  # fmt: skip


def made(spec=VECTOR, hidden=(8, 5), **options):
    network = action_values.q_network(spec, hidden, "tanh", **options)
    obs = jnp.zeros((1, *spec.obs_shape), jnp.int32 if spec.num_states else jnp.float32)
    return network, network.init(jax.random.key(0), obs)


@pytest.mark.parametrize("kind", SPECS)
@pytest.mark.parametrize("options", [{}, {"dueling": True, "num_outputs": 7, "layer_norm": True}])
def test_shapes(kind, options):
    spec = SPECS[kind]
    network, params = made(spec, **options)
    tail = (4, 7) if "num_outputs" in options else (4,)
    for lead in ((3,), (2, 3)):
        obs = jnp.ones((*lead, *spec.obs_shape), jnp.int32 if spec.num_states else jnp.float32)
        assert network.apply(params, obs).shape == (*lead, *tail)


def test_dueling_is_value_plus_advantage_minus_its_mean():
    """V = 2, A = (1, 3, -1) give (2, 4, 0), also with a constant added to A."""
    spec = EnvSpec(obs_shape=(3,), num_actions=3)
    network, params = made(spec, hidden=(2,), dueling=True)
    for shift in (0.0, 5.0):
        biases = {"value": [2.0], "advantage": [1.0 + shift, 3.0 + shift, -1.0 + shift]}
        layers = dict(jax.tree.map(jnp.zeros_like, params)["params"])
        for name, bias in biases.items():
            layers[name] = layers[name] | {"bias": jnp.array(bias)}
        values = network.apply({"params": layers}, jnp.ones((1, 3)))
        np.testing.assert_allclose(values, [[2.0, 4.0, 0.0]], atol=1e-6)


def test_dueling_subtracts_the_mean_over_actions_for_each_atom():
    network, params = made(dueling=True, num_outputs=5)
    out = network.apply(params, jnp.ones((2, 3)))
    layers = dict(params["params"])
    assert layers["value"]["kernel"].shape[-1] == 5
    no_value = layers | {"value": jax.tree.map(jnp.zeros_like, layers["value"])}
    advantage = network.apply({"params": no_value}, jnp.ones((2, 3)))
    np.testing.assert_allclose(advantage.mean(axis=1), 0.0, atol=1e-6)
    difference = out - advantage
    np.testing.assert_allclose(
        difference, jnp.broadcast_to(difference[:, :1], out.shape), atol=1e-5
    )


def test_noisy_layers_have_the_mean_and_variance_of_factorised_noise():
    """Eqs. 10 and 11: the variances of `(s x e_in e_out)` and `s e_out`, E e^2 = sqrt(2 / pi)."""
    inputs, outputs, num_samples = 4, 3, 40_000
    layer = action_values.NoisyDense(outputs)
    x = jnp.array([1.0, -2.0, 0.5, 0.0])
    params = layer.init(jax.random.key(0), x[None])
    kernel, bias = params["params"]["kernel"], params["params"]["bias"]
    assert np.abs(kernel).max() <= 0.5 and kernel.shape == (inputs, outputs)
    np.testing.assert_allclose(params["params"]["kernel_spread"], 0.5 / 2)
    mean = layer.apply(params, x[None])[0]
    np.testing.assert_allclose(mean, x @ kernel + bias, rtol=1e-6)
    sample = action_values.noise_sampler(layer, EnvSpec((inputs,), outputs))
    noise = sample(jax.random.key(1), num_samples)
    assert jax.tree.map(jnp.shape, noise) == {
        "input": (num_samples, inputs), "output": (num_samples, outputs)
    }  # fmt: skip
    out = jax.vmap(lambda noise: layer.apply({**params, "noise": noise}, x[None])[0])(noise)
    second_moment = np.sqrt(2 / np.pi)  # E e^2 = E |n|
    variance = 0.25**2 * (second_moment**2 * float((x**2).sum()) + second_moment)
    np.testing.assert_allclose(out.mean(axis=0), mean, atol=5 * np.sqrt(variance / num_samples))
    np.testing.assert_allclose(out.var(axis=0), variance, rtol=0.05)
    unscaled = (out[0] - mean) / 0.25
    e_in, e_out = noise["input"][0], noise["output"][0]
    np.testing.assert_allclose(unscaled, (x @ e_in) * e_out + e_out, atol=1e-4)


def test_the_layers_of_the_streams_are_noisy():
    _, params = made(noisy=True, dueling=True)
    noisy = {name for name in params["params"] if "kernel_spread" in str(params["params"][name])}
    assert noisy == {"value", "value_hidden", "advantage", "advantage_hidden"}
