"""Helpers for tests of adapters: rewards of 1, and the values learned from them.

The value of a reward of 1 at every step is 1 / (1 - gamma) = 10 for gamma 0.9, if a time limit of
20 steps is a truncation. It is (1 - gamma^20) / (1 - gamma) = 8.8 if it is a termination.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

import rljax
from rljax.envs import batched, host, make
from rljax.envs.value_checks import random_action
from rljax.ops import returns
from rljax.types import Agent, Env

GAMMA, TIME_LIMIT = 0.9, 20
PPO = {  # options of learning tests, whose thresholds do not depend on the defaults
    "num_steps": 64, "learning_rate": 2e-3, "num_minibatches": 4, "normalize_obs": False,
    "normalize_reward": False,
}  # fmt: skip


def constant_reward(env: Env) -> Env:
    """Replaces every reward by 1."""

    def step(state, action, noise):
        state, step = env.step(state, action, noise)
        return state, step._replace(reward=jnp.ones_like(step.reward))

    return env._replace(step=step)


class Critic(nn.Module):
    """A value function of any observation `[..., *obs_shape]` whose leaves have `ndims` axes."""

    ndims: tuple[int, ...]

    @nn.compact
    def __call__(self, obs):
        leaves = [
            jnp.float32(x).reshape(*x.shape[: x.ndim - ndim], -1)
            for x, ndim in zip(jax.tree.leaves(obs), self.ndims, strict=True)
        ]
        x = jnp.concatenate(leaves, axis=-1)
        x = jnp.sign(x) * jnp.log1p(jnp.abs(x))
        return nn.Dense(1)(nn.tanh(nn.Dense(32)(x)))[..., 0]


def learned_value(
    env: Any, num_updates: int = 120, num_envs: int = 8, seed: int = 0, **params: Any
) -> float:
    """Learns the value of random actions if every reward is 1, and episodes have 20 steps.

    Each update learns from complete episodes, so that the targets of initial observations are
    returns of 20 rewards and, where the episode is truncated, the value of its last observation.

    Args:
      env: as for `rljax.make`; random actions should not end its episodes within 20 steps.
      num_updates: rollouts of 40 steps.
      num_envs: number of environments.
      seed: seed of the random key.
      params: parameters of the environment.

    Returns:
      The mean learned value of initial observations: 10 if limits are truncations, 8.8 if they
      are terminations.
    """
    single = constant_reward(make(env, max_episode_steps=TIME_LIMIT, **params))
    env, num_epochs = batched(single, num_envs), 10
    shapes = jax.tree.leaves(jax.eval_shape(single.reset, jax.random.key(0))[1])
    critic = Critic(tuple(x.ndim for x in shapes))
    optimizer = optax.adam(optax.cosine_decay_schedule(1e-2, num_updates * num_epochs))

    def init(key):
        example = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        params = critic.init(key, example)
        return params, optimizer.init(params)

    def act(state, obs, key):
        keys = jax.random.split(key, num_envs)
        return jax.vmap(lambda obs, key: random_action(env.spec, obs, key))(obs, keys), ()

    def update(state, trajectory, key):
        def epoch(state, _):
            params, opt_state = state
            value, next_value = (
                critic.apply(params, x) for x in (trajectory.obs, trajectory.next_obs)
            )
            _, target = returns.gae(
                trajectory.reward, value, next_value, trajectory.terminated,
                trajectory.truncated, GAMMA, 1.0,
            )  # fmt: skip

            def loss(params):
                return jnp.square(critic.apply(params, trajectory.obs) - target).mean()

            updates, opt_state = optimizer.update(jax.grad(loss)(params), opt_state)
            return (optax.apply_updates(params, updates), opt_state), None

        return jax.lax.scan(epoch, state, length=num_epochs)[0], {}

    agent = Agent(init, act, lambda state, obs, key: act(state, obs, key)[0], update)
    learner = rljax.make_learner(agent, env, num_steps=2 * TIME_LIMIT)

    @jax.jit
    def run(key):
        state = learner.init(key)
        state = jax.lax.fori_loop(0, num_updates, lambda _, s: learner.step(s)[0], state)
        params, _ = state.agent
        return critic.apply(params, env.reset(jax.random.fold_in(key, 1))[1]).mean()

    return float(np.asarray(run(jax.random.key(seed))))


def random_steps(env: Env, num_steps: int, seed: int = 0) -> tuple[Any, Any, Any]:
    """Takes random actions in a single environment.

    Returns:
      The first observation, the actions `[T]` and the `Step`s `[T]`, as numpy arrays.
    """
    return jax.device_get(jax.jit(random_walk(env, num_steps))(jax.random.key(seed)))


def random_walk(env: Env, num_steps: int) -> Any:
    """Returns the function of a key that `random_steps` compiles."""

    def run(key):
        reset_key, key = jax.random.split(key)
        carry = env.reset(reset_key)

        def step(carry, key):
            state, obs = carry
            action_key, step_key = jax.random.split(key)
            action = random_action(env.spec, obs, action_key)
            state, step = env.step(state, action, step_key)
            return (state, step.obs), (action, step)

        return carry[1], *jax.lax.scan(step, carry, jax.random.split(key, num_steps))[1]

    return run


def assert_same_steps(
    env: Env, reset: Any, step: Any, num_steps: int, num_seeds: int = 3, atol: float = 0.0,
    decode: Any = lambda obs: obs,
) -> list[Any]:  # fmt: skip
    """Compares a single environment that does not reset with its suite, until episodes end.

    Args:
      env: as the adapter returns it.
      reset: `(key) -> (state, obs)` of the suite.
      step: `(state, action, key) -> (state, (obs, reward, terminated, truncated))` of the suite.
      num_steps: number of random steps.
      num_seeds: number of episodes.
      atol: tolerance of observations and rewards, absolute and relative.
      decode: function of observations `[..., *obs_shape]` that undoes what the adapter does.

    Returns:
      The steps of the adapter in each episode, `[T]`, to its end.
    """

    def suite_walk(key, actions):
        reset_key, key = jax.random.split(key)
        state, obs = reset(reset_key)

        def forward(state, inputs):
            action, key = inputs
            return step(state, action, jax.random.split(key)[1])

        return obs, jax.lax.scan(forward, state, (actions, jax.random.split(key, num_steps)))[1]

    keys = jax.random.split(jax.random.key(0), num_seeds)
    first, actions, steps = jax.jit(jax.vmap(random_walk(env, num_steps)))(keys)
    their_first, theirs = jax.jit(jax.vmap(suite_walk))(keys, actions)
    first, steps, their_first, theirs = jax.device_get((first, steps, their_first, theirs))
    equal = functools.partial(np.testing.assert_allclose, atol=atol, rtol=atol)
    jax.tree.map(equal, decode(first), their_first)
    episodes = []
    for i in range(num_seeds):
        ends = np.flatnonzero(theirs[2][i] | theirs[3][i])
        stop = ends[0] + 1 if ends.size else num_steps
        ours, (obs, *rest) = jax.tree.map(lambda x: x[i, :stop], (steps, theirs))
        jax.tree.map(equal, decode(ours.next_obs), obs)
        jax.tree.map(equal, [ours.reward, ours.terminated, ours.truncated], rest)
        episodes.append(ours)
    return episodes


def lengths_of_truncated_episodes(steps: Any) -> list[int]:
    """Returns the lengths of the truncated episodes in steps `[T]` of one environment."""
    done = steps.terminated | steps.truncated
    ends = np.flatnonzero(done)
    lengths = np.diff([-1, *ends])
    return lengths[steps.truncated[ends]].tolist()


def codes_of(one_hot: Any, sizes: Any) -> Any:
    """Returns the codes `[..., K]` of one-hot vectors side by side, and checks the vectors."""
    parts = np.split(np.asarray(one_hot), np.cumsum(sizes)[:-1], axis=-1)
    assert all((part.sum(axis=-1) == 1).all() for part in parts)
    return np.stack([part.argmax(axis=-1) for part in parts], axis=-1)


def play(env: Env, actions: Any, key: Any = None) -> Any:
    """Returns the first observations and the steps `[T, B]` of an environment on the host."""
    key = jax.random.key(0) if key is None else key

    @jax.jit
    def run(key, actions):
        state, obs = env.reset(key)
        state, steps = jax.lax.scan(lambda s, a: env.step(s, a, key), state, actions)
        host.close(state)
        return obs, steps

    return jax.device_get(run(key, actions))
