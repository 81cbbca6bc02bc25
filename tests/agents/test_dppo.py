"""DPPO: workers equal one worker with the whole batch, and the hinge of the paper."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree
from probes import bits, counts, random_trajectory, walk

from rljax import networks
from rljax.agents.dppo import DPPOConfig, dppo, hinged_kl
from rljax.envs import wrappers
from rljax.training.learner import make_learner
from rljax.types import EnvSpec

pytestmark = pytest.mark.usefixtures("quick_compiles")

T, B, WORKERS = 8, 2, 4
SPEC = EnvSpec(obs_shape=(3,), num_actions=4, num_envs=B)
CONFIG = DPPOConfig(
    num_envs=B, num_steps=T, total_timesteps=T * B * 60, hidden_sizes=(5,), learning_rate=0.01,
    update_epochs=1, num_minibatches=1, max_grad_norm=1e9, target_kl=0.01, normalize_obs=False,
    normalize_reward=False,
)  # fmt: skip
NETWORK = networks.actor_critic_network(SPEC, CONFIG.hidden_sizes, CONFIG.activation)
AVERAGE = partial(jax.lax.pmean, axis_name="workers")


def make(num_envs=B * WORKERS, config=CONFIG, **pieces):
    config = dataclasses.replace(config, num_envs=num_envs, total_timesteps=T * num_envs * 60)
    spec = SPEC._replace(num_envs=num_envs)
    return dppo(config, spec, network=NETWORK, **pieces)


def rollout(params, drift):
    """A rollout of a policy that differs from `params` by `drift`, so that ratios are not 1."""
    trajectory = random_trajectory(3, T, B * WORKERS, SPEC)
    behaviour = jax.tree.map(lambda x: x + drift, params)
    logits = NETWORK.apply(behaviour, trajectory.obs)[0].logits
    logits = logits + drift * jnp.arange(4.0)[None, None]
    return trajectory._replace(extras={"raw_action": trajectory.action, "policy": (logits,)})


def shards_of(tree):
    """Splits a trajectory among workers: `[T, W * B, ...] -> [W, T, B, ...]`."""
    return jax.tree.map(lambda x: jnp.moveaxis(x.reshape(T, WORKERS, B, *x.shape[2:]), 1, 0), tree)


def test_the_average_of_the_workers_gradients_is_the_global_gradient():
    """Plain gradient steps, which change the parameters by the gradient; the hinge is active."""
    key = jax.random.key(1)

    def gradient_of(hinge_coef, *average):
        """`(state, trajectory) -> gradient [P], KL`"""
        surrogate = hinged_kl(0.01, hinge_coef, *average)._replace(stop=None)
        pieces = {"optimizer": optax.sgd(1.0), "surrogate": surrogate}
        pieces |= {"average": AVERAGE} if average else {}
        agent = make(B if average else B * WORKERS, **pieces)

        def gradient(state, trajectory):
            after, metrics = agent.update(state, trajectory, key)
            before, after = (ravel_pytree(x.params)[0] for x in (state, after))
            return before - after, metrics["losses/kl"]

        return jax.jit(jax.vmap(gradient, (None, 0), axis_name="workers") if average else gradient)

    state = make().init(jax.random.key(0))
    whole, without_hinge = gradient_of(jnp.float32(50.0)), gradient_of(0.0)
    shards = gradient_of(50.0, AVERAGE)
    for drift in (0.0, 0.4):
        trajectory = rollout(state.params, drift)
        gradient, kl = whole(state, trajectory)
        assert kl > 0.03 if drift else kl < 1e-6
        each, _ = shards(state, shards_of(trajectory))
        for shard in each:
            np.testing.assert_allclose(shard, gradient, rtol=1e-5, atol=1e-6)
        effect = np.abs(without_hinge(state, trajectory)[0] - gradient).max()
        assert effect > 0.01 if drift else effect < 1e-6


def test_an_update_of_the_workers_equals_that_of_one_worker():
    """Several epochs of Adam on the full batch."""
    config = dataclasses.replace(CONFIG, update_epochs=4, max_grad_norm=0.5)
    whole, worker = make(config=config), make(B, config, average=AVERAGE)
    state = whole.init(jax.random.key(0))
    trajectory, key = rollout(state.params, 0.0), jax.random.key(1)
    after, _ = jax.jit(whole.update)(state, trajectory, key)
    update = jax.vmap(worker.update, (None, 0, None), axis_name="workers")
    together, _ = jax.jit(update)(state, shards_of(trajectory), key)
    for x, y in zip(jax.tree.leaves(together.params), jax.tree.leaves(after.params), strict=True):
        np.testing.assert_allclose(x[0], y, atol=1e-5)
    np.testing.assert_array_equal(together.surrogate, np.full(WORKERS, after.surrogate))


def test_the_hinge_by_hand():
    """For a target of 0.01 and xi 1000, a KL of 0.03 costs 0.1, and a KL below 0.02 nothing."""
    surrogate = hinged_kl(0.01, 1000.0)
    zero, beta = jnp.zeros(2), jnp.float32(0.0)
    objective = partial(surrogate.objective, beta, zero, zero)
    np.testing.assert_allclose(objective(jnp.array([0.01, 0.05])), [-0.1, -0.1], rtol=1e-5)
    np.testing.assert_array_equal(objective(jnp.array([0.0, 0.039])), zero)
    # the gradient is 2 xi (KL - 2 target) / N for each of N steps; beta adds its own penalty
    gradient = jax.grad(lambda kl: objective(kl).mean())(jnp.array([0.01, 0.05]))
    np.testing.assert_allclose(gradient, [-10.0, -10.0], rtol=1e-5)
    one = surrogate.objective(jnp.float32(2.0), jnp.ones(1), jnp.ones(1), jnp.array([0.01]))
    np.testing.assert_allclose(one, [1.0 - 0.02], rtol=1e-6)
    for kl, stop in ((0.039, False), (0.041, True)):
        assert bool(surrogate.stop(kl)) is stop


def test_an_update_stops_above_four_targets():
    """At the first minibatch whose KL is above four targets; later steps have no effect."""

    def after(epochs):
        config = dataclasses.replace(
            CONFIG, update_epochs=epochs, learning_rate=0.05, hinge_coef=0.0, anneal_lr=False
        )
        state = make(config=config).init(jax.random.key(0))
        trajectory = rollout(state.params, 0.0)

        @jax.jit
        def update(target):
            agent = make(config=dataclasses.replace(config, target_kl=target))
            state_after, _ = agent.update(state, trajectory, jax.random.key(1))
            return state_after.params, state_after.opt_state

        return update

    once, often = after(1), after(4)
    # the KL is 0 in the first epoch, and then above four times the small target
    first, stopped, free = once(1e9), often(1e-6), often(1e9)
    for x, y in zip(jax.tree.leaves(stopped), jax.tree.leaves(first), strict=True):
        np.testing.assert_allclose(x, y, atol=1e-4)  # shuffled in a different order
    first, free = (ravel_pytree(params)[0] for params, _ in (first, free))
    assert np.abs(free - first).max() > 0.05


def test_the_learning_rate_is_annealed_over_steps_that_were_stopped():
    """Adam counts the steps that were taken, its schedule all steps of the run."""
    config = dataclasses.replace(
        CONFIG, update_epochs=3, num_minibatches=2, total_timesteps=T * B * WORKERS * 4,
        learning_rate=0.05, target_kl=1e-7,
    )  # fmt: skip
    agent = dppo(config, SPEC._replace(num_envs=B * WORKERS), network=NETWORK)
    state = agent.init(jax.random.key(0))
    trajectory, update = rollout(state.params, 0.0), jax.jit(agent.update)
    for _ in range(4):
        state, _ = update(state, trajectory, jax.random.key(1))
    num_taken, num_annealed = counts(state.opt_state)
    assert num_annealed == 4 * 3 * 2 > 2 * num_taken > 0


def test_workers_stay_equal_on_four_devices():
    """50 updates, under `pmap` over devices and under `vmap` over workers on one device."""
    config = dataclasses.replace(
        CONFIG, update_epochs=2, num_minibatches=2, normalize_obs=True, normalize_reward=True,
        max_grad_norm=0.5,
    )  # fmt: skip
    env = wrappers.batched(walk(continuous=True), B)
    learner = make_learner(dppo(config, env.spec, average=AVERAGE), env, T)

    def advance(worker):
        state = learner.init(jax.random.key(0), worker)
        return jax.lax.scan(lambda s, _: (learner.step(s)[0], None), state, length=50)[0]

    assert jax.device_count() >= WORKERS
    workers = jnp.arange(WORKERS)
    ends = (
        jax.pmap(advance, "workers")(workers),
        jax.jit(jax.vmap(advance, axis_name="workers"))(workers),
    )
    flats = []
    for end in ends:
        shared = end.agent._replace(running_return=())
        for worker in range(1, WORKERS):
            assert bits(jax.tree.map(lambda x: x[worker], shared)) == bits(
                jax.tree.map(lambda x: x[0], shared)
            )
            assert not np.array_equal(end.obs[worker], end.obs[0])
        flats.append(ravel_pytree(jax.tree.map(lambda x: x[0], end.agent.agent.params))[0])
    np.testing.assert_allclose(*flats, rtol=1e-6, atol=1e-6)
