"""TRPO: its step against dense linear algebra, and its constraint."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from probes import bits, naive_gae, random_trajectory

from rljax import networks
from rljax.agents.trpo import TRPOConfig, trpo
from rljax.types import EnvSpec

pytestmark = pytest.mark.usefixtures("quick_compiles")

T, B = 8, 4
SPEC = EnvSpec(obs_shape=(2,), num_actions=3, num_envs=B)
CONFIG = TRPOConfig(
    num_envs=B, num_steps=T, total_timesteps=T * B * 4, gamma=0.9, gae_lambda=0.8, damping=0.02,
    cg_iterations=60, update_epochs=3, num_minibatches=1, ent_coef=0.01, normalize_obs=False,
    normalize_reward=False,
)  # fmt: skip
NETWORK = networks.actor_critic_network(SPEC, (3,), "tanh")
POLICY = ("actor", "logits")


def make(config=CONFIG, batch=B, **pieces):
    spec = SPEC._replace(num_envs=batch)
    agent = trpo(config, spec, network=NETWORK, **pieces)
    state = agent.init(jax.random.key(0))
    # parameters of a policy that is not uniform
    params = jax.tree.map(
        lambda x: x + 0.5 * jnp.sin(1.0 + jnp.arange(x.size)).reshape(x.shape), state.params
    )
    trajectory = random_trajectory(3, T, batch, spec)
    logits = NETWORK.apply(params, trajectory.obs)[0].logits
    extras = {"raw_action": trajectory.action, "policy": (logits,)}
    return agent, state._replace(params=params), trajectory._replace(extras=extras)


def split(params, names=POLICY):
    """The parameters of the policy, and the parameters of the critic."""
    inner = params["params"]
    return [{k: v for k, v in inner.items() if (k in names) == mine} for mine in (True, False)]


def kl_after(state, after, trajectory):
    old, new = (
        jax.nn.log_softmax(NETWORK.apply(s.params, trajectory.obs)[0].logits)
        for s in (state, after)
    )
    return float((jnp.exp(old) * (old - new)).sum(axis=-1).mean())


def test_the_step_equals_that_of_dense_linear_algebra():
    """Here F is the mean of outer products of scores, not the Hessian of the KL."""
    agent, state, trajectory = make()
    after, metrics = jax.jit(agent.update)(state, trajectory, jax.random.key(1))
    policy, critic = split(state.params)
    flat, unravel = ravel_pytree(policy)

    def log_policy(flat):
        params = {"params": {**unravel(flat), **critic}}
        return jax.nn.log_softmax(NETWORK.apply(params, trajectory.obs)[0].logits)

    value, next_value = (
        NETWORK.apply(state.params, x)[1] for x in (trajectory.obs, trajectory.next_obs)
    )
    advantage = naive_gae(
        trajectory.reward, value, next_value, trajectory.terminated, trajectory.truncated, 0.9, 0.8
    )
    advantage = (advantage - advantage.mean()) / advantage.std()
    scores = np.asarray(jax.jit(jax.jacobian(log_policy))(flat), np.float64)  # [T, B, A, P]
    probability = np.exp(np.asarray(log_policy(flat), np.float64))
    fisher = np.einsum("tba,tbap,tbaq->pq", probability, scores, scores) / (T * B)
    chosen = np.take_along_axis(scores, np.asarray(trajectory.action)[..., None, None], axis=2)
    gradient = (chosen[:, :, 0] * advantage[..., None]).mean(axis=(0, 1))
    log_probability = np.log(probability)
    gradient -= (
        0.01 * np.einsum("tba,tbap->p", probability * (log_probability + 1), scores) / (T * B)
    )
    fisher += 0.02 * np.eye(len(flat))
    direction = np.linalg.solve(fisher, gradient)
    step = np.sqrt(2 * 0.01 / (direction @ fisher @ direction)) * direction
    fraction = float(metrics["losses/step_fraction"])
    assert fraction > 0
    got = ravel_pytree(split(after.params)[0])[0] - flat
    np.testing.assert_allclose(got, fraction * step, rtol=0.02, atol=1e-3 * np.abs(step).max())
    np.testing.assert_allclose(metrics["losses/kl"], kl_after(state, after, trajectory), rtol=1e-3)


def test_a_step_reaches_the_kl_constraint_without_violating_it():
    _, state, trajectory = make()

    @jax.jit
    def update(target):
        config = dataclasses.replace(CONFIG, damping=1e-4, target_kl=target)
        return make(config)[0].update(state, trajectory, jax.random.key(1))

    for target in (1e-4, 1e-2, 0.3):
        after, metrics = update(target)
        kl = kl_after(state, after, trajectory)
        assert kl <= target * (1 + 1e-3)
        assert kl > 0.2 * target or metrics["losses/step_fraction"] < 1


def test_the_line_search_accepts_the_first_step_that_improves_the_surrogate():
    """The surrogate is mean(ratio x advantage). The logarithm of the ratio has its gradient too."""
    config = dataclasses.replace(CONFIG, ent_coef=0.0, gamma=0.0, target_kl=2.0, damping=1e-3)
    agent, state, trajectory = make(config)
    rewards = jax.random.normal(jax.random.key(7), (32, T, B))
    update = jax.vmap(
        lambda x: agent.update(state, trajectory._replace(reward=x), jax.random.key(1))
    )
    after, metrics = jax.jit(update)(rewards)
    policy, critic = split(state.params)
    flat, unravel = ravel_pytree(policy)

    @jax.jit
    def log_policies(flats):
        params = jax.vmap(lambda x: {"params": {**unravel(x), **critic}})(flats)
        return jax.vmap(lambda x: jax.nn.log_softmax(NETWORK.apply(x, trajectory.obs)[0].logits))(
            params
        )

    def first_accepted(step, advantage, ratio):
        fractions = 0.5 ** np.arange(config.num_halvings + 1)
        points = np.asarray(flat) + np.outer([0, *fractions], step)
        old, *new = np.asarray(log_policies(points), np.float64)
        kl = (np.exp(old) * (old - new)).sum(axis=-1).mean(axis=(1, 2))
        chosen = np.take_along_axis(new - old, np.asarray(trajectory.action)[None, ..., None], -1)
        gain = ((ratio(chosen[..., 0]) - ratio(0.0)) * advantage).mean(axis=(1, 2))
        return fractions[np.argmax((gain > 0) & (kl <= config.target_kl))]

    value, differs = np.asarray(NETWORK.apply(state.params, trajectory.obs)[1]), 0
    for i, fraction in enumerate(metrics["losses/step_fraction"].tolist()):
        new = ravel_pytree(split(jax.tree.map(lambda x: x[i], after.params))[0])[0]
        advantage = np.asarray(rewards[i] - value, np.float64)
        inputs = (new - flat) / fraction, advantage - advantage.mean()
        assert fraction == first_accepted(*inputs, np.exp)
        differs += fraction != first_accepted(*inputs, lambda x: x)
    assert differs > 3


def test_without_improvement_the_policy_is_unchanged_to_the_bit():
    """Equal rewards and values give zero advantages, and no step is accepted."""
    agent, state, trajectory = make(dataclasses.replace(CONFIG, ent_coef=0.0, gamma=0.0))
    inner = {**state.params["params"]}
    inner["value"] = jax.tree.map(jnp.zeros_like, inner["value"])
    state = state._replace(params={"params": inner})
    flat = trajectory._replace(reward=jnp.ones((T, B)))
    after, metrics = jax.jit(agent.update)(state, flat, jax.random.key(1))
    assert metrics["losses/step_fraction"] == 0
    assert bits(split(after.params)[0]) == bits(split(state.params)[0])
    assert bits(split(after.params)[1]) != bits(split(state.params)[1])


def test_policy_and_critic_do_not_change_each_other():
    _, state, trajectory = make()

    @jax.jit
    def update(rate, target):
        config = dataclasses.replace(CONFIG, learning_rate=rate, target_kl=target)
        return make(config)[0].update(state, trajectory, jax.random.key(1))[0]

    base, faster, further = update(1e-3, 1e-3), update(1e-2, 1e-3), update(1e-3, 1e-2)
    (policy, critic), (same, moved), (stepped, still) = (
        split(each.params) for each in (base, faster, further)
    )
    assert bits(policy) == bits(same) != bits(stepped)
    assert bits(critic) == bits(still) != bits(moved)


def test_policy_and_critic_have_separate_convolutions_for_images():
    spec = EnvSpec(obs_shape=(4, 4, 1), num_actions=3, num_envs=B)
    params = trpo(CONFIG, spec).init(jax.random.key(0)).params["params"]
    assert {"encoder", "critic_encoder"} <= params.keys()


def test_workers_take_the_step_of_one_worker_with_all_environments():
    config = dataclasses.replace(CONFIG, cg_iterations=5)
    agent, state, trajectory = make(config)
    whole, _ = jax.jit(agent.update)(state, trajectory, jax.random.key(1))
    average = partial(jax.lax.pmean, axis_name="workers")
    agent = make(dataclasses.replace(config, num_envs=1), 1, average=average)[0]
    shards = jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0)[:, :, None], trajectory)
    update = jax.vmap(agent.update, (None, 0, None), axis_name="workers")
    together, _ = jax.jit(update)(state, shards, jax.random.key(1))
    for x, y in zip(jax.tree.leaves(together.params), jax.tree.leaves(whole.params), strict=True):
        np.testing.assert_array_equal(x[0], x[-1])
        np.testing.assert_allclose(x[0], y, rtol=1e-3, atol=1e-4)
