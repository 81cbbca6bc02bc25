"""Wrappers: functions from one environment to another, `Env -> Env`.

Apply them in the order `time_limit`, `auto_reset`, `batched`. `record_episodes` may stand at
any place after `auto_reset`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rljax.envs.wrapped import check_not_on_host, check_single, inner_functions
from rljax.ops import random
from rljax.ops.observations import obs_structs
from rljax.types import Array, Env, PyTree, unclipped_reward


class TimeLimitState(NamedTuple):
    """The state of `time_limit`.

    Attributes:
      env: state of the wrapped environment.
      time: steps since the start of the episode, int32.
    """

    env: PyTree
    time: Array


class EpisodeStatisticsState(NamedTuple):
    """The state of `record_episodes`.

    Attributes:
      env: state of the wrapped environment.
      episode_return: sum of the rewards since the start of the episode, float32.
      episode_length: steps since the start of the episode, int32.
    """

    env: PyTree
    episode_return: Array
    episode_length: Array


def time_limit(env: Env, max_episode_steps: int) -> Env:
    """Truncates episodes after `max_episode_steps` steps. Apply before `auto_reset`.

    A step that terminates the episode is not also truncated.

    Raises:
      ValueError: `max_episode_steps` is below 1.

    Example:
      >>> from rljax.envs import worlds
      >>> env = time_limit(worlds.from_id("Treasure"), 1)
      >>> state, obs = env.reset(jax.random.key(0))
      >>> state, step = env.step(state, 1, env.sample_noise(jax.random.key(1), 1)[0])
      >>> bool(step.terminated), bool(step.truncated)
      (False, True)
    """
    if max_episode_steps < 1:
        raise ValueError(f"`max_episode_steps` is {max_episode_steps}, but it must be at least 1.")
    check_not_on_host(env)

    def reset(key):
        state, obs = env.reset(key)
        return TimeLimitState(state, jnp.int32(0)), obs

    def step(state, action, noise):
        inner, step = env.step(state.env, action, noise)
        time = state.time + 1
        truncated = (step.truncated | (time >= max_episode_steps)) & ~step.terminated
        return TimeLimitState(inner, time), step._replace(truncated=truncated)

    spec = env.spec._replace(max_episode_steps=max_episode_steps)
    return env._replace(spec=spec, reset=reset, step=step, **inner_functions(env))


def record_episodes(env: Env) -> Env:
    """Adds `episode_return` and `episode_length` to `Step.info`.

    Both are those of the episode so far, and so of the whole episode where it just ended. The
    return sums the environment's rewards, before any normalization by the agent. Training does
    not need this wrapper: the learner records episodes itself.

    Args:
      env: an environment that resets itself, or a batch of them.

    Example:
      >>> from rljax.envs import auto_reset, worlds
      >>> env = record_episodes(auto_reset(worlds.from_id("Treasure", length=3)))
      >>> state, obs = env.reset(jax.random.key(0))
      >>> for noise in env.sample_noise(jax.random.key(1), 2):
      ...     state, step = env.step(state, 1, noise)
      >>> float(step.info["episode_return"]), int(step.info["episode_length"])
      (1.0, 2)
    """

    def reset(key):
        state, obs = env.reset(key)
        # `num_envs` is 1 for a single environment and for a batch of one
        first, wanted = jax.tree.leaves(obs)[0], jax.tree.leaves(obs_structs(env.spec))[0]
        zero = jnp.zeros(first.shape[: first.ndim - len(wanted.shape)])
        return EpisodeStatisticsState(state, zero, zero.astype(jnp.int32)), obs

    def step(state, action, noise):
        inner, step = env.step(state.env, action, noise)
        total = state.episode_return + unclipped_reward(step)
        length = state.episode_length + 1
        done = step.terminated | step.truncated
        info = {**step.info, "episode_return": total, "episode_length": length}
        total, length = jnp.where(done, 0.0, total), jnp.where(done, 0, length)
        return EpisodeStatisticsState(inner, total, length), step._replace(info=info)

    on_host = env.batch
    batch = on_host and (lambda num_envs: record_episodes(on_host(num_envs)))
    return env._replace(reset=reset, step=step, batch=batch, **inner_functions(env))


def batched(env: Env, num_envs: int) -> Env:
    """Runs `num_envs` independent copies in parallel: every array gains a leading axis `[B]`.

    Args:
      env: a single environment.
      num_envs: number of copies, B.

    Returns:
      An environment whose `sample_noise(key, T)` makes `[T, B, ...]`, one row a step.

    Raises:
      ValueError: `num_envs` is below 1, or `env` is a batch already.

    Example:
      >>> from rljax.envs import auto_reset, worlds
      >>> env = batched(auto_reset(worlds.from_id("Treasure")), 3)
      >>> state, obs = env.reset(jax.random.key(0))
      >>> noise = env.sample_noise(jax.random.key(1), 1)
      >>> state, step = env.step(state, jnp.array([0, 1, 1]), noise[0])
      >>> step.obs.tolist()
      [0, 1, 1]
    """
    if num_envs < 1:
        raise ValueError(f"`num_envs` is {num_envs}, but it must be at least 1.")
    check_single(env)
    if env.batch is not None:
        return env.batch(num_envs)

    def reset(key):
        return jax.vmap(env.reset)(jax.random.split(key, num_envs))

    def sample_noise(key, num_steps):
        keys = random.split(key, num_envs)
        return jax.vmap(lambda key: env.sample_noise(key, num_steps), out_axes=1)(keys)

    def step(state, action, noise):
        return jax.vmap(env.step)(state, action, noise)

    spec = env.spec._replace(num_envs=num_envs)
    return env._replace(
        spec=spec, reset=reset, step=step, sample_noise=sample_noise, before_reset=None
    )
