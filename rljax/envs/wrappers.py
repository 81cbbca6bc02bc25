"""Environments made of environments: `Env -> Env`."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap

from rljax.types import Array, Env, Key, PyTree, Render


class Resetting(NamedTuple):
    """The state of `auto_reset`."""

    env: PyTree
    spare: PyTree  # the (state, obs) in which the next episode begins
    used: Array  # bool: it has begun, the spare is no longer fresh
    key: Key  # of the episodes after it


class Limited(NamedTuple):
    """The state of `time_limit`."""

    env: PyTree
    time: Array  # int32, steps of this episode


class Recorded(NamedTuple):
    """The state of `record_episodes`."""

    env: PyTree
    total: Array  # float32, the return so far
    length: Array  # int32


class Lasting(NamedTuple):
    """A part of an environment's state that outlives its episodes: resets leave it as it is."""

    value: PyTree


def inner_render(env: Env) -> Render | None:
    """Returns the `render` of a wrapper whose state holds that of `env` in the field `env`."""
    render = env.render
    return None if render is None else lambda state: render(state.env)


def innermost(state: PyTree) -> PyTree:
    """The environment's own state, out of those of the wrappers around it."""
    while hasattr(state, "env"):
        state = state.env
    return state


def with_innermost(state: PyTree, inner: PyTree) -> PyTree:
    """The state of an environment in its wrappers, with another of its own put in."""
    if hasattr(state, "env"):
        return state._replace(env=with_innermost(state.env, inner))
    return inner


def auto_reset(env: Env) -> Env:
    """Makes an environment that stops into one that resets itself. Wrap once, before `batched`.

    `env.step` must not reset; where an episode ends, the state and observation to act on next
    are fresh ones, and `next_obs` stays the one that was reached.

    The states that its episodes begin in depend on the key of `reset` alone, and not on when
    they are drawn. So each copy holds one in reserve; when an episode ends in any copy of a batch
    whose reserve is used up, all that are used up are drawn anew, together. Most steps draw none:
    a fresh state for every copy at every step takes most of the time of a light environment.

    Raises:
      ValueError: `env` is a batch.
    """
    _check_single(env)

    def fresh(keys):
        """`keys[N] -> spare[N], keys[N]`."""
        keys = jax.vmap(jax.random.split)(keys)
        return jax.vmap(env.reset)(keys[:, 0]), keys[:, 1]

    def refill(reserve):
        spare, used, keys = reserve
        new, new_keys = fresh(keys)
        return _where(used, new, spare), jnp.zeros_like(used), jnp.where(used, new_keys, keys)

    # not `cond`: under `vmap` that computes both of its sides at every step
    @_over_all_copies
    def ready(done, *reserve):
        return jax.lax.while_loop(lambda reserve: (done & reserve[1]).any(), refill, reserve)

    def reset(key):
        both = fresh(jax.random.split(key))  # one call: what is traced twice is compiled twice
        (state, obs), _ = jax.tree.map(lambda x: x[0], both)
        spare, key = jax.tree.map(lambda x: x[1], both)
        return Resetting(state, spare, jnp.zeros((), bool), key), obs

    def step(state, action, key):
        inner, step = env.step(state.env, action, key)
        done = step.terminated | step.truncated
        reserve = jax.tree.map(lambda x: x[None], (done, state.spare, state.used, state.key))
        spare, used, key = jax.tree.map(lambda x: x[0], ready(*reserve))
        inner, obs = _where(done, spare, (inner, step.next_obs))
        return Resetting(inner, spare, used | done, key), step._replace(obs=obs)

    return env._replace(reset=reset, step=step, render=inner_render(env))


def _check_single(env: Env) -> None:
    if env.spec.num_envs != 1:
        raise ValueError(
            f"{env.spec.env_id} is a batch of {env.spec.num_envs} environments already: wrap one "
            "environment, and make it a batch last."
        )


def _where(condition: Array, new: PyTree, old: PyTree) -> PyTree:
    """`new` where the condition `[...]` holds, of trees of `[..., *]`; `Lasting` is never new."""

    def where(new, old):
        if isinstance(new, Lasting):
            return old
        axes = (1,) * (jnp.ndim(new) - condition.ndim)
        return jnp.where(condition.reshape(*condition.shape, *axes), new, old)

    return jax.tree.map(where, new, old, is_leaf=lambda x: isinstance(x, Lasting))


def _over_all_copies(function: Callable[..., PyTree]) -> Callable[..., PyTree]:
    """A function of `[N, ...]` which under `vmap` over `[M]` is called once, on `[M * N, ...]`.

    `vmap` of its own accord would make one `while_loop` of M out of it, whose body runs for all
    and counts for those that asked: here what is computed for one is kept by all.
    """
    whole = custom_vmap(function)

    @whole.def_vmap
    def over_all(size, batched, *args):
        def flat(is_batched, x):
            x = x if is_batched else jnp.broadcast_to(x[None], (size, *x.shape))
            return x.reshape(-1, *x.shape[2:])

        out = whole(*jax.tree.map(flat, tuple(batched), args))
        out = jax.tree.map(lambda x: x.reshape(size, -1, *x.shape[1:]), out)
        return out, jax.tree.map(lambda _: True, out)

    return whole


def time_limit(env: Env, max_episode_steps: int) -> Env:
    """Truncates episodes after `max_episode_steps` steps. Wrap before `auto_reset`.

    A step that terminates is not also truncated.

    Raises:
      ValueError: `max_episode_steps` is below 1.
    """
    if max_episode_steps < 1:
        raise ValueError(f"`max_episode_steps` is {max_episode_steps}, but it must be at least 1.")

    def reset(key):
        state, obs = env.reset(key)
        return Limited(state, jnp.int32(0)), obs

    def step(state, action, key):
        inner, step = env.step(state.env, action, key)
        time = state.time + 1
        truncated = (step.truncated | (time >= max_episode_steps)) & ~step.terminated
        return Limited(inner, time), step._replace(truncated=truncated)

    spec = env.spec._replace(max_episode_steps=max_episode_steps)
    return env._replace(spec=spec, reset=reset, step=step, render=inner_render(env))


def record_episodes(env: Env) -> Env:
    """Adds `episode_return`, `episode_length` to `info`: valid where the episode just ended.

    Works on one environment and on a batch. The returns are the environment's own rewards:
    whatever scales them for learning sits in the agent. Training does not need it, the learner
    counts for itself.
    """

    def reset(key):
        state, obs = env.reset(key)
        first = jax.tree.leaves(obs)[0]  # one environment or a batch of one: num_envs is 1 in both
        zero = jnp.zeros(first.shape[: first.ndim - len(env.spec.obs_shape)])
        return Recorded(state, zero, zero.astype(jnp.int32)), obs

    def step(state, action, key):
        inner, step = env.step(state.env, action, key)
        total, length = state.total + step.reward, state.length + 1
        done = step.terminated | step.truncated
        info = {**step.info, "episode_return": total, "episode_length": length}
        state = Recorded(inner, jnp.where(done, 0.0, total), jnp.where(done, 0, length))
        return state, step._replace(info=info)

    return env._replace(reset=reset, step=step, render=inner_render(env))


def batched(env: Env, num_envs: int) -> Env:
    """`num_envs` copies side by side: every array gains a leading axis `[B]`.

    `draw(key, T)` draws `[T, B, ...]` for all of them; copies share nothing.

    Raises:
      ValueError: `num_envs` is below 1, or `env` is a batch already.
    """
    if num_envs < 1:
        raise ValueError(f"`num_envs` is {num_envs}, but it must be at least 1.")
    _check_single(env)

    def reset(key):
        return jax.vmap(env.reset)(jax.random.split(key, num_envs))

    def sample_noise(key, num_steps):
        keys = jax.random.split(key, num_envs)
        return jax.vmap(lambda key: env.sample_noise(key, num_steps), out_axes=1)(keys)

    def step(state, action, noise):
        return jax.vmap(env.step)(state, action, noise)

    spec = env.spec._replace(num_envs=num_envs)
    return env._replace(spec=spec, reset=reset, step=step, sample_noise=sample_noise)
