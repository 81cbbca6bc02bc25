"""IMPALA: equal to A2C without a lag, corrected by V-trace with a lag."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from probes import bits, random_trajectory

from rljax import networks
from rljax.agents.a2c import A2CConfig, a2c
from rljax.agents.impala import IMPALAConfig, impala
from rljax.ops.vtrace import vtrace
from rljax.types import EnvSpec

pytestmark = pytest.mark.usefixtures("quick_compiles")

T, B = 6, 3
SPEC = EnvSpec(obs_shape=(3,), num_actions=4, num_envs=B)
CONFIG = IMPALAConfig(
    num_envs=B, num_steps=T, total_timesteps=T * B * 40, pull_period=2, normalize_obs=False,
    normalize_reward=False,
)  # fmt: skip
NETWORK = networks.actor_critic_network(SPEC, (5,), "tanh")


def rollout(seed, params):
    """A random rollout, with the policy of `params` in its extras."""
    trajectory = random_trajectory(seed, T, B, SPEC)
    policy, _ = NETWORK.apply(params, trajectory.obs)
    extras = {"raw_action": trajectory.action, "policy": (policy.logits,)}
    return trajectory._replace(extras=extras)


def test_without_a_lag_it_equals_a2c_with_n_step_returns():
    config = dataclasses.replace(CONFIG, pull_period=1)
    names = {field.name for field in dataclasses.fields(A2CConfig)}
    same = {k: v for k, v in vars(config).items() if k in names}
    agents = (
        impala(config, SPEC, network=NETWORK),
        a2c(A2CConfig(**same, gae_lambda=1.0), SPEC, network=NETWORK),
    )
    updates, states = [jax.jit(agent.update) for agent in agents], [None, None]
    states = [agent.init(jax.random.key(0)) for agent in agents]
    for seed in range(3):
        trajectory = rollout(seed, states[1].params)
        states = [
            u(s, trajectory, jax.random.key(0))[0] for u, s in zip(updates, states, strict=True)
        ]
        for x, y in zip(*map(jax.tree.leaves, [s.params for s in states]), strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-5)


def test_the_gradient_is_at_the_learner_with_the_ratio_to_the_behavior_policy():
    agent = impala(CONFIG, SPEC, network=NETWORK, optimizer=optax.sgd(0.1))
    state = agent.init(jax.random.key(0))
    moved = jax.tree.map(
        lambda x: x + 0.3 * jnp.cos(jnp.arange(x.size)).reshape(x.shape), state.params
    )
    state, trajectory = state._replace(params=moved), rollout(5, state.local)
    update = jax.jit(agent.update)
    after, metrics = update(state, trajectory, jax.random.key(0))
    new, old = (
        NETWORK.apply(params, trajectory.obs)[0].log_prob(trajectory.action)
        for params in (moved, state.local)
    )
    ratio = np.exp(np.asarray(new - old, np.float64))
    assert ratio.max() > 1.2 and ratio.min() < 0.8
    value, next_value = (NETWORK.apply(moved, x)[1] for x in (trajectory.obs, trajectory.next_obs))
    advantage, target = vtrace(
        jnp.asarray(ratio, jnp.float32), trajectory.reward, value, next_value,
        trajectory.terminated, trajectory.truncated, CONFIG.gamma,
    )  # fmt: skip

    def loss(params):
        policy, value = NETWORK.apply(params, trajectory.obs)
        error = CONFIG.vf_coef * 0.5 * jnp.square(value - target)
        policy_objective = advantage * policy.log_prob(trajectory.action)
        return (error - policy_objective - CONFIG.ent_coef * policy.entropy()).mean()

    expected = jax.tree.map(lambda x, g: x - 0.1 * g, moved, jax.grad(loss)(moved))
    for x, y in zip(jax.tree.leaves(after.params), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(metrics["losses/ratio"], ratio.mean(), rtol=1e-5)
    assert bits(after.local) == bits(state.local)  # after the first of two updates
    after, _ = update(after, trajectory, jax.random.key(0))
    assert bits(after.local) == bits(after.params)
