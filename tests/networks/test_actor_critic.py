"""Actor-critic networks: shapes, initialization, and the check of a user's network."""

from functools import cache
from typing import Any

import distrax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from rljax import networks
from rljax.networks.recurrent import recurrent_actor_critic_network
from rljax.types import EnvSpec

KEY = jax.random.key(0)


def assert_orthonormal(kernel, scale=1.0):
    """The columns of a tall `[in, out]` kernel are orthonormal, or the rows of a wide one."""
    matrix = np.asarray(kernel, np.float64) / scale
    gram = matrix.T @ matrix if matrix.shape[0] >= matrix.shape[1] else matrix @ matrix.T
    np.testing.assert_allclose(gram, np.eye(len(gram)), atol=1e-5)


VECTOR = EnvSpec(obs_shape=(3,), num_actions=4)
IMAGE = EnvSpec(obs_shape=(10, 10, 4), num_actions=6)
BOX = EnvSpec(obs_shape=(3,), action_shape=(2,))
DEEP_BOX = EnvSpec(obs_shape=(3,), action_shape=(2, 3))
NUMBERED = EnvSpec(obs_shape=(), num_actions=4, num_states=7)


@cache
def initialized(spec):
    network = networks.actor_critic_network(spec, (16, 16), "tanh")
    return network, jax.jit(network.init)(KEY, jnp.zeros((1, *spec.obs_shape)))


@pytest.mark.parametrize(("spec", "size"), [(VECTOR, 4), (IMAGE, 6), (BOX, 2), (DEEP_BOX, 6)])
def test_actor_critic_returns_a_policy_and_a_value_per_observation(spec, size):
    spec = spec._replace(num_envs=5)
    network = networks.actor_critic_network(spec, (16, 16), "tanh")

    def everything(key, obs):
        policy, value = network.apply(network.init(key, obs[:1, 0]), obs)
        arrays = networks.parameters(policy)
        noise = networks.policy_noise(spec, key, 7)
        action = networks.sample(policy, noise)
        scalars = (
            value, policy.log_prob(action), policy.entropy(),
            networks.like(arrays).kl_divergence(policy),
        )  # fmt: skip
        return scalars, (action, policy.mode()), (noise, *arrays)

    obs = jax.ShapeDtypeStruct((7, 5, *spec.obs_shape), jnp.float32)
    scalars, actions, vectors = jax.eval_shape(everything, KEY, obs)
    assert [x.shape for x in scalars] == [(7, 5)] * 4
    assert [x.shape for x in actions] == [(7, 5) if spec.num_actions else (7, 5, size)] * 2
    assert [x.shape for x in vectors] == [(7, 5, size)] * (2 if spec.num_actions else 3)


@pytest.mark.parametrize("spec", [IMAGE, BOX])
def test_outputs_do_not_depend_on_the_rest_of_the_batch(spec):
    network = networks.actor_critic_network(spec, (16, 16), "tanh")
    random = np.random.default_rng(0).normal
    obs = random(size=(2, 3, *spec.obs_shape)).astype(np.float32)
    shapes = jax.eval_shape(network.init, KEY, obs[:1, 0])
    params = jax.tree.map(lambda x: random(0, 0.3, x.shape).astype(np.float32), shapes)

    @jax.jit
    def outputs(obs):
        policy, value = network.apply(params, obs)
        return value, *networks.parameters(policy)

    for together, alone in zip(outputs(obs), outputs(obs[1, 2]), strict=True):
        np.testing.assert_allclose(together[1, 2], alone, rtol=1e-4, atol=1e-5)
    values = outputs(obs)[0]
    assert np.std(values) > 0.01


def test_initial_policies_are_nearly_uniform():
    """The last layer has scale 0.01."""
    obs = jax.random.normal(KEY, (50, 3))
    network, params = initialized(VECTOR)
    policy, value = network.apply(params, obs)
    np.testing.assert_allclose(policy.probs, np.full((50, 4), 0.25), atol=0.02)
    assert value.std() > 0.1
    network, params = initialized(BOX)
    mean, std = networks.parameters(network.apply(params, obs)[0])
    np.testing.assert_allclose(mean, np.zeros((50, 2)), atol=0.05)
    np.testing.assert_array_equal(std, np.ones((50, 2)))


def test_layers_are_initialized_orthogonally():
    params = initialized(VECTOR)[1]["params"]
    for torso in ("actor", "critic"):
        assert_orthonormal(params[torso]["Dense_0"]["kernel"], 2.0**0.5)
        assert_orthonormal(params[torso]["Dense_1"]["kernel"], 2.0**0.5)
    assert_orthonormal(params["logits"]["kernel"], 0.01)
    assert_orthonormal(params["value"]["kernel"], 1.0)
    assert_orthonormal(initialized(BOX)[1]["params"]["mean"]["kernel"], 0.01)


@pytest.mark.parametrize("spec", [VECTOR, BOX])
def test_policy_and_value_of_vectors_share_no_layers(spec):
    """So the value loss has no gradient for the policy, and the reverse."""
    network, params = initialized(spec)
    obs = jnp.ones((2, 3))

    def value(params):
        return network.apply(params, obs)[1].sum()

    def preference(params):
        return networks.parameters(network.apply(params, obs)[0])[0][:, 0].sum()

    def parts_with_gradient(function):
        grads = jax.jit(jax.grad(function))(params)["params"]
        return {part for part, x in grads.items() if is_nonzero(x)}

    assert parts_with_gradient(value) == {"critic", "value"}
    assert parts_with_gradient(preference) == {"actor", "logits" if spec.num_actions else "mean"}


def is_nonzero(grads):
    return any(np.abs(x).max() > 0 for x in jax.tree.leaves(grads))


# Checks of a user's network


class Custom(nn.Module):
    """A network whose outputs are `outputs(features[..., 4], value[..., 1])`."""

    outputs: Any
    size: int = 4

    @nn.compact
    def __call__(self, obs):
        return self.outputs(nn.Dense(self.size)(obs), nn.Dense(1)(obs))


def categorical(logits, value):
    return distrax.Categorical(logits=logits), value[..., 0]


def gaussian(mean, value):
    return networks.normal(mean, jnp.ones_like(mean)), value[..., 0]


class Nnx(nnx.Module):
    def __call__(self, obs):
        return obs


class Flat(nn.Module):
    """Flattens all axes but the first, which is wrong for trajectories `[T, B, ...]`."""

    @nn.compact
    def __call__(self, obs):
        obs = obs.reshape(obs.shape[0], -1)
        return distrax.Categorical(logits=nn.Dense(4)(obs)), nn.Dense(1)(obs)[..., 0]


def mixture(logits, value):
    return distrax.Bernoulli(logits=logits), value[..., 0]


REFUSED = {
    "an nnx module": (Nnx(), "is a Nnx, but it must be an instance of a flax.linen.Module"),
    "a function": (lambda obs: obs, "is a function, .* maps observations to .policy, value."),
    "a class": (Custom, "is the class Custom, but it must be an instance"),
    "logits alone": (Custom(lambda x, v: x), r"returns an array of shape \(2, 3, 4\), .* pair"),
    "a Q-network": (networks.q_network(VECTOR, (4,)), "action values belongs to .* dqn"),
    "three outputs": (Custom(lambda x, v: (x, v, v)), "returns a tuple of 3, but .* pair"),
    "logits": (Custom(lambda x, v: (x, v[..., 0])), r"wrap|distrax.Categorical\(logits=logits\)"),
    "another distribution": (Custom(mixture), "Bernoulli.*Categorical"),
    "a value with an axis": (
        Custom(lambda x, v: (categorical(x, v)[0], v)),
        r"value of shape \(2, 3, 1\) .* must have shape \(2, 3\): squeeze its last axis",
    ),
    "a scalar value": (
        Custom(lambda x, v: (categorical(x, v)[0], v.sum())), r"shape \(\) .* keep the batch axes"
    ),
    "too few actions": (Custom(categorical, size=3), r"\(2, 3, 3\) .* Cart has 4 discrete actions"),
    "the wrong kind of actions": (Custom(gaussian), "Independent, but Cart has discrete actions"),
    "axes that are flattened": (Flat(), r"shape \(2, 4\) .* must be \(2, 3, 4\)"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_a_network_of_the_wrong_form_is_refused(case):
    network, message = REFUSED[case]
    with pytest.raises(ValueError, match=message) as error:
        networks.check_actor_critic(network, VECTOR._replace(env_id="Cart"))
    assert "`network`" in str(error.value) or "network's policy" in str(error.value)
    assert "\n" not in str(error.value)


def test_continuous_actions_are_checked_too():
    networks.check_actor_critic(Custom(gaussian, size=6), DEEP_BOX)
    with pytest.raises(ValueError, match="Categorical, but Env has continuous actions"):
        networks.check_actor_critic(Custom(categorical, size=6), DEEP_BOX)
    with pytest.raises(ValueError, match=r"\(2, 3, 4\) .* Env has 6 continuous actions"):
        networks.check_actor_critic(Custom(gaussian), DEEP_BOX)


@pytest.mark.parametrize("spec", [VECTOR, IMAGE, BOX, DEEP_BOX, NUMBERED])
def test_networks_of_the_right_form_pass(spec):
    networks.check_actor_critic(networks.actor_critic_network(spec, (4,)), spec)
    networks.check_actor_critic(recurrent_actor_critic_network(spec, (4,), memory_size=3), spec)


def test_the_check_traces_a_network_once_and_computes_nothing():
    traces = []

    def outputs(logits, value):
        traces.append(isinstance(logits, jax.core.Tracer))
        return categorical(logits, value)

    networks.check_actor_critic(Custom(outputs), VECTOR)
    assert traces == [True]
