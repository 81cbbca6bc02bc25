"""DDPG against gradient steps computed by hand in float64, and its exploration."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from linear_networks import (
    SPEC,
    LinearPolicy,
    QuadraticCritic,
    assert_trees_close,
    features,
    float64,
    importance_weight,
    make_batch,
    make_config,
    replay_of,
    slope,
    updates,
)  # fmt: skip

from rljax.agents.acting import ornstein_uhlenbeck
from rljax.agents.ddpg import DDPGConfig, ddpg
from rljax.replay import uniform
from rljax.types import EnvSpec, RecurrentObs, Transition, sample_one

pytestmark = pytest.mark.usefixtures("quick_compiles")

CONFIG = make_config(DDPGConfig, noise="gaussian")
ACTOR_RATE, CRITIC_RATE = 0.2, 0.1


def gradient_step(learned, data, weight, tau=0.25):
    """Algorithm 1 of the paper with plain gradient descent; returns TD errors and metrics too."""
    (actor, critic), (target_actor, target_critic) = learned
    next_action = data.next_obs @ target_actor
    td_target = data.td_target(features(data.next_obs, next_action) @ target_critic)
    x = features(data.obs, data.action)
    q = x @ critic
    td_error = td_target - q
    critic_loss = (weight * td_error**2 / 2).mean()
    critic = critic + CRITIC_RATE * x.T @ (weight * td_error) / len(q)
    action = data.obs @ actor
    policy_loss = -(features(data.obs, action) @ critic).mean()
    actor = actor + ACTOR_RATE * data.obs.T @ slope(critic, action) / len(q)
    target = [
        tau * new + (1 - tau) * old for new, old in ((actor, target_actor), (critic, target_critic))
    ]
    metrics = {
        "losses/critic_loss": critic_loss, "losses/policy_loss": policy_loss,
        "losses/q_value": q.mean(),
    }  # fmt: skip
    return ((actor, critic), target), td_error, metrics


def weights_of(params):
    return float64([params.actor["params"]["w"], params.critic["params"]["w"]])


@pytest.mark.parametrize("discount", [None, 0.729])
def test_updates_equal_gradient_steps_computed_by_hand(discount):
    """With importance weights and, in one case, the discounts of n-step replay."""
    batch, data = make_batch(SPEC, discount)
    agent = ddpg(
        CONFIG, SPEC, policy=LinearPolicy(), critic=QuadraticCritic(), replay=replay_of(batch),
        actor_optimizer=optax.sgd(ACTOR_RATE), critic_optimizer=optax.sgd(CRITIC_RATE),
    )  # fmt: skip
    states, metrics = updates(agent, SPEC, 3)
    first = states[0].learned
    learned = weights_of(first.params), weights_of(first.target_params)
    for update in range(3):
        learned, td_error, expected = gradient_step(learned, data, importance_weight(update))
        state = states[update + 1]
        assert_trees_close(weights_of(state.params), learned[0])
        assert_trees_close(weights_of(state.learned.target_params), learned[1])
        np.testing.assert_allclose(state.replay[0], td_error, rtol=1e-4, atol=1e-5)
        losses = {name: metrics[update][name] for name in expected}
        assert losses == pytest.approx(expected, rel=1e-4)


class OneDimensionalPolicy(nn.Module):
    """a = theta s, with theta 0.25 at the start."""

    @nn.compact
    def __call__(self, obs):
        return obs * self.param("theta", nn.initializers.constant(0.25), ())


class Parabola(nn.Module):
    """Q = -(a - 1)^2, with one parameter without effect."""

    @nn.compact
    def __call__(self, obs, action):
        del obs
        return -jnp.square(action[..., 0] - 1.0) + 0.0 * self.param("w", nn.initializers.zeros, ())


def test_the_policy_gradient_is_a_mean_over_the_batch():
    """States 1 and 2: d/dtheta is the mean of 1.5 and 2; a sum would be 3.5."""
    spec = EnvSpec(obs_shape=(1,), action_shape=(1,), num_envs=2)
    config = make_config(DDPGConfig, noise="gaussian", batch_size=2, learning_starts=6)
    agent = ddpg(
        config, spec, policy=OneDimensionalPolicy(), critic=Parabola(), replay=uniform(6, 2),
        actor_optimizer=optax.sgd(1.0),
    )  # fmt: skip
    obs = jnp.array([[1.0], [2.0]] * 3).reshape(3, 2, 1)
    flags = jnp.zeros((3, 2), bool)
    trajectory = Transition(obs, obs, jnp.zeros((3, 2)), flags, flags, obs)
    update, gains = jax.jit(agent.update), []
    for seed in range(20):  # batches of states (1, 1), (1, 2) or (2, 2)
        state = agent.init(jax.random.key(0))
        state, _ = update(state, trajectory, jax.random.key(seed))
        gains.append(float(state.params.actor["params"]["theta"]) - 0.25)
    expected = np.array([1.5, 1.75, 2.0])
    distance = np.abs(np.array(gains)[:, None] - expected[None])
    assert (distance.min(axis=1) < 1e-5).all() and np.unique(distance.argmin(axis=1)).size == 3


def test_the_default_noise_is_ornstein_uhlenbeck_around_the_policy():
    """After the warm-up; in half ranges of each dimension, with theta 0.15 and sigma 0.2."""
    config = make_config(DDPGConfig)
    agent = ddpg(config, SPEC, policy=LinearPolicy(), critic=QuadraticCritic())
    state = agent.init(jax.random.key(0))
    state = state._replace(env_steps=state.env_steps._replace(value=jnp.int32(6)))
    plain, memory = jnp.array([[0.3, -0.2], [0.1, 0.1]]), jnp.array([[0.1, -0.4], [0.0, 0.2]])
    noise = sample_one(agent.sample_noise, jax.random.key(1))
    (action, next_memory), _ = agent.act(state, RecurrentObs(plain, memory), noise)
    expected, _ = ornstein_uhlenbeck(0.2, 0.15).step(memory, noise[0])
    np.testing.assert_allclose(next_memory, expected, rtol=1e-6)
    raw = plain @ state.params.actor["params"]["w"] + expected
    low, high = np.array(SPEC.action_low), np.array(SPEC.action_high)
    np.testing.assert_allclose(action, low + (np.array(raw) + 1) / 2 * (high - low), rtol=1e-5)
    with pytest.raises(ValueError, match="noise has a memory, but Env does not carry it"):
        agent.act(state, plain, noise)
