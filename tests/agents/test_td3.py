"""TD3 against gradient steps computed by hand in float64: its three changes to DDPG."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from linear_networks import (
    SPEC,
    ConstantCritic,
    LinearPolicy,
    N,
    QuadraticCritic,
    assert_trees_close,
    constant_replay,
    features,
    float64,
    importance_weight,
    make_batch,
    make_config,
    replay_of,
    slope,
    updates,
)
from probes import bits
from scipy import stats

from rljax.agents.td3 import TD3Config, td3
from rljax.types import Sample

pytestmark = pytest.mark.usefixtures("quick_compiles")

CONFIG = make_config(TD3Config, target_noise=0.5, target_noise_clip=0.4)
ACTOR_RATE, CRITIC_RATE = 0.2, 0.1
NORMAL = np.random.default_rng(5).normal(size=(N, 2))


@pytest.fixture
def known_normals(monkeypatch):
    """Replaces the normal samples of every gradient step by `NORMAL`."""
    normal = jnp.asarray(NORMAL, jnp.float32)
    monkeypatch.setattr(jax.random, "normal", lambda key, shape: jnp.broadcast_to(normal, shape))


def make_agent(config=CONFIG, batch=None, **pieces):
    batch = make_batch(SPEC)[0] if batch is None else batch
    pieces = {
        "policy": LinearPolicy(), "critic": QuadraticCritic(), "replay": replay_of(batch),
        "actor_optimizer": optax.sgd(ACTOR_RATE), "critic_optimizer": optax.sgd(CRITIC_RATE),
    } | pieces  # fmt: skip
    return td3(config, SPEC, **pieces)


def critic_step(learned, data, weight):
    """Lines 8 to 10 of algorithm 1: returns the new critics `[2, 6]`, the TD errors, the values."""
    (_, critics), (target_actor, target_critics) = learned
    noise = np.clip(0.5 * NORMAL, -0.4, 0.4)
    next_action = data.next_obs @ target_actor + noise
    assert (np.abs(noise) == 0.4).any() and (np.abs(next_action) > 1).any()
    x = features(data.next_obs, np.clip(next_action, -1, 1))
    td_target = data.td_target((x @ target_critics.T).min(axis=1))
    x = features(data.obs, data.action)
    q = x @ critics.T  # [N, 2]
    td_error = td_target[:, None] - q
    loss = (weight[:, None] * td_error**2 / 2).mean(axis=0).sum()
    return critics + CRITIC_RATE * (weight[:, None] * td_error).T @ x / N, td_error, q, loss


def policy_step(learned, data, tau=0.25):
    """Lines 12 and 13, by the first critic."""
    (actor, critics), target = learned
    action = data.obs @ actor
    loss = -(features(data.obs, action) @ critics[0]).mean()
    actor = actor + ACTOR_RATE * data.obs.T @ slope(critics[0], action) / N
    online = [actor, critics]
    target = [tau * new + (1 - tau) * old for new, old in zip(online, target, strict=True)]
    return (online, target), loss


def weights_of(params):
    return float64([params.actor["params"]["w"], params.critic["params"]["w"]])


@pytest.mark.parametrize("discount", [None, 0.729])
def test_updates_equal_gradient_steps_computed_by_hand(known_normals, discount):
    """The policy and the targets move in every second step only."""
    batch, data = make_batch(SPEC, discount)

    def change(learned):  # so that some actions of the target policy are outside the box
        actor = jax.tree.map(lambda x: 4.0 * x, learned.target_params.actor)
        return learned._replace(target_params=learned.target_params._replace(actor=actor))

    states, metrics = updates(make_agent(batch=batch), SPEC, 4, change)
    first = states[0].learned
    assert not np.allclose(*first.params.critic["params"]["w"])
    learned = weights_of(first.params), weights_of(first.target_params)
    for update in range(4):
        critics, td_error, q, loss = critic_step(learned, data, importance_weight(update))
        learned = [learned[0][0], critics], learned[1]
        expected = {"losses/critic_loss": loss, "losses/q_value": q.mean()}
        if update % 2 == 1:
            learned, expected["losses/policy_loss"] = policy_step(learned, data)
        state = states[update + 1]
        assert_trees_close(weights_of(state.params), learned[0])
        assert_trees_close(weights_of(state.learned.target_params), learned[1])
        np.testing.assert_allclose(state.replay[0], np.abs(td_error).mean(axis=1), rtol=1e-4)
        losses = {name: metrics[update][name] for name in expected}
        assert losses == pytest.approx(expected, rel=1e-4)


def test_the_target_is_the_smaller_of_two_values():
    """Values 5 and 4, reward 1 and discount 0.9: 4.6, not 5.5; terminal states have value 0."""
    batch = make_batch(SPEC)[0]._replace(reward=jnp.ones(N))
    for values in ([5.0, 4.0], [4.0, 5.0]):

        def change(learned, values=values):
            values = {"params": {"value": jnp.array(values)}}
            target = learned.target_params._replace(critic=values)
            return learned._replace(target_params=target)

        agent = make_agent(batch=batch, critic=ConstantCritic())
        states, _ = updates(agent, SPEC, 1, change)
        expected = np.where(batch.terminated, 1.0, 4.6)
        np.testing.assert_allclose(states[1].replay[0], expected, rtol=1e-6)


def test_the_second_critic_does_not_change_the_policy():
    config = make_config(TD3Config, policy_delay=1)
    actors = []
    for scale in (1.0, -3.0):

        def change(learned, scale=scale):
            w = learned.params.critic["params"]["w"]
            critic = {"params": {"w": w.at[1].multiply(scale)}}
            return learned._replace(params=learned.params._replace(critic=critic))

        agent = make_agent(config, critic_optimizer=optax.set_to_zero())
        states, _ = updates(agent, SPEC, 1, change)
        actors.append(states[1].params.actor)
    assert bits(actors[0]) == bits(actors[1]) != bits(states[0].params.actor)


class FirstAction(nn.Module):
    """Q = w a_0, with w 0 at the start."""

    @nn.compact
    def __call__(self, obs, action):
        return action[..., 0] * self.param("w", nn.initializers.zeros, ())


class ConstantPolicy(nn.Module):
    """The action (0.8, 0.8) everywhere."""

    @nn.compact
    def __call__(self, obs):
        action = self.param("action", nn.initializers.constant(0.8), (2,))
        return jnp.broadcast_to(action, (*obs.shape[:-1], 2))


def test_target_actions_have_clipped_normal_noise_and_stay_in_the_box():
    """A noise of 0.5 clipped to 0.4, added to 0.8, cannot exceed 1; read from the TD errors."""
    size = 4000
    batch = jax.tree.map(lambda x: jnp.zeros((size, *x.shape[1:]), x.dtype), make_batch(SPEC)[0])
    batch = batch._replace(reward=jnp.full(size, 10.0))
    sample = Sample(batch, jnp.arange(size), jnp.full(size, 1 / size), jnp.float32(1 / size))
    options = {"batch_size": size, "buffer_size": size, "learning_starts": size}
    options |= {"train_frequency": size, "num_steps": size // 2, "total_timesteps": 4 * size}
    agent = make_agent(
        dataclasses.replace(CONFIG, **options), policy=ConstantPolicy(), critic=FirstAction(),
        replay=constant_replay(sample),
    )  # fmt: skip

    def change(learned):
        target = learned.target_params._replace(critic={"params": {"w": jnp.ones(2)}})
        return learned._replace(
            params=learned.params._replace(critic={"params": {"w": jnp.zeros(2)}}),
            target_params=target._replace(actor=learned.params.actor),
        )

    noises = []
    for seed in range(2):
        states, _ = updates(agent, SPEC, 1, change, seed, num_steps=size // 2)
        noises.append((np.asarray(states[1].replay[0], np.float64) - 10.0) / 0.9 - 0.8)
    assert abs(np.corrcoef(noises)[0, 1]) < 0.06
    np.testing.assert_allclose([noises[0].min(), noises[0].max()], [-0.4, 0.2], atol=1e-5)
    tolerance = 4 * 0.5 / np.sqrt(size)
    at_clip, at_bound = noises[0] < -0.4 + 1e-5, noises[0] > 0.2 - 1e-5
    normal = stats.norm(0.0, 0.5)
    np.testing.assert_allclose(at_clip.mean(), normal.cdf(-0.4), atol=tolerance)
    np.testing.assert_allclose(at_bound.mean(), normal.sf(0.2), atol=tolerance)
    inside = normal.cdf(noises[0][~at_clip & ~at_bound])
    uniform = stats.uniform(normal.cdf(-0.4), normal.cdf(0.2) - normal.cdf(-0.4))
    assert stats.kstest(inside, uniform.cdf).pvalue > 1e-3


@pytest.mark.parametrize("delay", [1, 3])
def test_the_policy_is_updated_every_few_gradient_steps(delay):
    agent = make_agent(make_config(TD3Config, policy_delay=delay))
    states, metrics = updates(agent, SPEC, 6)
    for update in range(6):
        old, new = states[update], states[update + 1]
        is_due = (update + 1) % delay == 0
        assert (bits(old.params.actor) != bits(new.params.actor)) == is_due
        assert (bits(old.learned.target_params) != bits(new.learned.target_params)) == is_due
        assert bits(old.params.critic) != bits(new.params.critic)
        assert ("losses/policy_loss" in metrics[update]) == is_due
