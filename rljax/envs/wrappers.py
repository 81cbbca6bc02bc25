"""Wrappers: functions from one environment to another, `Env -> Env`.

Apply them in the order `time_limit`, `auto_reset`, `batched`. `record_episodes` may stand at
any place after `auto_reset`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap

from rljax.ops import random
from rljax.ops.observations import obs_structs
from rljax.types import Array, Env, Key, PyTree, unclipped_reward


class AutoResetState(NamedTuple):
    """The state of `auto_reset`.

    Attributes:
      env: state of the wrapped environment.
      reserve: `(state, obs)` that the next episode starts from.
      reserve_used: the reserve has started an episode and must be drawn again, bool.
      key: random key of the next reserve.
    """

    env: PyTree
    reserve: PyTree
    reserve_used: Array
    key: Key


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


class Persistent(NamedTuple):
    """A part of the state that `auto_reset` keeps; if obs depends on it, set `Env.observe`."""

    value: PyTree


def inner_functions(env: Env) -> dict[str, Callable[[PyTree], Any] | None]:
    """Returns `render` and `observe` of a wrapper whose state holds that of `env` in `env`."""
    functions = {"render": env.render, "observe": env.observe}
    return {name: f and (lambda state, f=f: f(state.env)) for name, f in functions.items()}


def innermost(state: PyTree) -> PyTree:
    """Returns the state of the innermost environment, given that of its wrappers.

    Wrappers hold it in `env`, those of gymnax in `env_state`.
    """
    while (inner := getattr(state, "env", getattr(state, "env_state", None))) is not None:
        state = inner
    return state


def replace_innermost(state: PyTree, inner: PyTree) -> PyTree:
    """Returns the state of the wrappers with the state of the innermost environment replaced."""
    if hasattr(state, "env"):
        return state._replace(env=replace_innermost(state.env, inner))
    return inner


def auto_reset(env: Env) -> Env:
    """Makes an environment reset itself where an episode ends.

    `Step.obs` is then the first observation of the next episode, and `Step.next_obs` stays the
    last observation of the episode that ended.

    An initial state depends on the key of `reset` alone, so it can be drawn ahead. Each copy
    holds one in reserve. If an episode ends in a copy whose reserve is used up, all used
    reserves of the batch are drawn again in one call. Most steps therefore compute no reset;
    one reset for every copy at every step takes most of the time of a light environment.

    Args:
      env: a single environment whose `step` does not reset.

    Raises:
      ValueError: `env` is a batch.

    Example:
      >>> from rljax.envs import worlds
      >>> env = auto_reset(time_limit(worlds.from_id("Treasure"), 2))
      >>> state, obs = env.reset(jax.random.key(0))
      >>> for noise in env.sample_noise(jax.random.key(1), 2):
      ...     state, step = env.step(state, 1, noise)
      >>> bool(step.truncated), int(step.next_obs), int(step.obs)
      (True, 2, 0)
    """
    _check_single(env)
    _check_not_on_host(env)

    def draw_reserves(keys):
        """`keys[N] -> (reserve[N], next keys[N])`."""
        keys = jax.vmap(jax.random.split)(keys)
        return jax.vmap(env.reset)(keys[:, 0]), keys[:, 1]

    def redraw_used(reserves):
        reserve, used, keys = reserves
        new_reserve, new_keys = draw_reserves(keys)
        keys = jnp.where(used, new_keys, keys)
        return _where(used, new_reserve, reserve), jnp.zeros_like(used), keys

    # not `cond`: under `vmap` it computes both branches at every step
    @_over_all_copies
    def ensure_reserves(done, *reserves):
        def must_redraw(reserves):
            return (done & reserves[1]).any()

        return jax.lax.while_loop(must_redraw, redraw_used, reserves)

    def reset(key):
        pair = draw_reserves(jax.random.split(key))  # one call, so that `reset` is compiled once
        (state, obs), _ = jax.tree.map(lambda x: x[0], pair)
        reserve, key = jax.tree.map(lambda x: x[1], pair)
        return AutoResetState(state, reserve, jnp.zeros((), bool), key), obs

    def step(state, action, noise):
        inner, step = env.step(state.env, action, noise)
        done = step.terminated | step.truncated
        batch_of_one = jax.tree.map(
            lambda x: x[None], (done, state.reserve, state.reserve_used, state.key)
        )
        reserve, used, key = jax.tree.map(lambda x: x[0], ensure_reserves(*batch_of_one))
        inner, obs = _where(done, reserve, (inner, step.next_obs))
        obs = obs if env.observe is None else env.observe(inner)
        return AutoResetState(inner, reserve, used | done, key), step._replace(obs=obs)

    return env._replace(reset=reset, step=step, **inner_functions(env))


def _check_single(env: Env) -> None:
    if env.spec.num_envs != 1:
        raise ValueError(
            f"{env.spec.env_id} is already a batch of {env.spec.num_envs} environments, but this "
            "wrapper needs a single one. Apply `batched` last."
        )


def _check_not_on_host(env: Env) -> None:
    if env.batch is not None:
        raise ValueError(
            f"{env.spec.env_id} runs on the host, where it has its own time limit and resets "
            "itself: pass `max_episode_steps` where it is made, with its id."
        )


def _where(condition: Array, new: PyTree, old: PyTree) -> PyTree:
    """Returns `new` where `condition[...]` holds, leaf by leaf `[..., *]`; keeps `Persistent`."""

    def where(new, old):
        if isinstance(new, Persistent):
            return old
        axes = (1,) * (jnp.ndim(new) - condition.ndim)
        return jnp.where(condition.reshape(*condition.shape, *axes), new, old)

    return jax.tree.map(where, new, old, is_leaf=lambda x: isinstance(x, Persistent))


def _over_all_copies(function: Callable[..., PyTree]) -> Callable[..., PyTree]:
    """Makes `vmap` over M copies call a function of `[N, ...]` once, on `[M * N, ...]`.

    The default rule would turn M loops into one `while_loop` that runs its body for all copies
    and keeps the result only in those whose condition holds. Here all copies keep the result.
    """
    flat_function = custom_vmap(function)

    @flat_function.def_vmap
    def over_all(size, batched, *args):
        def flatten(is_batched, x):
            x = x if is_batched else jnp.broadcast_to(x[None], (size, *x.shape))
            return x.reshape(size * x.shape[1], *x.shape[2:])  # not -1: arrays may have size 0

        out = flat_function(*jax.tree.map(flatten, tuple(batched), args))
        out = jax.tree.map(lambda x: x.reshape(size, len(x) // size, *x.shape[1:]), out)
        return out, jax.tree.map(lambda _: True, out)

    return flat_function


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
    _check_not_on_host(env)

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
      >>> from rljax.envs import worlds
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
      >>> from rljax.envs import worlds
      >>> env = batched(auto_reset(worlds.from_id("Treasure")), 3)
      >>> state, obs = env.reset(jax.random.key(0))
      >>> noise = env.sample_noise(jax.random.key(1), 1)
      >>> state, step = env.step(state, jnp.array([0, 1, 1]), noise[0])
      >>> step.obs.tolist()
      [0, 1, 1]
    """
    if num_envs < 1:
        raise ValueError(f"`num_envs` is {num_envs}, but it must be at least 1.")
    _check_single(env)
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
    return env._replace(spec=spec, reset=reset, step=step, sample_noise=sample_noise)
