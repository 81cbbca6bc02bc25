"""A3C: the local copy of the parameters, and the conventions of the paper."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats
from probes import bits, random_trajectory

from rljax import networks
from rljax.agents.a2c import A2CConfig, a2c, advantage_gradient
from rljax.agents.a3c import A3CConfig, a3c
from rljax.agents.policy_gradient import default_optimizer
from rljax.networks import recurrent
from rljax.ops import returns
from rljax.types import EnvSpec, sample_one

pytestmark = pytest.mark.usefixtures("quick_compiles")

T, B = 5, 3
SPEC = EnvSpec(obs_shape=(3,), num_actions=4, num_envs=B)
CONFIG = A3CConfig(
    num_envs=B, num_steps=T, total_timesteps=T * B * 40, pull_period=3, normalize_obs=False,
    normalize_reward=False,
)  # fmt: skip
NETWORK = networks.actor_critic_network(SPEC, (5,), "tanh")


def rollouts(count):
    for seed in range(count):
        trajectory = random_trajectory(seed, T, B, SPEC)
        yield trajectory._replace(extras={"raw_action": trajectory.action})


def test_gradients_at_the_local_copy_update_the_shared_parameters():
    agent = a3c(CONFIG, SPEC, network=NETWORK, optimizer=optax.sgd(0.1))
    update, state = jax.jit(agent.update), agent.init(jax.random.key(0))
    sequences = recurrent.memoryless(SPEC)
    gradient = jax.jit(lambda *args: advantage_gradient(NETWORK, CONFIG, SPEC, sequences, *args)[0])
    shared = local = state.params
    for i, trajectory in enumerate(rollouts(7), start=1):
        state, _ = update(state, trajectory, jax.random.key(0))
        shared = jax.tree.map(lambda x, g: x - 0.1 * g, shared, gradient(local, trajectory))
        local = shared if i % 3 == 0 else local
        for x, y in zip(*map(jax.tree.leaves, (state.params, shared)), strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6)
        assert (bits(state.local) == bits(state.params)) == (i % 3 == 0)


def test_the_local_copy_acts_and_the_shared_parameters_are_evaluated():
    agent = a3c(CONFIG, SPEC, network=NETWORK)
    state = agent.init(jax.random.key(0))
    moved = state._replace(params=jax.tree.map(lambda x: x + 1.0, state.params))
    obs, key = jax.random.normal(jax.random.key(1), (B, 3)), jax.random.key(2)
    noise = sample_one(agent.sample_noise, key)
    assert bits(agent.act(moved, obs, noise)) == bits(agent.act(state, obs, noise))
    mode = NETWORK.apply(moved.params, obs)[0].mode()
    np.testing.assert_array_equal(agent.greedy(moved, obs, key), mode)


def test_with_a_pull_period_of_1_it_equals_a2c():
    config = dataclasses.replace(CONFIG, pull_period=1)
    names = {field.name for field in dataclasses.fields(A2CConfig)}
    same = A2CConfig(**{name: getattr(config, name) for name in names})
    states = []
    for agent in (a3c(config, SPEC, network=NETWORK), a2c(same, SPEC, network=NETWORK)):
        update, state = jax.jit(agent.update), agent.init(jax.random.key(0))
        for trajectory in rollouts(3):
            state, _ = update(state, trajectory, jax.random.key(0))
        states.append(state.params)
    for x, y in zip(*map(jax.tree.leaves, states), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-7)


def test_the_summed_gradient_is_the_rollout_length_times_the_mean():
    """The paper sums the gradients of a rollout; the default is the mean."""
    (trajectory,) = rollouts(1)
    changes = []
    for reduction in ("mean", "sum"):
        config = dataclasses.replace(CONFIG, reduction=reduction)
        agent = a3c(config, SPEC, network=NETWORK, optimizer=optax.sgd(1e-2))
        state = agent.init(jax.random.key(0))
        after, _ = jax.jit(agent.update)(state, trajectory, jax.random.key(0))
        changes.append(jax.tree.map(jnp.subtract, after.params, state.params))
    for x, y in zip(*map(jax.tree.leaves, changes), strict=True):
        np.testing.assert_allclose(y, T * x, rtol=1e-3, atol=1e-6)


def test_rmsprop_adds_epsilon_inside_the_root():
    """First step with decay 0.99, epsilon 0.1, gradient 0.1 and learning rate 7e-4."""
    config = A3CConfig(learning_rate=7e-4, anneal_lr=False, optimizer_eps=0.1, max_grad_norm=9.0)
    optimizer = default_optimizer(config, config.optimizer_eps)
    params = {"w": jnp.zeros(1)}
    step, _ = optimizer.update({"w": jnp.array([0.1])}, optimizer.init(params), params)
    np.testing.assert_allclose(step["w"], [-2.21248e-4], rtol=1e-5)


def test_targets_are_the_longest_n_step_returns():
    """Rewards (1, 0, 2), then a bootstrap value of 10; gamma is 0.99."""
    assert A3CConfig().gae_lambda == 1.0
    no, zero = jnp.zeros(3, bool), jnp.zeros(3)
    _, target = returns.gae(
        jnp.array([1.0, 0.0, 2.0]), zero, jnp.array([0.0, 0.0, 10.0]), no, no, 0.99, 1.0
    )
    np.testing.assert_allclose(target, [12.66319, 11.781, 11.9], rtol=1e-6)


@pytest.mark.parametrize("std", ["softplus", "variance"])
def test_the_softplus_head_is_the_std_or_the_variance(std):
    """The paper has the variance. Entropy and log-probability against scipy."""
    spec = EnvSpec(obs_shape=(3,), action_shape=(2,), num_envs=B)
    network = networks.actor_critic_network(spec, (5,), "tanh", std=std)
    obs = jax.random.normal(jax.random.key(1), (B, 3))
    params = network.init(jax.random.key(0), obs)
    heads = {**params["params"]}
    output = 0.5 if std == "softplus" else 0.25  # sqrt(0.25) = 0.5
    bias = jnp.full(2, jnp.log(jnp.expm1(output - 1e-4)))
    heads["std"] = {"kernel": jnp.zeros_like(heads["std"]["kernel"]), "bias": bias}
    heads["mean"] = jax.tree.map(jnp.zeros_like, heads["mean"])
    policy, _ = network.apply({"params": heads}, obs)
    np.testing.assert_allclose(policy.distribution.scale, np.full((B, 2), 0.5), rtol=1e-5)
    np.testing.assert_allclose(policy.entropy(), np.full(B, 2 * 0.725791), rtol=1e-5)
    action = jnp.broadcast_to(jnp.array([0.2, -0.3]), (B, 2))
    expected = scipy.stats.norm.logpdf([0.2, -0.3], scale=0.5).sum()
    np.testing.assert_allclose(policy.log_prob(action), np.full(B, expected), rtol=1e-5)
    np.testing.assert_allclose(scipy.stats.norm.logpdf(0.2, scale=0.5), -0.305791, rtol=1e-5)
    assert a3c(dataclasses.replace(CONFIG, std=std), spec).init(jax.random.key(0)).params.keys()
